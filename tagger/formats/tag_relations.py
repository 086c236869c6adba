"""How tags hang together: tag_aliases.csv and tag_implications.csv, which lie beside a vocabulary.

    python generate_selected_tags.py --from-danbooru --implications

Danbooru adds the tags that a tag implies by itself: `very_long_hair` implies `long_hair`.
"""

from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from tagger.files import UserError, read_csv

ALIASES_FILE = "tag_aliases.csv"  # beside a vocabulary: `alias,name`, an old name and today's
IMPLICATIONS_FILE = "tag_implications.csv"  # beside a vocabulary: IMPLICATION_COLUMNS
IMPLICATION_COLUMNS = ("antecedent", "consequent")  # who has the first tag should have the second


def read_aliases(path: Path) -> dict[str, str]:
    """Today's name by old name, from the columns `alias` and `name`.

    Raises:
        UserError: missing, not UTF-8, not CSV, or without one of the columns.
    """
    header, rows = read_csv(path, f"give it the columns alias and name, or remove {path.name}", ("alias", "name"))
    alias_at, name_at = header.index("alias"), header.index("name")
    return {row[alias_at]: row[name_at] for _, row in rows if row[alias_at] and row[name_at]}


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

        def name(tag: str) -> str:
            spaced = tag.replace("_", " ")
            return spaced if tag not in known and spaced in known else tag

        return Implications((name(one), name(other)) for one, others in self.direct.items() for other in others)


def read_implications(path: Path, hint: str) -> Implications:
    """The implications of a CSV with the columns `antecedent` and `consequent`.

    Args:
        hint: ends an error, as in "fetch the file again".

    Raises:
        UserError: missing, not UTF-8, not CSV, or without one of the columns.
    """
    if not path.exists():
        raise UserError(f"{path}: missing; {hint}")
    header, rows = read_csv(path, hint, IMPLICATION_COLUMNS)
    places = [header.index(column) for column in IMPLICATION_COLUMNS]
    pairs = ([row[place].strip() for place in places] for _, row in rows)
    return Implications((antecedent, consequent) for antecedent, consequent in pairs if antecedent and consequent)
