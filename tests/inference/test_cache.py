"""cache.py: its bound, what damages it, two runs at once, and the key of an entry.

python -m pytest tests/inference/test_cache.py
"""

import os
import sqlite3
from pathlib import Path

import pytest

from tagger.inference.cache import PredictionCache, fingerprint
from tests.helpers import flip_byte


def test_the_cache_keeps_to_its_bound_and_drops_the_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day = 0
    monkeypatch.setattr("time.time", lambda: day * 86_400.0)
    for day in range(10):
        cache = PredictionCache(tmp_path / "c.sqlite", max_bytes=100_000)
        for number in range(10):
            cache.put(b"%d-%d" % (day, number), bytes(2000))
        assert cache.get(b"0-0") is not None  # used every day
        cache.close()
        assert (tmp_path / "c.sqlite").stat().st_size < 130_000
    cache = PredictionCache(tmp_path / "c.sqlite")
    assert cache.get(b"0-0") is not None and cache.get(b"9-9") is not None
    assert cache.get(b"0-1") is None and cache.get(b"2-2") is None


@pytest.mark.parametrize("spoil", ["garbage", "truncated", "a folder", "locked"])
def test_a_cache_that_cannot_be_used_is_as_if_it_were_not_there(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "c.sqlite"
    cache = PredictionCache(path)
    for number in range(50):
        cache.put(b"%d" % number, bytes(2000))
    cache.close()
    other = None
    if spoil == "garbage":
        path.write_bytes(b"no database " * 1000)
    elif spoil == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif spoil == "a folder":
        path.unlink()
        path.mkdir()
    else:
        other = sqlite3.connect(path, timeout=0)
        other.execute("BEGIN EXCLUSIVE")
    cache = PredictionCache(path)
    cache.put(b"new", b"value")
    assert cache.get(b"49") in (None, bytes(2000)) and cache.get(b"new") in (None, b"value")
    cache.close()
    if other:
        other.close()


def test_a_reader_locks_no_other_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day = 0
    monkeypatch.setattr("time.time", lambda: day * 86_400.0)
    first, second = (PredictionCache(tmp_path / "c.sqlite") for _ in range(2))
    first.put(b"a", b"1")
    day = 1
    assert first.get(b"a") == b"1"  # its first use on another day
    monkeypatch.setattr("time.sleep", lambda _: None)
    second.put(b"b", b"2")
    assert second.get(b"b") == b"2" and first.get(b"b") == b"2"
    first.close()
    second.close()


def test_the_fingerprint_tells_checkpoints_configs_and_devices_apart(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(3_000_000))
    os.utime(path, (1, 1))
    first = fingerprint([path], {"a": 1}, "cpu")
    assert first == fingerprint([path], {"a": 1}, "cpu")
    assert len({first, fingerprint([path], {"a": 2}, "cpu"), fingerprint([path], {"a": 1}, "cuda")}) == 3
    os.utime(path, (2, 2))
    assert fingerprint([path], {"a": 1}, "cpu") != first
    for position in (0, 2_999_999):
        flip_byte(path, position)
        os.utime(path, (1, 1))
        assert fingerprint([path], {"a": 1}, "cpu") != first
        flip_byte(path, position)
