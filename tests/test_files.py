"""Files appear whole or not at all, and what cannot be read is an error in one line.

python -m pytest tests/test_files.py
"""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger import files
from tagger.files import UserError
from tests.helpers import ROOT, tree

HINT = "write it first"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For property tests, which write the same file again and again."""
    return tmp_path_factory.mktemp("files")


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
    assert len(tree(tmp_path)) == 2
    with files.locked_folder(tmp_path):  # the next run clears up what the dead one left
        files.write_text(path, "new")
    assert tree(tmp_path) == [".tagger.lock", "a.txt"] and path.read_text() == "new"


def test_a_growing_file_is_no_image_and_no_txt(tmp_path: Path) -> None:
    for name in ("a.txt", "a.jpg", "aibooru_train.tfrecord", "selected_tags.csv", "config.json"):
        part = files.part_of(tmp_path / name)
        assert part.parent == tmp_path and part.name.startswith(".") and part.suffix == ".part"


def test_temporary_names_differ_and_are_never_longer_than_a_legal_name(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 251 + ".txt")  # 255 bytes, the most that most file systems take
    files.write_text(path, "whole")
    assert path.read_text() == "whole"
    assert files.part_of(path) != files.part_of(path)


def test_two_that_write_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with files.replacing(path) as first, files.replacing(path) as second:
        first.write("first")
        second.write("second")
    assert path.read_text() == "first" and tree(tmp_path) == ["a.txt"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "target.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "target.csv")
    files.write_text(tmp_path / "link.csv", "new")
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "target.csv").read_text() == "new"


# --- one run at a time ----------------------------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from tagger import files
with files.locked_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock of tmp_path."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_is_refused_in_a_sentence_that_names_the_first(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    (tmp_path / ".0123456789ab.part").write_text("the other run's")
    refused = pytest.raises(UserError, match=rf"process {holder.pid} on .* is at work here; wait")
    with refused, files.locked_folder(tmp_path):
        pass
    assert (tmp_path / ".0123456789ab.part").exists()


WRITER = """
import sys
from pathlib import Path
from tagger import files
with files.replacing(Path(sys.argv[1])) as file:
    file.write("an answer of many hours")
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_what_another_script_is_writing_is_not_taken_for_a_leftover(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "answers.json")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdin and process.stdout.readline() == "writing\n"
        (tmp_path / ".0123456789ab.part").write_text("of a run that was killed")
        with files.locked_folder(tmp_path), files.replacing(tmp_path / "mine.txt") as file:
            assert len([name for name in tree(tmp_path) if name.endswith(".part")]) == 2
            files.remove_parts(tmp_path)
            file.write("mine")
        process.stdin.close()
        assert process.wait() == 0
    assert tree(tmp_path) == [".tagger.lock", "answers.json", "mine.txt"]
    assert (tmp_path / "answers.json").read_text() == "an answer of many hours"


def test_a_disk_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What filelock and the system do where a file system has no locks: leftovers go when they are a day old."""

    def no_locks(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", no_locks)
    for name, age in (("0123456789ab", 0), ("ba9876543210", files.SURELY_DEAD + 60)):
        part = tmp_path / f".{name}.part"
        part.write_text("half")
        os.utime(part, (time.time() - age,) * 2)
    with files.locked_folder(tmp_path):
        files.write_text(tmp_path / "a.txt", "whole")
    assert set(tree(tmp_path)) - {".tagger.lock"} == {".0123456789ab.part", "a.txt"}
    line = capsys.readouterr().err
    assert f"{tmp_path}: this disk has no locks; let no other run write there" in line and line.count("\n") == 1


def test_a_kill_leaves_the_lock_harmless(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    with files.locked_folder(tmp_path):
        pass


def test_waiting_for_another_run(
    tmp_path: Path, holder: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert holder.stdin
    threading.Timer(0.3, holder.stdin.close).start()
    with files.locked(tmp_path / files.LOCK_NAME, "", wait=True):
        assert holder.wait() == 0
    assert f"waiting for -c (process {holder.pid}" in capsys.readouterr().err


def test_runs_that_take_turns_wait_without_a_word(
    tmp_path: Path, holder: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        pytest.raises(UserError, match="is at work here; wait"),
        files.locked(tmp_path / files.LOCK_NAME, "wait", patience=0.05),
    ):
        pass
    assert holder.stdin
    threading.Timer(0.3, holder.stdin.close).start()
    with files.locked(tmp_path / files.LOCK_NAME, "", patience=20):
        assert holder.wait() == 0
    assert capsys.readouterr().err == ""


# --- outputs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("README.md", "wdv3_pytorch.py", "selected_tags.csv", "threshold.json", "requirements-new.txt"),
        *("tagger/inference/report_template.html", "tests/new.txt", "docs/result.png", ".git/config"),
    ],
)
def test_no_output_replaces_a_file_of_the_toolkit(name: str) -> None:
    with pytest.raises(UserError, match="a file of the toolkit; name another"):
        files.check_output(ROOT / name, hint="name another", overwrite=True)


@pytest.mark.parametrize(
    "name", ["report.html", "tags.json", "pictures/README.md", "model.onnx", "captions.txt", "examples/pictures/1.txt"]
)
def test_outputs_beside_the_toolkit_are_no_files_of_it(name: str) -> None:
    files.check_output(ROOT / name, hint="")


def test_what_an_output_must_not_be(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("somebody's")

    def check(output: Path, **more: Any) -> None:
        files.check_output(output, hint="name another", **more)

    for output, reason, more in (
        (tmp_path, "a folder stands there", {"overwrite": True}),
        (tmp_path / "b" / ".." / "a.json", "an input of this run", {"inputs": [path], "overwrite": True}),
        (path, "does not look like this script's output", {"is_ours": lambda _: False}),
        (path / "below" / "b.json", "not a folder", {}),
    ):
        (tmp_path / "b").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=f"{reason}; name another"):
            check(output, **more)
    check(path, is_ours=lambda _: False, overwrite=True)
    with pytest.raises(UserError, match="does not look like this script's output; say so"):
        check(path, is_ours=lambda _: False, overwrite_hint="say so")
    if os.name != "nt":
        with pytest.raises(UserError, match="a device or a pipe; name another"):
            check(Path(os.devnull), overwrite=True)
    check(path, inputs=[tmp_path / "b.json"])
    check(tmp_path / "new" / "folder" / "a.json")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_found_before_the_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="no permission to write there"):
        files.check_output(tmp_path / "new" / "a.json", hint="")


def test_json_round_trip_keeps_every_script_legible(tmp_path: Path) -> None:
    value = {"name": "初音ミク", "counts": [1, 2.5, None]}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json", HINT) == value
    assert "初音ミク" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_a_bom_is_no_part_of_a_text_and_line_ends_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf1girl\r\nsolo\n")
    assert files.read_text(tmp_path / "a.txt", HINT) == "1girl\r\nsolo\n"


def test_a_missing_file_is_named_with_its_hint(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        files.read_text(tmp_path / "gone.txt", HINT)
    assert "gone.txt: no such file" in str(caught.value) and str(caught.value).endswith(HINT)


def test_a_folder_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=tmp_path.name):
        files.read_text(tmp_path, HINT)


def test_what_is_not_utf8_is_named_with_the_byte(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"whisky," + "café".encode("latin-1") + b",solo")
    with pytest.raises(UserError, match=r"a\.txt: not UTF-8 at byte 10"):
        files.read_text(tmp_path / "a.txt", HINT)


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", '{"a": 1} x', "[1]", "null", "0.4", pytest.param("[" * 100_000)])
def test_what_is_no_json_object_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError) as caught:
        files.read_json(tmp_path / "a.json", HINT)
    assert "a.json: " in str(caught.value) and str(caught.value).endswith(HINT)
    assert len(str(caught.value).splitlines()) == 1


def test_json_that_is_written_is_json(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"a": {"b": 1}})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"a": {"b": 1}}


# --- CSV ------------------------------------------------------------------------------------------------------------

CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3)), st.booleans())
def test_csv_files_come_back_as_they_were_written(folder: Path, rows: list[list[str]], as_excel: bool) -> None:
    path = folder / "a.csv"
    files.write_csv(path, ("b", "a", "c"), rows)
    if as_excel:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b",,\n")
    header, numbered = files.read_csv(path, "", ("a", "b"))
    read = list(numbered)
    assert header == ["b", "a", "c"]
    assert read == [(number, row) for number, row in enumerate(rows, start=2) if any(row)]


def test_short_rows_are_filled_up_and_blank_ones_counted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\r\na,b\r\n\r\n1\r\n,,,\r\n2,3\r\n")
    _, rows = files.read_csv(tmp_path / "a.csv", "", ("b",))
    assert list(rows) == [(4, ["1", ""]), (6, ["2", "3"])]
