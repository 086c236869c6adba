"""Names of tags in another language: the CSV that the tagcomplete extension reads, `tag,translation`.

    python wdv3_pytorch.py --image_file pictures --model_path checkpoints --translations zh.csv --report report.html

Such files are made by many hands, so much is taken: no header, or one; several translations of a tag, in further cells,
on further rows or with `|` between them; tags with blanks or escapes; and the older form `tag,category,translation`,
whose rows often end behind the category.
"""

from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path

from tagger.files import read_csv
from tagger.formats.tag_lists import danbooru_spelling, is_usable, unescaped

TAG_COLUMNS = ("tag", "name")  # what a header calls the first column; neither is a tag of Danbooru's
TRANSLATION_COLUMN = "translation"  # what it calls one or more of the others; without such a column all of them count
SEPARATOR = "|"  # between several translations in a cell


class Translations:
    """What tags are called in another language.

    Args:
        path: of the CSV.
        names: the translations of each tag by its name in Danbooru's spelling.

    Attributes:
        count: how many tags have a translation.
    """

    def __init__(self, path: Path, names: Mapping[str, tuple[str, ...]]) -> None:
        self.path = path
        self.count = len(names)
        self._names = names

    def of(self, name: str) -> tuple[str, ...]:
        """The translations of a tag, as its vocabulary spells it; none where it has none."""
        return self._names.get(danbooru_spelling(name), ())

    def among(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The translations of those names that have some, in their order."""
        return {name: found for name in names if (found := self.of(name))}


def read_translations(path: Path, hint: str) -> Translations:
    """The translations of a CSV, see the module's docstring. What nobody could read on a screen is passed over.

    Args:
        hint: ends an error, as in "name another CSV".

    Raises:
        UserError: missing, not UTF-8, or not CSV.
    """
    first, numbered = read_csv(path, hint, ())
    titles = [cell.strip().casefold() for cell in first]
    has_header = bool(titles) and titles[0] in TAG_COLUMNS
    places = [place for place, title in enumerate(titles) if has_header and title == TRANSLATION_COLUMN]
    rows = (row for _, row in numbered)
    found: dict[str, dict[str, None]] = {}
    for tag, *cells in rows if has_header or not first else chain([first], rows):
        texts = [cells[place - 1] for place in places] if places else cells
        if (name := _name(tag)) and (translations := list(_translations(texts))):
            found.setdefault(name, {}).update(dict.fromkeys(translations))
    return Translations(path, {name: tuple(texts) for name, texts in found.items()})


def _name(tag: str) -> str:
    """A tag in Danbooru's spelling. Files have 100,000 rows, and most need nothing done."""
    tag = tag.strip()
    return danbooru_spelling(unescaped(tag)) if " " in tag or "\\" in tag else tag


def _translations(cells: Iterable[str]) -> Iterable[str]:
    for cell in cells:
        for text in cell.split(SEPARATOR):
            text = " ".join(text.split())
            if is_usable(text) and not text.isdecimal():  # a number is the category of the older form
                yield text
