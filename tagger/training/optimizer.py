"""The recipe: losses, parameter groups, learning rate, the head's start, mixup. All small; train_pytorch.py calls them.

python benchmarks/recipes.py     # what each is worth, measured
"""

import torch
from timm.optim import Muon, param_groups_layer_decay
from timm.scheduler import CosineLRScheduler
from torch import nn

OPTIMIZERS = ("adamw", "muon")
ADAMW_BETAS = (0.9, 0.95)  # short runs: the second moment must not remember the warm-up for 1,000 steps


def make_optimizer(
    kind: str, model: nn.Module, lr: float, weight_decay: float, layer_decay: float
) -> torch.optim.Optimizer:
    """AdamW, or Muon (Jordan 2024) for the blocks' matrices and AdamW for all else: head, norms, biases, positions.

    Muon's updates are orthogonal matrices, so that rare directions are learnt as fast as common ones. They are scaled
    to the size of AdamW's (Liu et al., arXiv:2502.16982), and one learning rate does for both.
    """
    groups = parameter_groups(model, weight_decay, layer_decay)
    if kind == "adamw":
        fused = next(model.parameters()).device.type == "cuda"
        return torch.optim.AdamW(groups, lr, ADAMW_BETAS, fused=fused)
    spared = {id(parameter) for parameter in model.get_classifier().parameters()}  # type: ignore[operator]
    positions = undecayed(model)
    matrices = {id(p) for name, p in model.named_parameters() if p.ndim >= 2 and name not in positions} - spared
    halves = []
    for group in groups:
        for fallback in (False, True):
            chosen = [parameter for parameter in group["params"] if (id(parameter) not in matrices) == fallback]
            if chosen:
                halves.append(group | {"params": chosen, "use_fallback": fallback})
    return Muon(halves, lr, betas=ADAMW_BETAS)


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float) -> list[dict]:
    """An optimizer's groups: no decay for norms, biases and position embeddings; rates that fall towards the input.

    Args:
        layer_decay: block i of L learns at lr * layer_decay ** (L - i), the head at lr (BEiT, arXiv:2106.08254); 1 =
            all alike. The factor is the group's `lr_scale`, which only timm's schedulers apply.
    """
    return param_groups_layer_decay(
        model, weight_decay, no_weight_decay_list=tuple(undecayed(model)), layer_decay=layer_decay
    )


def undecayed(model: nn.Module) -> set[str]:
    """The matrices that a model of timm's names as position embeddings and the like; some, like ConvNeXt, have none."""
    return set(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()  # type: ignore[operator]


def warmup_and_cosine(optimizer: torch.optim.Optimizer, total_steps: int, warmup: float) -> CosineLRScheduler:
    """Linear from 0 to the peak in `warmup` x `total_steps` steps, then a cosine to 0. Call `step_update(step)`."""
    warmup_steps = round(total_steps * warmup)
    return CosineLRScheduler(
        optimizer,
        t_initial=max(1, total_steps - warmup_steps),
        warmup_t=warmup_steps,
        warmup_prefix=True,
        t_in_epochs=False,
    )


def static_bytes(parameters: int, ema: bool) -> int:
    """Weights, gradients and AdamW's two moments in float32, and the averaged weights."""
    return parameters * 4 * (5 if ema else 4)
