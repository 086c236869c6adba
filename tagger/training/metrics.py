"""Multi-label metrics from histograms: average precision and F1 per label in memory that no data set outgrows.

torchmetrics' binned average precision holds an (N, C, T) tensor per update; here every batch only adds to counts per
label and bin, which add up across batches and processes. Almost all cells of an image's positives are empty, so these
are kept as a list of the cells that are not, and a half of a validation split takes 2 KB a label:

    python -m pytest -q tests/training/test_metrics.py     # compares with scikit-learn's exact values
"""

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

BINS = 512
LOGIT_RANGE = 12.0  # bins are even in logits: p from 6e-6 to 1 - 6e-6, where most scores of rare tags lie
ROWS = 1024  # labels that are derived from at once: their float64 counts, 4 MB, stay within a processor's cache
SCORES = 1 << 20  # scores that are counted at once
LOOSE_CELLS = 1 << 20  # positives that are kept one by one before they are counted together


class LabelHistograms:
    """Counts of scores per label and bin, over all images and over those that have the label.

    Args:
        num_classes: C.
        device: where the batches are.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        self.all = torch.zeros(num_classes, BINS, dtype=torch.int32, device=device)  # (C, T)
        # The positives: cell numbers (label * T + bin), rising, and their counts; and those not counted together yet.
        self._cells = torch.zeros(0, dtype=torch.int64, device=device)
        self._counts = torch.zeros(0, dtype=torch.int32, device=device)
        self._loose: list[Tensor] = []

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Add a batch: float logits (N, C) and their 0/1 targets (N, C)."""
        if not len(logits):
            return
        one = torch.ones((), dtype=torch.int32, device=self.all.device)
        step = max(1, SCORES // len(logits))
        for start in range(0, len(self.all), step):
            bins = _bins_of(logits[:, start : start + step].t().contiguous())  # (labels, N)
            self.all[start : start + step].scatter_add_(1, bins, one.expand(bins.shape))
        rows, labels = targets.nonzero(as_tuple=True)
        self._loose.append(labels * BINS + _bins_of(logits[rows, labels]))
        if sum(map(len, self._loose)) > max(LOOSE_CELLS, len(self._cells)):
            self._count_loose()

    def _count_loose(self) -> None:
        if not self._loose:
            return
        loose = torch.cat(self._loose)
        self._loose.clear()
        weights = torch.cat([self._counts, torch.ones_like(loose, dtype=torch.int32)])
        self._cells, place = torch.unique(torch.cat([self._cells, loose]), return_inverse=True)
        self._counts = torch.zeros_like(self._cells, dtype=torch.int32).index_add_(0, place, weights)

    @property
    def nbytes(self) -> int:
        """What the counts take, in bytes."""
        return sum(tensor.nbytes for tensor in (self.all, self._cells, self._counts, *self._loose))

    def sum_over(self, add_up: Callable[[Tensor], object]) -> None:
        """Add up what several processes counted, each calling this.

        Args:
            add_up: replaces a tensor by its sum over all processes.
        """
        add_up(self.all)
        cells, counts = [], []
        for start, _, positive in self.chunks():  # the same pieces in every process, whatever each has seen
            add_up(positive)
            found = positive.view(-1).nonzero().squeeze(1)
            cells.append(found + start * BINS)
            counts.append(positive.view(-1)[found])
        if cells:
            self._cells, self._counts = torch.cat(cells), torch.cat(counts)

    def chunks(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The counts of some labels after the other: the first label's number, and two of (labels, T) int32."""
        self._count_loose()
        starts = torch.arange(0, len(self.all) + ROWS, ROWS, device=self.all.device)
        places = torch.searchsorted(self._cells, starts * BINS).tolist()
        for number, (first, last) in enumerate(itertools.pairwise(places)):
            start = number * ROWS
            if start >= len(self.all):
                return
            counts = self.all[start : start + ROWS]
            positive = torch.zeros_like(counts)
            positive.view(-1)[self._cells[first:last] - start * BINS] = self._counts[first:last]
            yield start, counts, positive

    def positives(self) -> Tensor:
        """The images that have each label, (C,) int64."""
        self._count_loose()
        counted = torch.zeros(len(self.all), dtype=torch.int64, device=self.all.device)
        return counted.index_add_(0, self._cells // BINS, self._counts.long())

    def at(self, bin_number: int) -> tuple[Tensor, Tensor]:
        """True positives and predictions of each label at a bin's lower edge: two of (C,) int64."""
        self._count_loose()
        labels, bins = self._cells // BINS, self._cells % BINS
        true_positives = torch.zeros(len(self.all), dtype=torch.int64, device=self.all.device)
        true_positives.index_add_(0, labels, self._counts * (bins >= bin_number).long())
        # No label has more scores than there are images, and int32 adds up ten times as fast as int64.
        return true_positives, self.all[:, bin_number:].sum(1, dtype=torch.int32).long()

    def average_precision(self) -> Tensor:
        """See `average_precision`, (C,)."""
        return torch.cat([average_precision(counts, positive) for _, counts, positive in self.chunks()])

    def f1(self, bin_number: int, labels: Tensor | None = None) -> tuple[float, float]:
        """Macro-F1 (mean over labels that have a positive) and micro-F1 (over all decisions) at a bin's lower edge.

        Args:
            bin_number: 0..T-1, see `balanced_bin`.
            labels: the label indices to look at, (K,) int64; all by default.
        """
        true_positives, predicted, actual = (counts.double() for counts in (*self.at(bin_number), self.positives()))
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
        positives = self.positives()
        scores = torch.zeros(BINS, dtype=torch.int64, device=self.all.device)
        if labels is None:
            for counts in self.all.split(ROWS):
                scores += counts.sum(0)
        else:
            positives = positives[labels]
            for some in labels.split(ROWS):  # picking them all at once would copy the counts
                scores += self.all[some].sum(0)
        surplus = (scores.flip(0).cumsum(0) - positives.sum()).abs()
        return BINS - 1 - int(surplus.argmin())


def _bins_of(logits: Tensor) -> Tensor:
    """The bin of each logit, int64."""
    scaled = (logits.float() / (2 * LOGIT_RANGE) + 0.5) * BINS
    return scaled.long().clamp_(0, BINS - 1)


def _above(counts: Tensor) -> Tensor:
    """The scores (C, T) at or above each bin's lower edge, the highest bin first: (C, T) float64.

    In float64: float32 counts no further than 16,777,216 one by one. Converted first, which is ten times as fast as
    letting `cumsum` do it.
    """
    return counts.double().flip(1).cumsum(1)


def average_precision(counts: Tensor, positive: Tensor) -> Tensor:
    """Area under the precision-recall steps, (C,) float64: sum of (R_k - R_{k-1}) P_k, as scikit-learn has it.

    Scores within one bin count as tied. NaN for labels without a positive.

    Args:
        counts, positive: the scores of each label by bin, and those of the images that have it, (C, T).
    """
    true_positives = _above(positive)
    precision = true_positives / _above(counts).clamp_(min=1)
    return (positive.double().flip(1) * precision).sum(1) / true_positives[:, -1]


def f1_per_bin(counts: Tensor, positive: Tensor) -> Tensor:
    """F1 of each label at each bin's lower edge, the lowest bin first: (C, T) float64.

    Args:
        counts, positive: as for `average_precision`.
    """
    true_positives = _above(positive)
    decisions = _above(counts).add_(true_positives[:, -1:])
    return (2 * true_positives).div_(decisions.clamp_(min=1)).flip(1)


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
