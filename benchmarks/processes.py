"""Running what is measured as a process: its time, its memory, and one line where it fails.

python -c "from benchmarks.processes import run; print(run(['python', '-c', 'pass']).seconds)"
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
NOTHING_ADDED: Mapping[str, str] = {}
POLL = 0.05  # seconds between two looks at the memory


class BenchmarkError(Exception):
    """A measurement broke off; the message is one line."""


class Missing(Exception):
    """Something that is compared with is not on this machine; the message is one line that says what."""


class Run(NamedTuple):
    """What a process took, and what it printed.

    Attributes:
        seconds: on the clock, imports and all.
        cpu: seconds of it and of the processes that it began.
        peak: the largest sum of resident memory of it and of all below it, in MiB; 0 where nobody asked.
        output: on stdout.
    """

    seconds: float
    cpu: float
    peak: float
    output: str


def run(command: Sequence[object], environment: Mapping[str, str] = NOTHING_ADDED, *, memory: bool = False) -> Run:
    """Run a command to its end, from the toolkit's folder.

    Args:
        environment: is added to this process's.
        memory: look at its memory again and again, which takes some milliseconds of processor time a look.

    Raises:
        BenchmarkError: it did not end with 0; the message has the last line of its stderr.
        Missing: psutil is not here, which tells the memory.
    """
    if memory:
        require("psutil")
    words = [str(word) for word in command]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        cpu_before, started = os.times(), time.perf_counter()
        process = subprocess.Popen(words, cwd=ROOT, env=os.environ | environment, stdout=output, stderr=errors)
        with _ended(process), _watched(process.pid) if memory else nullcontext([0]) as peaks:
            code = process.wait()
            seconds, cpu_after = time.perf_counter() - started, os.times()
        if code:
            errors.seek(0)
            raise BenchmarkError(failure(words, code, errors.read().decode(errors="replace")))
        output.seek(0)
        # What ended children took is added here when they are waited for.
        cpu = sum(cpu_after[2:4]) - sum(cpu_before[2:4])
        return Run(seconds, cpu, max(peaks) / 2**20, output.read().decode())


def python(program: str, *arguments: object, environment: Mapping[str, str] = NOTHING_ADDED) -> Run:
    """Run a program that is given as text, which finds the toolkit's modules."""
    return run([sys.executable, "-c", program, *arguments], {"PYTHONPATH": str(ROOT), **environment})


def script(name: str, *arguments: object, memory: bool = False) -> Run:
    """Run one of the toolkit's scripts."""
    return run([sys.executable, ROOT / name, *arguments], memory=memory)


def failure(words: Sequence[str], code: int, errors: str) -> str:
    """One line for a command that failed."""
    lines = [line for line in errors.splitlines() if line.strip()]
    name = " ".join(words[1:2] if words[0] == sys.executable and words[1:2] != ["-c"] else words[:1])
    return f"{Path(name).name} ended with {code}: {lines[-1].strip()[:200] if lines else 'it said nothing'}"


def flags(given: Mapping[str, object]) -> list[object]:
    """`{"--jobs": 3}` as the words of a command."""
    return [word for flag in given.items() for word in flag]


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """See to it that a process does not outlive the block, which may be interrupted."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@contextmanager
def _watched(pid: int) -> Iterator[list[int]]:
    """The sums of resident memory of a process and of all below it, in bytes, as they are found during the block."""
    import psutil

    process, sums, ended = psutil.Process(pid), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(POLL):
            with suppress(psutil.NoSuchProcess):  # it ended while it was asked
                sums.append(sum(one.memory_info().rss for one in (process, *process.children(recursive=True))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield sums
    finally:
        ended.set()
        watcher.join()


def require(*packages: str) -> None:
    """Ask for packages before work that would end without them.

    Raises:
        Missing: one is not installed.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise Missing(f"{package} is not installed")
