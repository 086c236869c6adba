"""Losses, what rare tags weigh in them, and where the head starts.

python -m benchmarks.recipes     # what each is worth, measured
"""

from collections.abc import Callable, Sequence

import torch
from timm.loss import AsymmetricLossMultiLabel
from torch import Tensor, nn

# Ridnik et al., Asymmetric Loss (arXiv:2009.14119), as SmilingWolf and animetimm set it for Danbooru's tags: no clip.
ASL_GAMMA_POSITIVE, ASL_GAMMA_NEGATIVE, ASL_CLIP = 0.0, 2.0, 0.0
MAX_POSITIVE_WEIGHT = 10.0  # of a rare tag, with frequency weighting


def binary_cross_entropy(positive_weight: Tensor | None) -> nn.Module:
    return nn.BCEWithLogitsLoss(pos_weight=positive_weight, reduction="sum")


def asymmetric(positive_weight: Tensor | None) -> nn.Module:
    """Plays down the many easy negatives, by (their probability) ** 2."""
    loss: nn.Module = AsymmetricLossMultiLabel(
        ASL_GAMMA_NEGATIVE, ASL_GAMMA_POSITIVE, ASL_CLIP, reduction="sum", pos_weight=positive_weight
    )
    return loss


# By name, what makes a loss from the weights of the positives, (C,) float or None. It maps float32 logits (N, C) and
# targets (N, C) in 0..1 to their sum over images and labels; TaggingLoss divides it.
LOSSES: dict[str, Callable[[Tensor | None], nn.Module]] = {"bce": binary_cross_entropy, "asl": asymmetric}


class TaggingLoss(nn.Module):
    """The loss of a batch: summed over the C labels, averaged over the N images.

    Averaged over labels as well, the gradient shrinks with the vocabulary and nothing is learnt.

    Args:
        kind: a key of `LOSSES`.
        positive_weight: weights of the positives, (C,) float, or None.
    """

    def __init__(self, kind: str, positive_weight: Tensor | None = None) -> None:
        super().__init__()
        self.summed = LOSSES[kind](positive_weight)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (N, C) and targets (N, C) in 0..1 -> a scalar. In float32: bfloat16 underflows in the logarithms."""
        total: Tensor = self.summed(logits.float(), targets)
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
    """Let every tag start at its own frequency instead of at p = 0.5, where thousands of rare tags drown the loss.

    Args:
        model: a model of timm's, with C labels.
        frequency: (C,) in 0..1.
    """
    with torch.no_grad():
        model.get_classifier().bias.copy_(torch.logit(frequency))  # type: ignore[operator]
