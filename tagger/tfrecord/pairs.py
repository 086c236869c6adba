"""What an image and the file with its tags hold, or why the pair cannot be used.

python create_tfrecord.py --dataset-folder ./dataset
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tagger.files import UserError
from tagger.formats.sidecars import read_labels
from tagger.formats.tag_lists import format_tags, usable_tags

ENCODING_HINT = "save it as UTF-8, or let replace_blanks.py convert it"


class Pair(NamedTuple):
    """The names of an image and of the file with its tags, as paths from the dataset's folder."""

    image: str
    labels: str


class Scanned(NamedTuple):
    """What a pair's two files hold; see `usable_tags` for what cannot be a tag.

    Attributes:
        digest: SHA-256 of the image's bytes.
        tags: as they are written, separated by commas.
        tags_left_out: how many more there were that cannot be tags.
    """

    digest: bytes
    tags: str
    tags_left_out: int


def scan_pairs(folder: Path, pairs: Sequence[Pair]) -> list[Scanned | str]:
    """Read pairs of a dataset's folder; for each what is in it, or why it is unusable."""
    return [_scan_pair(folder / pair.image, folder / pair.labels) for pair in pairs]


def _scan_pair(image: Path, labels: Path) -> Scanned | str:
    try:
        found = read_labels(labels, ENCODING_HINT)
        names = usable_tags(found)
        if not found:
            return f"{labels.name}: no tags in it; write some, separated by commas"
        if not names:
            return f"{labels.name}: no usable tags in it, only endless ones or control characters; {ENCODING_HINT}"
        with open(image, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        return Scanned(digest, format_tags(names), len(found) - len(names))
    except UserError as error:
        return str(error).removeprefix(f"{labels.parent}{os.sep}")
    except OSError as error:
        return f"{error.strerror}; replace or remove it"


def printable(text: str) -> str:
    """Text with escapes for what would break a line, a CSV or UTF-8: a name may hold any character or byte."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
