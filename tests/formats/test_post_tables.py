"""post_tables.py: tables of posts in three formats, whole and damaged.

python -m pytest tests/formats/test_post_tables.py
"""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tagger.files import UserError
from tagger.formats import post_tables
from tagger.formats.post_tables import Posts, read_posts

MD5 = "d41d8cd98f00b204e9800998ecf8427e"
ROWS: list[dict[str, Any]] = [
    {"id": 1, "md5": MD5.upper(), "rating": "s", "tag_string_general": "1girl o_o", "tag_string_artist": "ke-ta"},
    {"id": 2, "md5": None, "rating": "explicit", "tag_string_general": "", "tag_string_artist": None},
    {"id": None, "md5": "no md5", "rating": None, "tag_string_general": "hat", "tag_string_artist": ""},
]
TAGS = [["sensitive", "1girl", "o_o", "artist:ke-ta"], ["explicit"], ["hat"]]
SUFFIXES = ["parquet", "jsonl", "csv"]


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n", encoding="utf-8")
    else:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def everything(path: Path) -> tuple[list[Sequence[str]], list[list[str]]]:
    batches: list[Posts] = list(read_posts(path))
    return [keys for batch in batches for keys in batch.keys], [
        tags for batch in batches for tags in batch.tags(range(len(batch)))
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_keys_and_tags_of_each_format(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_table(tmp_path / f"posts.{suffix}", ROWS)
    assert everything(path) == ([["1", MD5], ["2"], []], TAGS)
    monkeypatch.setattr(post_tables, "ROWS", 2)
    assert list(map(len, read_posts(path))) == [2, 1]
    assert everything(path) == ([["1", MD5], ["2"], []], TAGS)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_lists_and_words(tmp_path: Path, suffix: str) -> None:
    rows = [{"id": 7, "rating": "safe", "general": ["long hair", None], "artist": ["ke-ta"], "unrelated": {"a": 1}}]
    path = write_table(tmp_path / f"posts.{suffix}", rows)
    assert everything(path) == ([["7"]], [["general", "long_hair", "artist:ke-ta"]])


def test_only_rows_that_are_asked_for(tmp_path: Path) -> None:
    (posts,) = read_posts(write_table(tmp_path / "posts.parquet", ROWS))
    assert posts.tags([2, 0]) == [TAGS[2], TAGS[0]]


def test_ids_that_became_floats(tmp_path: Path) -> None:
    rows = [{"id": 12.0, "tags": "a"}, {"id": float("nan"), "tags": "b"}]
    assert everything(write_table(tmp_path / "posts.parquet", rows))[0] == [["12"], []]


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        list(read_posts(path))
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def test_what_is_no_table_is_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(tmp_path / "gone.csv").startswith("no such file")
    (tmp_path / "posts.xlsx").touch()
    assert refusal(tmp_path / "posts.xlsx").startswith("none of .parquet, .jsonl, .csv")
    whole = write_table(tmp_path / "whole.parquet", ROWS * 1000).read_bytes()
    for name, data, words in (
        ("a.parquet", b"no parquet", "not a whole parquet"),
        ("b.parquet", whole[:-100], "not a whole parquet"),
        ("c.parquet", whole[:200] + bytes(400) + whole[600:], "not a whole parquet"),
        ("a.jsonl", b'{"id": 1}\n{"id"\n', "line 2: not JSON"),
        ("b.jsonl", b"[1]\n", "line 1: a post {...} belongs here"),
        ("c.jsonl", b"\xff\n", "not UTF-8"),
        ("d.jsonl", b'{"tags": "a"}\n', "no post in it has an id or an MD5"),
        ("a.csv", b"id,score\n1,2\n", "no column with tags"),
        ("b.csv", b"name,tags\na,b\n", "no column id and none md5"),
        ("c.csv", b"", "no column id and none md5"),
        ("d.csv", b"id,tags\n1," + b"a" * 200_000 + b"\n", "line 1: not CSV"),
    ):
        (tmp_path / name).write_bytes(data)
        assert refusal(tmp_path / name).startswith(words)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert refusal(tmp_path / "whole.parquet") == "reading parquet takes the package pyarrow; pip install pyarrow"
