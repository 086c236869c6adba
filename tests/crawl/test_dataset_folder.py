"""dataset_folder.py: what a folder remembers, and that what a person edited stays.

python -m pytest tests/crawl/test_dataset_folder.py
"""

import json
from pathlib import Path

import pytest

from tagger.crawl.dataset_folder import Cursor, DatasetFolder
from tagger.files import UserError


def test_cursors_are_kept_by_site_and_query(tmp_path: Path) -> None:
    folder = DatasetFolder(tmp_path)
    first, second = folder.cursor("https://a", "1girl"), folder.cursor("https://b", "1girl")
    first.oldest, first.newest = 5, 9
    second.newest = 3
    folder.save_cursors()
    again = DatasetFolder(tmp_path)
    assert again.cursor("https://a", "1girl") == Cursor(5, 9)
    assert again.cursor("https://b", "1girl") == Cursor(None, 3)
    assert again.cursor("https://a", "solo") == Cursor(None, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"cursors": 7}',
        '{"cursors": [7]}',
        '{"cursors": [{"base_url": "x", "oldest": 7, "newest": 9}]}',
        '{"cursors": [{"base_url": "x", "query": "", "oldest": "7", "newest": 9}]}',
    ],
)
def test_damaged_cursors_are_named_with_what_helps(tmp_path: Path, text: str) -> None:
    (tmp_path / "crawl_state.json").write_text(text)
    with pytest.raises(UserError, match=r"crawl_state\.json: .*remove it to begin the queries anew"):
        DatasetFolder(tmp_path)


def test_a_pair_is_both_files(tmp_path: Path) -> None:
    for name in ("whole.jpg", "whole.txt", "half.jpg", "only.txt"):
        (tmp_path / name).touch()
    assert DatasetFolder(tmp_path).pairs == {"whole"}


def test_failures_are_noted_and_forgotten(tmp_path: Path) -> None:
    folder = DatasetFolder(tmp_path)
    folder.note_failure(3, "HTTP 500")
    folder.note_failure(12, 'he said "no", twice')
    text = (tmp_path / "failures.csv").read_text(encoding="utf-8")
    assert text == 'post_id,reason\n12,"he said ""no"", twice"\n3,HTTP 500\n'
    again = DatasetFolder(tmp_path)
    assert again.failures == {12: 'he said "no", twice', 3: "HTTP 500"}
    again.forget_failure(12)
    again.forget_failure(99)
    assert DatasetFolder(tmp_path).failures == {3: "HTTP 500"}


def test_what_a_file_turned_out_to_be_is_remembered(tmp_path: Path) -> None:
    DatasetFolder(tmp_path).note_passed_over(3, "animation")
    assert DatasetFolder(tmp_path).passed_over == {3: "animation"}


def test_categories_are_sorted_and_a_persons_stay(tmp_path: Path) -> None:
    (tmp_path / "tag_categories.csv").write_text("name,category\nzoe,4\n", encoding="utf-8")
    folder = DatasetFolder(tmp_path)
    folder.note_categories({"zoe": 1, "abe": 1})
    folder.note_categories({"miku": 4})
    assert (tmp_path / "tag_categories.csv").read_text() == "name,category\nabe,1\nmiku,4\nzoe,4\n"


def test_the_state_of_earlier_versions_reads(tmp_path: Path) -> None:
    rows = [{"base_url": "https://danbooru.donmai.us", "query": "1girl score:>=5", "oldest": 7, "newest": 9}]
    (tmp_path / "crawl_state.json").write_text(json.dumps({"cursors": rows}))
    assert DatasetFolder(tmp_path).cursor("https://danbooru.donmai.us", "1girl score:>=5") == Cursor(7, 9)
