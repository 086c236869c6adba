"""Validation metrics, and thresholds that are fitted on one half of the validation split and reported on the other.

A threshold looks better than it is on the very images that it was fitted on, so every F1 here comes from images that
no threshold has seen. Even record numbers fit, odd ones report. It writes checkpoints/threshold.json,
checkpoints/tag_metrics.csv and checkpoints/metrics.csv.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tagger.files import write_json, write_table
from tagger.formats.thresholds import TAG_METRICS_FILE, THRESHOLDS_FILE, default_threshold, fitted_thresholds, groups_of
from tagger.formats.vocabulary import Vocabulary, category_of
from tagger.training.distributed import World
from tagger.training.metrics import LabelHistograms, TopOne, threshold_of

SHRINKAGE = 10  # positives at which a tag's own best threshold and its category's weigh the same


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

    def update(self, numbers: Sequence[int], logits: Tensor, targets: Tensor, loss: Tensor) -> None:
        """Add a batch: its N record numbers, logits and 0/1 targets (N, C), and its mean loss per image."""
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
        world.sum(self.loss_sum, self.images)
        for histograms in self.halves:
            world.sum(histograms.all, histograms.positive)
        for counter in self.top1.values():
            world.sum(counter.right, counter.total)

    def metrics(self) -> dict[str, float]:
        """What the validation split says.

        Returns:
            `loss` (per image), `mAP` (mean over labels that occur), `mAP_<category>`, `macro_F1` and `micro_F1` (all
            labels at `threshold`, at which precision and recall over all decisions of the fitting half are equal),
            `macro_F1_<category>` and `micro_F1_<category>` (each at a threshold of its own, found alike), and
            `top1_rating` and `top1_artist`. All F1 on the reporting half. NaN where the split has no such label.
        """
        fitting, reporting = self.halves
        precision = (fitting + reporting).average_precision()
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
        labels = torch.cat([self.labels[name] for name in categories])
        if self.halves[0].positive[labels].sum() > 0:
            return self.halves[0].balanced_bin(labels)
        edges = torch.tensor([threshold_of(number) for number in range(self.halves[0].all.shape[1])])
        return int((edges - min(map(default_threshold, categories))).abs().argmin())

    def tag_table(self) -> list[dict[str, object]]:
        """A row per tag: name, category, count (uses in training), AP (whole split), threshold, F1 (reporting half).

        The threshold is where F1 is best on the fitting half, drawn towards the category's own the more the fewer
        positives there are: (n * best + 10 * category) / (n + 10), in logits. AP and F1 are empty where the images
        they would come from lack the tag.
        """
        fitting, reporting = self.halves
        precision = (fitting + reporting).average_precision()
        positives = fitting.positive.sum(1)
        best = fitting.f1_per_bin().argmax(1)
        common = torch.full_like(best, fitting.balanced_bin())  # a rating's; the others have their category's
        for name in groups_of(self.vocabulary):
            common[self.labels[name]] = self._bin((name,))
        bins = ((positives * best + SHRINKAGE * common) / (positives + SHRINKAGE)).round().long()
        f1 = reporting.f1_per_bin().gather(1, bins.unsqueeze(1)).squeeze(1)
        f1[reporting.positive.sum(1) == 0] = math.nan
        counts = self.vocabulary.counts or (0,) * len(self.vocabulary)
        columns = (
            self.vocabulary.names,
            self.vocabulary.categories,
            counts,
            *(column.tolist() for column in (precision, bins, f1)),
        )
        return [
            {
                "name": name,
                "category": category,
                "count": count,
                "AP": _cell(ap),
                "threshold": _cell(threshold_of(number)),
                "F1": _cell(score),
            }
            for name, category, count, ap, number, score in zip(*columns, strict=True)
        ]

    def report(self) -> list[str]:
        """How each fitted threshold does on the other half, a line for each."""
        lines = []
        for key, categories in self.fitted.items():
            labels = torch.cat([self.labels[name] for name in categories])
            if not self.halves[1].positive[labels].any():
                continue
            number = self._bin(categories)
            macro_f1, micro_f1 = self.halves[1].f1(number, labels)
            lines.append(f"{key} {threshold_of(number):.4f}: macro-F1 {macro_f1:.4f}, micro-F1 {micro_f1:.4f}")
        return lines

    def write(self, folder: Path) -> None:
        """Write threshold.json and tag_metrics.csv."""
        write_json(folder / THRESHOLDS_FILE, {key: round(value, 4) for key, value in self.thresholds().items()})
        write_table(folder / TAG_METRICS_FILE, self.tag_table())


def _cell(value: float) -> str:
    """A number as tag_metrics.csv has it; NaN is an empty cell."""
    return "" if math.isnan(value) else f"{value:.4f}"
