"""Which files are to be tagged: those that are named, those in folders, and what of a folder cannot be read.

python -c "from tagger.inference.image_files import find; print(find(['pictures']))"
"""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tagger.files import UserError
from tagger.formats.pairs import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES

ADVICE = "convert them to png or jpg"


@dataclass
class Found:
    """What there is to tag.

    Attributes:
        images: in the order in which they were named, those of a folder by name; none twice.
        unreadable: folders and files of folders that cannot be read.
        others: pictures in folders, counted by suffix, whose format is not decoded here.
    """

    images: list[Path] = field(default_factory=list)
    unreadable: list[UserError] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    def others_text(self) -> str:
        """`3 .heic, 1 .psd`."""
        return ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(self.others.items()))


def find(
    paths: Iterable[Path | str],
    recursive: bool = False,
    path_hint: str = "check the path",
    folder_hint: str = "name another folder",
) -> Found:
    """Files by name, whatever they are called, and the images in folders.

    Args:
        recursive: look into the folders' folders too.
        path_hint: ends the error for a path that is not there.
        folder_hint: ends the error where no folder has an image.

    Raises:
        UserError: a path that is not there, or no image at all.
    """
    found = Found()
    folders = []
    for path in map(Path, paths):
        if os.path.isdir(path):
            folders.append(path)
            _look_into(path, recursive, found)
        elif os.path.exists(path):
            found.images.append(path)
        else:
            raise UserError(f"{path}: no such file; {path_hint}")
    found.images = list(dict.fromkeys(found.images))
    if not found.images and folders:
        if found.unreadable:
            raise found.unreadable[0]
        if found.others:
            raise UserError(f"{folders[0]}: no images in it that are read here, but {found.others_text()}; {ADVICE}")
        raise UserError(f"{folders[0]}: no images in it; {folder_hint}")
    return found


def _look_into(folder: Path, recursive: bool, found: Found) -> None:
    """Add what is in a folder."""

    def leave_out(error: OSError) -> None:
        found.unreadable.append(UserError(f"{error.filename}: {error.strerror}; check its permissions"))

    images = []
    for place, folders, names in os.walk(folder, onerror=leave_out):
        if not recursive:
            folders.clear()
        for name in names:
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith("."):  # a file that a program is still writing, or one that macOS left behind
                continue
            if suffix in OTHER_IMAGE_SUFFIXES:
                found.others[suffix] += 1
            elif suffix in IMAGE_SUFFIXES:
                path = Path(place, name)
                # Reading a named pipe would wait for ever. A link whose file is gone is an image: reading tells.
                if os.path.isfile(path) or not os.path.exists(path):
                    images.append(path)
                else:
                    found.unreadable.append(UserError(f"{path}: no file, but a pipe or a device; remove it"))
    found.images += sorted(images)
