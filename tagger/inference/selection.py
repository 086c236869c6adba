"""From logits to tags: probabilities, thresholds, and what passes them.

Nothing heavy is imported: with the logits from the cache an answer takes a tenth of a second.

    python wdv3_pytorch.py --image_file test.png --model_path checkpoints --gen_threshold 0.5
"""

import heapq
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tagger.formats.thresholds import THRESHOLDS, groups_of, threshold_of
from tagger.formats.vocabulary import ARTIST, RATING, Vocabulary, category_of

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


def mcut(probabilities: Sequence[float]) -> float:
    """Maximum cut: the middle of the largest gap between sorted probabilities (Largeron et al., IDA 2012)."""
    ordered = sorted(probabilities, reverse=True)
    if len(ordered) < 2:
        return 0.0
    gap, place = max((upper - lower, -i) for i, (upper, lower) in enumerate(pairwise(ordered)))
    return ordered[-place] - gap / 2


LEAST_LOGIT = -700.0  # exp(710) is more than a float holds
LEAST_PROBABILITY = 1 / (1 + math.exp(-LEAST_LOGIT))


def sigmoid(logits: Sequence[float]) -> list[float]:
    """Probabilities of logits. In pure Python: importing numpy takes longer than this does for 10,000 of them."""
    exp = math.exp
    return [1 / (1 + exp(-x)) if x > LEAST_LOGIT else LEAST_PROBABILITY for x in logits]


def softmax(logits: Sequence[float]) -> list[float]:
    """Probabilities of labels that exclude each other; they add up to 1."""
    highest = max(logits, default=0.0)
    powers = [math.exp(x - highest) for x in logits]
    total = sum(powers)
    return [power / total for power in powers]


# What makes probabilities of a model's logits.
ACTIVATIONS = {"sigmoid": sigmoid, "softmax": softmax}


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


def select(image: object, probabilities: Sequence[float], vocabulary: Vocabulary, rule: SelectionRule) -> Tagging:
    """Apply the thresholds to one image's probabilities.

    Args:
        image: its name.
        probabilities: C numbers in 0..1, in the vocabulary's order.
    """
    levels = group_thresholds(probabilities, vocabulary, rule)
    groups: dict[str, dict[str, float]] = {}
    for name, level in levels.items():
        indices = vocabulary.indices(category_of(name))
        if level is None:
            assert rule.per_tag is not None  # see group_thresholds
            passes = operator.ge if rule.inclusive else operator.gt
            passed = [i for i in indices if passes(probabilities[i], rule.per_tag[i])]
        elif rule.inclusive:  # spelled out: there may be 100,000 of them
            passed = [i for i in indices if probabilities[i] >= level]
        else:
            passed = [i for i in indices if probabilities[i] > level]
        groups[name] = _named(passed, probabilities, vocabulary)
    artists = [] if groups["artist"] else vocabulary.indices(ARTIST)
    likeliest = heapq.nlargest(rule.candidates, artists, key=lambda i: probabilities[i])
    return Tagging(
        image=str(image),
        caption=_listed(groups, "caption_threshold", rule),
        tags=_listed(groups, "tags_threshold", rule),
        ratings=_named(vocabulary.indices(RATING), probabilities, vocabulary),
        groups=groups,
        candidates=_named(likeliest, probabilities, vocabulary),
        thresholds=levels,
        sections=sections_of(vocabulary),
    )


def sections_of(vocabulary: Vocabulary) -> tuple[str, ...]:
    """The groups to show. The three of WD v3's answers are always there, but not for a model of artists alone."""
    present = [name for name in groups_of(vocabulary) if name in SHOWN or vocabulary.indices(category_of(name))]
    if vocabulary.category_names == ["artist"]:
        return ("artist",)
    return tuple(sorted(present, key=lambda name: SHOWN.index(name) if name in SHOWN else len(SHOWN)))


def group_thresholds(
    probabilities: Sequence[float], vocabulary: Vocabulary, rule: SelectionRule
) -> dict[str, float | None]:
    """The threshold of each group for one image; None where every tag has its own."""
    groups = groups_of(vocabulary)
    if rule.per_tag is not None:
        return dict.fromkeys(groups)
    if not rule.by_mcut:
        return {name: threshold_of(name, rule.thresholds) for name in groups}
    cuts = {name: mcut([probabilities[i] for i in vocabulary.indices(category_of(name))]) for name in groups}
    return {name: max(cut, MCUT_FLOORS.get(name, 0.0)) for name, cut in cuts.items()}


def _named(indices: Iterable[int], probabilities: Sequence[float], vocabulary: Vocabulary) -> dict[str, float]:
    """Probabilities by name, falling; of equal ones the first row of the vocabulary comes first."""
    named: dict[str, float] = {}
    for i in sorted(indices, key=lambda i: -probabilities[i]):  # stable
        named.setdefault(vocabulary.names[i], probabilities[i])
    return named


def _listed(groups: Mapping[str, Mapping[str, float]], key: str, rule: SelectionRule) -> list[str]:
    """The names of a list that has a second threshold of its own: `key` of threshold.json, for its categories."""
    level = -1.0 if rule.by_mcut or rule.per_tag is not None else rule.thresholds[key]
    passes = operator.ge if rule.inclusive else operator.gt
    chosen = (groups.get(category, {}) for category in THRESHOLDS[key].categories)
    return list(dict.fromkeys(name for group in chosen for name, p in group.items() if passes(p, level)))
