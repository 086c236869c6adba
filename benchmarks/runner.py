"""Which benchmarks there are, and running one so that nothing it does can harm the others.

python -m benchmarks --quick --only prompts
"""

import importlib
import multiprocessing
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import ROOT, BenchmarkError, Missing
from benchmarks.table import Row, say
from tagger.files import UserError


@dataclass(frozen=True)
class Benchmark:
    """A module of this folder that has `rows(folder, quick)`; `hours` where it runs only when it is named."""

    name: str
    hours: bool = False


# In the order of the pipeline; gpu last, for it is of the model alone.
BENCHMARKS = (
    Benchmark("crawl"),
    Benchmark("tfrecord"),
    Benchmark("many_pairs"),
    Benchmark("tars"),
    Benchmark("reader"),
    Benchmark("train_speed"),
    Benchmark("recipes", hours=True),
    Benchmark("artists", hours=True),
    Benchmark("many_tags"),
    Benchmark("threshold_loop"),
    Benchmark("inference"),
    Benchmark("families"),
    Benchmark("prompts"),
    Benchmark("gpu"),
)
OURS = {path.stem for path in ROOT.iterdir()}  # what is no package of somebody else's


def measure(name: str, folder: Path, quick: bool) -> list[Row]:
    """The rows of a benchmark, from a process of its own; one that says why where it could not run or broke off.

    A process of its own, because memory that an earlier benchmark took would be counted, tensorflow and torch must not
    share one, and a crash of the one would lose the rows of the others.

    Args:
        folder: for pictures and records, which later benchmarks take up.
        quick: with as little data as possible, to see that it runs.
    """
    say(f"--- {name}")
    started = time.monotonic()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            found = pool.submit(rows_of, name, folder, quick).result()
        except BrokenProcessPool:
            found = [broken_off(name, "its process was killed; is there memory enough?")]
    say(f"--- {name}: {time.monotonic() - started:.0f} s")
    return found


def rows_of(name: str, folder: Path, quick: bool) -> list[Row]:
    """What `measure` runs in the other process. What the benchmark prints goes to stderr: stdout is the table's."""
    with redirect_stdout(sys.stderr):
        try:
            rows: list[Row] = importlib.import_module(f"benchmarks.{name}").rows(folder, quick)
            return rows
        except KeyboardInterrupt:
            return []  # the other process stops everything
        except Missing as error:
            return [Row(name, note=f"left out: {error}")]
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package and package not in OURS:
                return [Row(name, note=f"left out: {package} is not installed")]
            traceback.print_exc()
            return [broken_off(name, str(error))]
        except (BenchmarkError, UserError) as error:
            return [broken_off(name, str(error))]
        except Exception as error:  # a fault of the benchmark, or of what it measures: the others can still run
            traceback.print_exc()
            return [broken_off(name, f"{type(error).__name__}: {error}")]


def broken_off(name: str, reason: str) -> Row:
    first_line = reason.partition("\n")[0]
    return Row(name, note=f"broke off: {first_line}", failed=True)


def chosen(only: Sequence[str]) -> list[str]:
    """The names of what is to run: those in `only`, or all that do not take hours."""
    return [each.name for each in BENCHMARKS if (each.name in only if only else not each.hours)]
