"""writer.py without tensorflow: records, what is left out, and what a failure leaves behind.

python -m pytest tests/tfrecord/test_writer.py
"""

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tagger.formats.records import OVERHEAD, Example, index_of
from tagger.tfrecord import writer
from tagger.tfrecord.catalog import LABEL_TYPE, Row, UnusableOutput
from tagger.tfrecord.shards import Shard, read_stats
from tagger.tfrecord.writer import PictureSettings, prepare_records, write_shard, write_shard_in_one_process
from tests.helpers import tree, write_pair

SETTINGS = PictureSettings(img_size=14, resize_mode="pad", quality=95, max_pixels=10_000)


class OpError(Exception):
    message = "No space left on device"


class FakeWriter:
    """tf.io.TFRecordWriter with OVERHEAD zeros behind each record; a disk that is full after `room` records."""

    room = 1000

    def __init__(self, path: bytes) -> None:
        self.file = open(path, "wb")  # noqa: SIM115, closed by __exit__
        self.written = 0

    def __enter__(self) -> "FakeWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, example: bytes) -> None:
        if self.written == self.room:
            raise OpError
        self.written += 1
        self.file.write(example + bytes(OVERHEAD))


@pytest.fixture(autouse=True)
def without_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    tensorflow = SimpleNamespace(errors=SimpleNamespace(OpError=OpError), io=SimpleNamespace(TFRecordWriter=FakeWriter))
    monkeypatch.setattr(writer, "import_tensorflow", lambda: tensorflow)


@pytest.fixture(autouse=True)
def limit_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `prepare_records` sets for its process is taken back after each test."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """Four pictures, of which the second is damaged and the last too large."""
    folder = tmp_path / "dataset"
    for number in range(4):
        write_pair(folder, f"{number}.png", ["general"], grey=number)
    (folder / "1.png").write_bytes(b"no picture")
    Image.new("RGB", (200, 200)).save(folder / "3.png")
    return [Row(number, f"{number}.png", b"", np.array([number, 9], LABEL_TYPE).tobytes()) for number in range(4)]


def test_a_record_for_each_picture_or_why_there_is_none(tmp_path: Path, rows: list[Row]) -> None:
    first, damaged, third, large = prepare_records(tmp_path / "dataset", SETTINGS, rows)
    assert isinstance(damaged, str) and damaged.startswith("not an image")
    assert isinstance(large, str) and large.startswith("too large")
    assert isinstance(first, bytes) and isinstance(third, bytes)
    features = Example.FromString(third).features.feature
    assert list(features["label_indexes"].int64_list.value) == [2, 9]
    assert list(features["image_name"].bytes_list.value) == [b"2.png"]
    with Image.open(io.BytesIO(features["image_bytes"].bytes_list.value[0])) as image:
        assert image.size == (14, 14)
    (stretched,) = prepare_records(tmp_path / "dataset", PictureSettings(14, "stretch", 95, 10_000), rows[2:3])
    assert stretched != third


def test_a_shard_with_its_index_and_what_is_in_it(tmp_path: Path, rows: list[Row]) -> None:
    shard = Shard(tmp_path / "out" / "x.tfrecord", 0, 4, {"--seed": 0})
    write_shard_in_one_process(tmp_path / "dataset", SETTINGS, (shard, rows))
    assert tree(tmp_path / "out") == ["x.idx", "x.stats.json", "x.tfrecord"]
    stats = read_stats(shard.path)
    assert stats and (stats.records, stats.label_counts, stats.made_of) == (2, {0: 1, 2: 1, 9: 2}, {"--seed": 0})
    assert [name for name, _ in stats.skipped] == ["1.png", "3.png"]
    data, expected = shard.path.read_bytes(), prepare_records(tmp_path / "dataset", SETTINGS, rows)
    places = [tuple(map(int, line.split())) for line in index_of(shard.path).read_text().splitlines()]
    assert [data[at : at + size - OVERHEAD] for at, size in places] == [expected[0], expected[2]]


def test_progress_counts_all_pictures(tmp_path: Path, rows: list[Row]) -> None:
    done: list[int] = []

    def prepare(batches: Iterator[list[Row]]) -> Iterator[tuple[list[Row], list[bytes | str]]]:
        return ((batch, [b"record" for _ in batch]) for batch in batches)

    write_shard(Shard(tmp_path / "x.tfrecord", 0, 40, {}), iter(rows * 10), prepare, done.append)
    assert sum(done) == 40 and max(done) == writer.BATCH


@pytest.mark.parametrize(
    ("room", "error", "words"),
    [(1, UnusableOutput, r"x\.tfrecord: No space left on device; make room there"), (1000, RuntimeError, "no more")],
)
def test_a_failure_leaves_no_shard_that_seems_finished(
    tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch, room: int, error: type[Exception], words: str
) -> None:
    shard = Shard(tmp_path / "out" / "x.tfrecord", 0, 4, {})
    write_shard_in_one_process(tmp_path / "dataset", SETTINGS, (shard, rows))
    before = shard.path.read_bytes()
    monkeypatch.setattr(FakeWriter, "room", room)

    def prepare(batches: Iterator[list[Row]]) -> Iterator[tuple[list[Row], list[bytes | str]]]:
        for batch in batches:
            yield batch, [b"record" for _ in batch]
            raise RuntimeError("no more")

    with pytest.raises(error, match=words):
        write_shard(shard, iter(rows), prepare)
    assert read_stats(shard.path) is None
    assert shard.path.read_bytes() == before and tree(tmp_path / "out") == ["x.idx", "x.tfrecord"]
