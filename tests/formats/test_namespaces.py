"""namespaces.py: `creator:name` and its kind, in whatever spelling.

python -m pytest tests/formats/test_namespaces.py
"""

import pytest

from tagger.formats.namespaces import NamespaceReader
from tagger.formats.vocabulary import ARTIST, CHARACTER, COPYRIGHT, META


@pytest.mark.parametrize(
    ("written", "name", "category"),
    [
        ("creator:ke ta", "ke_ta", ARTIST),
        ("artist: ke-ta", "ke-ta", ARTIST),
        ("(artist:ke-ta:1.2)", "ke-ta", ARTIST),
        ("1.3::artist:ke-ta::", "ke-ta", ARTIST),
        (r"character:saber \(fate\)", "saber_(fate)", CHARACTER),
        ("series:re:zero", "re:zero", COPYRIGHT),
        ("copyright:fate", "fate", COPYRIGHT),
        ("meta:highres", "highres", META),
        ("rating:safe", "general", None),
        ("rating:e", "explicit", None),
        ("rating:5", "rating:5", None),
        ("clothing:hat", "clothing:hat", None),
        ("creator:", "creator:", None),
        (":d", ":d", None),
        ("meta:known", "meta:known", None),  # the vocabulary has it
    ],
)
def test_namespaces_are_categories(written: str, name: str, category: int | None) -> None:
    reader = NamespaceReader({"meta:known", "solo"})
    assert reader.name(written) == name
    assert reader.categories == ({} if category is None else {name: category})


def test_the_first_word_on_a_name_holds() -> None:
    reader = NamespaceReader()
    assert reader.read("ke-ta, creator:ke-ta, character:ke-ta") == ["ke-ta"]
    assert reader.categories == {"ke-ta": ARTIST}
