"""workers.py: results in order, and items that kill their process.

python -m pytest tests/tfrecord/test_workers.py
"""

import os
import time
from collections.abc import Iterator, Sequence

import pytest

from tagger.files import UserError
from tagger.tfrecord.workers import IN_FLIGHT, DaskWorkers, Workers


def double(items: Sequence[int]) -> list[int]:
    """Twice each item; a negative one ends the process, as a crash in a decoder does."""
    for item in items:
        if item < 0:
            os._exit(1)
    return [2 * item for item in items]


def slowly(items: Sequence[int]) -> list[int]:
    """As `double`, but 3 takes long, and -2 ends the process after a while."""
    for item in items:
        time.sleep({3: 1.0, -2: 0.3}.get(item, 0))
    return double(items)


def refuse(items: Sequence[int]) -> list[int]:
    raise UserError(f"{items[0]}: no good")


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(2) as each:
        yield each


def batches(*items: int) -> list[list[int]]:
    return [list(items[start : start + 3]) for start in range(0, len(items), 3)]


def test_results_come_in_order(workers: Workers) -> None:
    given = batches(*range(40))
    assert list(workers.map(double, given, "crashed")) == [(batch, double(batch)) for batch in given]


@pytest.mark.parametrize("bad", [[0], [19], [4, 5, 20]])
def test_an_item_that_kills_its_process_costs_itself_alone(workers: Workers, bad: list[int]) -> None:
    items = [-1 if number in bad else number for number in range(21)]
    results = [result for _, results in workers.map(double, batches(*items), "crashed") for result in results]
    assert results == ["crashed" if number in bad else 2 * number for number in range(21)]


def test_a_suspect_is_not_blamed_for_the_crash_of_another(workers: Workers) -> None:
    """3 is tried alone, for its batch crashed; meanwhile the processes are there again, and crash of -2."""
    results = workers.map(slowly, [[0], [3, -1], *([number] for number in range(4, 8)), [-2], [9]], "crashed")
    found = [next(results)]
    time.sleep(2)  # so that the batch with -2 is given to new processes
    found += results
    assert [result for _, each in found for result in each] == [0, 6, "crashed", 8, 10, 12, 14, "crashed", 18]


def test_no_more_is_taken_than_is_under_way(workers: Workers) -> None:
    taken: list[int] = []

    def given() -> Iterator[list[int]]:
        for number in range(100):
            taken.append(number)
            yield [number]

    next(workers.map(double, given(), "crashed"))
    assert len(taken) == IN_FLIGHT * 2


def test_an_error_of_the_work_itself_is_raised(workers: Workers) -> None:
    with pytest.raises(UserError, match="7: no good"):
        list(workers.map(refuse, [[7]], "crashed"))


def test_a_scheduler_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tagger.tfrecord.workers.DASK_TIMEOUT", "1s")
    with pytest.raises(UserError, match=r"Dask scheduler tcp://127\.0\.0\.1:9: .*; start one with"):
        DaskWorkers("tcp://127.0.0.1:9")
