"""Encodings of small texts, told apart by evidence.

python -m pytest tests/formats/test_text_encoding.py
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger.formats.text_encoding import decode

CHINESE = ["长发", "蓝眼睛", "看着观众", "初音未来", "微笑", "独自一人", "裙子", "原神", "明日方舟", "画师", "1girl"]
JAPANESE = ["初音ミク", "長い髪", "ソロ", "見ている", "東方Project", "博麗霊夢", "制服", "笑顔", "猫耳", "アーチャー"]


@given(st.lists(st.sampled_from(CHINESE), min_size=1).map(", ".join), st.sampled_from(["gbk", "gb18030"]))
def test_chinese(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding))[0] == text


@given(st.lists(st.sampled_from(JAPANESE), min_size=1).map(", ".join), st.sampled_from(["cp932", "shift_jis"]))
def test_japanese(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding))[0] == text


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff\0"), max_size=40),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
)
def test_unicode_with_its_marks(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding))[0] == text


@given(st.lists(st.sampled_from([*CHINESE, "solo"]), min_size=2).map("1girl, ".join), st.sampled_from("lb"))
def test_utf16_without_a_mark(text: str, order: str) -> None:
    assert decode(text.encode(f"utf-16-{order}e")) == (text, f"utf-16-{order}e")


@pytest.mark.parametrize("data", [b"caf\xe9", bytes(range(128, 256)), b"\xff\xfea", b"\x81"])
def test_what_is_none_of_them_is_an_error(data: bytes) -> None:
    with pytest.raises(UnicodeError):
        decode(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_text_or_an_error(data: bytes) -> None:
    try:
        text, encoding = decode(data)
    except UnicodeError:
        return
    assert decode(text.encode("utf-8"))[0] == text.lstrip("\ufeff") or "\0" in text
    assert encoding
