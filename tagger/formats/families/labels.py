"""The labels of public taggers: names and categories from CSV and JSON, in the toolkit's words.

python -c "from tagger.formats.families.labels import make_vocabulary; print(make_vocabulary(['rating:g'], [9]))"
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tagger.files import UserError, read_text
from tagger.formats.tag_lists import INVISIBLE, MAX_TAG_LENGTH, danbooru_spelling, is_usable
from tagger.formats.vocabulary import CATEGORY_NAME, CATEGORY_NAMES, RATINGS, Category, Vocabulary, category_of

HINT = "fetch the file again"
# What others call a category that we have a word for.
SYNONYMS = {"style": "artist", "series": "copyright", "ratings": "rating"}


def make_vocabulary(names: Sequence[object], categories: Sequence[Category]) -> Vocabulary:
    """A vocabulary of strangers' names: blanks become underscores, `rating:g` is general.

    A name that is empty, no text, or cannot stand in a list of tags keeps its place without a name.
    """
    texts = [name if isinstance(name, str) else "" for name in names]
    joined = "".join(texts)
    # 100,000 names one by one would take longer than an answer from the cache may take.
    if INVISIBLE.search(joined) or max(map(len, texts), default=0) > MAX_TAG_LENGTH:
        texts = [name if is_usable(name) else "" for name in texts]
    if not joined.isascii() or " " in joined:
        texts = [danbooru_spelling(name) for name in texts]
    if "rating:" in joined:
        texts = [RATINGS.get(name.removeprefix("rating:"), name) if name[:7] == "rating:" else name for name in texts]
    return Vocabulary(tuple(texts), tuple(categories))


def named_category(word: object, origin: object) -> Category:
    """The category of a word such as "General" or "style".

    Raises:
        UserError: no word that could be one.
    """
    name = str(word).strip().lower().replace(" ", "_")
    name = SYNONYMS.get(name, name)
    if not isinstance(word, str) or not CATEGORY_NAME.fullmatch(name):
        raise UserError(f"{origin}: {str(word)[:40]!r} is no category; {HINT}")
    return category_of(name)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: missing, not JSON, or no object.
    """
    value = read_value(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: a JSON object belongs here; {HINT}")
    return value


def read_value(path: Path) -> Any:
    """Any JSON.

    Raises:
        UserError: missing or not JSON.
    """
    try:
        return json.loads(read_text(path, HINT))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); {HINT}") from None


# --- CSV ------------------------------------------------------------------------------------------------------------


class Table:
    """A CSV with a header, by columns. Rows keep their number whatever is in them; only lines without a cell have none.

    Attributes:
        path: of the file.
        header: the names of its columns.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            rows = [row for row in csv.reader(io.StringIO(read_text(path, HINT), newline=""), strict=True) if row]
        except csv.Error as error:
            raise UserError(f"{path}: not CSV ({error}); {HINT}") from None
        self.header = rows[0] if rows else []
        self._rows = rows[1:]

    def column(self, name: str) -> list[str]:
        """The cells of a column; "" where a row is too short.

        Raises:
            UserError: there is no such column.
        """
        if name not in self.header:
            raise UserError(f"{self.path}: no column {name}; {HINT}")
        at = self.header.index(name)
        return [row[at] if at < len(row) else "" for row in self._rows]

    def numbers(self, name: str) -> list[float]:
        """The cells of a column of probabilities.

        Raises:
            UserError: there is no such column, or a cell that is no number in 0..1.
        """
        try:
            found = [float(cell) for cell in self.column(name)]
        except ValueError as error:
            raise UserError(f"{self.path}: {name}: {error}; {HINT}") from None
        if not all(0 <= value <= 1 for value in found):
            raise UserError(f"{self.path}: {name}: a number outside 0 to 1; {HINT}")
        return found


def vocabulary_of(table: Table, codes: Mapping[str, Category] | None = None) -> Vocabulary:
    """The labels of a CSV with the columns `name` and `category`.

    Args:
        codes: what the cells of `category` mean; by default Danbooru's numbers.

    Raises:
        UserError: a column is missing, or a category is not known.
    """
    cells = table.column("category")
    known: dict[str, Category] = dict(codes or {str(number): number for number in CATEGORY_NAMES})
    for number, cell in enumerate(cells, start=2):
        if cell not in known:
            raise UserError(f"{table.path}: row {number}: category {cell[:40]!r} is not known; {HINT}")
    return make_vocabulary(table.column("name"), [known[cell] for cell in cells])


def category_codes(path: Path) -> dict[str, Category]:
    """What the numbers of categories mean, from a categories.json: a list of {"category": number, "name": word}.

    Raises:
        UserError: not such a file.
    """
    listed = read_value(path)
    try:
        return {str(each["category"]): named_category(each["name"], path) for each in listed}
    except (KeyError, TypeError):
        raise UserError(f"{path}: not a list of categories; {HINT}") from None


def category_thresholds(path: Path, vocabulary: Vocabulary, codes: Mapping[str, Category]) -> list[float]:
    """C thresholds from a thresholds.csv with the columns `category` and `threshold`; a category's first row counts.

    Raises:
        UserError: not such a file, or a category of the vocabulary is missing.
    """
    table = Table(path)
    rows = zip(table.column("category"), table.numbers("threshold"), strict=True)
    of_category: dict[Category, float] = {}
    for cell, threshold in rows:
        of_category.setdefault(codes.get(cell, cell), threshold)
    if missing := [category for category in vocabulary.categories if category not in of_category]:
        raise UserError(f"{path}: no threshold of category {missing[0]}; {HINT}")
    return [of_category[category] for category in vocabulary.categories]


# --- JSON -----------------------------------------------------------------------------------------------------------


def by_number(mapping: object, path: Path) -> list[Any]:
    """The values of an object whose keys are "0", "1", … in the order of these numbers, or of a list.

    Raises:
        UserError: something else, or a number is missing.
    """
    if isinstance(mapping, list):
        return mapping
    try:
        assert isinstance(mapping, dict)
        return [mapping[str(number)] for number in range(len(mapping))]
    except (AssertionError, KeyError):
        raise UserError(f"{path}: not labels numbered from 0; {HINT}") from None


def mapped_vocabulary(data: Mapping[str, Any], path: Path) -> Vocabulary:
    """The labels of an object with `idx_to_tag` and `tag_to_category`.

    A category is a word, or a place in a list `categories`; a tag that has none is general.

    Raises:
        UserError: not such an object.
    """
    names, of_tag = by_number(data.get("idx_to_tag"), path), data.get("tag_to_category")
    listed: Any = data.get("categories")
    if not isinstance(of_tag, dict):
        raise UserError(f"{path}: no tag_to_category; {HINT}")
    words: dict[Any, Category] = {}
    categories: list[Category] = []
    try:
        for name in names:
            word = of_tag.get(name, "general")
            if word not in words:
                is_place = isinstance(word, int) and not isinstance(word, bool) and isinstance(listed, list)
                words[word] = named_category(listed[word] if is_place else word, path)
            categories.append(words[word])
    except (TypeError, IndexError):
        raise UserError(f"{path}: a category of no known kind; {HINT}") from None
    return make_vocabulary(names, categories)
