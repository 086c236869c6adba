"""What an image and the txt beside it hold, or why the pair cannot be used.

python create_tfrecord.py --dataset-folder ./dataset
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tagger.files import UserError
from tagger.formats.tag_lists import format_tags, is_usable, read_tags

MAX_TXT_BYTES = 1 << 20  # Danbooru's longest tag list is below 20 kB


class Scanned(NamedTuple):
    """What a pair's two files hold: SHA-256 of the image's bytes, its tags, and how many were no tags."""

    digest: bytes
    tags: str
    tags_left_out: int


def usable_tags(names: Sequence[str]) -> list[str]:
    """Without those that a CSV or a reader's screen would not survive, see `is_usable`."""
    return [name for name in names if is_usable(name)]


def scan_pairs(folder: Path, pairs: Sequence[tuple[str, str]]) -> list[Scanned | str]:
    """Read pairs of (image, txt), given by their names in a folder; for each what is in it, or why it is unusable."""
    return [_scan_pair(folder / image, folder / txt) for image, txt in pairs]


def _scan_pair(image: Path, txt: Path) -> Scanned | str:
    try:
        found = read_tags(txt)
        names = usable_tags(found)
        if not found:
            return f"{txt.name}: no tags in it; write some, separated by commas"
        if not names:
            return f"{txt.name}: no usable tags in it, only control characters; write some, separated by commas"
        with open(image, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        return Scanned(digest, format_tags(names), len(found) - len(names))
    except UserError as error:
        return str(error).removeprefix(f"{txt.parent}{os.sep}")
    except OSError as error:
        return f"{error.strerror}; replace or remove it"


def printable(text: str) -> str:
    """Text with escapes for what would break a line, a CSV or UTF-8: a name may hold any character or byte."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
