"""threshold.json: its keys, the categories that each is for, what holds without it, and reading it.

python -c "from tagger.formats.thresholds import read_thresholds; print(read_thresholds('threshold.json', print))"
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tagger.files import UserError, read_csv, read_json
from tagger.formats.vocabulary import CATEGORY_NUMBERS, Vocabulary

THRESHOLDS_FILE = "threshold.json"
TAG_METRICS_FILE = "tag_metrics.csv"  # a trained model's thresholds and metrics by tag


@dataclass(frozen=True)
class Threshold:
    """One key of threshold.json.

    Attributes:
        default: what holds where the file or the key is missing, a probability.
        categories: names of the categories whose tags it is for; training fits it on these.
    """

    default: float
    categories: tuple[str, ...]


THRESHOLDS = {
    "general_threshold": Threshold(0.35, ("general",)),
    "character_threshold": Threshold(0.75, ("character",)),
    "artist_threshold": Threshold(0.75, ("artist",)),
    "caption_threshold": Threshold(0.35, ("general", "character", "artist", "copyright", "meta")),
    "tags_threshold": Threshold(0.35, ("general", "character", "copyright", "meta")),
}
FALLBACK = "general_threshold"  # holds for a category whose own key is missing, such as `copyright_threshold`

# The categories with a threshold of their own that every answer has, in the order of a caption. Of ratings the
# likeliest is taken.
GROUPS = ("general", "character", "artist")
# What else threshold.json and flags may name whatever the model; a vocabulary may have further kinds.
FURTHER_KEYS = tuple(f"{name}_threshold" for name in CATEGORY_NUMBERS if name not in ("rating", *GROUPS))


def threshold_key(category: str) -> str:
    """The key of the threshold that a category's tags must pass first of all."""
    return f"{category}_threshold"


def groups_of(vocabulary: Vocabulary) -> tuple[str, ...]:
    """GROUPS, and the further categories that a vocabulary has: copyright, meta, then a tagger's own kinds."""
    return GROUPS + tuple(name for name in vocabulary.category_names if name not in ("rating", *GROUPS))


def default_threshold(category: str) -> float:
    """The default of a category's own threshold; of one that has none, general's."""
    return THRESHOLDS.get(threshold_key(category), THRESHOLDS[FALLBACK]).default


def fitted_thresholds(vocabulary: Vocabulary) -> dict[str, tuple[str, ...]]:
    """The keys of a threshold.json that is fitted to a vocabulary, with the categories of each that it has."""
    groups = groups_of(vocabulary)
    keys = {key: threshold.categories for key, threshold in THRESHOLDS.items()}
    keys |= {threshold_key(name): (name,) for name in groups}
    return {key: tuple(name for name in categories if name in groups) for key, categories in keys.items()}


def threshold_of(category: str, thresholds: Mapping[str, float]) -> float:
    """The threshold of a category's tags: its own, or where that is missing, general's."""
    return thresholds.get(threshold_key(category), thresholds[FALLBACK])


def default_thresholds() -> dict[str, float]:
    """What holds without a threshold.json."""
    return {key: threshold.default for key, threshold in THRESHOLDS.items()}


def read_thresholds(
    path: Path | str, warn: Callable[[str], None], hint: str = "check the path", categories: Iterable[str] = ()
) -> dict[str, float]:
    """The thresholds of a threshold.json: the five, a missing one by its default, and those of further categories.

    Args:
        warn: is told of a key that is none.
        hint: ends the error for a missing file.
        categories: of the vocabulary, which may have kinds of its own.

    Raises:
        UserError: missing, not JSON, or a value that is no number in 0..1; the message names the key.
    """
    given = read_json(path, hint if not Path(path).exists() else 'it should look like {"general_threshold": 0.4}')
    known = [*dict.fromkeys((*THRESHOLDS, *FURTHER_KEYS, *(threshold_key(name) for name in categories)))]
    for key in given.keys() - set(known):
        warn(f"warning: {path}: {key} is no threshold; there are {', '.join(known)}")
    for key in given.keys() & set(known):
        value = given[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise UserError(f"{path}: {key} is {json.dumps(value)}; give a number between 0 and 1")
    return default_thresholds() | {key: given[key] for key in known if key in given}


def read_tag_thresholds(path: Path, vocabulary: Vocabulary, hint: str = "name another file") -> list[float]:
    """A threshold for each of C tags, from the columns `name` and `threshold` of a trainer's tag_metrics.csv.

    Args:
        hint: ends an error.

    Raises:
        UserError: missing file, a tag that it lacks, or a value that is no number in 0..1.
    """
    header, rows = read_csv(path, hint, ("name", "threshold"))
    name_at, threshold_at = header.index("name"), header.index("threshold")
    found: dict[str, float] = {}
    for number, row in rows:
        name, text = row[name_at], row[threshold_at]
        try:
            found[name] = float(text)
        except ValueError:
            raise UserError(f"{path}: row {number}: the threshold is {text!r}, no number; {hint}") from None
        if not 0 <= found[name] <= 1:
            raise UserError(f"{path}: row {number}: the threshold is not between 0 and 1; {hint}")
    if unknown := next((name for name in vocabulary.names if name not in found), None):
        raise UserError(f"{path}: no row for {unknown}; {hint}")
    return [found[name] for name in vocabulary.names]
