"""A page to look at: thumbnails with their tags as bars, sliders for the thresholds, prompts to copy.

    python wdv3_pytorch.py --image_file pictures --model_path checkpoints --report report.html

The page is one file that needs no network: report_template.html with one JSON object in it. Only what the sliders
change happens there: which tags pass. How they are ordered and spelt, and the pieces of artist strings, are worked out
here by the functions that also write captions, so that the page's buttons copy what the command line prints.

More images than a browser takes at once are divided among pages that link to each other: report.html, report-2.html …
"""

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagger import images
from tagger.files import UserError, read_text, replacing_path
from tagger.formats.thresholds import THRESHOLDS, groups_of, threshold_key, threshold_of
from tagger.formats.translations import Translations
from tagger.formats.vocabulary import Vocabulary, category_name
from tagger.inference.artist_strings import ARTIST_WEIGHTS, SYNTAXES, ArtistSettings, artist_pieces, weighted_string
from tagger.inference.captions import SEPARATOR, Facts, Style, in_order, spelled, without_prepended
from tagger.inference.selection import SelectionRule

if TYPE_CHECKING:  # few reports have prompts
    from tagger.inference.embedded.answer import PromptAnswer

TEMPLATE = Path(__file__).with_name("report_template.html")
PLACE_OF_DATA, PLACE_OF_NUMBER = "__DATA__", "__PAGE__"  # in the template, each once
BEGINNING = 4096  # characters of a page, which tell it from other files
PAGE_SIZE = 1000  # images: a page of 10 to 40 MB, which a browser opens in a second (0.6 s for 37 MB)

LOWEST = 0.05  # tags less likely than this need no place in a report; thousands of them would weigh more than the image
LONG_SIDE = 320  # pixels of a thumbnail, shown at up to 260 and sharp on denser screens
JPEG_QUALITY = 82


@dataclass(frozen=True)
class Entry:
    """What a report keeps of an image.

    Attributes:
        image: the file.
        name: what the page calls it.
        groups: for ratings and each group the probabilities by tag name, those of at least LOWEST; of ratings all.
        prompt: what the file itself says, or None.
        similar: similarity of the closest taught artists by name, falling; None where they were not asked for.
    """

    image: Path
    name: str
    groups: Mapping[str, Mapping[str, float]]
    prompt: "PromptAnswer | None" = None
    similar: Mapping[str, float] | None = None


def make_entry(
    image: Path,
    name: str,
    probabilities: Mapping[int, float],
    vocabulary: Vocabulary,
    prompt: "PromptAnswer | None" = None,
    similar: Mapping[str, float] | None = None,
) -> Entry:
    """What a report keeps of an image's probabilities and of the rest.

    Args:
        probabilities: by label, rising: of ratings, and of all that are at least LOWEST.
    """
    groups: dict[str, dict[str, float]] = {category: {} for category in ("rating", *groups_of(vocabulary))}
    for label, probability in probabilities.items():
        category = category_name(vocabulary.category(label))
        if (probability >= LOWEST or category == "rating") and (tag := vocabulary.name(label)):
            groups[category][tag] = probability
    return Entry(image, name, groups, prompt, similar)


class Report:
    """A report that is being written, see `writing`; in memory are the images of one page."""

    def __init__(
        self,
        path: Path,
        images: Sequence[Path],
        rule: SelectionRule,
        vocabulary: Vocabulary,
        style: Style,
        artists: ArtistSettings,
        translations: Translations | None = None,
    ) -> None:
        self.translations = translations
        self.pages = page_paths(path, len(images))
        self.rule, self.vocabulary, self.style, self.artists = rule, vocabulary, style, artists
        self.count = 0  # images that were added
        self.waiting = ExitStack()  # pages that appear when all are there
        self._template = read_template()
        self._names = names_of(images)
        self._passed = 0  # images, with those that have no answer
        self._entries: list[Entry] = []  # of this page
        self._empty: list[int] = []  # pages without an image

    def add(
        self,
        image: Path,
        probabilities: Mapping[int, float],
        prompt: "PromptAnswer | None" = None,
        similar: Mapping[str, float] | None = None,
    ) -> None:
        """Show the next image: its probabilities, see `make_entry`; see Entry for the others."""
        name = self._names[self._passed]
        self._entries.append(make_entry(image, name, probabilities, self.vocabulary, prompt, similar))
        self.count += 1
        self.pass_over()

    def pass_over(self) -> None:
        """The next image has no answer."""
        self._passed += 1
        if self._passed % PAGE_SIZE == 0:
            self._end_page()

    def end(self) -> None:
        """Write what is left; nothing at all where no image was added, so that an earlier report stays."""
        if self._passed % PAGE_SIZE:
            self._end_page()
        if self.count:
            for number in self._empty:
                self._write_page(number)

    def _end_page(self) -> None:
        number = (self._passed - 1) // PAGE_SIZE + 1
        if self._entries:
            self._write_page(number)
        else:
            self._empty.append(number)
        self._entries.clear()

    def _write_page(self, number: int) -> None:
        with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
            thumbnails = list(pool.map(thumbnail, [entry.image for entry in self._entries]))
        rows = self.vocabulary.index
        shown = [
            {"name": entry.name, "thumbnail": picture} | image_data(entry, rows, self.style, self.artists)
            for picture, entry in zip(thumbnails, self._entries, strict=True)
        ]
        groups = groups_of(self.vocabulary)
        has_answers = len(self.vocabulary) > 0
        data = page_data(self.rule, groups, self.artists, number, self.pages, has_answers)
        data |= caption_data(self._entries, self.style) | translation_data(self._entries, self.translations)
        data |= {"images": shown}
        before, _, after = self._template.replace(PLACE_OF_NUMBER, str(number)).partition(PLACE_OF_DATA)
        part = self.waiting.enter_context(replacing_path(self.pages[number - 1]))
        with open(part, "w", encoding="utf-8", newline="") as file:
            file.writelines((before, embed(data), after))


@contextmanager
def writing(
    path: Path,
    images: Sequence[Path],
    rule: SelectionRule,
    vocabulary: Vocabulary,
    style: Style,
    artists: ArtistSettings,
    translations: Translations | None = None,
) -> Iterator[Report]:
    """Write a report, whole or not at all: it appears when the block is left without an exception.

    An image that cannot be decoded is shown as its name and the reason. Names of tags and files may hold anything. What
    an earlier, longer report of this name has on further pages is removed.

    Args:
        path: of the first page, see `page_paths`; its folder is made where it is missing.
        images: all of them, in the order in which they are added or passed over.
        rule: whose thresholds are where the sliders stand at first.
        vocabulary: of the model; empty where none was asked, for a report of the files' own prompts.
        style: of the captions and tags that the page's buttons copy.
        artists: of the artist strings; its syntax is the one that is chosen at first.
        translations: of tags, shown beside them and found by the filter.

    Raises:
        OSError: a file cannot be written.
        UserError: the template is damaged.
        ValueError: a probability or threshold is not a finite number.
    """
    report = Report(path, images, rule, vocabulary, style, artists, translations)
    path.parent.mkdir(parents=True, exist_ok=True)
    with report.waiting:
        yield report
        report.end()
    if report.count:
        number = len(report.pages) + 1
        while is_report(left := page_path(path, number), number):
            left.unlink()
            number += 1


def read_template() -> str:
    """The page without its data.

    Raises:
        UserError: missing, or without one of its two places.
    """
    hint = "fetch the toolkit's file again"
    text = read_text(TEMPLATE, hint)
    for place in (PLACE_OF_DATA, PLACE_OF_NUMBER):
        if text.count(place) != 1:
            raise UserError(f"{TEMPLATE}: no {place} in it, or several; {hint}")
    return text


def page_paths(path: Path, count: int) -> list[Path]:
    """The files of a report of `count` images: report.html, report-2.html …"""
    return [page_path(path, number) for number in range(1, max(1, -(-count // PAGE_SIZE)) + 1)]


def page_path(path: Path, number: int) -> Path:
    """The file of a report's page, which is counted from 1."""
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def is_report(path: Path, number: int = 1) -> bool:
    """Whether a file is this page of a report; earlier versions wrote one page, without its number."""
    if not path.is_file():
        return False
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read(BEGINNING)
    found = re.search(r'<meta name="page" content="(\d+)">', text)
    return "<title>Tag report</title>" in text and int(found[1] if found else 1) == number


# --- what the page is told ------------------------------------------------------------------------------------------


def page_data(
    rule: SelectionRule,
    groups: Sequence[str],
    artists: ArtistSettings,
    number: int,
    pages: Sequence[Path],
    has_answers: bool,
) -> dict[str, Any]:
    """What holds for all images of a page.

    Args:
        groups: the categories with a threshold of their own, in a caption's order.

    Returns:
        thresholds: the value of each key, in the order of the sliders.
        lists: the keys that choose the tags of a list, with the categories that it has.
        keys: for each category in a caption's order, the key of its own threshold.
        inclusive: whether a tag passes whose probability is its threshold.
        syntaxes: (key, title) of each syntax of an artist string; syntax: the one that is chosen at first.
        weights: the ways to weigh artists; weights_chosen: the one that is chosen at first.
        separator: between the tags of a list and the names of an artist string.
        lowest: no tag that is less likely is in the page.
        page: its number, from 1; pages: the file names of all of them.
        has_answers: whether a model was asked; else only prompts are shown.
    """
    keys = {category: threshold_key(category) for category in groups}
    thresholds = {key: rule.thresholds[key] for key in THRESHOLDS}
    thresholds |= {keys[category]: threshold_of(category, rule.thresholds) for category in groups}
    lists = {key: each.categories for key, each in THRESHOLDS.items() if key not in keys.values()}
    return {
        "thresholds": thresholds,
        "lists": {key: [name for name in categories if name in groups] for key, categories in lists.items()},
        "keys": keys,
        "inclusive": rule.inclusive,
        "syntaxes": [(key, syntax.title) for key, syntax in SYNTAXES.items()],
        "syntax": artists.syntax or next(iter(SYNTAXES)),
        "weights": list(ARTIST_WEIGHTS),
        "weights_chosen": artists.weights,
        "separator": SEPARATOR,
        "lowest": LOWEST,
        "page": number,
        "pages": [page.name for page in pages],
        "has_answers": has_answers,
    }


def image_data(entry: Entry, rows: Mapping[str, int], style: Style, artists: ArtistSettings) -> dict[str, Any]:
    """What is said of one image.

    Returns:
        rating, general, character, artist and further groups: [(name, probability)] by falling probability.
        order: the tags that a caption may have, in its order: for each its place in all groups but rating, joined.
        artist_strings: for each way to weigh and each syntax the pieces of the likeliest artists.
        prompt: what the file itself says, where that is told, see `prompt_data`.
        similar: [(name, similarity)] of the closest taught artists, where they are told.
    """
    groups = {category: by_probability(group) for category, group in entry.groups.items()}
    tags = {category: dict(group) for category, group in groups.items() if category != "rating"}
    places: dict[str, int] = {}
    for place, name in enumerate(name for group in tags.values() for name in group):
        places.setdefault(name, place)  # a name in two categories counts once, where it is first
    # The page itself relates what passes its sliders, and leaves out what is constant when that is done.
    unrelated = replace(style, relation="none", constant=frozenset())
    data = {
        **groups,
        "order": [places[name] for name in in_order(list(places), unrelated, Facts.of(tags, rows))],
        "artist_strings": {
            weights: {
                key: artist_pieces(entry.groups["artist"], key, replace(artists, weights=weights)) for key in SYNTAXES
            }
            for weights in ARTIST_WEIGHTS
        },
    }
    data |= {"prompt": prompt_data(entry.prompt)} if entry.prompt else {}
    return data | ({"similar": list(entry.similar.items())} if entry.similar else {})


def prompt_data(answer: "PromptAnswer") -> dict[str, Any]:
    """What a file says of its own prompt.

    Returns:
        text: the prompt, the characters' behind it; null where there is none.
        source: generator and place.
        artists: [(name, weight)] of those that it wants, in its order.
        artist_strings: for each syntax the artists with their weights.
    """
    embedded = answer.embedded
    return {
        "text": None if embedded.source is None else "\n".join([embedded.prompt or "", *embedded.character_prompts]),
        "source": answer.origin(),
        "artists": list(embedded.wanted.items()),
        "artist_strings": {key: weighted_string(embedded.wanted, ArtistSettings(key)) for key in SYNTAXES},
    }


def caption_data(entries: Sequence[Entry], style: Style) -> dict[str, Any]:
    """What the page must know of a style to make lists and captions of the tags that pass.

    Pairs and no object: a tag may be called `__proto__`.

    Returns:
        spelling: (name, as a caption spells it) of all names that the style spells in another way.
        prepend: texts that begin every caption; prepended: the names that these are, in any spelling.
        rating: where the likeliest rating stands in a caption, see Style.
        relation: see Style; implied: (name, the names that it leaves out or adds).
        first: the names that come first where they are there.
        constant: the names that are left out in the end.
    """
    find = style.implications.broader if style.relation == "prune" else style.implications.implied
    shown = names_in(entries)
    implied = {name: [*filter(style.keeps, find(name))] for name in shown} if style.relation != "none" else {}
    names = dict.fromkeys([*shown, *(other for others in implied.values() for other in others)])
    others = set(without_prepended(names, style))
    return {
        "spelling": [(name, text) for name in names if (text := spelled(name, style)) != name],
        "prepend": style.prepend,
        "prepended": [name for name in names if name not in others],
        "rating": style.rating,
        "relation": style.relation,
        "implied": [(name, found) for name, found in implied.items() if found],
        "first": style.first,
        "constant": sorted(style.constant),
    }


def translation_data(entries: Sequence[Entry], translations: Translations | None) -> dict[str, Any]:
    """What tags are called in another language.

    Returns:
        translations: (name, its translations in one text) of the page's tags that have some.
    """
    found = translations.among(names_in(entries)) if translations else {}
    return {"translations": [(name, " / ".join(texts)) for name, texts in found.items()]}


def names_in(entries: Sequence[Entry]) -> list[str]:
    """All tags and ratings of a page, each once."""
    return list(dict.fromkeys(name for entry in entries for group in entry.groups.values() for name in group))


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
