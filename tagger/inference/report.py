"""A page to look at: thumbnails with their tags as bars, sliders for the thresholds, prompts to copy.

    python wdv3_pytorch.py --image_file pictures/ --model_path checkpoints/eva02_large_best.pth \\
        --config_path checkpoints/config.json --tags_csv checkpoints/selected_tags.csv --report report.html

The page is one file that needs no network: the template report.html, with the thumbnails and probabilities in it.
Selecting tags is done there, by the rules of wdv3_pytorch.py.
"""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypedDict

from tagger import images
from tagger.files import write_text

Group = Literal["rating", "general", "character", "artist"]

TEMPLATE = Path(__file__).with_name("report_template.html")
PLACE_OF_DATA = "__DATA__"  # in the template, once

LOWEST = 0.05  # tags less likely than this need no place in a report; thousands of them would weigh more than the image
TOP_ARTISTS = 5  # in an artist string
LONG_SIDE = 320  # pixels of a thumbnail, shown at up to 260 and sharp on denser screens
JPEG_QUALITY = 82
CATEGORIES: tuple[Group, ...] = ("rating", "general", "character", "artist")


class Entry(TypedDict):
    """What the model said of one image: probabilities by tag name, those of at least LOWEST; of ratings all four."""

    image: Path
    rating: Mapping[str, float]
    general: Mapping[str, float]
    character: Mapping[str, float]
    artist: Mapping[str, float]


def write_report(
    path: Path | str, entries: Sequence[Entry], thresholds: Mapping[str, float], top_artists: int = TOP_ARTISTS
) -> None:
    """Write the page, whole or not at all.

    An image that cannot be decoded is shown as its name and the reason. Names of tags and files may hold anything.

    Args:
        entries: in the order of the page.
        thresholds: the five keys of threshold.json; where the sliders stand at first.
        top_artists: how many names an artist string holds at most.

    Raises:
        OSError: the file cannot be written.
        ValueError: a probability or threshold is not a finite number.
    """
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
        thumbnails = list(pool.map(thumbnail, [entry["image"] for entry in entries]))
    names = names_of([entry["image"] for entry in entries])
    data = {
        "thresholds": dict(thresholds),
        "top_artists": top_artists,
        "lowest": LOWEST,
        "images": [
            {"name": name, "thumbnail": picture} | {group: by_probability(entry[group]) for group in CATEGORIES}
            for name, picture, entry in zip(names, thumbnails, entries, strict=True)
        ],
    }
    before, _, after = TEMPLATE.read_text(encoding="utf-8").partition(PLACE_OF_DATA)
    write_text(path, before + embed(data) + after)


def by_probability(group: Mapping[str, float]) -> list[tuple[str, float]]:
    """(name, probability) by falling probability, so that the tags that pass a threshold are always the first ones."""
    return sorted(group.items(), key=lambda item: -item[1])


def embed(value: Any) -> str:
    """JSON that may stand in a <script> element: ASCII alone, and nothing in it looks like a tag or a comment."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def names_of(paths: Sequence[Path]) -> list[str]:
    """The paths below the folder that they share, so that a report that is passed on does not tell where it was made.

    One folder's images become their file names.
    """
    absolute = [os.path.abspath(path) for path in paths]
    try:
        shared = os.path.commonpath([os.path.dirname(path) for path in absolute])
    except ValueError:  # none at all, or on several drives of Windows
        return [path.as_posix() for path in paths]
    return [Path(os.path.relpath(path, shared)).as_posix() for path in absolute]


def thumbnail(path: Path) -> dict[str, Any]:
    """A picture of at most LONG_SIDE pixels as `{src: data URI, width, height}`, or `{error: why there is none}`."""
    try:
        picture = images.open_image(path, at_least=2 * LONG_SIDE)
    except images.UnreadableImage as error:
        return {"error": str(error).removeprefix(f"{path}: ")}
    picture.thumbnail((LONG_SIDE, LONG_SIDE))
    source = "data:image/jpeg;base64," + base64.b64encode(images.encode_jpeg(picture, JPEG_QUALITY)).decode()
    return {"src": source, "width": picture.width, "height": picture.height}
