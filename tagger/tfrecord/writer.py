"""From pictures to one TFRecord file: preparing them in many processes, and writing in one with tensorflow.

python create_tfrecord.py --dataset-folder ./dataset
"""

import contextlib
import importlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from tagger import images
from tagger.files import UserError, replacing, replacing_path, write_json
from tagger.formats.records import OVERHEAD, Record, index_of, serialize
from tagger.tfrecord.catalog import Row, UnusableOutput, batches, labels_of
from tagger.tfrecord.pairs import printable
from tagger.tfrecord.shards import Shard, Stats, stats_path
from tagger.tfrecord.sources.tars import read_member

BATCH = 16  # pictures that a worker prepares at a time, about a tenth of a second
RESIZE_MODES = ("pad", "stretch")  # to a white square as inference does, or distorted to it


@dataclass(frozen=True)
class PictureSettings:
    """How a picture becomes a record.

    Attributes:
        img_size: the side of the stored image in pixels.
        resize_mode: one of RESIZE_MODES.
        quality: of the stored JPEG, 1..100.
        max_pixels: larger pictures are left out, for they may be decompression bombs.
    """

    img_size: int
    resize_mode: str
    quality: int
    max_pixels: int


def prepare_records(folder: Path, settings: PictureSettings, rows: Sequence[Row]) -> list[bytes | str]:
    """For each picture its record, a serialized tf.train.Example, or why there is none."""
    images.limit_pixels(settings.max_pixels)
    return [_prepare_record(folder, settings, row) for row in rows]


def _prepare_record(folder: Path, settings: PictureSettings, row: Row) -> bytes | str:
    path, stretch = folder / row.name, settings.resize_mode == "stretch"
    try:
        source = read_member(folder, row.member) if row.member else path
        picture = images.prepare(source, settings.img_size, stretch=stretch, reduced_decoding=True)
    except images.UnreadableImage as error:
        return str(error).removeprefix("image: " if row.member else f"{path}: ")
    except (UserError, OSError) as error:  # of the tar
        return str(error)
    jpeg = images.encode_jpeg(picture, settings.quality)
    return serialize(Record(row.rank, jpeg, labels_of(row), row.name))


def import_tensorflow() -> ModuleType:
    """tensorflow, imported late and quietly.

    Late, because it takes 4 s, which --help and a wrong path need not wait for. Quietly, because it greets with a page
    on stderr that none of its settings silences; what goes wrong in importing it still raises. Writing needs no GPU.
    """
    os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"})
    stderr = os.dup(2)  # the C++ library writes to the descriptor, past Python's sys.stderr
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        return importlib.import_module("tensorflow")
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


class RecordWriter:
    """A tf.io.TFRecordWriter that writes NVIDIA DALI's index on the way and counts."""

    def __init__(self, tf_writer: Any, index: IO[str]) -> None:
        self._tf_writer, self._index = tf_writer, index
        self.records = self.bytes = 0

    def write(self, example: bytes) -> None:
        """Append a serialized tf.train.Example."""
        self._tf_writer.write(example)
        size = len(example) + OVERHEAD
        self._index.write(f"{self.bytes} {size}\n")
        self.records += 1
        self.bytes += size


@contextlib.contextmanager
def opened_writer(path: Path) -> Iterator[RecordWriter]:
    """Write a TFRecord file and its index; each appears whole or not at all, after the block.

    Raises:
        UnusableOutput: tensorflow cannot write the file.
    """
    tf = import_tensorflow()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            replacing(index_of(path)) as index,
            replacing_path(path) as part,
            tf.io.TFRecordWriter(os.fsencode(part)) as tf_writer,
        ):
            yield RecordWriter(tf_writer, index)
    except tf.errors.OpError as error:
        raise UnusableOutput(f"{path}: {error.message}; make room there") from None


Prepared = Iterator[tuple[Sequence[Row], Sequence[bytes | str]]]
Prepare = Callable[[Iterator[list[Row]]], Prepared]


def write_shard(
    shard: Shard, rows: Iterator[Row], prepare: Prepare, progress: Callable[[int], object] = lambda _: None
) -> Stats:
    """Write a shard, its index and its stats, in the order of `rows` whatever does the work.

    Args:
        prepare: given batches of rows, yields each with what `prepare_records` makes of it.
        progress: called with the number of pictures done since its last call.

    Raises:
        UnusableOutput: tensorflow cannot write the file.
    """
    skipped: list[tuple[str, str]] = []
    counts: Counter[int] = Counter()
    stats_path(shard.path).unlink(missing_ok=True)  # while the file is being replaced, it is not finished
    with opened_writer(shard.path) as writer:
        for batch, results in prepare(batches(rows, BATCH)):
            for row, result in zip(batch, results, strict=True):
                if isinstance(result, str):
                    skipped.append((printable(row.name), printable(result)))
                else:
                    writer.write(result)
                    counts.update(labels_of(row))
            progress(len(batch))
    stats = Stats(shard.made_of, writer.records, writer.bytes, skipped, dict(sorted(counts.items())))
    write_json(stats_path(shard.path), asdict(stats))
    return stats


def write_shard_in_one_process(folder: Path, settings: PictureSettings, job: tuple[Shard, list[Row]]) -> None:
    """Write a shard and prepare its pictures in this process: what a worker of Dask does."""
    shard, rows = job

    def prepare(given: Iterator[list[Row]]) -> Prepared:
        return ((batch, prepare_records(folder, settings, batch)) for batch in given)

    write_shard(shard, iter(rows), prepare)
