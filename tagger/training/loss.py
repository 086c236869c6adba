"""Losses, what rare tags weigh in them, and where the head starts.

python -m benchmarks.recipes     # what each is worth, measured
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from timm.loss import AsymmetricLossMultiLabel
from torch import Tensor, nn

# Ridnik et al., Asymmetric Loss (arXiv:2009.14119), as SmilingWolf and animetimm set it for Danbooru's tags: no clip.
ASL_GAMMA_POSITIVE, ASL_GAMMA_NEGATIVE, ASL_CLIP = 0.0, 2.0, 0.0
MAX_POSITIVE_WEIGHT = 10.0  # of a rare tag, with frequency weighting


@dataclass(frozen=True)
class Labels:
    """What a loss may know of the C labels.

    Attributes:
        positive_weight: weights of the positives, (C,) float, or None.
        artists: which of them are artists, (A,) int64.
        artist_frequency: the share of the images that each of these has, (A,) above 0 to 1.
    """

    positive_weight: Tensor | None = None
    artists: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    artist_frequency: Tensor = field(default_factory=lambda: torch.zeros(0))


NOTHING_KNOWN = Labels()


def binary_cross_entropy(labels: Labels) -> nn.Module:
    return nn.BCEWithLogitsLoss(pos_weight=labels.positive_weight, reduction="sum")


def asymmetric(labels: Labels) -> nn.Module:
    """Plays down the many easy negatives, by (their probability) ** 2."""
    loss: nn.Module = AsymmetricLossMultiLabel(
        ASL_GAMMA_NEGATIVE, ASL_GAMMA_POSITIVE, ASL_CLIP, reduction="sum", pos_weight=labels.positive_weight
    )
    return loss


class LogitAdjusted(nn.Module):
    """Binary cross-entropy of all labels, and beside it a softmax over the artists: which of them is it?

    The softmax sees each artist's logit with the logarithm of the artist's frequency added, so that the logits
    themselves need not favour those with many images (Menon et al., arXiv:2007.07314, eq. 10, tau = 1). Binary
    cross-entropy stays, for an artist's probability shall be one without the others, too.
    """

    artists: Tensor
    shift: Tensor

    def __init__(self, labels: Labels) -> None:
        super().__init__()
        self.of_each = binary_cross_entropy(labels)
        self.register_buffer("artists", labels.artists, persistent=False)
        self.register_buffer("shift", labels.artist_frequency.log().float(), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        total: Tensor = self.of_each(logits, targets)
        if not len(self.artists):
            return total
        own = targets[:, self.artists]
        own = own / own.sum(1, keepdim=True).clamp(min=1)  # of several artists each has a share
        likelihood = nn.functional.log_softmax(logits[:, self.artists] + self.shift, dim=1)
        return total - (own * likelihood).sum()


# By name, what makes a loss of what is known of the labels. It maps float32 logits (N, C) and targets (N, C) in 0..1 to
# their sum over images and labels; TaggingLoss divides it.
LOSSES: dict[str, Callable[[Labels], nn.Module]] = {
    "bce": binary_cross_entropy,
    "asl": asymmetric,
    "logit_adjusted": LogitAdjusted,
}


class TaggingLoss(nn.Module):
    """The loss of a batch: summed over the C labels, averaged over the N images.

    Averaged over labels as well, the gradient shrinks with the vocabulary and nothing is learnt.

    Args:
        kind: a key of `LOSSES`.
        labels: what is known of the labels.
    """

    def __init__(self, kind: str, labels: Labels = NOTHING_KNOWN) -> None:
        super().__init__()
        self.summed = LOSSES[kind](labels)

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
