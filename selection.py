"""From probabilities to tags: thresholds, the groups they open, and the text, JSON or CSV that says so.

Nothing heavy is imported: with the probabilities from the cache an answer takes a tenth of a second.

    python wdv3_pytorch.py --image_file test.png --model_path checkpoints --gen_threshold 0.5
"""

import csv
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import tags
from files import UserError, read_json, read_text

DEFAULT_THRESHOLDS = {
    "general_threshold": 0.35,
    "character_threshold": 0.75,
    "artist_threshold": 0.75,
    "caption_threshold": 0.35,
    "tags_threshold": 0.35,
}
GROUPS = {"general": tags.GENERAL, "character": tags.CHARACTER, "artist": tags.ARTIST}
# The wd-tagger Space's floor for characters: where a picture has none, the largest gap lies among noise.
MCUT_FLOORS = {"character": 0.15, "artist": 0.15}


# --- thresholds -----------------------------------------------------------------------------------------------------


def read_thresholds(path: Path) -> dict[str, float]:
    """The five thresholds of a threshold.json; a key that it lacks, or a missing file, leaves the default.

    Raises:
        UserError: not JSON, or a value that is no number in 0..1; the message names the key.
    """
    if not path.exists():
        return dict(DEFAULT_THRESHOLDS)
    given = read_json(path, 'it should look like {"general_threshold": 0.4}')
    for key in given.keys() - DEFAULT_THRESHOLDS.keys():
        print(
            f"wdv3_pytorch.py: warning: {path}: {key} is no threshold; there are {', '.join(DEFAULT_THRESHOLDS)}",
            file=sys.stderr,
        )
    for key in given.keys() & DEFAULT_THRESHOLDS.keys():
        value = given[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise UserError(f"{path}: {key} is {json.dumps(value)}; give a number between 0 and 1")
    return {key: given.get(key, default) for key, default in DEFAULT_THRESHOLDS.items()}


def read_tag_thresholds(path: Path, vocabulary: tags.Vocabulary) -> list[float]:
    """A threshold for each of C tags, from the columns `name` and `threshold` of a trainer's tag_metrics.csv.

    Raises:
        UserError: missing file, a tag that it lacks, or a value that is no number in 0..1.
    """
    mend = "use the tag_metrics.csv that train_pytorch.py wrote beside the checkpoint"
    reader = csv.DictReader(io.StringIO(read_text(path, mend), newline=""), strict=True)
    try:
        rows = [*reader]
    except csv.Error as error:
        raise UserError(f"{path}: not CSV ({error}); {mend}") from None
    if missing := {"name", "threshold"} - set(reader.fieldnames or ()):
        raise UserError(f"{path}: no column {' and '.join(sorted(missing))}; {mend}")
    found: dict[str, float] = {}
    for number, row in enumerate(rows, start=2):
        try:
            found[row["name"]] = float(row["threshold"])
        except (TypeError, ValueError):
            raise UserError(f"{path}: row {number}: the threshold is {row['threshold']!r}, no number; {mend}") from None
        if not 0 <= found[row["name"]] <= 1:
            raise UserError(f"{path}: row {number}: the threshold is not between 0 and 1; {mend}")
    if unknown := next((name for name in vocabulary.names if name not in found), None):
        raise UserError(f"{path}: no row for {unknown}; {mend}")
    return [found[name] for name in vocabulary.names]


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
    vocabulary: tags.Vocabulary,
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
    levels: dict[str, float | None] = {name: thresholds[f"{name}_threshold"] for name in GROUPS}
    listed, captioned = thresholds["tags_threshold"], thresholds["caption_threshold"]
    if by_mcut or per_tag is not None:
        listed = captioned = -1.0
    if by_mcut:
        for name, category in GROUPS.items():
            cut = mcut([probabilities[i] for i in vocabulary.indices(category)])
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

    general, character, artist = (group(category, levels[name]) for name, category in GROUPS.items())
    ratings = sorted(vocabulary.indices(tags.RATING), key=lambda i: -probabilities[i])
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

CSV_COLUMNS = ("image", "rating", "caption", "tags", "general", "character", "artist", "artist_string")


def to_record(tagging: Tagging, caption: str, listed: str, artist_string: str | None) -> dict[str, Any]:
    """What a JSON object says of an image; probabilities are not rounded.

    Args:
        caption, listed: the caption and the tags as text.
        artist_string: left out where none was asked for.
    """
    record: dict[str, Any] = {"image": tagging.image, "caption": caption, "tags": listed}
    record |= {name: getattr(tagging, name) for name in ("ratings", "general", "character", "artist")}
    if artist_string is not None:
        record["artist_string"] = artist_string
    return record


def format_text(record: Mapping[str, Any], thresholds: Mapping[str, float | None]) -> str:
    """The original's layout; of the ratings only the likeliest."""
    lines = [f"Caption: {record['caption']}", f"Tags: {record['tags']}", "Ratings:"]
    lines += [f"  {name}: {p:.3f}" for name, p in list(record["ratings"].items())[:1]]
    for name in ("character", "general", "artist"):
        level = thresholds[name]
        lines.append(f"{name.capitalize()} tags (threshold={'per tag' if level is None else f'{level:.2f}'}):")
        lines += [f"  {tag}: {p:.3f}" for tag, p in record[name].items()]
    if "artist_string" in record:
        lines.append(f"Artist string: {record['artist_string'] or 'no artist above the threshold'}")
    return "\n".join(lines)


def csv_row(record: Mapping[str, Any]) -> list[str]:
    """The values of CSV_COLUMNS; groups as `name:probability`, separated by blanks (no tag has a blank in it)."""
    groups = (" ".join(f"{tag}:{p:.4f}" for tag, p in record[name].items()) for name in GROUPS)
    rating = next(iter(record["ratings"]), "")
    return [record["image"], rating, record["caption"], record["tags"], *groups, record.get("artist_string", "")]
