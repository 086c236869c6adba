"""Implications among tags: over others, in circles, and among names with blanks.

python -m pytest tests/formats/test_tag_relations.py
"""

from pathlib import Path

import pytest

from tagger.files import UserError
from tagger.formats.tag_relations import Implications, read_implications
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
