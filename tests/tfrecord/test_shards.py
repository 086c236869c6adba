"""shards.py: how pictures are divided among files, and which of these files are finished or out of date.

python -m pytest tests/tfrecord/test_shards.py
"""

import json
import struct
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger.files import UserError, write_json
from tagger.formats.records import Record, index_of, masked_crc, serialize
from tagger.tfrecord.catalog import Row
from tagger.tfrecord.shards import (
    Shard,
    Stats,
    changes,
    compare,
    digests,
    divide,
    find_damage,
    make_room,
    read_all_stats,
    read_stats,
    stats_path,
)
from tests.helpers import flip_byte, tree

MADE_OF = {"--seed": 0, "--quality": 95, "pictures": "p", "labels": "l"}


def shards(output: Path, count: int = 3) -> list[Shard]:
    return [Shard(path, first, last, MADE_OF) for path, first, last in divide(output, "train", 0, 30, count)]


def finish(shard: Shard) -> Stats:
    """Make the files of a finished shard."""
    shard.path.parent.mkdir(parents=True, exist_ok=True)
    shard.path.write_bytes(b"0123456789")
    index_of(shard.path).write_text("0 10\n")
    stats = Stats(shard.made_of, 1, 10, [("a.png", "damaged")], {3: 1})
    write_json(stats_path(shard.path), asdict(stats))
    return stats


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 20))
def test_shards_lie_side_by_side_and_differ_by_one_at_the_most(first: int, length: int, count: int) -> None:
    divided = divide(Path("out"), "train", first, first + length, count)
    assert len(divided) == min(count, max(1, length))
    assert [start for _, start, _ in divided] == [first, *(end for _, _, end in divided[:-1])]
    assert divided[-1][2] == first + length
    sizes = [end - start for _, start, end in divided]
    assert max(sizes) - min(sizes) <= 1


def test_what_was_written_reads(tmp_path: Path) -> None:
    (shard,) = shards(tmp_path, count=1)
    assert read_stats(shard.path) is None
    assert finish(shard) == read_stats(shard.path)


def spoil(path: Path, how: str) -> None:
    raw = json.loads(stats_path(path).read_text())
    if how == "no index":
        index_of(path).unlink()
    elif how == "cut off":
        path.write_bytes(b"01234")
    elif how == "gone":
        path.unlink()
    elif how == "not JSON":
        stats_path(path).write_text("{")
    else:
        stats_path(path).write_text(json.dumps({**raw, "label_counts": how}))


@pytest.mark.parametrize("how", ["no index", "cut off", "gone", "not JSON", "edited"])
def test_what_is_incomplete_is_not_finished(tmp_path: Path, how: str) -> None:
    (shard,) = shards(tmp_path, count=1)
    finish(shard)
    spoil(shard.path, how)
    assert read_stats(shard.path) is None
    assert compare([shard], tmp_path) == ([shard], {})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"--seed": 1}, "--seed was 0 and is 1"),
        ({"--seed": 1, "--quality": 90, "pictures": "q"}, "--seed was 0 and is 1, --quality was 95 and is 90"),
        ({"pictures": "q", "labels": "m"}, "the dataset's pictures changed"),
        ({"labels": "m"}, "the tags in the txt files, their aliases or the rows of the CSV changed"),
        ({"--new": 1}, "--new was None and is 1"),
    ],
)
def test_what_changed(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    (shard,) = shards(tmp_path, count=1)
    assert changes(finish(shard), replace(shard, made_of={**MADE_OF, **change})) == words


def test_finished_ones_stay_and_files_of_another_number_are_stale(tmp_path: Path) -> None:
    for shard in shards(tmp_path, count=2):
        finish(shard)
    wanted = shards(tmp_path, count=3)
    finish(wanted[1])
    todo, stale = compare(wanted, tmp_path)
    assert todo == [wanted[0], wanted[2]]
    assert stale == {shard.path: "another run wrote it" for shard in shards(tmp_path, count=2)}
    (tmp_path / "aibooru.json").touch()
    (wanted[0].path.parent / ".x.part").touch()
    make_room(tmp_path, stale)
    kept = wanted[1].path.relative_to(tmp_path)
    assert tree(tmp_path) == sorted(path.as_posix() for path in (kept, index_of(kept), stats_path(kept)))


def test_digests_tell_pictures_from_labels() -> None:
    row = Row(0, "a.png", b"digest", b"\0\0\0\0")
    first = digests([row])
    assert digests([row]) == first
    other_picture, other_label = digests([row._replace(digest=b"other")]), digests([row._replace(labels=b"\1\0\0\0")])
    assert other_picture["pictures"] != first["pictures"] and other_picture["labels"] == first["labels"]
    assert other_label["pictures"] == first["pictures"] and other_label["labels"] != first["labels"]


def test_a_shard_that_no_worker_wrote_here(tmp_path: Path) -> None:
    one, two = shards(tmp_path, count=2)
    finish(one)
    assert [stats.records for stats in read_all_stats([one])] == [1]
    with pytest.raises(UserError, match="do the workers see the same folder"):
        read_all_stats([one, two])


def test_digests_are_those_of_version_0_1() -> None:
    """Or every folder of records that it made would seem to be out of date."""
    rows = [Row(0, "a.png", b"digest", b"\0\0\0\0\3\0\0\0"), Row(1, "\udcff.jpg", b"other", b"\7\0\0\0")]
    assert digests(rows) == {
        "pictures": "34256e4b21c0542b4f1dd26d4481aa6b4d1336c7ac95846650a7c255ee6e4d72",
        "labels": "f1f415d99f5935e32fc8f76e59e0b2d95702d9e51ddafead01e714b22bd89916",
    }


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A finished shard of three records, as tensorflow writes it."""
    (shard,) = shards(tmp_path, count=1)
    examples = [serialize(Record(number, b"a picture", [number, 9], "a.png")) for number in range(3)]
    frames = [b"".join(framed(example)) for example in examples]
    offsets = [sum(map(len, frames[:number])) for number in range(3)]
    shard.path.parent.mkdir()
    shard.path.write_bytes(b"".join(frames))
    index = "".join(f"{offset} {len(frame)}\n" for offset, frame in zip(offsets, frames, strict=True))
    index_of(shard.path).write_bytes(index.encode())
    stats = Stats(shard.made_of, 3, sum(map(len, frames)), [], {0: 1, 1: 1, 2: 1, 9: 3})
    write_json(stats_path(shard.path), asdict(stats))
    return shard.path


def framed(data: bytes) -> tuple[bytes, ...]:
    length = struct.pack("<Q", len(data))
    return length, struct.pack("<I", masked_crc(length)), data, struct.pack("<I", masked_crc(data))


def test_a_whole_shard_is_not_damaged(written: Path) -> None:
    assert find_damage([written, written]) == ["", ""]


def test_any_flipped_byte_is_found(written: Path) -> None:
    for path in (written, index_of(written)):
        size = path.stat().st_size
        for position in range(size):
            flip_byte(path, position)
            assert find_damage([written]) != [""], (path, position)
            flip_byte(path, position)
    assert find_damage([written]) == [""]


@pytest.mark.parametrize("change", [{"records": 2}, {"label_counts": {"0": 1, "1": 1, "2": 1, "9": 2}}])
def test_stats_that_do_not_fit_are_found(written: Path, change: dict[str, Any]) -> None:
    write_json(stats_path(written), json.loads(stats_path(written).read_text()) | change)
    assert find_damage([written]) == ["aibooru_train.stats.json does not fit it"]


def test_what_is_gone_is_not_finished(written: Path) -> None:
    written.unlink()
    assert find_damage([written]) == ["not finished"]
