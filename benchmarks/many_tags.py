"""What a vocabulary of 200,000 tags costs: validation, and opening an index of 8 million records; now and before.

    python -m benchmarks.many_tags                       # a minute; 10,861 and 200,000 tags
    python -m benchmarks.many_tags --before 28d7b67      # and beside it an earlier commit, which wants 8 GB of memory

It makes its own data: random logits, in which some tags are frequent and most are rare, and the index of a file that
holds nothing. Each measurement runs in a process of its own, on one thread; times are CPU seconds, memory is what the
process takes on top of its imports and of the batch that it is given.
"""

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import ROOT, BenchmarkError
from benchmarks.table import Goal, Row

RECORDS = 8_000_000
RECORD_BYTES = 100
VALIDATION_BATCHES = 8  # of 32 images; what is measured does not depend on how many there were
WD_TAGS = 10_861  # what the public WD taggers know

PEAK = """
import resource, sys, time
from pathlib import Path

def peak():  # bytes; macOS counts in bytes, Linux in kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
"""

VALIDATION = """
import torch
from tagger.formats.vocabulary import Vocabulary
from tagger.training.evaluation import Evaluation

tags, batches, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
kinds = [9] * 4 + [0] * (tags // 10) + [4] * (tags // 5)
kinds += [1] * (tags - len(kinds))
vocabulary = Vocabulary(tuple(f"tag_{number}" for number in range(tags)), tuple(kinds), tuple(range(tags)))
chance = torch.Generator().manual_seed(0)
frequency = 0.5 / (1 + torch.arange(tags) / 20)
targets = (torch.rand(32, tags, generator=chance) < frequency).float()
logits = torch.randn(32, tags, generator=chance).add_(targets, alpha=4).sub_(6)
base = peak()
evaluation = Evaluation(vocabulary, torch.device("cpu"))
start = time.process_time()
for batch in range(batches):
    evaluation.update(list(range(32 * batch, 32 * batch + 32)), logits, targets, torch.tensor(1.0))
updated = time.process_time()
evaluation.metrics()
evaluation.write(folder)
evaluation.report()
print((updated - start) / batches * 1000, time.process_time() - updated, (peak() - base) / 1e9)
"""

INDEX = """
from tagger.formats.records import RecordFile

base, start = peak(), time.process_time()
assert len(RecordFile(Path(sys.argv[1]))) == int(sys.argv[2])
print(time.process_time() - start, (peak() - base) / 1e6)
"""


@dataclass(frozen=True)
class Figure:
    """One line of the table; `goal` is the most that it should be, or None where it should be no more than before."""

    what: str
    unit: str
    goal: float | None


def validation_figures(tags: int) -> tuple[Figure, ...]:
    """What `VALIDATION` prints."""
    huge = tags > WD_TAGS
    return (
        Figure(f"validation, {tags:,} tags: a batch of 32", "ms", None),
        Figure(f"validation, {tags:,} tags: metrics, files and report", "s", 10.0 if huge else None),
        Figure(f"validation, {tags:,} tags: peak", "GB", 1.5 if huge else None),
    )


INDEX_FIGURES = (
    Figure(f"index of {RECORDS:,} records: open", "s", 0.3),
    Figure(f"index of {RECORDS:,} records: memory", "MB", 200.0),
)


def measure(code: str, root: Path, *arguments: object) -> list[float] | None:
    """The numbers that some code prints with the package of a folder; None, and why on stderr, where it fails."""
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PEAK + code, *map(str, arguments)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        print(f"many_tags: {root.name}: {reason}", file=sys.stderr)
        return None
    return [float(number) for number in done.stdout.split()]


def make_records(folder: Path) -> Path:
    """A file without content, whose index says that it holds `RECORDS` records."""
    path = folder / "many.tfrecord"
    with open(path, "wb") as file:
        file.truncate(RECORDS * RECORD_BYTES)  # takes no room on disk
    with open(path.with_suffix(".idx"), "w", encoding="ascii") as index:
        index.writelines(f"{RECORD_BYTES * number} {RECORD_BYTES}\n" for number in range(RECORDS))
    return path


def unpack(commit: str, folder: Path) -> Path:
    """The package as it was at a commit.

    Raises:
        subprocess.CalledProcessError: there is no such commit.
    """
    archive = subprocess.run(["git", "archive", commit, "tagger"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


def print_figures(figures: Sequence[Figure], now: list[float] | None, before: list[float] | None) -> None:
    """A line for each: now, before, their ratio, and the goal."""
    for number, figure in enumerate(figures):
        ours, theirs = (values[number] if values else None for values in (now, before))
        shown = ["-" if value is None else f"{value:.3g} {figure.unit}" for value in (ours, theirs, figure.goal)]
        ratio = f"{ours / theirs:.2f}" if ours is not None and theirs else "-"
        print(f"{figure.what:<58}{shown[0]:>10}{shown[1]:>12}{ratio:>8}{shown[2]:>10}", flush=True)


# Of 200,000 tags and of 8 million records in version 0.1.0, on two cores of a Xeon: it takes 8 GB to measure it again.
NOTED = {"a batch of 32": 146.0, "metrics, files and report": 93.0, "peak": 7.2, "open": 1.5, "memory": 1250.0}


def rows(folder: Path, quick: bool) -> list[Row]:
    table = []
    for tags in (300,) if quick else (WD_TAGS, 200_000):
        found = measure(VALIDATION, ROOT, tags, 1 if quick else VALIDATION_BATCHES, folder)
        table += as_rows(validation_figures(tags), found, compare=tags > WD_TAGS)
    records = make_records(folder)
    found = measure(INDEX, ROOT, records, RECORDS)
    return table + as_rows(INDEX_FIGURES, found, compare=True)


def as_rows(figures: Sequence[Figure], found: list[float] | None, compare: bool) -> list[Row]:
    """Figures as rows of the table of all benchmarks.

    Raises:
        BenchmarkError: nothing was found.
    """
    if found is None:
        raise BenchmarkError(f"{figures[0].what}: it broke off; the reason is above")
    table = []
    for figure, value in zip(figures, found, strict=True):
        before = NOTED[figure.what.rpartition(": ")[2]]
        against = f"version 0.1.0, noted: {before:g} {figure.unit}" if compare else ""
        goal = None if figure.goal is None else Goal(figure.goal, of_ratio=False)
        unit = f"CPU {figure.unit}" if figure.unit.endswith("s") else figure.unit
        table.append(Row(figure.what, unit, value, against, goal=goal))
    return table


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", metavar="COMMIT", help="measure this commit as well")
    parser.add_argument("--tags", type=int, nargs="+", default=[WD_TAGS, 200_000], help="sizes of the vocabulary")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        roots = [ROOT]
        if arguments.before:
            try:
                roots.append(unpack(arguments.before, folder / "before"))
            except (OSError, subprocess.CalledProcessError):
                print(f"many_tags: no commit {arguments.before} here; measured without it", file=sys.stderr)
        print(f"{'':<58}{'now':>10}{'before':>12}{'ratio':>8}{'goal':>10}")
        for tags in arguments.tags:
            found = [measure(VALIDATION, root, tags, VALIDATION_BATCHES, folder) for root in roots]
            print_figures(validation_figures(tags), found[0], found[1] if len(found) > 1 else None)
        records = make_records(folder)
        found = [measure(INDEX, root, records, RECORDS) for root in roots]
        print_figures(INDEX_FIGURES, found[0], found[1] if len(found) > 1 else None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
