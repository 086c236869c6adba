"""How tags hang together: tag_aliases.csv and tag_implications.csv, which lie beside a vocabulary.

    python generate_selected_tags.py --from-danbooru --implications --aliases

Danbooru adds the tags that a tag implies by itself: `very_long_hair` implies `long_hair`. And it renames tags: who
writes an alias gets today's name.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tagger.files import UserError, read_csv
from tagger.formats.tag_lists import danbooru_spelling
from tagger.formats.vocabulary import RATINGS

Value = TypeVar("Value")

ALIASES_FILE = "tag_aliases.csv"  # beside a vocabulary: ALIAS_COLUMNS
ALIAS_COLUMNS = ("alias", "name")  # an old name, and today's
IMPLICATIONS_FILE = "tag_implications.csv"  # beside a vocabulary: IMPLICATION_COLUMNS
IMPLICATION_COLUMNS = ("antecedent", "consequent")  # who has the first tag should have the second


# --- aliases --------------------------------------------------------------------------------------------------------


def aliases_beside(vocabulary: Path) -> Path | None:
    """The file of old names that lies beside a vocabulary; None where there is none."""
    path = vocabulary.with_name(ALIASES_FILE)
    return path if path.exists() else None


def read_aliases(path: Path, hint: str = "") -> dict[str, str]:
    """The next name by old name, from the columns `alias` and `name`; see `canonical_names`.

    Args:
        hint: ends an error, as in "name another CSV".

    Raises:
        UserError: missing, not UTF-8, not CSV, or without one of the columns.
    """
    hint = hint or f"give it the columns {' and '.join(ALIAS_COLUMNS)}, or remove {path.name}"
    pairs = _read_pairs(path, hint, ALIAS_COLUMNS)
    return {danbooru_spelling(alias): danbooru_spelling(name) for alias, name in pairs if alias and name}


def canonical_names(aliases: Mapping[str, str], known: Container[str] = ()) -> dict[str, str]:
    """The one name that is used of each tag that has several: today's, which is at the end of its chain of aliases.

    A row of a vocabulary keeps its meaning: where the vocabulary lacks today's name and has an older one, the older one
    is used of the tag, and today's is read as it. So to append names that are used changes the use of no name. Names in
    a circle, and those that lead into one, stay as they are, and so do ratings, which are no tags.

    Args:
        aliases: the next name by old name, in Danbooru's spelling.
        known: the names of the vocabulary, which may write blanks where Danbooru writes underscores.

    Returns:
        What is used for each name, where that is another one.
    """
    links = {old: name for old, name in aliases.items() if not {old, name} & set(RATINGS.values())}
    tags: dict[str, list[tuple[int, str]]] = {}  # the names of a tag by today's, each with its distance from it
    for name, place in _places(links).items():
        if place is not None:
            today, distance = place
            tags.setdefault(today, [(0, today)]).append((distance, name))
    found: dict[str, str] = {}
    for today, names in tags.items():
        spelt = [_as_known(name, known) for _, name in sorted(names)]
        used = next((name for name in spelt if name in known), today)
        found |= {name: used for _, name in names if _as_known(name, known) != used}
    return found


def _places(links: Mapping[str, str]) -> dict[str, tuple[str, int] | None]:
    """For each name with a link the end of its chain and how far that is; None where a circle lies ahead."""
    places: dict[str, tuple[str, int] | None] = {}
    for start in links:
        chain: dict[str, None] = {}
        name = start
        while name in links and name not in places and name not in chain:
            chain[name] = None
            name = links[name]
        place = None if name in chain else places.get(name, (name, 0))
        for each in reversed(chain):
            place = place and (place[0], place[1] + 1)
            places[each] = place
    return places


def under_canonical_names(values: Mapping[str, Value], names: Mapping[str, str]) -> dict[str, Value]:
    """What is known by tag, such as the category: the name that is used has it, too, where it has nothing of its own.

    Args:
        names: see `canonical_names`.
    """
    return {**{used: values[name] for name, used in names.items() if name in values}, **values}


def _as_known(name: str, known: Container[str]) -> str:
    """A name as a vocabulary spells it."""
    spaced = name.replace("_", " ")
    return spaced if name not in known and spaced in known else name


# --- implications ---------------------------------------------------------------------------------------------------


class Implications:
    """Which tags a tag implies, at once or over others.

    Args:
        pairs: (antecedent, consequent); circles and repetitions do no harm.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self.direct: dict[str, list[str]] = {}
        for antecedent, consequent in pairs:
            self.direct.setdefault(antecedent, []).append(consequent)
        self._implied: dict[str, tuple[str, ...]] = {}

    def implied(self, name: str) -> tuple[str, ...]:
        """All tags that a tag implies, the nearest first, never itself."""
        if name not in self._implied:
            found = {name: None}
            waiting = [name]
            for each in waiting:  # grows as it is read
                new = [other for other in dict.fromkeys(self.direct.get(each, ())) if other not in found]
                found.update(dict.fromkeys(new))
                waiting += new
            self._implied[name] = tuple(found)[1:]
        return self._implied[name]

    def broader(self, name: str) -> tuple[str, ...]:
        """The tags that a tag implies without being implied by them: of tags in a circle, none is the broader one."""
        return tuple(other for other in self.implied(name) if name not in self.implied(other))

    def pruned(self, names: Sequence[str]) -> list[str]:
        """The names without those that are broader than another."""
        needless = {broader for name in names for broader in self.broader(name)}
        return [name for name in names if name not in needless]

    def expanded(self, names: Sequence[str]) -> list[str]:
        """The names, and behind each the ones that it implies and that are not there."""
        present = set(names)
        expanded = []
        for name in names:
            new = [other for other in self.implied(name) if other not in present]
            present.update(new)
            expanded += [name, *new]
        return expanded

    def spelt_like(self, known: Container[str]) -> "Implications":
        """The same among names of a vocabulary, which may write blanks where Danbooru writes underscores."""
        return Implications(
            (_as_known(one, known), _as_known(other, known)) for one, others in self.direct.items() for other in others
        )


def read_implications(path: Path, hint: str) -> Implications:
    """The implications of a CSV with the columns `antecedent` and `consequent`.

    Args:
        hint: ends an error, as in "fetch the file again".

    Raises:
        UserError: missing, not UTF-8, not CSV, or without one of the columns.
    """
    if not path.exists():
        raise UserError(f"{path}: missing; {hint}")
    pairs = _read_pairs(path, hint, IMPLICATION_COLUMNS)
    return Implications((antecedent, consequent) for antecedent, consequent in pairs if antecedent and consequent)


def _read_pairs(path: Path, hint: str, columns: tuple[str, str]) -> Iterable[tuple[str, str]]:
    header, rows = read_csv(path, hint, columns)
    first, second = map(header.index, columns)
    return ((row[first].strip(), row[second].strip()) for _, row in rows)
