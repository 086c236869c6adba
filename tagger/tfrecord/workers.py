"""Run a function on batches in several processes: results in order, memory flat, a crash costs one item.

    with Workers(2) as workers:
        for batch, results in workers.map(work, batches, "it kills the process"):
            ...

DaskWorkers does the same on a Dask cluster.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from tagger.files import UserError

T = TypeVar("T")
R = TypeVar("R")
C = TypeVar("C")

IN_FLIGHT = 3  # batches for each worker that are submitted or not fetched yet
WINDOWS_LIMIT = 61  # processes that Windows can wait for at once
DASK_TIMEOUT = "20s"  # for reaching the scheduler
PACKAGE = Path(__file__).resolve().parent.parent  # tagger/, which Dask's workers need


def available_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(submit: Callable[[T], Future[R]], items: Iterable[T], limit: int) -> Iterator[tuple[T, Future[R]]]:
    """Submit items and yield each with its future, in order; at most `limit` of them are under way."""
    pending: deque[tuple[T, Future[R]]] = deque()
    for item in items:
        pending.append((item, submit(item)))
        if len(pending) >= limit:
            yield pending.popleft()
    while pending:
        yield pending.popleft()


def zip_package(path: Path) -> Path:
    """Write the package `tagger` as a zip file that Python imports from; its path."""
    with zipfile.ZipFile(path, "w") as file:
        for source in sorted(PACKAGE.rglob("*.py")):
            file.write(source, source.relative_to(PACKAGE.parent))
    return path


def _start_process() -> None:
    """Leave Ctrl-C to the script, and do not outlive it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class Workers:
    """Processes of this machine. They are spawned, so what they run must be importable.

    A process that dies (a crash in a decoder, the system short of memory) costs the item it died of, and no more.
    """

    def __init__(self, count: int) -> None:
        self.count = min(count, WINDOWS_LIMIT) if sys.platform == "win32" else count
        self._pool = self._new_pool(self.count)
        self._suspects: Executor | None = None  # one process for items of batches that crashed

    @staticmethod
    def _new_pool(count: int) -> Executor:
        return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _start_process)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for pool in (self._pool, self._suspects):
            if pool:
                pool.shutdown(cancel_futures=True)

    def map(
        self, function: Callable[[Sequence[T]], Sequence[R]], batches: Iterable[Sequence[T]], crashed: C
    ) -> Iterator[tuple[Sequence[T], list[R | C]]]:
        """Yield every batch with its results, in order.

        Args:
            function: makes a list of results of a batch, one for each item.
            crashed: the result of an item that killed its process.

        Raises:
            UserError: no process lives long enough to do anything.
        """

        def submit(batch: Sequence[T]) -> Future[Sequence[R]]:
            try:
                return self._pool.submit(function, batch)
            except BrokenProcessPool:
                self._revive()
                return self._pool.submit(function, batch)

        def alone(item: T) -> R | C:
            """The result of an item that was under way when a process died, in a process without company."""
            self._suspects = self._suspects or self._new_pool(1)
            try:
                return self._suspects.submit(function, [item]).result()[0]
            except BrokenProcessPool:
                self._suspects.shutdown()
                self._suspects = None
                return crashed

        for batch, future in in_order(submit, batches, IN_FLIGHT * self.count):
            try:
                results: list[R | C] = [*future.result()]
            except BrokenProcessPool:
                results = [alone(item) for item in batch]
            yield batch, results

    def _revive(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._pool = self._new_pool(self.count)
        try:
            self._pool.submit(os.getpid).result()
        except BrokenProcessPool:
            raise UserError(
                "the worker processes die as soon as they start; free some memory, or use fewer of them"
            ) from None


class DaskWorkers:
    """The workers of a Dask cluster, which must see the same files under the same paths."""

    def __init__(self, address: str) -> None:
        """Connect to a scheduler, and bring its workers the package `tagger` as one zip file.

        Raises:
            UserError: dask.distributed is not installed, or no scheduler answers.
        """
        try:
            from distributed import Client
        except ImportError:
            raise UserError("Dask: the package distributed is missing; pip install distributed") from None
        try:
            self._client = Client(address, timeout=DASK_TIMEOUT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UserError(f"Dask scheduler {address}: {error}; start one with: dask scheduler") from None
        self._bring_package()

    def _bring_package(self) -> None:
        """Let the cluster import this version of the package, whatever an earlier run left there."""

        def forget(package: str) -> None:
            # Dask sends a function within a function by its code, and the workers have no names of ours: it must import
            # what it needs.
            import sys

            for name in [name for name in sys.modules if name.partition(".")[0] == package]:
                del sys.modules[name]

        # Uploading reloads the package, but not the modules in it that were imported already. The scheduler needs them
        # as well, for it unpickles what it hands on.
        self._client.run(forget, PACKAGE.name)
        self._client.run_on_scheduler(forget, PACKAGE.name)
        with tempfile.TemporaryDirectory() as folder:
            self._client.upload_file(str(zip_package(Path(folder) / f"{PACKAGE.name}.zip")))

    def __enter__(self) -> "DaskWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
        """Yield every item with its result, in order.

        Raises:
            UserError: a worker died of an item again and again.
        """
        from distributed import KilledWorker

        def submit(item: T) -> Future[R]:
            future: Future[R] = executor.submit(function, item)
            return future

        cores = sum(self._client.ncores().values())
        executor: Any = self._client.get_executor(pure=False)
        for item, future in in_order(submit, items, IN_FLIGHT * max(1, cores)):
            try:
                yield item, future.result()
            except KilledWorker as error:
                raise UserError(f"Dask: {error}; look into the workers' logs, and give them more memory") from None
