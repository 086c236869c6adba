"""What an image and the txt beside it hold, or why the pair cannot be used.

python create_tfrecord.py --dataset-folder ./dataset
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tagger.files import UserError
from tagger.formats.tag_lists import format_tags, read_tags, usable_tags

MAX_TXT_BYTES = 1 << 20  # Danbooru's longest tag list is below 20 kB
ENCODING_HINT = "save it as UTF-8, or let replace_blanks.py convert it"


class Scanned(NamedTuple):
    """What a pair's two files hold.

    Attributes:
        digest: SHA-256 of the image's bytes.
        tags: as they are written, separated by commas.
        tags_left_out: how many more there were that cannot be tags: endless, or with invisible characters in them.
    """

    digest: bytes
    tags: str
    tags_left_out: int


def scan_pairs(folder: Path, pairs: Sequence[tuple[str, str]]) -> list[Scanned | str]:
    """Read pairs of (image, txt), given by their names in a folder; for each what is in it, or why it is unusable."""
    return [_scan_pair(folder / image, folder / txt) for image, txt in pairs]


def _scan_pair(image: Path, txt: Path) -> Scanned | str:
    try:
        found = read_tags(txt, ENCODING_HINT)
        names = usable_tags(found)
        if not found:
            return f"{txt.name}: no tags in it; write some, separated by commas"
        if not names:
            return f"{txt.name}: no usable tags in it, only endless ones or control characters; {ENCODING_HINT}"
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
