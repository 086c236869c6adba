"""What a source finds: pictures and the files that may hold their tags, each with the stem that brings them together.

python create_tfrecord.py --dataset-folder ./dataset
"""

import os
from typing import NamedTuple

from tagger.formats.pairs import IMAGE_SUFFIXES, LABEL_SUFFIXES, stems_of_labels

MAX_LABEL_BYTES = 1 << 20  # Danbooru's longest tag list is below 20 kB, a post in JSON below 100 kB
LABELS = -1  # the kind of a file that may hold tags
BROKEN_TAR = len(IMAGE_SUFFIXES)  # the kind of a tar that has lost pictures, nobody knows which: it stands for them


class Member(NamedTuple):
    """Where a file is that lies in a tar: the tar's path from the dataset's folder, and the bytes in it."""

    tar: str
    offset: int
    size: int

    def packed(self) -> str:
        """A text that gives it back together with the file's name."""
        return f"{len(os.fsencode(self.tar))} {self.offset} {self.size}"

    @classmethod
    def unpacked(cls, name: bytes, packed: str) -> "Member":
        """The place of the file with this name, which begins with the tar's."""
        length, offset, size = map(int, packed.split())
        return cls(os.fsdecode(name[:length]), offset, size)


class Found(NamedTuple):
    """A picture, or a file that may hold the tags of one.

    Attributes:
        kind: LABELS, or the rank of the picture's suffix, or BROKEN_TAR.
        name: its path from the dataset's folder; of what lies in a tar, the tar's and the path in it.
        stamp: changes with the file.
        problem: why it cannot be read.
        member: where in a tar it is, if so.
    """

    kind: int
    name: str
    stamp: str
    problem: str | None = None
    member: Member | None = None

    def stems(self) -> list[str]:
        """The stem of the picture, or those of the pictures whose tags the file may hold."""
        if self.kind == BROKEN_TAR:
            return [self.name]
        return stems_of_labels(self.name) if self.kind == LABELS else [os.path.splitext(self.name)[0]]


def kind_of(name: str) -> int | None:
    """The kind of a file by its suffix; None where it is neither a picture nor may hold tags."""
    suffix = os.path.splitext(name)[1]
    if suffix in LABEL_SUFFIXES:
        return LABELS
    return IMAGE_SUFFIXES.index(suffix.lower()) if suffix.lower() in IMAGE_SUFFIXES else None


def too_long(kind: int, size: int) -> str | None:
    """The problem of a file that is too long to hold a picture's tags."""
    return f"{size} bytes, too long for a tag list; replace it" if kind == LABELS and size > MAX_LABEL_BYTES else None
