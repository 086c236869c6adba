"""What a benchmark hands back: rows, and the one place that makes a table of them.

    python -m benchmarks --quick

Every benchmark has a function `rows(folder, quick)` beside its own command line.
"""

import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from tagger.cli import VERSION

HEADER = ("what", "ours", "against", "ratio", "goal")
HEADER_ZH = ("项目", "本工具", "对比", "比值", "目标")
# Their versions decide about the figures.
PACKAGES = ("torch", "timm", "onnxruntime", "tensorflow", "numpy", "pillow", "gallery-dl")


@dataclass(frozen=True)
class Goal:
    """What is aimed at: of the ratio where `of_ratio`, else of our own figure; at most `limit`, or at least."""

    limit: float
    at_least: bool = False
    of_ratio: bool = True

    def met_by(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Chinese:
    """What a row says in README.zh.md: the texts of its fields; "" where the English one is a name and stays."""

    what: str
    against: str = ""
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        what: is measured.
        unit: of both figures.
        ours: None where it was not measured, and `note` says why.
        against: whom or what `theirs` is of; "" where there is nothing to compare with.
        theirs: None where `against` was not measured, and `note` says why.
        goal: what is aimed at.
        note: what a reader has to know, such as the comparator that is missing.
        zh: the same in Chinese. Rows that have it stand in both READMEs, the others only in docs/benchmarks.md.
        wall: whether it is time on the clock, which other work on the machine falsifies.
        failed: whether the benchmark broke off.
    """

    what: str
    unit: str = ""
    ours: float | None = None
    against: str = ""
    theirs: float | None = None
    goal: Goal | None = None
    note: str = ""
    zh: Chinese | None = None
    wall: bool = False
    failed: bool = False

    @property
    def ratio(self) -> float | None:
        """Ours divided by theirs."""
        return self.ours / self.theirs if self.ours is not None and self.theirs else None

    @property
    def verdict(self) -> bool | None:
        """Whether the goal is met; None where there is none, or nothing to hold against it."""
        value = self.ratio if self.goal and self.goal.of_ratio else self.ours
        return self.goal.met_by(value) if self.goal and value is not None else None


def figure(value: float) -> str:
    """A number with three digits that count, and all those before the point: 0.00123, 4.52, 1,234."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".") if value else "0"


def cells(row: Row) -> tuple[str, str, str, str, str]:
    """A row as the texts under HEADER."""
    ours = "" if row.ours is None else f"{figure(row.ours)} {row.unit}".strip() + " \\*" * row.wall
    theirs = row.against if row.theirs is None else f"{row.against}: {figure(row.theirs)} {row.unit}".strip()
    against = "; ".join(filter(None, (theirs, row.note)))
    ratio = "" if row.ratio is None else figure(row.ratio)
    goal = ""
    if row.goal:
        unit = "" if row.goal.of_ratio else f" {row.unit}"
        goal = f"{'≥' if row.goal.at_least else '≤'} {figure(row.goal.limit)}{unit}"
        goal += {True: " ✓", False: " ✗", None: ""}[row.verdict]
    return row.what, ours, against, ratio, goal


def markdown(rows: Iterable[Row]) -> Iterator[str]:
    """The lines of a table of all rows."""
    yield from _table(HEADER, map(cells, rows))


def markdown_zh(rows: Iterable[Row]) -> Iterator[str]:
    """The lines of a Chinese table of the rows that have Chinese texts."""
    yield from _table(HEADER_ZH, (cells(_translated(row, row.zh)) for row in rows if row.zh))


def _translated(row: Row, zh: Chinese) -> Row:
    return replace(row, what=zh.what, against=zh.against or row.against, note=row.note and (zh.note or row.note))


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield "|---" * len(header) + "|"
    for line in lines:
        # A bar would begin another cell, and a line's end another row.
        yield f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in line)} |"


# --- where it was measured ------------------------------------------------------------------------------------------


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> float | None:
    """How many processes wanted to run in the last minute, on average; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


@dataclass(frozen=True)
class Machine:
    """Where and when it was measured, and what else the machine did before (see `load`)."""

    day: str
    cores: int
    processor: str
    system: str
    load: float | None
    versions: str

    @classmethod
    def here(cls) -> "Machine":
        return cls(time.strftime("%Y-%m-%d"), cores(), processor(), platform.system(), load(), versions())

    def __str__(self) -> str:
        before = "" if self.load is None else f"; load before the first benchmark {self.load:.1f}"
        where = f"{self.cores} cores of {self.processor}, {self.system}{before}"
        return f"{self.day}, version {VERSION}, {where}; {self.versions}."

    def zh(self) -> str:
        """The same in Chinese."""
        before = "" if self.load is None else f"；测量前的系统负载 {self.load:.1f}"
        where = f"{self.processor} 的 {self.cores} 个核心，{self.system}{before}"
        return f"{self.day}，版本 {VERSION}，{where}；{self.versions}。"


def versions() -> str:
    """Of Python and of the packages that decide about the figures, as far as they are here."""
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue  # the row that wanted it says so
    return ", ".join(found)


def say(text: str) -> None:
    """Progress, on stderr: stdout is for the results."""
    print(text, file=sys.stderr, flush=True)
