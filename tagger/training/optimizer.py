"""Optimizers, their parameter groups, the learning rate's course, and what an optimizer keeps in memory.

python -m benchmarks.recipes     # what Muon is worth, measured
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from timm.optim import param_groups_layer_decay
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn

from tagger.training.muon import BatchedMuon
from tagger.training.settings import RecipeSettings

ADAMW_BETAS = (0.9, 0.95)  # short runs: the second moment must not remember the warm-up for 1,000 steps
# The head's second moment must remember a rare tag's last positive: at 0.95 it is forgotten after 20 steps, and an
# artist with 50 of 100,000 images comes every 62 steps of 32 images.
HEAD_BETAS = (0.9, 0.999)

Groups = list[dict[str, Any]]  # parameter groups, as torch's optimizers take them


def adamw(model: nn.Module, groups: Groups, lr: float) -> torch.optim.Optimizer:
    """AdamW (arXiv:1711.05101), fused into one kernel per group on CUDA."""
    fused = next(model.parameters()).device.type == "cuda"
    return torch.optim.AdamW(groups, lr, ADAMW_BETAS, fused=fused)


def muon(model: nn.Module, groups: Groups, lr: float) -> torch.optim.Optimizer:
    """Muon (Jordan 2024) for the blocks' matrices and AdamW for all else: patch embedding, head, norms, positions.

    Muon's updates are orthogonal matrices, so that rare directions are learnt as fast as common ones. They are scaled
    to the size of AdamW's (Liu et al., arXiv:2502.16982), and one learning rate does for both.
    """
    # Jordan leaves a model's first layer, which sees pixels, and its last to AdamW, for it does better there.
    ends = {id(parameter) for parameter in model.get_classifier().parameters()}  # type: ignore[operator]
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    ends |= {id(parameter) for parameter in first.parameters()} if first else set()
    positions = undecayed(model)
    matrices = {id(p) for name, p in model.named_parameters() if p.ndim >= 2 and name not in positions} - ends
    halves = []
    for group in groups:
        for fallback in (False, True):  # to AdamW
            chosen = [parameter for parameter in group["params"] if (id(parameter) not in matrices) == fallback]
            if chosen:
                halves.append(group | {"params": chosen, "use_fallback": fallback})
    optimizer: torch.optim.Optimizer = BatchedMuon(halves, lr, betas=ADAMW_BETAS)
    return optimizer


# By name, what makes an optimizer from a model, its parameter groups and the peak learning rate.
OPTIMIZERS: dict[str, Callable[[nn.Module, Groups, float], torch.optim.Optimizer]] = {"adamw": adamw, "muon": muon}


def make_optimizer(model: nn.Module, recipe: RecipeSettings) -> torch.optim.Optimizer:
    """The optimizer that a recipe names, for a model of timm's."""
    groups = parameter_groups(model, recipe.weight_decay, recipe.layer_decay, recipe.head_lr)
    return OPTIMIZERS[recipe.optimizer](model, groups, recipe.lr)


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float, head_lr: float = 1.0) -> Groups:
    """An optimizer's groups: no decay for norms, biases and position embeddings; rates that fall towards the input.

    The head has groups of its own, with HEAD_BETAS.

    Args:
        layer_decay: block i of L learns at lr * layer_decay ** (L - i), the head at lr (BEiT, arXiv:2106.08254); 1 =
            all alike. The factor is the group's `lr_scale`, which only timm's schedulers apply.
        head_lr: the head's rate as a multiple of lr, whatever the layer decay; its `lr_scale`.
    """
    groups: Groups = param_groups_layer_decay(
        model, weight_decay, no_weight_decay_list=tuple(undecayed(model)), layer_decay=layer_decay
    )
    head = {id(parameter) for parameter in model.get_classifier().parameters()}  # type: ignore[operator]
    split = []
    for group in groups:
        below = [parameter for parameter in group["params"] if id(parameter) not in head]
        above = [parameter for parameter in group["params"] if id(parameter) in head]
        if below:
            split.append(group | {"params": below})
        if above:
            split.append(group | {"params": above, "betas": HEAD_BETAS, "lr_scale": head_lr})
    return split


def undecayed(model: nn.Module) -> set[str]:
    """The matrices that a model of timm's names as position embeddings and the like; some, like ConvNeXt, have none."""
    return set(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()  # type: ignore[operator]


def warmup_and_cosine(optimizer: torch.optim.Optimizer, total_steps: int, warmup: float) -> CosineLRScheduler:
    """Linear to the peak in `warmup` x `total_steps` steps, then a cosine to 0. Call `step_update(step)`.

    The first step has its share of the peak: at a rate of 0 it would teach nothing.
    """
    warmup_steps = round(total_steps * warmup)
    return CosineLRScheduler(
        optimizer,
        t_initial=max(1, total_steps - warmup_steps),
        warmup_t=warmup_steps,
        warmup_lr_init=optimizer.defaults["lr"] / (warmup_steps + 1),
        warmup_prefix=True,
        t_in_epochs=False,
    )


def static_bytes(model: nn.Module, recipe: RecipeSettings) -> int:
    """Bytes that training keeps from step to step: weights, gradients, the optimizer's state and averaged weights.

    AdamW keeps two moments of every parameter, Muon one of its matrices. Which parameters those are only the optimizer
    knows, so it takes a step on the meta device, where tensors have shapes and no content.
    """
    # deepcopy takes what stands in its memo for a copy, so no weight is copied.
    shapes = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta")) for parameter in model.parameters()
    }
    shadow = copy.deepcopy(model, memo=dict(shapes))
    optimizer = make_optimizer(shadow, recipe)
    for parameter in shapes.values():
        parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    weights = sum(parameter.nbytes for parameter in shapes.values())
    copies = 3 if recipe.ema_decay else 2  # weights, gradients, and their average
    return copies * weights + state_bytes(optimizer)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of what an optimizer has kept so far of all its parameters."""
    return sum(
        value.nbytes for kept in optimizer.state.values() for value in kept.values() if isinstance(value, Tensor)
    )
