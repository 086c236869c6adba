"""From logits to tags: probabilities, thresholds, and what passes them.

Nothing heavy is imported: with the logits from the cache an answer takes a tenth of a second.

    python wdv3_pytorch.py --image_file test.png --model_path checkpoints --gen_threshold 0.5
"""

import heapq
import math
import operator
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from typing import Protocol

from tagger.formats.thresholds import THRESHOLDS, groups_of, threshold_of
from tagger.formats.vocabulary import ARTIST, RATING, Category, Vocabulary, category_of
from tagger.inference.logits import Logits, likeliest, softmax_total

SHOWN = ("character", "general", "artist")  # the order of an answer's sections; others follow
# The wd-tagger Space's floor for characters: where a picture has none, the largest gap lies among noise.
MCUT_FLOORS = {"character": 0.15, "artist": 0.15}


# --- thresholds -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SelectionRule:
    """What a tag must pass. The last two exclude each other; with either, caption and tags take all that passes.

    Attributes:
        thresholds: the keys of threshold.json, probabilities in 0..1.
        by_mcut: find the thresholds of the groups in each image's probabilities instead.
        per_tag: C thresholds, in the vocabulary's order, that take the place of those of the groups.
        inclusive: whether a probability that equals its threshold passes, as many public taggers have it.
        candidates: how many of the likeliest artists are told of where none passes.
    """

    thresholds: Mapping[str, float]
    by_mcut: bool = False
    per_tag: Sequence[float] | None = None
    inclusive: bool = False
    candidates: int = 0

    def least(self, groups: Iterable[str]) -> float:
        """No tag that is less likely passes.

        Args:
            groups: the categories of an answer, see groups_of.
        """
        if self.by_mcut:
            return 0.0
        if self.per_tag is not None:
            return min(self.per_tag, default=0.0)
        return min(threshold_of(name, self.thresholds) for name in groups)


def mcut(probabilities: Sequence[float]) -> float:
    """Maximum cut: the middle of the largest gap between sorted probabilities (Largeron et al., IDA 2012)."""
    ordered = sorted(probabilities, reverse=True)
    if len(ordered) < 2:
        return 0.0
    gap, place = max((upper - lower, -i) for i, (upper, lower) in enumerate(pairwise(ordered)))
    return ordered[-place] - gap / 2


# --- from logits to probabilities -----------------------------------------------------------------------------------

LEAST_LOGIT = -700.0  # exp(710) is more than a float holds
LEAST_PROBABILITY = 1 / (1 + math.exp(-LEAST_LOGIT))

# Rounding may move a probability by a few units in its last place. So no label is passed over, nor an entry of the
# cache taken for enough, that is as close as this to a threshold: in logits, and relative in probabilities.
LOGIT_MARGIN, RELATIVE_MARGIN = 1e-6, 1e-9


def sigmoid(logits: Iterable[float]) -> list[float]:
    """Probabilities of logits. In pure Python: importing numpy takes longer than this does for 10,000 of them."""
    exp = math.exp
    return [1 / (1 + exp(-x)) if x > LEAST_LOGIT else LEAST_PROBABILITY for x in logits]


class Activation(Protocol):
    """What makes probabilities of one image's logits."""

    def __init__(self, logits: Logits) -> None: ...

    def probabilities(self, values: Iterable[float]) -> list[float]:
        """Of some of its logits."""

    def logit(self, probability: float) -> float:
        """The logit that has a probability, which is above 0 and below 1."""


class Sigmoid:
    """Each label for itself."""

    def __init__(self, logits: Logits) -> None:
        pass

    def probabilities(self, values: Iterable[float]) -> list[float]:
        return sigmoid(values)

    def logit(self, probability: float) -> float:
        return math.log(probability) - math.log1p(-probability)


class Softmax:
    """Labels that exclude each other: over all of them the probabilities add up to 1."""

    def __init__(self, logits: Logits) -> None:
        self._highest = max(logits.values, default=0.0)
        self._total = softmax_total(logits.values) if logits.total is None else logits.total

    def probabilities(self, values: Iterable[float]) -> list[float]:
        return [math.exp(x - self._highest) / self._total for x in values]

    def logit(self, probability: float) -> float:
        return math.log(probability) + math.log(self._total) + self._highest


ACTIVATIONS: dict[str, type[Activation]] = {"sigmoid": Sigmoid, "softmax": Softmax}


@dataclass(frozen=True)
class Request:
    """Which probabilities a run asks for.

    Attributes:
        least: those of all labels that are at least so likely; 0 for all there are. Those of ratings always.
        artists: how many of the likeliest artists, however unlikely they are.
    """

    least: float = 0.0
    artists: int = 0


EVERYTHING, NO_TAGS = Request(), Vocabulary((), ())


@dataclass(frozen=True)
class Demand:
    """What a request means for the logits of one model.

    Attributes:
        request: what is asked.
        vocabulary: of the model.
        activation: a key of ACTIVATIONS.
    """

    request: Request = EVERYTHING
    vocabulary: Vocabulary = NO_TAGS
    activation: str = "sigmoid"

    @cached_property
    def ratings(self) -> frozenset[int]:
        return frozenset(self.vocabulary.indices(RATING))

    def kept(self, values: Sequence[float]) -> Logits:
        """What the cache keeps of an image's C logits. It depends on the model, and not on the request."""
        return likeliest(values, sorted(self.ratings), with_total=self.activation == "softmax")

    def is_met_by(self, logits: Logits) -> bool:
        """Whether an answer from these logits is the same as from all of the image."""
        if logits.is_complete:
            return True
        (ceiling,) = ACTIVATIONS[self.activation](logits).probabilities([logits.floor])
        if not ceiling < self.request.least * (1 - RELATIVE_MARGIN) or not self.ratings <= {*logits.labels}:
            return False
        artists = (label for label in logits.labels if self.vocabulary.category(label) == ARTIST)
        here = sum(1 for _ in islice(artists, self.request.artists))
        return here == self.request.artists or here == len(self.vocabulary.indices(ARTIST))

    def probabilities(self, logits: Logits) -> dict[int, float]:
        """The probabilities that are asked for, by label, rising; of a few others perhaps, too."""
        activation = ACTIVATIONS[self.activation](logits)
        labels, values = logits.labels, logits.values
        if self.request.least and not self.request.artists:  # few labels are likely, and exp() takes time
            least = activation.logit(min(self.request.least, 0.99)) - LOGIT_MARGIN
            likely = [place for place, x in enumerate(values) if x >= least or labels[place] in self.ratings]
            labels, values = [labels[place] for place in likely], array("f", [values[place] for place in likely])
        return dict(zip(labels, activation.probabilities(values), strict=True))


# --- from probabilities to tags -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tagging:
    """The tags of one image: probabilities by tag name, each group by falling probability.

    Attributes:
        image: its name.
        caption, tags: names, by category and within it by falling probability.
        ratings: all of them, whether likely or not.
        groups: for general, character, artist and the further categories of the vocabulary those above their threshold.
        candidates: the likeliest artists, where none is above the threshold.
        thresholds: of the groups; None where every tag has its own.
        sections: the groups that a reader should see, in this order.
    """

    image: str
    caption: list[str]
    tags: list[str]
    ratings: dict[str, float]
    groups: dict[str, dict[str, float]]
    candidates: dict[str, float]
    thresholds: dict[str, float | None]
    sections: tuple[str, ...]

    @property
    def artists(self) -> dict[str, float]:
        return self.groups["artist"]

    @property
    def probabilities(self) -> dict[str, float]:
        """Of all tags that passed, by name; of a name in two categories, the higher."""
        merged: dict[str, float] = {}
        for group in self.groups.values():
            for name, probability in group.items():
                merged[name] = max(probability, merged.get(name, 0.0))
        return merged


def select(image: object, probabilities: Mapping[int, float], vocabulary: Vocabulary, rule: SelectionRule) -> Tagging:
    """Apply the thresholds to one image's probabilities.

    Args:
        image: its name.
        probabilities: 0..1, by label, rising: those of ratings, and of all labels that may pass; with `by_mcut` of all.
            Where artists are told of that do not pass, those of so many of the likeliest.
    """
    members = _by_category(probabilities, vocabulary)
    levels = group_thresholds(probabilities, members, vocabulary, rule)
    groups: dict[str, dict[str, float]] = {}
    for name, level in levels.items():
        labels = members.get(category_of(name), [])
        passes = operator.ge if rule.inclusive else operator.gt
        if level is None:
            assert rule.per_tag is not None  # see group_thresholds
            passed = [i for i in labels if passes(probabilities[i], rule.per_tag[i])]
        else:
            passed = [i for i in labels if passes(probabilities[i], level)]
        groups[name] = _named(passed, probabilities, vocabulary)
    artists = [] if groups["artist"] else members.get(ARTIST, [])
    likeliest = heapq.nlargest(rule.candidates, artists, key=lambda i: probabilities[i])
    return Tagging(
        image=str(image),
        caption=_listed(groups, "caption_threshold", rule),
        tags=_listed(groups, "tags_threshold", rule),
        ratings=_named(members.get(RATING, []), probabilities, vocabulary),
        groups=groups,
        candidates=_named(likeliest, probabilities, vocabulary),
        thresholds=levels,
        sections=sections_of(vocabulary),
    )


def _by_category(labels: Iterable[int], vocabulary: Vocabulary) -> dict[Category, list[int]]:
    """Labels sorted by category, but for those without a name."""
    members: dict[Category, list[int]] = {}
    for label in labels:
        if vocabulary.name(label):
            members.setdefault(vocabulary.category(label), []).append(label)
    return members


def sections_of(vocabulary: Vocabulary) -> tuple[str, ...]:
    """The groups to show. The three of WD v3's answers are always there, but not for a model of artists alone."""
    if vocabulary.category_names == ["artist"]:
        return ("artist",)
    order = {name: place for place, name in enumerate(SHOWN)}
    return tuple(sorted(groups_of(vocabulary), key=lambda name: order.get(name, len(order))))


def group_thresholds(
    probabilities: Mapping[int, float],
    members: Mapping[Category, Sequence[int]],
    vocabulary: Vocabulary,
    rule: SelectionRule,
) -> dict[str, float | None]:
    """The threshold of each group for one image; None where every tag has its own.

    Args:
        members: the labels of each category.
    """
    groups = groups_of(vocabulary)
    if rule.per_tag is not None:
        return dict.fromkeys(groups)
    if not rule.by_mcut:
        return {name: threshold_of(name, rule.thresholds) for name in groups}
    cuts = {name: mcut([probabilities[i] for i in members.get(category_of(name), [])]) for name in groups}
    return {name: max(cut, MCUT_FLOORS.get(name, 0.0)) for name, cut in cuts.items()}


def _named(labels: Iterable[int], probabilities: Mapping[int, float], vocabulary: Vocabulary) -> dict[str, float]:
    """Probabilities by name, falling; of equal ones the first row of the vocabulary comes first."""
    named: dict[str, float] = {}
    for i in sorted(labels, key=lambda i: -probabilities[i]):  # stable
        named.setdefault(vocabulary.name(i), probabilities[i])
    return named


def _listed(groups: Mapping[str, Mapping[str, float]], key: str, rule: SelectionRule) -> list[str]:
    """The names of a list that has a second threshold of its own: `key` of threshold.json, for its categories."""
    level = -1.0 if rule.by_mcut or rule.per_tag is not None else rule.thresholds[key]
    passes = operator.ge if rule.inclusive else operator.gt
    chosen = (groups.get(category, {}) for category in THRESHOLDS[key].categories)
    return list(dict.fromkeys(name for group in chosen for name, p in group.items() if passes(p, level)))
