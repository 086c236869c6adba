"""Validation metrics, and thresholds that are fitted on one half of the validation split and reported on the other.

A threshold looks better than it is on the very images that it was fitted on, so every F1 here comes from images that
no threshold has seen. Even record numbers fit, odd ones report. It writes checkpoints/threshold.json,
checkpoints/tag_metrics.csv and checkpoints/metrics.csv.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tagger.files import write_csv, write_json
from tagger.formats.thresholds import TAG_METRICS_FILE, THRESHOLDS_FILE, default_threshold, fitted_thresholds, groups_of
from tagger.formats.vocabulary import Vocabulary, category_of
from tagger.training.distributed import World
from tagger.training.metrics import BINS, LabelHistograms, TopOne, average_precision, f1_per_bin, threshold_of

SHRINKAGE = 10  # positives at which a tag's own best threshold and its category's weigh the same
TAG_COLUMNS = ("name", "category", "count", "AP", "threshold", "F1")  # of tag_metrics.csv


@dataclass(frozen=True)
class EarlyStoppingMetric:
    """What makes an epoch better than another.

    Attributes:
        name: the metric's key in `Evaluation.metrics`.
        sign: 1 where lower is better, -1 where higher is.
        needs_validation: without a validation split there is only the training loss.
    """

    name: str
    sign: int
    needs_validation: bool

    def score(self, metrics: Mapping[str, float]) -> float:
        """The lower, the better."""
        return self.sign * metrics[self.name]

    def describe(self, score: float) -> str:
        """The metric that a score was made of, such as "mAP 0.4321"."""
        return f"{self.name} {self.sign * score:.4f}"


EARLY_STOPPING_METRICS = {
    "loss": EarlyStoppingMetric("loss", sign=1, needs_validation=False),
    "map": EarlyStoppingMetric("mAP", sign=-1, needs_validation=True),
}


@dataclass(frozen=True)
class PerTag:
    """What follows for each of C labels.

    Attributes:
        precision: average precision over the whole split, (C,) float64; NaN without a positive.
        bins: the bin of each one's own threshold, (C,) int64.
        f1: at that threshold, on the reporting half, (C,) float64; NaN without a positive there.
    """

    precision: Tensor
    bins: Tensor
    f1: Tensor


class Evaluation:
    """Counts over a validation split, and what follows from them.

    Args:
        vocabulary: C labels; those with `counts` are written with them.
        device: where the batches are.
    """

    def __init__(self, vocabulary: Vocabulary, device: torch.device) -> None:
        self.vocabulary = vocabulary
        # MPS has no float64, in which the loss is summed.
        self.device = device = torch.device("cpu") if device.type == "mps" else device
        self.halves = [LabelHistograms(len(vocabulary), device) for _ in range(2)]  # fitting, reporting
        self.labels = {
            name: torch.tensor(vocabulary.indices(category_of(name)), dtype=torch.int64, device=device)
            for name in ("rating", *groups_of(vocabulary))
        }
        self.fitted = fitted_thresholds(vocabulary)  # the categories of each threshold
        self.top1 = {name: TopOne(self.labels[name]) for name in ("rating", "artist")}
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.images = torch.zeros((), dtype=torch.int64, device=device)
        # What was derived from the counts already, for it takes seconds with 200,000 labels.
        self._bins: dict[tuple[str, ...], int] = {}
        self._per_tag: PerTag | None = None

    def update(self, numbers: Sequence[int], logits: Tensor, targets: Tensor, loss: Tensor) -> None:
        """Add a batch: its N record numbers, logits and 0/1 targets (N, C), and its mean loss per image."""
        self._forget()
        logits, targets, loss = (tensor.to(self.device) for tensor in (logits, targets, loss))
        for half, histograms in enumerate(self.halves):
            rows = [row for row, number in enumerate(numbers) if number % 2 == half]
            histograms.update(logits[rows], targets[rows])
        for counter in self.top1.values():
            counter.update(logits, targets)
        self.loss_sum += loss.double() * len(numbers)
        self.images += len(numbers)

    def sum_over(self, world: World) -> None:
        """Add up what all processes counted."""
        self._forget()
        world.sum(self.loss_sum, self.images)
        if world.size > 1:
            for histograms in self.halves:
                histograms.sum_over(world.sum)
        for counter in self.top1.values():
            world.sum(counter.right, counter.total)

    def _forget(self) -> None:
        self._bins.clear()
        self._per_tag = None

    def metrics(self) -> dict[str, float]:
        """What the validation split says.

        Returns:
            `loss` (per image), `mAP` (mean over labels that occur), `mAP_<category>`, `macro_F1` and `micro_F1` (all
            labels at `threshold`, at which precision and recall over all decisions of the fitting half are equal),
            `macro_F1_<category>` and `micro_F1_<category>` (each at a threshold of its own, found alike), and
            `top1_rating` and `top1_artist`. All F1 on the reporting half. NaN where the split has no such label.
        """
        fitting, reporting = self.halves
        precision = self.per_tag().precision
        balanced = fitting.balanced_bin()
        macro_f1, micro_f1 = reporting.f1(balanced)
        metrics = {
            "loss": (self.loss_sum / self.images).item(),
            "mAP": precision.nanmean().item(),
            **{f"mAP_{name}": precision[labels].nanmean().item() for name, labels in self.labels.items()},
            "macro_F1": macro_f1,
            "micro_F1": micro_f1,
            "threshold": threshold_of(balanced),
            **{f"top1_{name}": counter.accuracy() for name, counter in self.top1.items()},
        }
        for name, labels in self.labels.items():
            f1 = reporting.f1(fitting.balanced_bin(labels), labels) if len(labels) else (math.nan, math.nan)
            metrics[f"macro_F1_{name}"], metrics[f"micro_F1_{name}"] = f1
        return metrics

    def thresholds(self) -> dict[str, float]:
        """The values of threshold.json: precision = recall over the decisions of each, on the fitting half."""
        return {key: threshold_of(self._bin(categories)) for key, categories in self.fitted.items()}

    def _bin(self, categories: Sequence[str]) -> int:
        """The fitted bin of the labels of some categories together; their default's where none of them occurs."""
        key = tuple(categories)
        if key not in self._bins:
            self._bins[key] = self._fit_bin(key)
        return self._bins[key]

    def _fit_bin(self, categories: tuple[str, ...]) -> int:
        labels = torch.cat([self.labels[name] for name in categories])
        if self.halves[0].positives()[labels].sum() > 0:
            return self.halves[0].balanced_bin(labels)
        edges = torch.tensor([threshold_of(number) for number in range(BINS)])
        return int((edges - min(map(default_threshold, categories))).abs().argmin())

    def per_tag(self) -> PerTag:
        """Average precision, threshold and F1 of each tag.

        The threshold is where F1 is best on the fitting half, drawn towards the category's own the more the fewer
        positives there are: (n * best + 10 * category) / (n + 10), in logits.
        """
        if self._per_tag is None:
            self._per_tag = self._derive()
        return self._per_tag

    def _derive(self) -> PerTag:
        fitting, reporting = self.halves
        bins = torch.full_like(fitting.positives(), fitting.balanced_bin())  # a rating's; others: their category's
        for name in groups_of(self.vocabulary):
            bins[self.labels[name]] = self._bin((name,))
        precision = torch.full(bins.shape, math.nan, dtype=torch.float64, device=self.device)
        f1 = precision.clone()
        # One pass, some labels at a time: their counts are added up once for all that follows from them.
        for (start, fit_all, fit_positive), (_, report_all, report_positive) in zip(
            fitting.chunks(), reporting.chunks(), strict=True
        ):
            n_fit, n_report = fit_positive.sum(1), report_positive.sum(1)
            occurring = (n_fit + n_report).nonzero().squeeze(1)  # of the others nothing is known
            counts = fit_all[occurring] + report_all[occurring]
            precision[start + occurring] = average_precision(
                counts, fit_positive[occurring] + report_positive[occurring]
            )
            known = n_fit.nonzero().squeeze(1)
            best, weight = f1_per_bin(fit_all[known], fit_positive[known]).argmax(1), n_fit[known]
            shrunk = (weight * best + SHRINKAGE * bins[start + known]) / (weight + SHRINKAGE)
            bins[start + known] = shrunk.round().long()
            judged = n_report.nonzero().squeeze(1)
            each = f1_per_bin(report_all[judged], report_positive[judged])
            f1[start + judged] = each.gather(1, bins[start + judged].unsqueeze(1)).squeeze(1)
        return PerTag(precision, bins, f1)

    def tag_rows(self) -> Iterator[tuple[object, ...]]:
        """A row of `TAG_COLUMNS` per tag: count (uses in training), AP (whole split), threshold, F1 (reporting half).

        AP and F1 are empty where the images they would come from lack the tag.
        """
        thresholds = [_cell(threshold_of(number)) for number in range(BINS)]
        per_tag, vocabulary = self.per_tag(), self.vocabulary
        return zip(
            vocabulary.names,
            vocabulary.categories,
            vocabulary.counts or (0,) * len(vocabulary),
            map(_cell, per_tag.precision.tolist()),
            map(thresholds.__getitem__, per_tag.bins.tolist()),
            map(_cell, per_tag.f1.tolist()),
            strict=True,
        )

    def report(self) -> list[str]:
        """How each fitted threshold does on the other half, a line for each."""
        lines = []
        for key, categories in self.fitted.items():
            labels = torch.cat([self.labels[name] for name in categories])
            if not self.halves[1].positives()[labels].any():
                continue
            number = self._bin(categories)
            macro_f1, micro_f1 = self.halves[1].f1(number, labels)
            lines.append(f"{key} {threshold_of(number):.4f}: macro-F1 {macro_f1:.4f}, micro-F1 {micro_f1:.4f}")
        return lines

    def write(self, folder: Path) -> None:
        """Write threshold.json and tag_metrics.csv."""
        write_json(folder / THRESHOLDS_FILE, {key: round(value, 4) for key, value in self.thresholds().items()})
        write_csv(folder / TAG_METRICS_FILE, TAG_COLUMNS, self.tag_rows())


def _cell(value: float) -> str:
    """A number as tag_metrics.csv has it; NaN is an empty cell."""
    return "" if math.isnan(value) else f"{value:.4f}"
