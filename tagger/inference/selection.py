"""From logits to tags: probabilities, thresholds, and what passes them.

Nothing heavy is imported: with the logits from the cache an answer takes a tenth of a second.

    python wdv3_pytorch.py --image_file test.png --model_path checkpoints --gen_threshold 0.5
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tagger.formats.thresholds import GROUPS, THRESHOLDS, threshold_key
from tagger.formats.vocabulary import CATEGORY_NUMBERS, RATING, Vocabulary

# The wd-tagger Space's floor for characters: where a picture has none, the largest gap lies among noise.
MCUT_FLOORS = {"character": 0.15, "artist": 0.15}


# --- thresholds -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SelectionRule:
    """What a tag must pass. The last two exclude each other; with either, caption and tags take all that passes.

    Attributes:
        thresholds: the five keys of threshold.json, probabilities in 0..1.
        by_mcut: find the thresholds of the three groups in each image's probabilities instead.
        per_tag: C thresholds, in the vocabulary's order, that take the place of those of the groups.
    """

    thresholds: Mapping[str, float]
    by_mcut: bool = False
    per_tag: Sequence[float] | None = None


def mcut(probabilities: Sequence[float]) -> float:
    """Maximum cut: the middle of the largest gap between sorted probabilities (Largeron et al., IDA 2012)."""
    ordered = sorted(probabilities, reverse=True)
    if len(ordered) < 2:
        return 0.0
    gap, place = max((upper - lower, -i) for i, (upper, lower) in enumerate(pairwise(ordered)))
    return ordered[-place] - gap / 2


def sigmoid(logits: Sequence[float]) -> list[float]:
    """Probabilities of logits. In pure Python: importing numpy takes longer than this does for 10,000 of them."""
    return [1 / (1 + math.exp(-max(x, -700.0))) for x in logits]  # exp(710) is more than a float holds


# --- from probabilities to tags -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tagging:
    """The tags of one image: probabilities by tag name, each group by falling probability.

    Attributes:
        image: its name.
        caption, tags: names, by category and within it by falling probability.
        ratings: all of them, whether likely or not.
        general, character, artist: those above their threshold.
        thresholds: of the three groups; None where every tag has its own.
    """

    image: str
    caption: list[str]
    tags: list[str]
    ratings: dict[str, float]
    general: dict[str, float]
    character: dict[str, float]
    artist: dict[str, float]
    thresholds: dict[str, float | None]

    @property
    def probabilities(self) -> dict[str, float]:
        """Of all tags that passed, by name."""
        return self.general | self.character | self.artist


def select(image: object, probabilities: Sequence[float], vocabulary: Vocabulary, rule: SelectionRule) -> Tagging:
    """Apply the thresholds to one image's probabilities.

    Args:
        image: its name.
        probabilities: C numbers in 0..1, in the vocabulary's order.
    """
    levels = group_thresholds(probabilities, vocabulary, rule)
    groups: dict[str, dict[str, float]] = {}
    for name in GROUPS:
        indices, level = vocabulary.indices(CATEGORY_NUMBERS[name]), levels[name]
        if level is not None:
            passed = [i for i in indices if probabilities[i] > level]
        else:
            assert rule.per_tag is not None  # see group_thresholds
            passed = [i for i in indices if probabilities[i] > rule.per_tag[i]]
        groups[name] = {vocabulary.names[i]: probabilities[i] for i in _by_probability(passed, probabilities)}
    return Tagging(
        image=str(image),
        caption=_listed(groups, "caption_threshold", rule),
        tags=_listed(groups, "tags_threshold", rule),
        ratings={
            vocabulary.names[i]: probabilities[i] for i in _by_probability(vocabulary.indices(RATING), probabilities)
        },
        thresholds=levels,
        **groups,
    )


def group_thresholds(
    probabilities: Sequence[float], vocabulary: Vocabulary, rule: SelectionRule
) -> dict[str, float | None]:
    """The threshold of each group for one image; None where every tag has its own."""
    if rule.per_tag is not None:
        return dict.fromkeys(GROUPS)
    if not rule.by_mcut:
        return {name: rule.thresholds[threshold_key(name)] for name in GROUPS}
    cuts = {name: mcut([probabilities[i] for i in vocabulary.indices(CATEGORY_NUMBERS[name])]) for name in GROUPS}
    return {name: max(cut, MCUT_FLOORS.get(name, 0.0)) for name, cut in cuts.items()}


def _by_probability(indices: Sequence[int], probabilities: Sequence[float]) -> list[int]:
    """Falling; of equal ones the first row of the vocabulary comes first, for `sorted` is stable."""
    return sorted(indices, key=lambda i: -probabilities[i])


def _listed(groups: Mapping[str, Mapping[str, float]], key: str, rule: SelectionRule) -> list[str]:
    """The names of a list that has a second threshold of its own: `key` of threshold.json, for its categories."""
    level = -1.0 if rule.by_mcut or rule.per_tag is not None else rule.thresholds[key]
    return [name for category in THRESHOLDS[key].categories for name, p in groups[category].items() if p > level]
