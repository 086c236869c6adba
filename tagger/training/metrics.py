"""Multi-label metrics from histograms: average precision and F1 per label in memory that no data set outgrows.

torchmetrics' binned average precision holds an (N, C, T) tensor per update; here every batch only adds to two counts
per label and bin, so the state is (C, T) whatever N is, and adds up across batches and processes:

    python -m pytest -q tests/training/test_metrics.py     # compares with scikit-learn's exact values
"""

import torch
from torch import Tensor

BINS = 512
LOGIT_RANGE = 12.0  # bins are even in logits: p from 6e-6 to 1 - 6e-6, where most scores of rare tags lie


class LabelHistograms:
    """Counts of scores per label and bin, over all images and over those that have the label.

    Args:
        num_classes: C.
        device: where the batches are.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        self.all = torch.zeros(num_classes, BINS, dtype=torch.int32, device=device)  # (C, T)
        self.positive = torch.zeros_like(self.all)

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Add a batch: float logits (N, C) and their 0/1 targets (N, C)."""
        scaled = (logits.float() / (2 * LOGIT_RANGE) + 0.5) * BINS
        bins = scaled.long().clamp_(0, BINS - 1).t()  # (C, N)
        self.all.scatter_add_(1, bins, torch.ones_like(bins, dtype=torch.int32))
        self.positive.scatter_add_(1, bins, targets.t().to(torch.int32))

    def _above(self) -> tuple[Tensor, Tensor]:
        """True positives and predictions at each bin's lower edge, the highest bin first: two of (C, T) float64.

        In float64: float32 counts no further than 16,777,216 one by one.
        """
        true_positives = self.positive.flip(1).cumsum(1, dtype=torch.float64)
        return true_positives, self.all.flip(1).cumsum(1, dtype=torch.float64)

    def average_precision(self) -> Tensor:
        """Area under the precision-recall steps, (C,) float64: sum of (R_k - R_{k-1}) P_k, as scikit-learn has it.

        Scores within one bin count as tied. NaN for labels without a positive.
        """
        true_positives, predicted = self._above()
        precision = true_positives / predicted.clamp(min=1)
        gained = self.positive.flip(1).double()
        return (gained * precision).sum(1) / true_positives[:, -1]

    def f1(self, bin_number: int, labels: Tensor | None = None) -> tuple[float, float]:
        """Macro-F1 (mean over labels that have a positive) and micro-F1 (over all decisions) at a bin's lower edge.

        Args:
            bin_number: 0..T-1, see `balanced_bin`.
            labels: the label indices to look at, (K,) int64; all by default.
        """
        true_positives, predicted = (counts[:, BINS - 1 - bin_number] for counts in self._above())
        actual = self.positive.sum(1).double()
        if labels is not None:
            true_positives, predicted, actual = true_positives[labels], predicted[labels], actual[labels]
        per_label = 2 * true_positives / (predicted + actual).clamp(min=1)
        present = actual > 0
        macro = per_label[present].mean() if present.any() else torch.tensor(float("nan"))
        micro = 2 * true_positives.sum() / (predicted.sum() + actual.sum()).clamp(min=1)
        return macro.item(), micro.item()

    def balanced_bin(self, labels: Tensor | None = None) -> int:
        """The bin at whose lower edge precision and recall over all decisions come closest: predictions = positives.

        Args:
            labels: the label indices to look at, (K,) int64; all by default.
        """
        _, predicted = self._above()
        positive = self.positive
        if labels is not None:
            predicted, positive = predicted[labels], positive[labels]
        surplus = (predicted.sum(0) - positive.sum().double()).abs()
        return BINS - 1 - int(surplus.argmin())

    def f1_per_bin(self) -> Tensor:
        """F1 of each label at each bin's lower edge, the lowest bin first: (C, T) float64."""
        true_positives, predicted = self._above()
        actual = self.positive.sum(1, keepdim=True).double()
        return (2 * true_positives / (predicted + actual).clamp(min=1)).flip(1)

    def __add__(self, other: "LabelHistograms") -> "LabelHistograms":
        """The histograms of both their images."""
        both = LabelHistograms(0, self.all.device)
        both.all, both.positive = self.all + other.all, self.positive + other.positive
        return both


def threshold_of(bin_number: int) -> float:
    """The probability at a bin's lower edge."""
    return torch.sigmoid(torch.tensor((bin_number / BINS - 0.5) * 2 * LOGIT_RANGE)).item()


class TopOne:
    """How often the likeliest label of one category is right, over the images that have a label of it.

    Args:
        labels: the category's label indices, (K,) int64.
    """

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels
        self.right = torch.zeros((), dtype=torch.int64, device=labels.device)
        self.total = torch.zeros_like(self.right)

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Add a batch: logits (N, C) and their 0/1 targets (N, C)."""
        if not len(self.labels):
            return
        truth = targets[:, self.labels] > 0  # (N, K)
        best = logits[:, self.labels].argmax(1, keepdim=True)
        self.right += truth.gather(1, best).sum()
        self.total += truth.any(1).sum()

    def accuracy(self) -> float:
        """In 0..1, or NaN where no image had such a label."""
        return (self.right / self.total).item()
