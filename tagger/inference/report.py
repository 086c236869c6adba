"""A page to look at: thumbnails with their tags as bars, sliders for the thresholds, prompts to copy.

    python wdv3_pytorch.py --image_file pictures --model_path checkpoints --report report.html

The page is one file that needs no network: report_template.html with one JSON object in it. Only what the sliders
change happens there: which tags pass. How they are ordered and spelt, and the pieces of artist strings, are worked out
here by the functions that also write captions, so that the page's buttons copy what the command line prints.
"""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagger import images
from tagger.files import write_text
from tagger.formats.thresholds import GROUPS, THRESHOLDS, threshold_key
from tagger.formats.vocabulary import CATEGORY_NUMBERS, Vocabulary
from tagger.inference.artist_strings import SYNTAXES, ArtistSettings, artist_pieces
from tagger.inference.captions import SEPARATOR, Style, in_order, spelled

TEMPLATE = Path(__file__).with_name("report_template.html")
PLACE_OF_DATA = "__DATA__"  # in the template, once

LOWEST = 0.05  # tags less likely than this need no place in a report; thousands of them would weigh more than the image
LONG_SIDE = 320  # pixels of a thumbnail, shown at up to 260 and sharp on denser screens
JPEG_QUALITY = 82
CATEGORIES = ("rating", *GROUPS)


@dataclass(frozen=True)
class Entry:
    """What a report keeps of an image.

    Attributes:
        image: the file.
        groups: for each of CATEGORIES the probabilities by tag name, those of at least LOWEST; of ratings all four.
    """

    image: Path
    groups: Mapping[str, Mapping[str, float]]


def make_entry(image: Path, probabilities: Sequence[float], vocabulary: Vocabulary) -> Entry:
    """What a report keeps of an image's C probabilities, which are in the vocabulary's order."""
    groups = {
        name: {
            vocabulary.names[i]: probabilities[i]
            for i in vocabulary.indices(CATEGORY_NUMBERS[name])
            if probabilities[i] >= LOWEST or name == "rating"
        }
        for name in CATEGORIES
    }
    return Entry(image, groups)


def write_report(
    path: Path | str,
    entries: Sequence[Entry],
    thresholds: Mapping[str, float],
    rows: Mapping[str, int],
    style: Style,
    artists: ArtistSettings,
) -> None:
    """Write the page, whole or not at all.

    An image that cannot be decoded is shown as its name and the reason. Names of tags and files may hold anything.

    Args:
        entries: in the order of the page.
        thresholds: the five keys of threshold.json; where the sliders stand at first.
        rows: label index of each name, see Vocabulary.index.
        style: of the captions and tags that the page's buttons copy.
        artists: of the artist strings; its syntax is the one that is chosen at first.

    Raises:
        OSError: the file cannot be written.
        ValueError: a probability or threshold is not a finite number.
    """
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
        thumbnails = list(pool.map(thumbnail, [entry.image for entry in entries]))
    names = names_of([entry.image for entry in entries])
    shown = [
        {"name": name, "thumbnail": picture} | image_data(entry, rows, style, artists.top)
        for name, picture, entry in zip(names, thumbnails, entries, strict=True)
    ]
    data = page_data(thresholds, style, artists) | {"spelling": spelling(entries, style), "images": shown}
    before, _, after = TEMPLATE.read_text(encoding="utf-8").partition(PLACE_OF_DATA)
    write_text(path, before + embed(data) + after)


# --- what the page is told ------------------------------------------------------------------------------------------


def page_data(thresholds: Mapping[str, float], style: Style, artists: ArtistSettings) -> dict[str, Any]:
    """What holds for all images.

    Returns:
        thresholds: the value of each key, in the order of the sliders.
        lists: the keys that choose the tags of a list, with the categories that it has.
        keys: for each category in a caption's order, the key of its own threshold.
        syntaxes: (key, title) of each syntax of an artist string; syntax: the one that is chosen at first.
        separator: between the tags of a list and the names of an artist string.
        lowest: no tag that is less likely is in the page.
    """
    keys = {category: threshold_key(category) for category in GROUPS}
    return {
        "thresholds": {key: thresholds[key] for key in THRESHOLDS},
        "lists": {key: list(each.categories) for key, each in THRESHOLDS.items() if key not in keys.values()},
        "keys": keys,
        "syntaxes": [(key, syntax.title) for key, syntax in SYNTAXES.items()],
        "syntax": artists.syntax or next(iter(SYNTAXES)),
        "separator": SEPARATOR,
        "lowest": LOWEST,
    }


def image_data(entry: Entry, rows: Mapping[str, int], style: Style, top_artists: int) -> dict[str, Any]:
    """What is said of one image.

    Returns:
        rating, general, character, artist: [(name, probability)] by falling probability.
        order: the tags that a caption may have, in its order: for each its place in general + character + artist.
        artist_strings: for each syntax the pieces of the likeliest artists.
    """
    groups = {category: by_probability(entry.groups[category]) for category in CATEGORIES}
    probabilities = dict(pair for category in GROUPS for pair in groups[category])
    places = {name: place for place, name in enumerate(probabilities)}
    return {
        **groups,
        "order": [places[name] for name in in_order(list(probabilities), style, probabilities, rows)],
        "artist_strings": {key: artist_pieces(entry.groups["artist"], key, top_artists) for key in SYNTAXES},
    }


def spelling(entries: Sequence[Entry], style: Style) -> list[tuple[str, str]]:
    """(name, as a caption spells it) of all names that a style spells in another way.

    Pairs and no object: a tag may be called `__proto__`.
    """
    names = dict.fromkeys(name for entry in entries for category in GROUPS for name in entry.groups[category])
    return [(name, text) for name in names if (text := spelled(name, style)) != name]


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
