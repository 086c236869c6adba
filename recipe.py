"""The recipe: losses, parameter groups, learning rate, the head's start, mixup. All small; train_pytorch.py calls them.

python benchmarks/recipes.py     # what each is worth, measured
"""

from collections.abc import Sequence

import numpy as np
import torch
from timm.loss import AsymmetricLossMultiLabel
from timm.optim import Muon, param_groups_layer_decay
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

LOSSES = ("bce", "asl")
OPTIMIZERS = ("adamw", "muon")
# Ridnik et al., Asymmetric Loss (arXiv:2009.14119), as SmilingWolf and animetimm set it for Danbooru's tags: no clip.
ASL_GAMMA_POSITIVE, ASL_GAMMA_NEGATIVE, ASL_CLIP = 0.0, 2.0, 0.0
ADAMW_BETAS = (0.9, 0.95)  # short runs: the second moment must not remember the warm-up for 1,000 steps
MAX_POSITIVE_WEIGHT = 10.0  # of a rare tag, with frequency weighting


class TaggingLoss(nn.Module):
    """The loss of a batch: summed over the C labels, averaged over the N images.

    Averaged over labels as well, the gradient shrinks with the vocabulary and nothing is learnt.

    Args:
        kind: "bce", binary cross-entropy, or "asl", which plays down the many easy negatives.
        positive_weight: weights of the positives, (C,) float, or None.
    """

    def __init__(self, kind: str, positive_weight: Tensor | None = None) -> None:
        super().__init__()
        self.positive_weight: Tensor | None
        self.register_buffer("positive_weight", positive_weight)
        self.asl = None
        if kind == "asl":
            self.asl = AsymmetricLossMultiLabel(
                ASL_GAMMA_NEGATIVE, ASL_GAMMA_POSITIVE, ASL_CLIP, reduction="sum", pos_weight=positive_weight
            )

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (N, C) and targets (N, C) in 0..1 -> a scalar. In float32: bfloat16 underflows in the logarithms."""
        if self.asl is not None:
            return self.asl(logits, targets) / len(logits)
        total = F.binary_cross_entropy_with_logits(
            logits.float(), targets, pos_weight=self.positive_weight, reduction="sum"
        )
        return total / len(logits)


def tag_frequency(counts: Sequence[int], images: int) -> Tensor:
    """The share of the images that has each tag, (C,) float64, kept off 0 and 1 by half an image."""
    return (torch.tensor(counts, dtype=torch.float64).clamp(max=images) + 0.5) / (images + 1)


def positive_weights(frequency: Tensor, power: float) -> Tensor | None:
    """(mean frequency / frequency) ** power in 1..10: rare tags count for more. None where power is 0.

    Args:
        frequency: (C,) in 0..1.
        power: 0 = off, 0.5 = the square root, 1 = every tag's positives weigh the same in all.
    """
    if not power:
        return None
    return (frequency.mean() / frequency).pow(power).clamp(1.0, MAX_POSITIVE_WEIGHT).float()


def start_head_at_log_odds(model: nn.Module, frequency: Tensor) -> None:
    """Let every tag start at its own frequency instead of at p = 0.5, where thousands of rare tags drown the loss."""
    with torch.no_grad():
        model.get_classifier().bias.copy_(torch.logit(frequency))  # type: ignore[operator]


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


def seed_step(seed: int, step: int, rank: int) -> np.random.Generator:
    """Make all that is random on the device a function of (seed, step, rank), so that no generator need be saved.

    Returns:
        a generator for what is drawn on the host.
    """
    random = np.random.default_rng((seed, step, rank))
    torch.manual_seed(int(random.integers(2**62)))  # of the CPU and of all GPUs: drop path
    return random


def mixup(pixels: Tensor, targets: Tensor, alpha: float, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Blend each image with another of the batch, and their targets alike (arXiv:1710.09412).

    Args:
        pixels: float (N, 3, H, W).
        targets: float (N, C).
        alpha: of Beta(alpha, alpha), from which the share of the first image is drawn; 0 = off.
    """
    if not alpha:
        return pixels, targets
    share = random.beta(alpha, alpha)
    return torch.lerp(pixels.flip(0), pixels, share), torch.lerp(targets.flip(0), targets, share)
