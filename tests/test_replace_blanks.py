"""replace_blanks.py: txt files of any habit become comma-separated Danbooru tags, once and for all.

python -m pytest tests/test_replace_blanks.py
"""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import replace_blanks
from tagger.formats.tag_lists import format_tags, parse_tags
from tests.helpers import error_line, left_out, run_script, write_txts


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        ("1girl whiskey long_hair", "1girl,whiskey,long_hair"),
        ("long hair, blue eyes", "long_hair,blue_eyes"),
        ("1girl  whiskey\tlong_hair\n", "1girl,whiskey,long_hair"),
        ("1girl\nwhiskey\nlong_hair\n", "1girl,whiskey,long_hair"),
        ("long hair,\nblue  eyes\n", "long_hair,blue_eyes"),
        ("long hair\nblue eyes, solo", "long_hair,blue_eyes,solo"),
        ("1girl,whiskey", "1girl,whiskey"),
        (",1girl,,whiskey, ", "1girl,whiskey"),
        ("solo solo 1girl", "solo,1girl"),
        ("long hair,long_hair", "long_hair"),
        ("long hair,", "long_hair"),
        ("m16a1_(girls'_frontline)", "m16a1_(girls'_frontline)"),
        ("", ""),
        (" \n", ""),
        (",", ""),
    ],
)
def test_tidying(text: str, tidied: str) -> None:
    assert replace_blanks.tidy(text) == tidied


ODD = ",;，、|\ufeff"  # what separates tags, or stands before them
WORDS = st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"], exclude_characters=ODD), min_size=1, max_size=6)


@given(st.text(st.one_of(st.sampled_from(" ,_\n\t\u3000ab"), st.characters(exclude_categories=["Cs"]))))
def test_tidying_twice_changes_nothing_more(text: str) -> None:
    once = replace_blanks.tidy(text)
    assert replace_blanks.tidy(once) == once
    assert format_tags(parse_tags(once)) == once
    assert not any(character.isspace() for character in once)


@given(st.lists(WORDS, unique=True), st.sampled_from([" ", "  ", "\n", "\t"]))
def test_without_a_comma_every_blank_separates(words: list[str], blank: str) -> None:
    assert replace_blanks.tidy(blank.join(words)) == ",".join(words)


@given(st.lists(st.lists(WORDS, min_size=1, max_size=3), min_size=2, unique_by="_".join))
def test_with_commas_a_blank_joins(tag_words: list[list[str]]) -> None:
    text = ", ".join(" ".join(words) for words in tag_words)
    assert replace_blanks.tidy(text) == ",".join("_".join(words) for words in tag_words)


def test_by_default_the_folder_dataset_is_tidied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_txts(tmp_path / "dataset", a="1girl whiskey", b="1girl,whiskey", c="long hair, solo")
    monkeypatch.chdir(tmp_path)
    assert replace_blanks.main([]) == 0
    assert [(folder / f"{stem}.txt").read_bytes() for stem in "abc"] == [
        b"1girl,whiskey",
        b"1girl,whiskey",
        b"long_hair,solo",
    ]
    assert "2 of 3 files changed" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--dataset-folder", "--dataset_folder"])
def test_another_folder_in_a_process_of_its_own(tmp_path: Path, flag: str) -> None:
    folder = write_txts(tmp_path / "other", a="1girl whiskey")
    done = run_script("replace_blanks.py", flag, folder, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "a.txt").read_text() == "1girl,whiskey"


def test_running_twice_changes_nothing_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_txts(tmp_path, a="1girl whiskey\n", b="long hair, solo", c="")
    assert replace_blanks.main(["--dataset-folder", str(folder)]) == 0
    written = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    capsys.readouterr()
    assert replace_blanks.main(["--dataset-folder", str(folder)]) == 0
    assert "0 of 3 files changed" in capsys.readouterr().out
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == written


@pytest.mark.parametrize("flag", ["--dry-run", "--dry_run"])
def test_a_dry_run_shows_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    folder = write_txts(tmp_path, a="1girl whiskey", b="solo")
    assert replace_blanks.main(["--dataset-folder", str(folder), flag]) == 0
    out = capsys.readouterr().out
    assert "a.txt: 1girl,whiskey" in out and "b.txt" not in out and "1 of 2 files would be changed" in out
    assert (folder / "a.txt").read_text() == "1girl whiskey"


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf1girl whiskey", b"1girl whiskey\r\n", b"1girl\r\nwhiskey"])
def test_a_bom_and_windows_line_ends_go(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    assert replace_blanks.main(["--dataset-folder", str(tmp_path)]) == 0
    assert (tmp_path / "a.txt").read_bytes() == b"1girl,whiskey"


def test_a_file_that_is_not_utf8_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_txts(tmp_path, a="1girl whiskey")
    (folder / "b.txt").write_bytes("café latte".encode("latin-1"))
    assert replace_blanks.main(["--dataset-folder", str(folder)]) == 1
    captured = capsys.readouterr()
    (line,) = left_out(captured.err)
    assert "b.txt" in line and "UTF-8" in line
    assert "1 of 2 files changed, 1 left out" in captured.out
    assert (folder / "a.txt").read_text() == "1girl,whiskey"
    assert (folder / "b.txt").read_bytes() == "café latte".encode("latin-1")


@pytest.mark.parametrize("name", ["empty", "gone"])
def test_a_folder_without_txt_files_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / "empty").mkdir()
    assert replace_blanks.main(["--dataset-folder", str(tmp_path / name)]) == 2
    assert name in error_line(capsys.readouterr().err)
