"""Pairs of a picture and the txt with its tags: which files of a folder are pictures, and which belong together.

python -c "from tagger.formats.pairs import captions_of; print(len(captions_of('dataset')))"
"""

import os
from pathlib import Path

# What the toolkit decodes (see tagger/images.py). Of several pictures beside one txt the first in this order has it.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
# Pictures too, but not decoded here: whoever has them shall be told.
OTHER_IMAGE_SUFFIXES = (
    *(".heic", ".heif", ".jxl", ".jp2", ".j2k", ".psd", ".tga", ".apng", ".ico", ".svg", ".eps", ".qoi", ".dds"),
    *(".xcf", ".kra", ".clip", ".sai", ".cr2", ".nef", ".arw", ".dng"),
)
CAPTION_SUFFIX = ".txt"


def caption_path(image: Path, suffix: str = CAPTION_SUFFIX) -> Path:
    """Where the caption of a picture lies."""
    return image.with_suffix(suffix)


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
