"""From probabilities to tags: thresholds, the groups they open, and the text, JSON or CSV that says so.

Nothing heavy is imported: with the probabilities from the cache an answer takes a tenth of a second.

    python wdv3_pytorch.py --image_file test.png --model_path checkpoints --gen_threshold 0.5
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tagger.formats.thresholds import GROUPS, threshold_key
from tagger.formats.vocabulary import CATEGORY_NUMBERS, RATING, Vocabulary

# The wd-tagger Space's floor for characters: where a picture has none, the largest gap lies among noise.
MCUT_FLOORS = {"character": 0.15, "artist": 0.15}


# --- thresholds -----------------------------------------------------------------------------------------------------


def mcut(probabilities: Sequence[float]) -> float:
    """Maximum cut: the middle of the largest gap between sorted probabilities (Largeron et al., IDA 2012)."""
    ordered = sorted(probabilities, reverse=True)
    if len(ordered) < 2:
        return 0.0
    gap, place = max((upper - lower, -i) for i, (upper, lower) in enumerate(pairwise(ordered)))
    return ordered[-place] - gap / 2


def sigmoid(logits: Sequence[float]) -> list[float]:
    """Probabilities of logits. In pure Python: importing what is faster takes longer."""
    return [1 / (1 + math.exp(-max(x, -700.0))) for x in logits]


# --- from probabilities to tags -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tagging:
    """What is said of one image: probabilities by tag name, each group by falling probability."""

    image: str
    caption: list[str]
    tags: list[str]
    ratings: dict[str, float]  # all of them
    general: dict[str, float]  # these three: above their threshold
    character: dict[str, float]
    artist: dict[str, float]
    thresholds: dict[str, float | None]  # of the three groups; None where every tag has its own

    @property
    def probabilities(self) -> dict[str, float]:
        """Of all tags that passed, by name."""
        return self.general | self.character | self.artist


def select(
    image: object,
    probabilities: Sequence[float],
    vocabulary: Vocabulary,
    thresholds: Mapping[str, float],
    *,
    by_mcut: bool = False,
    per_tag: Sequence[float] | None = None,
) -> Tagging:
    """Apply the thresholds to one image's probabilities.

    Args:
        image: its name.
        probabilities: C numbers in 0..1, in the vocabulary's order.
        thresholds: the five keys of threshold.json.
        by_mcut: find the thresholds of the three groups in the probabilities instead; caption and tags take all that
            pass.
        per_tag: C thresholds that take the place of those of the groups; caption and tags take all that pass.
    """
    levels: dict[str, float | None] = {name: thresholds[threshold_key(name)] for name in GROUPS}
    listed, captioned = thresholds["tags_threshold"], thresholds["caption_threshold"]
    if by_mcut or per_tag is not None:
        listed = captioned = -1.0
    if by_mcut:
        for name in GROUPS:
            cut = mcut([probabilities[i] for i in vocabulary.indices(CATEGORY_NUMBERS[name])])
            levels[name] = max(cut, MCUT_FLOORS.get(name, 0.0))
    elif per_tag is not None:
        levels = dict.fromkeys(GROUPS)

    def group(category: int, level: float | None) -> dict[str, float]:
        indices = vocabulary.indices(category)
        if level is None and per_tag is not None:
            passed = [i for i in indices if probabilities[i] > per_tag[i]]
        else:
            passed = [i for i in indices if probabilities[i] > (level or 0.0)]
        return {vocabulary.names[i]: probabilities[i] for i in sorted(passed, key=lambda i: -probabilities[i])}

    general, character, artist = (group(CATEGORY_NUMBERS[name], levels[name]) for name in GROUPS)
    ratings = sorted(vocabulary.indices(RATING), key=lambda i: -probabilities[i])
    return Tagging(
        image=str(image),
        caption=[name for members in (general, character, artist) for name, p in members.items() if p > captioned],
        tags=[name for members in (general, character) for name, p in members.items() if p > listed],
        ratings={vocabulary.names[i]: probabilities[i] for i in ratings},
        general=general,
        character=character,
        artist=artist,
        thresholds=levels,
    )


# --- what is printed ------------------------------------------------------------------------------------------------
