"""The table of all benchmarks: what it says, where it is written, and that one that breaks off costs no other its rows.

python -m pytest tests/test_benchmarks.py
"""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as program
from benchmarks import crawl, inference, processes, runner
from benchmarks.table import Chinese, Goal, Machine, Row, cells, figure, markdown, markdown_zh
from tagger.files import UserError
from tests.helpers import ROOT

# Without tensorflow and without training; the others are tried by `python -m benchmarks --quick`.
LIGHT = ("crawl", "many_tags", "families", "prompts")
FAKES = {
    "fine": "from benchmarks.table import Row\n\ndef rows(folder, quick):\n    print('progress')\n"
    "    return [Row('fine', 's', 1.0)]\n",
    "wants": "import surely_not_installed\n",
    "lacks": "from benchmarks.processes import require\n\ndef rows(folder, quick):\n"
    "    require('surely_not_installed')\n",
    "faulty": "def rows(folder, quick):\n    return 1 / 0\n",
    "misspelt": "import benchmarks.no_such_module\n",
    "calls": "import sys\nfrom benchmarks.processes import run\n\ndef rows(folder, quick):\n"
    "    run([sys.executable, '-c', 'raise OSError(\"disk full\")'])\n",
    "dies": "import os\n\ndef rows(folder, quick):\n    os._exit(9)\n",
}


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks that can be run by name like those of the folder, also in other processes."""
    (tmp_path / "benchmarks").mkdir()
    for name, text in FAKES.items():
        (tmp_path / "benchmarks" / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)


# --- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, text",
    [
        *[(0, "0"), (4.4e-15, "4.40e-15"), (0.00123, "0.00123"), (0.5, "0.500"), (4.519, "4.52"), (8, "8.00")],
        *[(99.94, "99.9"), (100, "100"), (1234.5, "1,234"), (8_000_000, "8,000,000")],
    ],
)
def test_figures_have_three_digits_that_count(value: float, text: str) -> None:
    assert figure(value) == text


def test_a_row_shows_both_figures_their_ratio_and_whether_the_goal_is_met() -> None:
    row = Row("speed", "images/s", 90.0, "gallery-dl", 10.0, Goal(8, at_least=True), wall=True)
    assert cells(row) == ("speed", "90.0 images/s \\*", "gallery-dl: 10.0 images/s", "9.00", "≥ 8.00 ✓")
    slow = Row("wait", "s", 3.0, goal=Goal(0.3, of_ratio=False))
    assert cells(slow) == ("wait", "3.00 s", "", "", "≤ 0.300 s ✗")


def test_what_was_not_measured_is_no_verdict_and_no_ratio() -> None:
    row = Row("speed", "images/s", 90.0, "gallery-dl", None, Goal(8, at_least=True), "not installed")
    assert cells(row) == ("speed", "90.0 images/s", "gallery-dl; not installed", "", "≥ 8.00")
    assert Row("speed", ours=1.0, theirs=0.0).ratio is None
    assert cells(Row("gpu", note="no CUDA GPU here"))[1:] == ("", "no CUDA GPU here", "", "")


def test_no_text_can_break_the_table() -> None:
    (line,) = list(markdown([Row("a | b", note="first\nsecond")]))[2:]
    assert line == "| a / b |  | first second |  |  |"


def test_the_chinese_table_has_the_rows_with_chinese_texts() -> None:
    slow = Row("wait", "s", 2.0, "the plain way", note="not here", zh=Chinese("等待", "普通写法", "未安装"))
    lines = list(markdown_zh([Row("speed", "s", 1.0, "Pillow", 2.0, zh=Chinese("速度")), Row("other", "s", 2.0), slow]))
    assert lines[2:] == ["| 速度 | 1.00 s | Pillow: 2.00 s | 0.500 |  |", "| 等待 | 2.00 s | 普通写法; 未安装 |  |  |"]


# --- running them ---------------------------------------------------------------------------------------------------


def test_every_benchmark_of_the_folder_is_known_and_has_a_command_line() -> None:
    sources = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py")}
    with_rows = {name for name, text in sources.items() if re.search(r"^def rows\(", text, re.MULTILINE)}
    assert with_rows == {each.name for each in runner.BENCHMARKS}
    for name in with_rows:
        assert f"python -m benchmarks.{name}" in sources[name] and 'if __name__ == "__main__":' in sources[name]


def test_long_ones_run_only_when_they_are_named() -> None:
    assert "artists" not in runner.chosen([]) and "crawl" in runner.chosen([])
    assert runner.chosen(["prompts", "artists"]) == ["artists", "prompts"]


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize(
    "name, note",
    [
        ("wants", "left out: surely_not_installed is not installed"),
        ("lacks", "left out: surely_not_installed is not installed"),
        ("faulty", "broke off: ZeroDivisionError: division by zero"),
        ("misspelt", "broke off: No module named 'benchmarks.no_such_module'"),
        ("calls", "broke off: python ended with 1: OSError: disk full"),
    ],
)
def test_what_cannot_run_is_a_row_that_says_why(name: str, note: str, tmp_path: Path) -> None:
    (row,) = runner.rows_of(name, tmp_path, quick=True)
    assert (row.what, row.note) == (name, note.replace("python", Path(sys.executable).name))
    assert row.failed == note.startswith("broke off")


@pytest.mark.usefixtures("fakes")
def test_a_crash_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    known = tuple(runner.Benchmark(name) for name in ("dies", "fine"))
    monkeypatch.setattr(runner, "BENCHMARKS", known)
    assert program.main([]) == 1
    out, err = capfd.readouterr()
    assert "| dies |  | broke off: its process was killed; is there memory enough? |  |  |\n| fine | 1.00 s |" in out
    assert "progress" in err and "progress" not in out
    monkeypatch.setattr(runner, "BENCHMARKS", known[1:])
    assert program.main([]) == 0


def test_memory_and_time_are_those_of_all_processes() -> None:
    inner = (
        "import time; block = bytearray(150 << 20); end = time.process_time() + 0.3\nwhile time.process_time() < end: 0"
    )
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}]); print('done')"
    done = processes.run([sys.executable, "-c", outer], memory=True)
    assert done.output == "done\n" and done.peak > 150 and 0.3 <= done.cpu < 5


def test_a_missing_comparator_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(crawl.shutil, "which", lambda _: None)
    speed, memory = crawl.rows(tmp_path, quick=True)
    assert speed.ours and speed.theirs is None and speed.ratio is None
    assert "gallery-dl; not installed" in cells(speed)[2] and "gallery-dl; not installed" in cells(memory)[2]


def test_benchmarks_run_and_make_one_table(tmp_path: Path) -> None:
    only = [word for name in LIGHT for word in ("--only", name)]
    command = [sys.executable, "-m", "benchmarks", "--quick", *only]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    table = [line for line in lines if line.startswith("| ")]
    assert lines[0] == "| what | ours | against | ratio | goal |" and len(table) > 2 * len(LIGHT)
    assert all(line.count("|") == 6 for line in table)
    assert not re.search("broke off|left out", done.stdout), done.stdout
    assert re.search(r"^20\d\d-\d\d-\d\d, version .* cores of .*Python 3", done.stdout, re.MULTILINE)
    assert "mean anything" in lines[-1] and not re.search("[✓✗]", done.stdout)


def test_both_precisions_of_a_processor_are_measured_beside_onnxruntime(tmp_path: Path) -> None:
    inference.make_checkpoint(tmp_path, 28, "eva02_tiny")
    threads = torch.get_num_threads()  # it sets them; the other tests of this process keep theirs
    rates = inference.throughput(tmp_path, rounds=1, batch_size=2, threads=threads, image_size=28)
    assert set(rates) == {"onnxruntime", "ours, float32", "ours, bfloat16"} and min(rates.values()) > 0


# --- writing it -----------------------------------------------------------------------------------------------------

HERE = Machine("2026-01-31", 2, "some processor", "Linux", 0.04, "Python 3.11")
ROWS = [Row("speed", "s", 1.0, zh=Chinese("速度")), Row("elsewhere", "s", 2.0)]


def test_the_documents_have_a_place_for_the_table() -> None:
    for name, lines in program.documents(ROWS, HERE).items():
        text = (ROOT / name).read_text(encoding="utf-8")
        assert program.replace_between(program.replace_between(text, ["x"]), lines) == program.replace_between(
            text, lines
        )


def test_only_what_is_between_the_markers_is_written(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in program.documents(ROWS, HERE):
        (tmp_path / name).write_text(f"before\n{program.BEGIN}\nold\n{program.END}\nafter\n", encoding="utf-8")
    program.write(ROWS, HERE, tmp_path)
    for name in program.documents(ROWS, HERE):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert text.startswith(f"before\n{program.BEGIN}\n| ") and text.endswith(f"\n{program.END}\nafter\n")
        assert "old" not in text and "2026-01-31" in text and "some processor" in text
    assert "elsewhere" in (tmp_path / "docs/benchmarks.md").read_text(encoding="utf-8")
    assert "elsewhere" not in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "速度" in (tmp_path / "README.zh.md").read_text(encoding="utf-8")
    assert "some processor 的 2 个核心" in (tmp_path / "README.zh.md").read_text(encoding="utf-8")
    assert "load before the first benchmark 0.0;" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_a_document_without_a_place_stops_all_writing(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in program.documents(ROWS, HERE):
        (tmp_path / name).write_text(f"{program.BEGIN}\nold\n{program.END}\n", encoding="utf-8")
    (tmp_path / "README.zh.md").write_text(f"{program.END}\n{program.BEGIN}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"README\.zh\.md: it needs two lines"):
        program.write(ROWS, HERE, tmp_path)
    assert "old" in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("more", [["--quick"], ["--only", "crawl"]])
def test_a_part_is_not_written_as_the_whole(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        program.main(["--write", *more])
    assert stopped.value.code == 2 and "of a whole run" in capsys.readouterr().err


def test_every_module_can_be_imported_without_running_anything() -> None:
    for path in (ROOT / "benchmarks").glob("*.py"):
        importlib.import_module(f"benchmarks.{path.stem}")
