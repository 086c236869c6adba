"""Files appear whole or not at all, and what cannot be read is an error in one line.

python -m pytest tests/test_files.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tagger import files
from tagger.files import UserError
from tests.helpers import ROOT, tree

MEND = "write it first"


def test_text_is_written_as_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a.txt", "初音ミク\r\nsolo\n")
    assert (tmp_path / "a.txt").read_bytes() == "初音ミク\r\nsolo\n".encode()
    assert tree(tmp_path) == ["a.txt"]


def test_bytes_are_written_as_given(tmp_path: Path) -> None:
    files.write_bytes(tmp_path / "a.jpg", b"\xff\xd8\r\n\x00")
    assert (tmp_path / "a.jpg").read_bytes() == b"\xff\xd8\r\n\x00"


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new.txt"
    with files.replacing(path) as file:
        file.write("half")
        file.flush()
        assert not path.exists()
    assert path.read_text() == "half"


def test_an_exception_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as file:
        file.write("half of the new")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert tree(tmp_path) == ["a.txt"]


def test_a_file_is_on_the_disk_before_it_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    steps: list[str] = []

    def replace(source: Path, target: Path) -> None:
        steps.append(f"{source.read_text()} replaces {target.read_text()}")
        raise OSError("the power fails")

    monkeypatch.setattr(os, "fsync", lambda _: steps.append("fsync"))
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="power"):
        files.write_text(path, "new")
    assert steps == ["fsync", "new replaces old"] and path.read_text() == "old"


def test_a_process_that_dies_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    code = (
        "import os\nfrom tagger import files\n"
        f"with files.replacing({str(path)!r}) as file:\n"
        "    file.write('half of the new'); file.flush(); os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 9
    assert path.read_text() == "old"
    files.write_text(path, "new")  # the next run clears up what the dead one left
    assert tree(tmp_path) == ["a.txt"] and path.read_text() == "new"


def test_a_growing_file_is_no_image_and_no_txt(tmp_path: Path) -> None:
    for name in ("a.txt", "a.jpg", "aibooru_train.tfrecord", "selected_tags.csv", "config.json"):
        part = files.part_of(tmp_path / name)
        assert part.parent == tmp_path and part.name.startswith(".") and part.suffix == ".part"


def test_json_round_trip_keeps_every_script_legible(tmp_path: Path) -> None:
    value = {"name": "初音ミク", "counts": [1, 2.5, None]}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json", MEND) == value
    assert "初音ミク" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("data", [b"1girl\nsolo", b"\xef\xbb\xbf1girl\nsolo", b"1girl\r\nsolo"])
def test_a_bom_and_windows_line_ends_are_no_part_of_a_text(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    assert files.read_text(tmp_path / "a.txt", MEND) == "1girl\nsolo"


def test_a_missing_file_is_named_with_its_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        files.read_text(tmp_path / "gone.txt", MEND)
    assert "gone.txt: no such file" in str(caught.value) and str(caught.value).endswith(MEND)


def test_a_folder_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=tmp_path.name):
        files.read_text(tmp_path, MEND)


def test_what_is_not_utf8_is_named_with_the_byte(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"whisky," + "café".encode("latin-1") + b",solo")
    with pytest.raises(UserError, match=r"a\.txt: not UTF-8 at byte 10"):
        files.read_text(tmp_path / "a.txt", MEND)


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", '{"a": 1} x', "[1]", "null", "0.4", pytest.param("[" * 100_000)])
def test_what_is_no_json_object_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError) as caught:
        files.read_json(tmp_path / "a.json", MEND)
    assert "a.json: " in str(caught.value) and str(caught.value).endswith(MEND)
    assert len(str(caught.value).splitlines()) == 1


def test_json_that_is_written_is_json(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"a": {"b": 1}})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"a": {"b": 1}}
