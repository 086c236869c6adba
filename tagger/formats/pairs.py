"""Pairs of a picture and the file with its tags: which files of a folder are pictures, and which belong together.

python -c "from tagger.formats.pairs import captions_of; print(len(captions_of('dataset')))"
"""

import os
from collections.abc import Iterator
from pathlib import Path

from tagger.files import UserError

# What the toolkit decodes (see tagger/images.py). Of several pictures beside one txt the first in this order has it.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
# Pictures too, but not decoded here: whoever has them shall be told.
OTHER_IMAGE_SUFFIXES = (
    *(".heic", ".heif", ".jxl", ".jp2", ".j2k", ".psd", ".tga", ".apng", ".ico", ".svg", ".eps", ".qoi", ".dds"),
    *(".xcf", ".kra", ".clip", ".sai", ".cr2", ".nef", ".arw", ".dng"),
)
CAPTION_SUFFIX = ".txt"
CRAWL_STATE_FILE = "crawl_state.json"  # how far a crawl into the folder has come
UNDO_SUFFIX = ".undo.jsonl"  # what the captions were before they were tidied
LABEL_SUFFIXES = (CAPTION_SUFFIX, ".caption", ".json")  # of files that may hold the tags of a picture


def caption_path(image: Path, suffix: str = CAPTION_SUFFIX) -> Path:
    """Where the caption of a picture lies."""
    return image.with_suffix(suffix)


def label_files(image: str) -> tuple[str, ...]:
    """The files that may hold a picture's tags, by their names: the first of them that is there does.

    Those with the whole name of the picture in theirs are what gallery-dl and Hydrus write.
    """
    stem, _ = os.path.splitext(image)
    return f"{stem}.txt", f"{image}.txt", f"{stem}.caption", f"{stem}.json", f"{image}.json"


def stems_of_labels(name: str) -> list[str]:
    """The stems of the pictures whose tags a file may hold: of `x.jpg.txt` that of `x.jpg`, and that of `x.jpg.png`."""
    stem, _ = os.path.splitext(name)
    shorter, suffix = os.path.splitext(stem)
    return [stem, shorter] if suffix.lower() in IMAGE_SUFFIXES and shorter else [stem]


def folders_of(folder: Path | str, recursive: bool, left_out: Path | None = None) -> Iterator[Path]:
    """A dataset's folder, and with `recursive` those below it, each before its own and by name.

    Folders whose names begin with a dot are none of ours. Links to folders are not followed: they may lead in circles.
    Memory grows with the folders alone, not with the files in them.

    Args:
        left_out: a folder that is passed over together with those below it, unless it is `folder` itself.

    Raises:
        UserError: a folder cannot be listed.
    """
    excluded = left_out.resolve() if left_out else None
    waiting = [Path(folder)]
    while waiting:
        current = waiting.pop()
        yield current
        if not recursive:
            return
        try:
            with os.scandir(current) as entries:
                names = [
                    entry.name
                    for entry in entries
                    if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
                ]
        except OSError as error:
            raise UserError(f"{current}: {error.strerror}; make the folder readable, or move it away") from None
        below = (current / name for name in sorted(names, reverse=True))
        waiting += [path for path in below if excluded is None or path.resolve() != excluded]


def captions_of(folder: Path | str) -> tuple[list[Path], int]:
    """The txt files of a folder that have a picture beside them, by name, and how many others there are.

    Files whose names begin with a dot are none of ours.

    Raises:
        OSError: there is no such folder, or it cannot be read.
    """
    captions, pictures = [], set()
    with os.scandir(folder) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            if stem.startswith("."):
                continue
            if suffix == CAPTION_SUFFIX:
                captions.append(entry.name)
            elif suffix.lower() in IMAGE_SUFFIXES or suffix.lower() in OTHER_IMAGE_SUFFIXES:
                pictures.add(stem)
    found = sorted(name for name in captions if name.removesuffix(CAPTION_SUFFIX) in pictures)
    return [Path(folder, name) for name in found], len(captions) - len(found)
