"""packed_vocabulary.py: every question has the answer that the vocabulary itself gives.

python -m pytest tests/formats/test_packed_vocabulary.py
"""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tagger.formats.families.description import packed, unpacked
from tagger.formats.families.registry import open_folder
from tagger.formats.packed_vocabulary import pack, unpack
from tagger.formats.vocabulary import Category, Vocabulary
from tests.helpers import ODD_NAMES

NAMES = st.one_of(st.sampled_from(["", *ODD_NAMES]), st.text(st.characters(exclude_characters="\n"), max_size=5))
KINDS: st.SearchStrategy[Category] = st.sampled_from([9, 0, 4, 1, 3, 5, "year", "style"])


@given(st.lists(st.tuples(NAMES, KINDS), max_size=12))
def test_a_packed_vocabulary_answers_as_the_vocabulary_does(rows: list[tuple[str, Category]]) -> None:
    vocabulary = Vocabulary(tuple(name for name, _ in rows), tuple(kind for _, kind in rows))
    data = pack(vocabulary)
    assert data is not None
    found = unpack(data)
    assert len(found) == len(vocabulary)
    assert [(found.name(label), found.category(label)) for label in range(len(rows))] == rows
    assert found.category_names == vocabulary.category_names
    for kind in (9, 0, 4, 1, 3, 5, "year", "style", "unknown"):
        assert found.indices(kind) == vocabulary.indices(kind)
    assert found.names == vocabulary.names and found.categories == vocabulary.categories
    assert (found.counts, found.sha256, found.index) == (None, vocabulary.sha256, vocabulary.index)


def test_what_cannot_be_packed_is_not() -> None:
    assert pack(Vocabulary(("two\nlines",), (0,))) is None
    kinds = tuple(f"kind_{chr(97 + number // 26)}{chr(97 + number % 26)}" for number in range(257))
    assert pack(Vocabulary(kinds, kinds)) is None
    assert pack(Vocabulary(kinds[1:], kinds[1:])) is not None


def test_a_damaged_description_is_none(checkpoint: Path) -> None:
    described = open_folder(checkpoint)
    data = packed(described)
    assert data is not None
    found = unpacked(data)
    assert found is not None and found.vocabulary.names == described.vocabulary.names
    assert (found.weights, found.preparation, found.identity()) == (
        described.weights,
        described.preparation,
        described.identity(),
    )
    for position in range(0, len(data), 7):
        assert unpacked(data[:position]) is None
        assert unpacked(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]) is None
