"""translations.py: every form of the CSV that people pass on.

python -m pytest tests/formats/test_translations.py
"""

import time
from pathlib import Path

import pytest

from tagger.files import UserError
from tagger.formats.translations import Translations, read_translations


def read(folder: Path, text: str, encoding: str = "utf-8") -> Translations:
    path = folder / "zh.csv"
    path.write_bytes(text.encode(encoding))
    return read_translations(path, "check it")


@pytest.mark.parametrize(
    "text",
    [
        "1girl,1个女孩\nlong_hair,长发\nsolo,单人\n",
        "tag,translation\n1girl,1个女孩\nlong_hair,长发\nsolo,单人\n",
        "Name,Category,count,Translation\n1girl,0,9,1个女孩\nlong_hair,0,8,长发\nsolo,0,7,单人\n",
        "1girl,0,1个女孩\nlong_hair,0,长发\nsolo,0,单人\nhat,0\nskirt,0,\n",  # tagcomplete's older form
        'long hair,长发\r\n"1girl"," 1个女孩 "\r\n\r\n,\r\nsolo,单人,,\r\n,nobody\r\n',
        "tag\n1girl,1个女孩\nlong_hair,长发\nsolo,单人\n",  # a header that is shorter than the rows
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_every_form(tmp_path: Path, text: str, encoding: str) -> None:
    found = read(tmp_path, text, encoding)
    names = ["1girl", "long_hair", "solo", "hat"]
    assert found.among(names) == {"1girl": ("1个女孩",), "long_hair": ("长发",), "solo": ("单人",)}
    assert found.count == 3 and found.of("hat") == ()


def test_several_translations_keep_their_order_and_stand_once(tmp_path: Path) -> None:
    found = read(tmp_path, "solo,单人|独自\nhat,帽\nsolo,一人,单人\nsolo,|\n")
    assert found.of("solo") == ("单人", "独自", "一人")


def test_a_tag_is_found_in_any_spelling(tmp_path: Path) -> None:
    found = read(tmp_path, "saber \\(fate\\),阿尔托莉雅\n^_^,笑\n\\m/,摇滚\n__proto__,原型\nlong_hair,长发\n")
    for name, translation in [
        ("saber_(fate)", "阿尔托莉雅"),
        ("saber (fate)", "阿尔托莉雅"),  # of a vocabulary with blanks
        ("^_^", "笑"),
        ("\\m/", "摇滚"),
        ("__proto__", "原型"),
        ("long hair", "长发"),
    ]:
        assert found.of(name) == (translation,)


def test_what_nobody_could_read_is_passed_over(tmp_path: Path) -> None:
    found = read(tmp_path, f'a,{"长" * 300}\nb,\u202eabc\nc,长\x07发\nd,"长\n发"\n')
    assert found.among("abcd") == {"d": ("长 发",)}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("solo,单人\n".encode("gbk"), "not UTF-8 at byte 5; save it as UTF-8"),
        (b'solo,"x', "row 1: not CSV"),
        (None, "no such file; check it"),
    ],
)
def test_unusable_files_are_one_line(tmp_path: Path, data: bytes | None, reason: str) -> None:
    path = tmp_path / "zh.csv"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError) as raised:
        read_translations(path, "check it")
    assert reason in str(raised.value) and "\n" not in str(raised.value)


def test_an_empty_file_has_none(tmp_path: Path) -> None:
    assert [read(tmp_path, text).count for text in ("", "\n,\n", "1girl\n")] == [0, 0, 0]


def test_a_hundred_thousand_rows_take_a_moment(tmp_path: Path) -> None:
    text = "".join(f"tag number {i},标签{i}\n" for i in range(100_000))
    began = time.process_time()
    found = read(tmp_path, text)
    assert found.count == 100_000 and time.process_time() - began < 3
