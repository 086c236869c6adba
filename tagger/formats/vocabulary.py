"""The vocabulary (selected_tags.csv): names and categories of the labels, in the order of their indices.

Row number = label index, so a vocabulary only ever grows at its end. Nothing heavy is imported here.

    python -c "from tagger.formats.vocabulary import read_vocabulary as r; print(len(r('selected_tags.csv')))"
"""

import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tagger.files import UserError, csv_text, read_csv, read_json, write_bytes, write_csv, write_text

# Danbooru's numbers; 9 is SmilingWolf's for the four ratings.
RATING, GENERAL, CHARACTER, ARTIST, COPYRIGHT, META = 9, 0, 4, 1, 3, 5
CATEGORY_NUMBERS = {
    "rating": RATING,
    "general": GENERAL,
    "character": CHARACTER,
    "artist": ARTIST,
    "copyright": COPYRIGHT,
    "meta": META,
}
CATEGORY_NAMES = {number: name for name, number in CATEGORY_NUMBERS.items()}

Category = int | str  # one of the numbers above, or the name of a kind that only some taggers have, such as "year"
CATEGORY_NAME = re.compile(r"[a-z][a-z_]{0,30}")

# Danbooru's letters for them, in the order of WD v3's first four rows.
RATINGS = {"g": "general", "s": "sensitive", "q": "questionable", "e": "explicit"}

VOCABULARY_FILE = "selected_tags.csv"  # in a folder of records or of a checkpoint
WD_COLUMNS = ("tag_id", "name", "category", "count")  # WD v3's vocabulary, for tools that read by position
CATEGORIES_FILE = "tag_categories.csv"  # in a dataset folder: which of its tags are characters or artists
# In a folder of records or of a model; `num_classes` in it is the number of the vocabulary's rows.
COUNTED_BY = ("aibooru.json", "config.json")


@dataclass(frozen=True)
class Vocabulary:
    """The labels of a dataset or a model, in the order of their indices.

    Attributes:
        names: C tag names in Danbooru's spelling. In a vocabulary of ours each is there once; in a public tagger's one
            may stand in two categories, as two labels, and a label that nobody named is "".
        categories: C categories, see Category.
        counts: C numbers of uses, or None where the file has no such column.
    """

    names: tuple[str, ...]
    categories: tuple[Category, ...]
    counts: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def name(self, label: int) -> str:
        """The name of one label."""
        return self.names[label]

    def category(self, label: int) -> Category:
        """The category of one label."""
        return self.categories[label]

    @cached_property
    def index(self) -> dict[str, int]:
        """Label index by tag name; of a name that stands in two categories, the first."""
        index = dict(zip(reversed(self.names), range(len(self.names) - 1, -1, -1), strict=True))
        index.pop("", None)
        return index

    @property
    def rows(self) -> Mapping[str, int]:
        """The same as `index`, which is only made when something is looked up: of 100,000 names it takes a while."""
        return _Rows(self)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over the names joined by newlines: the fingerprint that datasets and checkpoints carry."""
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()

    @cached_property
    def _by_category(self) -> dict[Category, list[int]]:
        members: dict[Category, list[int]] = {}
        for i, category in enumerate(self.categories):
            if self.names[i]:
                members.setdefault(category, []).append(i)
        return members

    def indices(self, category: Category) -> list[int]:
        """The label indices of one category, rising, but for labels without a name."""
        return self._by_category.get(category, [])

    def _kinds(self) -> Iterable[Category]:
        """The categories that it has tags of."""
        return self._by_category

    @property
    def category_names(self) -> list[str]:
        """The names of the categories that it has tags of: those of CATEGORY_NUMBERS in that order, then the others."""
        have = map(category_name, self._kinds())
        return sorted(have, key=lambda name: _ORDER.get(name, len(_ORDER)))


class _Rows(Mapping[str, int]):
    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def __getitem__(self, name: str) -> int:
        return self._vocabulary.index[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._vocabulary.index)

    def __len__(self) -> int:
        return len(self._vocabulary.index)


_ORDER = {name: place for place, name in enumerate(CATEGORY_NUMBERS)}


def category_name(category: Category) -> str:
    """`artist` of 1; a kind that has no number is its own name."""
    return CATEGORY_NAMES[category] if isinstance(category, int) else category


def category_of(name: str) -> Category:
    """1 of `artist`; a name that has no number is its own."""
    return CATEGORY_NUMBERS.get(name, name)


# --- selected_tags.csv ----------------------------------------------------------------------------------------------


def read_vocabulary(path: Path | str, hint: str = "name another CSV") -> Vocabulary:
    """Read a CSV with the columns `name` and `category`, and optionally `count`, in any order.

    WD v3's `tag_id,name,category,count` reads as well, and so does a dataset's tag_categories.csv. Names such as
    `null`, `nan` or `don't_say_"lazy"` are tags, which is why this is no job for a reader that guesses types.

    Args:
        hint: ends the error for a missing file.

    Raises:
        UserError: missing file, missing column, or a row with a blank or repeated name or an unknown category;
            the message names the row as a spreadsheet numbers it.
    """
    header, rows = read_csv(path, hint, ("name", "category"))
    name_at, category_at = header.index("name"), header.index("category")
    count_at = header.index("count") if "count" in header else None
    names: dict[str, Category] = {}
    counts: list[int] = []
    for number, row in rows:
        name, category = row[name_at], _read_category(path, number, row[category_at])
        if not name or name != name.strip() or "\n" in name or "\r" in name:
            raise UserError(f"{path}: row {number}: {name!r} is no tag name; give it one without blanks around it")
        if name in names:
            raise UserError(f"{path}: row {number}: {name} stands twice; remove this row or the earlier one")
        names[name] = category
        if count_at is not None:
            counts.append(int(row[count_at]) if row[count_at].isdecimal() else 0)
    return Vocabulary(tuple(names), tuple(names.values()), None if count_at is None else tuple(counts))


def read_categories(path: Path | str) -> dict[str, Category]:
    """Category by tag name, from a dataset's tag_categories.csv or from any vocabulary.

    Raises:
        UserError: see `read_vocabulary`.
    """
    vocabulary = read_vocabulary(path)
    return dict(zip(vocabulary.names, vocabulary.categories, strict=True))


def categories_in(folders: Iterable[Path]) -> dict[str, Category]:
    """Category by tag name, from each folder's tag_categories.csv where it has one; the first that knows a tag decides.

    Raises:
        UserError: see `read_vocabulary`.
    """
    known: dict[str, Category] = {}
    for folder in folders:
        if (path := folder / CATEGORIES_FILE).exists():
            known = {**read_categories(path), **known}
    return known


def _read_category(path: Path | str, row: int, text: str) -> Category:
    category = text.strip()
    if category.isdecimal() and int(category) in CATEGORY_NAMES:
        return int(category)
    if CATEGORY_NAME.fullmatch(category):
        return category_of(category)
    known = ", ".join(f"{number} ({name})" for name, number in CATEGORY_NUMBERS.items())
    raise UserError(f"{path}: row {row}: category {text!r} is none of {known}, nor a word in small letters")


def write_vocabulary(path: Path | str, vocabulary: Vocabulary) -> None:
    """Write `name,category`, and `count` where the vocabulary has counts."""
    columns: list[Sequence[object]] = [vocabulary.names, vocabulary.categories]
    header = ["name", "category"]
    if vocabulary.counts is not None:
        columns.append(vocabulary.counts)
        header.append("count")
    write_csv(path, header, zip(*columns, strict=True))


def check_may_grow(path: Path | str, vocabulary: Vocabulary, hint: str) -> None:
    """Refuse to change a vocabulary whose rows are those of the records or the model in its folder.

    Args:
        path: of the CSV.
        vocabulary: what it holds.
        hint: ends the error, as in "copy it, and name the copy".

    Raises:
        UserError: the file beside it says that it has just as many classes.
    """
    for name in COUNTED_BY if Path(path).name == VOCABULARY_FILE else ():
        classes = None
        with contextlib.suppress(UserError):  # not there, or nothing of ours
            classes = read_json(Path(path).with_name(name), "").get("num_classes")
        if classes == len(vocabulary):
            raise UserError(f"{path}: belongs to the {name} beside it, which has as many classes; {hint}")


def keep_before(path: Path | str) -> Path:
    """Copy a CSV that is about to change to its `before_path`, over an older copy; the copy's path."""
    kept = before_path(path)
    write_bytes(kept, Path(path).read_bytes())
    return kept


def before_path(path: Path | str) -> Path:
    """Where the version before the last change is kept: selected_tags.before.csv."""
    path = Path(path)
    return path.with_name(f"{path.stem}.before{path.suffix}")


def append_to_vocabulary(path: Path | str, new: Iterable[tuple[str, Category]]) -> None:
    """Add (name, category) rows at the end of a CSV that stands; its own rows and columns stay byte for byte.

    For a run that has its lock, or a row that another run adds at the same time might be lost.
    """
    text = Path(path).read_bytes().decode("utf-8")
    header, _ = read_csv(path, "name another CSV", ("name", "category"))
    cells = ({"name": name, "category": category} for name, category in new)
    rows = csv_text([cell.get(column, "") for column in header] for cell in cells)
    if text and not text.endswith("\n"):
        text += "\n"
    write_text(path, text + rows)


def first_difference(given: Sequence[str], expected: Sequence[str]) -> str:
    """One sentence on the first row at which two lists of names part; the row is numbered as in a spreadsheet."""
    for row, (name, wanted) in enumerate(zip(given, expected, strict=False), start=2):
        if name != wanted:
            return f"row {row} is {name}, not {wanted}"
    return f"it has {len(given)} tags, not {len(expected)}"
