"""replace_blanks.py: captions of any habit become comma-separated Danbooru tags, and nothing else is touched.

python -m pytest tests/test_replace_blanks.py
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import replace_blanks as script
from tagger.formats.tag_lists import TagReader, format_tags, parse_tags
from tagger.formats.vocabulary import read_vocabulary
from tests.helpers import ROOT, error_line, left_out, run_script, tree

KNOWN = read_vocabulary(ROOT / "selected_tags.csv").index


def tidy(text: str) -> str:
    return script.tidy(text, TagReader(KNOWN), KNOWN)


def write_captions(folder: Path, **texts: str | bytes) -> Path:
    """Make captions with pictures beside them, by stem."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, text in texts.items():
        (folder / f"{stem}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
        (folder / f"{stem}.png").touch()
    return folder


def run(folder: Path, *flags: str) -> int:
    return script.main(["--dataset-folder", str(folder), *flags])


def captions(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.txt")}


# --- one caption ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        ("1girl whiskey long_hair", "1girl,whiskey,long_hair"),
        ("1girl whiskey sword", "1girl,whiskey,sword"),
        ("foo bar baz", "foo,bar,baz"),
        ("long hair, blue eyes", "long_hair,blue_eyes"),
        ("1girl  whiskey\tlong_hair\n", "1girl,whiskey,long_hair"),
        ("1girl\nwhiskey\nlong_hair\n", "1girl,whiskey,long_hair"),
        ("long hair\nblue eyes\n1girl", "long_hair,blue_eyes,1girl"),
        ("long hair,\r\nblue  eyes\r\n", "long_hair,blue_eyes"),
        ("long hair\nblue eyes, solo", "long_hair,blue_eyes,solo"),
        ("looking at viewer", "looking_at_viewer"),
        ("very long hair", "very_long_hair"),
        ("1girl very long hair looking at viewer smile foo", "1girl,very_long_hair,looking_at_viewer,smile,foo"),
        ("hat bow", "hat,bow"),  # hat_bow is a tag, and so are hat and bow
        ("1girl，solo，long hair", "1girl,solo,long_hair"),
        ("1girl、solo、long hair", "1girl,solo,long_hair"),
        ("1girl; solo; long hair", "1girl,solo,long_hair"),
        ("1girl;solo;long hair", "1girl,solo,long_hair"),
        ("1girl ||| solo", "1girl,solo"),
        (";d, ;), >:(", ";d,;),>:("),
        (";d", ";d"),
        ("\\\\m/ 1girl", "\\\\m/,1girl"),
        (r"(long hair:1.2), saber \(fate\), ((smile))", "long_hair,saber_(fate),smile"),
        ("1girl,whiskey", "1girl,whiskey"),
        (",1girl,,whiskey, ", "1girl,whiskey"),
        ("solo solo 1girl", "solo,1girl"),
        ("long hair,long_hair", "long_hair"),
        ("m16a1_(girls'_frontline)", "m16a1_(girls'_frontline)"),
        ("", ""),
        (" \n", ""),
        (",", ""),
    ],
)
def test_tidying(text: str, tidied: str) -> None:
    assert tidy(text) == tidied


def test_a_vocabulary_of_ones_own_decides_about_blanks() -> None:
    known = {"long hair", "my character"}
    assert script.tidy("my character long hair 1girl", TagReader(known), known) == "my character,long hair,1girl"


WORDS = st.text("abcdeéあ長1", min_size=1, max_size=6)


@given(st.text(st.sampled_from(" ,;_\n\t\u3000()[]:.12\\\\ab|，") | st.characters(exclude_categories=["Cs"])))
def test_tidying_twice_changes_nothing_more(text: str) -> None:
    once = tidy(text)
    assert tidy(once) == once
    assert format_tags(parse_tags(once)) == once


@given(st.lists(WORDS, unique=True), st.sampled_from([" ", "  ", "\n", "\t"]))
def test_without_another_separator_every_blank_separates_unknown_words(words: list[str], blank: str) -> None:
    assert script.tidy(blank.join(words), TagReader(), ()) == ",".join(words)


@given(st.lists(st.lists(WORDS, min_size=1, max_size=3), min_size=2, unique_by="_".join))
def test_with_commas_a_blank_joins(tag_words: list[list[str]]) -> None:
    text = ", ".join(" ".join(words) for words in tag_words)
    assert tidy(text) == ",".join("_".join(words) for words in tag_words)


# --- the folder -----------------------------------------------------------------------------------------------------


def test_by_default_the_folder_dataset_is_tidied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_captions(tmp_path / "dataset", a="1girl whiskey", b="1girl,whiskey", c="long hair, solo")
    monkeypatch.chdir(tmp_path)
    assert script.main([]) == 0
    assert captions(folder) == {"a.txt": b"1girl,whiskey", "b.txt": b"1girl,whiskey", "c.txt": b"long_hair,solo"}
    assert "2 of 3 captions changed" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--dataset-folder", "--dataset_folder"])
def test_another_folder_in_a_process_of_its_own(tmp_path: Path, flag: str) -> None:
    folder = write_captions(tmp_path / "other", a="1girl whiskey")
    done = run_script("replace_blanks.py", flag, folder, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "a.txt").read_text() == "1girl,whiskey"


def test_what_is_no_caption_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_captions(tmp_path, a="1girl whiskey")
    others = {
        "notes.txt": "buy some milk",
        "sample_prompts.txt": "a b c",
        "requirements.txt": "torch >= 2",
        "b.md": "a b",
    }
    for name, text in others.items():
        (folder / name).write_text(text)
    assert run(folder) == 0
    assert {name: (folder / name).read_text() for name in others} == others
    assert "3 txt files have no picture beside them and were left alone" in capsys.readouterr().err


def test_running_twice_changes_nothing_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_captions(tmp_path, a="1girl whiskey\n", b="long hair, solo", c="", d="1girl,solo\r\n")
    assert run(folder) == 0
    written = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*.txt")}
    assert (folder / "d.txt").read_bytes() == b"1girl,solo\r\n"
    capsys.readouterr()
    assert run(folder) == 0
    assert "0 of 4 captions changed" in capsys.readouterr().out
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*.txt")} == written


@pytest.mark.parametrize("flag", ["--dry-run", "--dry_run"])
def test_a_dry_run_shows_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    folder = write_captions(tmp_path, a="1girl whiskey", b="solo")
    assert run(folder, flag) == 0
    out = capsys.readouterr().out
    assert "a.txt: 1girl,whiskey" in out and "b.txt" not in out and "1 of 2 captions would be changed" in out
    assert tree(folder) == ["a.png", "a.txt", "b.png", "b.txt"]
    assert (folder / "a.txt").read_text() == "1girl whiskey"


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf1girl \xe9\x95\xbf\xe5\x8f\x91",
        b"\xef\xbb\xbf\xef\xbb\xbf1girl \xe9\x95\xbf\xe5\x8f\x91",
        "1girl, 长发\r\n".encode("utf-16"),
        "1girl, 长发\r\n".encode("utf-16-le"),
        "1girl, 长发\r\n".encode("utf-16-be"),
        "1girl, 长发\r\n".encode("gbk"),
    ],
)
def test_every_encoding_becomes_utf8(tmp_path: Path, data: bytes) -> None:
    folder = write_captions(tmp_path, a=data)
    assert run(folder) == 0
    assert (folder / "a.txt").read_text(encoding="utf-8") == "1girl,长发"
    assert run(folder, "--undo") == 0
    assert (folder / "a.txt").read_bytes() == data


def test_what_cannot_be_read_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_captions(tmp_path, a="1girl whiskey", b="café latte".encode("latin-1"))
    (folder / "c.txt").mkdir()
    (folder / "c.jpg").touch()
    assert run(folder) == 1
    captured = capsys.readouterr()
    latin, directory = left_out(captured.err)
    assert "b.txt" in latin and "save it as UTF-8" in latin and "c.txt: Is a directory" in directory
    assert "1 of 3 captions changed, 2 left out" in captured.out
    assert (folder / "a.txt").read_text() == "1girl,whiskey"
    assert (folder / "b.txt").read_bytes() == "café latte".encode("latin-1")


def test_weights_are_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_captions(tmp_path, a="(smile:1.2), solo", b="(smile:1.2), ((hat)), :)")
    assert run(folder) == 0
    assert captions(folder) == {"a.txt": b"smile,solo", "b.txt": b"smile,hat,:)"}
    assert "2 different tags had weights, such as (smile:1.2) for smile" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["empty", "gone"])
def test_a_folder_without_captions_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    assert run(tmp_path / name) == 2
    assert name in error_line(capsys.readouterr().err)


# --- undo -----------------------------------------------------------------------------------------------------------


def test_undo_brings_everything_back_over_several_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts: dict[str, str | bytes] = {"a": "1girl whiskey", "b": "长发, solo".encode("gbk"), "c": "solo"}
    folder = write_captions(tmp_path, **texts)
    before = captions(folder)
    assert run(folder) == 0
    (folder / "c.txt").write_text("long hair")
    assert run(folder) == 0
    assert run(folder, "--undo", "--dry-run") == 0
    assert "3 captions would be brought back" in capsys.readouterr().out
    assert run(folder, "--undo") == 0
    assert captions(folder) == before | {"c.txt": b"long hair"}
    assert not (folder / script.UNDO_FILE).exists()
    assert run(folder, "--undo") == 2
    assert "nothing was changed here that could be undone" in error_line(capsys.readouterr().err)


def test_undo_leaves_alone_what_somebody_edited_since(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_captions(tmp_path, a="1girl whiskey", b="long hair")
    assert run(folder) == 0
    (folder / "a.txt").write_text("edited")
    assert run(folder, "--undo") == 1
    assert "a.txt: changed since, or gone" in capsys.readouterr().err
    assert captions(folder) == {"a.txt": b"edited", "b.txt": b"long hair"}
    assert json.loads((folder / script.UNDO_FILE).read_text())["before"] == "1girl whiskey"


KILLED = """
import os, signal, sys
import replace_blanks
inner, left = replace_blanks.write_text, int(sys.argv[1])
def write(path, text):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    inner(path, text)
replace_blanks.write_text = write
sys.exit(replace_blanks.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("files", [0, 1, 3])
def test_a_killed_run_can_be_undone_and_run_again(tmp_path: Path, files: int) -> None:
    folder = write_captions(tmp_path, **{stem: f"1girl {stem}" for stem in "abcd"})
    before = captions(folder)
    command = [sys.executable, "-c", KILLED, str(files), "--dataset-folder", str(folder)]
    assert subprocess.run(command, cwd=ROOT).returncode == -signal.SIGKILL
    with open(folder / script.UNDO_FILE, "a") as file:
        file.write('{"file": "a.tx')  # of a kill while the log was written
    assert run(folder) == 0
    assert captions(folder) == {f"{stem}.txt": f"1girl,{stem}".encode() for stem in "abcd"}
    assert run(folder, "--undo") == 0
    assert captions(folder) == before


@pytest.mark.parametrize("name", ["../victim.txt", "/tmp/victim.txt", "sub/victim.txt"])
def test_a_log_names_no_file_elsewhere(tmp_path: Path, name: str) -> None:
    folder = write_captions(tmp_path / "dataset", a="1girl whiskey")
    assert run(folder) == 0
    with open(folder / script.UNDO_FILE, "a") as file:
        file.write(json.dumps({"file": name, "before": "x", "after_sha256": ""}) + "\n")
    (tmp_path / "victim.txt").write_text("safe")
    assert run(folder, "--undo") == 0
    assert (tmp_path / "victim.txt").read_text() == "safe"


# --- folders below --------------------------------------------------------------------------------------------------


def test_folders_below_are_tidied_only_when_asked_and_taken_back(tmp_path: Path) -> None:
    write_captions(tmp_path / "set", a="long hair, solo")
    write_captions(tmp_path / "set" / "10_name", a="blue eyes, smile", b="solo")
    write_captions(tmp_path / "set" / ".hidden", a="blue eyes, smile")
    before = {path: path.read_bytes() for path in (tmp_path / "set").rglob("*.txt")}
    assert run(tmp_path / "set") == 0
    assert captions(tmp_path / "set" / "10_name")["a.txt"] == b"blue eyes, smile"
    assert run(tmp_path / "set", "--recursive") == 0
    assert captions(tmp_path / "set" / "10_name") == {"a.txt": b"blue_eyes,smile", "b.txt": b"solo"}
    assert captions(tmp_path / "set" / ".hidden") == {"a.txt": b"blue eyes, smile"}
    assert run(tmp_path / "set", "--recursive", "--undo") == 0
    assert {path: path.read_bytes() for path in (tmp_path / "set").rglob("*.txt")} == before


def test_captions_in_folders_below_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_captions(tmp_path / "set" / "10_name", a="blue eyes, smile")
    assert run(tmp_path / "set") == 2
    assert "--recursive" in capsys.readouterr().err
    assert run(tmp_path / "set", "--recursive", "--dry-run") == 0
    assert str(Path("10_name", "a.txt: blue_eyes,smile")) in capsys.readouterr().out
