"""What all command lines share: either spelling of a flag, errors in one line, exit codes.

python -m pytest tests/test_cli.py
"""

import argparse
import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tagger import cli
from tagger.files import UserError
from tests.helpers import ROOT, error_line, lines_of, run_script, write_txts


def parse(separator: str, *arguments: str) -> argparse.Namespace:
    parser = cli.ArgumentParser(doc="What it does.", separator=separator)
    parser.add_argument(f"--dataset{separator}folder", type=Path)
    parser.add_argument(f"--dry{separator}run", action="store_true")
    return parser.parse_args(list(arguments))


@pytest.mark.parametrize("separator", ["-", "_"])
@pytest.mark.parametrize("spelling", ["--dataset-folder", "--dataset_folder"])
def test_either_spelling_of_a_flag(separator: str, spelling: str) -> None:
    for arguments in ([spelling, "my_data-set"], [f"{spelling}=my_data-set"]):
        assert parse(separator, *arguments).dataset_folder == Path("my_data-set")


def test_the_arguments_of_the_process_are_respelled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["script.py", "--dry_run"])
    parser = cli.ArgumentParser(doc="What it does.")
    parser.add_argument("--dry-run", action="store_true")
    assert parser.parse_args().dry_run


@pytest.mark.parametrize("arguments", [["--unknown"], ["--dry"], ["--dataset-folder"], ["stray"]])
def test_wrong_arguments_are_one_line_and_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("-", *arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1 and "--help" in error_line(captured.err)
    assert captured.out == ""


def test_help_shows_the_whole_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("-", "--help")
    assert caught.value.code == 0
    assert "What it does." in capsys.readouterr().out


def command_that(action: Callable[[], int]) -> Callable[..., int]:
    @cli.command
    def main(argv: Sequence[str] | None = None) -> int:
        return action()

    return main


def raising(error: BaseException) -> Callable[[], int]:
    def action() -> int:
        raise error

    return action


@pytest.mark.parametrize("code", [cli.DONE, cli.INCOMPLETE, cli.UNUSABLE])
def test_the_exit_code_is_what_main_returns(code: int) -> None:
    assert command_that(lambda: code)([]) == code


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UserError("a.csv: row 3 is wrong; mend it"), "error: a.csv: row 3 is wrong; mend it"),
        (UserError("a.csv: two\nlines"), "a.csv: two lines"),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "gone.csv"), "gone.csv: No such file"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "disk.bin"), "disk.bin: No space left"),
        (OSError("no number"), "no number"),
    ],
)
def test_what_users_can_cause_is_one_line_and_exit_code_2(
    error: Exception, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_that(raising(error))([]) == cli.UNUSABLE
    captured = capsys.readouterr()
    assert words in error_line(captured.err)
    assert captured.err.startswith("test_cli.py: ") and captured.out == ""


def test_interrupting_is_no_error_of_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_that(raising(KeyboardInterrupt()))([]) == 130
    assert capsys.readouterr().err == "test_cli.py: interrupted\n"


def test_what_nobody_foresaw_is_one_line_and_its_traceback_is_kept(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert command_that(raising(ZeroDivisionError("by\nnothing")))([]) == 70
    assert "nobody foresaw this (ZeroDivisionError: by nothing)" in error_line(captured := capsys.readouterr().err)
    (log,) = tmp_path.iterdir()
    assert captured.strip().endswith(str(log))
    assert "Traceback" in log.read_text() and "ZeroDivisionError" in log.read_text()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_stdout_is_one_line(tmp_path: Path) -> None:
    folder = write_txts(tmp_path / "dataset", a="1girl whiskey")
    (folder / "a.png").touch()
    with open("/dev/full", "w") as full:
        command = [sys.executable, str(ROOT / "replace_blanks.py"), "--dry-run"]
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "No space left on device" in error_line(done.stderr)


def test_a_closed_stdout_and_stderr_stop_nothing(tmp_path: Path) -> None:
    folder = write_txts(tmp_path / "dataset", a="1girl whiskey")
    (folder / "a.png").touch()
    command = f"{sys.executable} {ROOT / 'replace_blanks.py'} >&- 2>&-"
    assert subprocess.run(command, shell=True, cwd=tmp_path).returncode == 0
    assert (folder / "a.txt").read_text() == "1girl,whiskey"


def test_a_tag_that_the_console_cannot_show_does_not_stop_a_run(tmp_path: Path) -> None:
    folder = write_txts(tmp_path / "dataset", a="初音ミク whiskey")
    (folder / "a.png").touch()
    done = run_script("replace_blanks.py", "--dry-run", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "\\u521d" in done.stdout and ",whiskey" in done.stdout
    assert (folder / "a.txt").read_text(encoding="utf-8") == "初音ミク whiskey"


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (cli.fraction, ["0", "1", "0.35", "1e-3"], ["-0.1", "1.01", "nan", "inf", "half", ""]),
        (cli.positive_fraction, ["1", "0.35"], ["0", "-1", "1.5", "nan"]),
        (cli.positive_int, ["1", "224"], ["0", "-1", "1.5", "many"]),
        (cli.non_negative_int, ["0", "7"], ["-1", "0.5"]),
        (cli.positive_float, ["1e-4", "3"], ["0", "-1", "nan", "inf"]),
        (cli.non_negative_float, ["0", "0.05"], ["-0.1", "nan", "inf"]),
    ],
)
def test_numbers_and_their_bounds(kind: Callable[[str], float], good: list[str], bad: list[str]) -> None:
    assert [kind(text) for text in good] == [float(text) for text in good]
    for text in bad:
        with pytest.raises((argparse.ArgumentTypeError, ValueError)):
            kind(text)


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (12000, "12,000 images")]
)
def test_numbers_of_things(number: int, words: str) -> None:
    assert cli.counted(number, "image") == words


@pytest.mark.parametrize(
    ("seconds", "lines"),
    [
        (0.01, []),
        (0.25, ["4 of 20", "8 of 20", "12 of 20", "16 of 20"]),
        (200, [f"{done} of 20" for done in range(2, 20, 2)]),
        (301, [f"{done} of 20" for done in range(1, 20)]),
    ],
)
def test_progress_without_a_terminal_is_a_few_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: float, lines: list[str]
) -> None:
    clock = 0.0
    monkeypatch.setattr("time.monotonic", lambda: clock)
    for _ in cli.with_progress(range(20), 20, "image"):
        clock += seconds
    told = lines_of(capsys.readouterr().err)
    assert [line.partition(" images")[0].partition(": ")[2] for line in told] == lines


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(cli.with_progress(range(3), 3, "image")) == [0, 1, 2]
    assert "0/3" in capsys.readouterr().err


def test_a_file_to_write_is_no_folder() -> None:
    assert cli.file_path("new/out.json") == Path("new/out.json")
    with pytest.raises(argparse.ArgumentTypeError, match="name a file in it"):
        cli.file_path("new/")


def test_the_version_is_the_top_of_the_changelog() -> None:
    newest = re.search(r"^## (\S+),", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest and newest[1] == cli.VERSION


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize("script", ["train_pytorch.py", "create_tfrecord.py", "simple_dan_crawl.py"])
def test_an_interrupt_while_modules_are_imported_is_one_line(script: str, tmp_path: Path) -> None:
    # The last thing before the heavy imports; then the interrupt comes at once.
    (tmp_path / "sitecustomize.py").write_text(
        "import signal, sys, threading, time\n"
        "def interrupt():\n"
        "    while 'tagger.cli' not in sys.modules or not hasattr(sys.modules['tagger.cli'], 'command'):\n"
        "        time.sleep(0.001)\n"
        "    time.sleep(0.05)\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "threading.Thread(target=interrupt, daemon=True).start()\n"
    )
    done = run_script(script, "--help", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode in (0, 130, -signal.SIGINT)
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert done.stderr == f"{script}: interrupted\n"
