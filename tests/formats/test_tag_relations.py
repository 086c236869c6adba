"""Implications and aliases: over others, in circles, and among names with blanks.

python -m pytest tests/formats/test_tag_relations.py
"""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger.files import UserError
from tagger.formats.tag_lists import TagReader
from tagger.formats.tag_relations import (
    Implications,
    aliases_beside,
    canonical_names,
    read_aliases,
    read_implications,
    under_canonical_names,
)
from tests.helpers import write_csv

PAIRS = [
    ("absurdly_long_hair", "very_long_hair"),
    ("very_long_hair", "long_hair"),
    ("very_long_hair", "long_hair"),
    ("cat_girl", "animal_ears"),
    ("cat_girl", "girl"),
    ("left", "right"),
    ("right", "left"),
    ("left", "side"),
    ("self", "self"),
]


def test_what_is_implied_over_others() -> None:
    known = Implications(PAIRS)
    assert known.implied("absurdly_long_hair") == ("very_long_hair", "long_hair")
    assert known.implied("left") == ("right", "side") and known.implied("right") == ("left", "side")
    assert known.implied("self") == known.implied("unknown") == ()


def test_pruned() -> None:
    known = Implications(PAIRS)
    assert known.pruned(["long_hair", "absurdly_long_hair", "hair"]) == ["absurdly_long_hair", "hair"]
    assert known.pruned(["animal_ears", "long_hair"]) == ["animal_ears", "long_hair"]
    assert known.pruned(["side", "left", "right"]) == ["left", "right"]  # neither is the broader one
    assert known.pruned(["self"]) == ["self"]


def test_expanded() -> None:
    known = Implications(PAIRS)
    assert known.expanded(["absurdly_long_hair", "hat", "long_hair"]) == [
        *("absurdly_long_hair", "very_long_hair", "hat", "long_hair")
    ]
    assert known.expanded(["left", "cat_girl"]) == ["left", "right", "side", "cat_girl", "animal_ears", "girl"]


def test_a_vocabulary_with_blanks() -> None:
    known = Implications(PAIRS).spelt_like({"very long hair", "long hair", "cat_girl"})
    assert known.pruned(["long hair", "very long hair"]) == ["very long hair"]
    assert known.implied("cat_girl") == ("animal_ears", "girl")


def test_a_long_chain_is_no_recursion() -> None:
    known = Implications((str(n), str(n + 1)) for n in range(5000))
    assert len(known.implied("0")) == 5000


def test_reading(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "tag_implications.csv", ["x,a,b", "x,,c", "x,d,", "x, b ,c"], "id,antecedent,consequent"
    )
    assert read_implications(path, "hint").implied("a") == ("b", "c")
    with pytest.raises(UserError, match="missing; hint"):
        read_implications(tmp_path / "none.csv", "hint")
    with pytest.raises(UserError, match="no column antecedent; hint"):
        read_implications(write_csv(path, ["a,b"], "old,consequent"), "hint")


# --- aliases --------------------------------------------------------------------------------------------------------

CHAIN = {"a": "b", "b": "c"}


@pytest.mark.parametrize(
    ("known", "used"),
    [((), "c"), (("c",), "c"), (("a", "b", "c"), "c"), (("b",), "b"), (("a",), "a"), (("a", "b"), "b")],
)
def test_the_newest_name_that_the_vocabulary_has(known: tuple[str, ...], used: str) -> None:
    """A row keeps its meaning: where there is none of today's name, today's name is read as the row's."""
    expected = {name: used for name in "abc" if name != used}
    assert canonical_names(CHAIN, known) == expected
    assert canonical_names(dict(reversed(CHAIN.items())), known) == expected


def test_several_old_names_of_one_tag() -> None:
    aliases = {"second": "today", "first": "today", "oldest": "first"}
    assert canonical_names(aliases) == dict.fromkeys(["second", "first", "oldest"], "today")
    assert canonical_names(aliases, ("oldest", "second")) == dict.fromkeys(["first", "oldest", "today"], "second")
    assert canonical_names(aliases, ("second", "first")) == dict.fromkeys(["second", "oldest", "today"], "first")


def test_circles_and_what_leads_into_them_stay() -> None:
    aliases = {"in": "one", "one": "two", "two": "one", "self": "self", "x": "y"}
    assert canonical_names(aliases, ("two",)) == {"x": "y"}


def test_a_rating_is_no_name_of_a_tag() -> None:
    assert canonical_names({"explicit": "nsfw", "r18": "explicit", "x": "r18"}) == {"x": "r18"}


def test_aliases_in_a_vocabulary_with_blanks() -> None:
    found = canonical_names({"old_hat": "new_hat", "b": "old_hat"}, ("new hat",))
    assert found == {"old_hat": "new hat", "b": "new hat"}
    assert canonical_names({"old_hat": "new_hat"}, ("old hat",)) == {"new_hat": "old hat"}
    reader = TagReader(("new hat",), found)
    assert reader.read("old hat, old_hat, new hat, b, solo") == ["new hat", "solo"]


def test_a_long_chain_takes_a_moment() -> None:
    aliases = {str(number): str(number + 1) for number in range(100_000)}
    assert set(canonical_names(aliases).values()) == {"100000"}


few_names = st.sampled_from("abcdefgh")


@given(st.dictionaries(few_names, few_names), st.sets(few_names), st.sets(few_names))
def test_one_name_is_used_of_each_tag(aliases: dict[str, str], known: set[str], seen: set[str]) -> None:
    found = canonical_names(aliases, known)
    assert not found.keys() & set(found.values())  # who is used has no other name
    used = {found.get(name, name) for name in seen}
    # What create_tfrecord.py does: names that are used get rows, and the next run must read all as this one did.
    again = canonical_names(aliases, known | used)
    assert {found.get(name, name) for name in seen} == {again.get(name, name) for name in seen}


def test_other_names_in_a_txt() -> None:
    known = {"hat", "bow", "bow_(old)"}
    reader = TagReader(known, canonical_names({"headgear_hat": "hat", "bow_(old)": "bow"}, known))
    assert reader.read("headgear hat, hat, (headgear_hat:1.2), bow \\(old\\), solo") == ["hat", "bow", "solo"]
    assert reader.renamed == {"headgear_hat": "hat", "bow_(old)": "bow"}
    assert reader.renamed_in_words() == "2 tags read under another name, such as headgear_hat as hat"
    assert TagReader({"hat"}).renamed_in_words() == ""


def test_the_name_that_is_used_has_what_the_other_had() -> None:
    names = {"old": "new", "older": "new", "x": "y"}
    assert under_canonical_names({"old": 1, "z": 4}, names) == {"old": 1, "new": 1, "z": 4}
    assert under_canonical_names({"old": 1, "new": 3}, names)["new"] == 3


def test_reading_aliases(tmp_path: Path) -> None:
    rows = ["1, a ,b", "2,,c", "3,d,", "4,long hairs,long hair"]
    path = write_csv(tmp_path / "tag_aliases.csv", rows, "id,alias,name")
    assert aliases_beside(tmp_path / "tags.csv") == path and aliases_beside(tmp_path / "x" / "tags.csv") is None
    assert read_aliases(path) == {"a": "b", "long_hairs": "long_hair"}
    with pytest.raises(UserError, match="no column alias and name; give it the columns alias and name, or remove"):
        read_aliases(write_csv(path, ["a,b"], "old,new"))
