"""What an image and the file with its tags hold, or why the pair cannot be used.

python create_tfrecord.py --dataset-folder ./dataset
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tagger.files import UserError, decode_text
from tagger.formats.sidecars import parse_labels, read_labels
from tagger.formats.tag_lists import format_tags, usable_tags
from tagger.tfrecord.sources.found import Member
from tagger.tfrecord.sources.tars import read_member

ENCODING_HINT = "save it as UTF-8, or let replace_blanks.py convert it"


class Pair(NamedTuple):
    """The names of an image and of the file with its tags, as paths from the dataset's folder.

    `labels` is None where the tags are in a table of posts, which knows them better. The members say where both are in
    tars, if so.
    """

    image: str
    labels: str | None
    member: Member | None = None
    labels_member: Member | None = None


class Scanned(NamedTuple):
    """What a pair's two files hold; see `usable_tags` for what cannot be a tag.

    Attributes:
        digest: SHA-256 of the image's bytes.
        tags: as they are written, separated by commas; None where they are in a table of posts.
        tags_left_out: how many more there were that cannot be tags.
    """

    digest: bytes
    tags: str | None
    tags_left_out: int


def scan_pairs(folder: Path, pairs: Sequence[Pair]) -> list[Scanned | str]:
    """Read pairs of a dataset's folder; for each what is in it, or why it is unusable."""
    return [_scan_pair(folder, pair) for pair in pairs]


def _scan_pair(folder: Path, pair: Pair) -> Scanned | str:
    try:
        tags, left_out = (None, 0) if pair.labels is None else _usable(folder, pair.labels, pair.labels_member)
        if pair.member:
            digest = hashlib.sha256(read_member(folder, pair.member)).digest()
        else:
            with open(folder / pair.image, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
        return Scanned(digest, tags, left_out)
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{error.strerror}; replace or remove it"


def _usable(folder: Path, name: str, member: Member | None) -> tuple[str, int]:
    """The tags of a file, separated by commas, and how many more there were that cannot be tags."""
    path = folder / name
    try:
        found = read_tags_of(folder, name, member)
    except UserError as error:
        raise UserError(str(error).removeprefix(f"{path.parent}{os.sep}")) from None
    if not found:
        raise UserError(f"{path.name}: no tags in it; write some, separated by commas")
    if not (names := usable_tags(found)):
        raise UserError(f"{path.name}: no usable tags in it, only endless ones or control characters; {ENCODING_HINT}")
    return format_tags(names), len(found) - len(names)


def read_tags_of(folder: Path, name: str, member: Member | None) -> list[str]:
    """The tags in a file of a dataset's folder, or in a member of a tar there; see `read_labels`.

    Raises:
        UserError: it cannot be read, or does not hold what its suffix says; the message begins with the path.
    """
    path = folder / name
    if member is None:
        return read_labels(path, ENCODING_HINT)
    try:
        return parse_labels(str(path), decode_text(path, read_member(folder, member), ENCODING_HINT))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; replace or remove it") from None


def printable(text: str) -> str:
    """Text with escapes for what would break a line, a CSV or UTF-8: a name may hold any character or byte."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
