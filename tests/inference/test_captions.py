"""captions.py: spelling, order, and the txt beside an image.

python -m pytest tests/inference/test_captions.py
"""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger.files import UserError
from tagger.formats.tag_lists import KAOMOJI, danbooru_spelling, parse_tags, spell
from tagger.inference.captions import Style, appended, in_order, join, write_caption
from tests.helpers import ODD_NAMES

NAMES = ["long_hair", "1girl", "^_^", "saber_(fate)", "solo"]

PROBABILITIES = dict(zip(NAMES, (0.9, 0.8, 0.7, 0.95, 0.5), strict=True))

INDEX = dict(zip(NAMES, (4, 0, 2, 1, 3), strict=True))

tag_names = st.one_of(
    st.sampled_from([*ODD_NAMES, *sorted(KAOMOJI)]),
    st.text(
        st.characters(exclude_categories=("Cs", "Cc", "Z"), exclude_characters=",;，、|\ufeff\\"),
        min_size=1,
        max_size=12,
    ),
)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("category", NAMES),
        ("probability", ["saber_(fate)", "long_hair", "1girl", "^_^", "solo"]),
        ("csv", ["1girl", "saber_(fate)", "^_^", "solo", "long_hair"]),
    ],
)
def test_orders(order: str, expected: list[str]) -> None:
    assert in_order(NAMES, Style(order=order), PROBABILITIES, INDEX) == expected


def test_excluded_and_first() -> None:
    style = Style(exclude=("solo", "nothing"), first=("^_^", "not_there", "1girl"))
    assert in_order(NAMES, style, PROBABILITIES, INDEX) == ["^_^", "1girl", "long_hair", "saber_(fate)"]


def test_a_caption_in_either_spelling() -> None:
    assert join(NAMES, Style()) == "long_hair, 1girl, ^_^, saber_(fate), solo"
    spaced = Style(spaces=True, escape=True)
    assert join(NAMES, spaced) == "long hair, 1girl, ^_^, saber \\(fate\\), solo"


@pytest.mark.parametrize("face", ["0_0", ">_<", "^_^", "@_@", "<o>_<o>", "|_|"])
def test_faces_keep_their_underscores(face: str) -> None:
    assert spell(face, spaces=True) == face


@given(st.lists(tag_names, unique=True, max_size=8), st.booleans(), st.booleans())
def test_what_is_written_reads_as_the_same_tags(names: list[str], spaces: bool, escape: bool) -> None:
    style = Style(spaces=spaces, escape=escape)

    def plain(tag: str) -> str:
        return danbooru_spelling(tag.replace("\\", ""))

    read = [plain(tag) for tag in parse_tags(join(names, style))]
    assert read == list(dict.fromkeys(plain(spell(name, spaces=spaces)) for name in names))


# --- the txt beside the image ---------------------------------------------------------------------------------------


def test_appending_keeps_what_stands_there() -> None:
    standing = "my trigger word, Long hair,\n1girl"
    assert appended(standing, "1girl, Long_hair, solo, saber \\(fate\\)") == (
        "my trigger word, Long hair,\n1girl, solo, saber \\(fate\\)"
    )
    assert appended("saber_(fate)", "saber \\(fate\\)") == "saber_(fate)"
    assert appended("", "a, b") == appended(" \n", "a, b") == "a, b"


@given(st.lists(tag_names, max_size=6), st.lists(tag_names, max_size=6))
def test_appending_twice_changes_nothing(standing: list[str], new: list[str]) -> None:
    once = appended(", ".join(standing), ", ".join(new))
    assert appended(once, ", ".join(new)) == once
    assert parse_tags(once)[: len(parse_tags(", ".join(standing)))] == parse_tags(", ".join(standing))


def test_what_becomes_of_a_caption_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    assert write_caption(path, "new", "skip") and path.read_text() == "new"
    assert not write_caption(path, "other", "skip") and path.read_text() == "new"
    assert write_caption(path, "other", "append") and path.read_text() == "new, other"
    assert not write_caption(path, "other", "append")
    assert write_caption(path, "other", "overwrite") and path.read_text() == "other"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"a\.txt: not UTF-8"):
        write_caption(path, "other", "append")
    assert path.read_bytes() == b"\xff\xfe"
