"""One TFRecord file of a dataset: preparing its pictures, writing it, and knowing whether it is finished.

A finished shard `x.tfrecord` has `x.idx` and, written last, `x.stats.json` beside it. tensorflow writes the files; the
processes that prepare pictures do not import it.
"""

import contextlib
import hashlib
import importlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np

import images
from files import UserError, read_json, replacing, replacing_path, write_json
from plan import LABEL_TYPE, Row, batches, printable
from records import OVERHEAD, Record, index_of, serialize

BATCH = 16  # pictures that a worker prepares at a time, about a tenth of a second


@dataclass(frozen=True)
class Settings:
    """How a picture becomes a record: side in pixels, "pad" or "stretch", JPEG quality, largest picture in pixels."""

    img_size: int
    resize_mode: str
    quality: int
    max_pixels: int


@dataclass(frozen=True)
class Shard:
    """The pictures of the ranks first <= rank < last in one file; `made_of` is what its bytes depend on, by name."""

    path: Path
    first: int
    last: int
    made_of: Mapping[str, Any]

    def __len__(self) -> int:
        return self.last - self.first


@dataclass(frozen=True)
class Stats:
    """What a finished shard holds.

    Attributes:
        made_of: see Shard.
        records: their number.
        bytes: the size of the TFRecord file.
        skipped: (name, reason) of each picture that is not in it.
        label_counts: uses by label index, of the labels that occur.
    """

    made_of: Mapping[str, Any]
    records: int
    bytes: int
    skipped: Sequence[tuple[str, str]]
    label_counts: Mapping[int, int]


def stats_path(path: Path) -> Path:
    """Where the stats of a TFRecord file lie."""
    return path.with_suffix(".stats.json")


def read_stats(path: Path) -> Stats | None:
    """The stats of the TFRecord file `path`; None where it is not finished."""
    try:
        raw = read_json(stats_path(path), "")
        counts = {int(label): count for label, count in raw["label_counts"].items()}
        skipped = [(name, reason) for name, reason in raw["skipped"]]
        stats = Stats(raw["made_of"], raw["records"], raw["bytes"], skipped, counts)
        if path.stat().st_size == stats.bytes and index_of(path).is_file():
            return stats
    except (UserError, OSError, KeyError, TypeError, ValueError, AttributeError):
        pass  # missing, or edited: the shard will be written again
    return None


def remove(path: Path) -> None:
    """Delete a TFRecord file and what lies beside it; a kill on the way leaves an unfinished shard."""
    for file in (stats_path(path), index_of(path), path):
        file.unlink(missing_ok=True)


def digests(rows: Iterable[Row]) -> dict[str, str]:
    """Digests of which pictures a shard holds, and of their labels."""
    pictures, labels = hashlib.sha256(), hashlib.sha256()
    for row in rows:
        pictures.update(b"%d:" % row.rank + row.name.encode("utf-8", "surrogateescape") + b"\0" + row.digest)
        labels.update(b"%d:" % len(row.labels) + row.labels)
    return {"pictures": pictures.hexdigest(), "labels": labels.hexdigest()}


def prepare_records(folder: Path, settings: Settings, rows: Sequence[Row]) -> list[bytes | str]:
    """For each picture its record, a serialized tf.train.Example, or why there is none."""
    images.limit_pixels(settings.max_pixels)
    return [_prepare_record(folder / row.name, settings, row) for row in rows]


def _prepare_record(path: Path, settings: Settings, row: Row) -> bytes | str:
    stretch = settings.resize_mode == "stretch"
    try:
        picture = images.prepare(path, settings.img_size, stretch=stretch, reduced_decoding=True)
    except images.UnreadableImage as error:
        return str(error).removeprefix(f"{path}: ")
    jpeg = images.encode_jpeg(picture, settings.quality)
    return serialize(Record(row.rank, jpeg, np.frombuffer(row.labels, LABEL_TYPE).tolist(), row.name))


def import_tensorflow() -> ModuleType:
    """tensorflow, imported late and quietly.

    Late, because it takes 4 s, which --help and a wrong path need not wait for. Quietly, because it greets with a page
    on stderr that none of its settings silences; what goes wrong in importing it still raises. Writing needs no GPU.
    """
    os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"})
    stderr = os.dup(2)
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
def writing(path: Path) -> Iterator[RecordWriter]:
    """Write a TFRecord file and its index; each appears whole or not at all, after the block.

    Raises:
        UserError: tensorflow cannot write the file.
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
        raise UserError(f"{path}: {error.message}; make room there, or name another --output-path") from None


Prepared = Iterator[tuple[Sequence[Row], list[bytes | str]]]
Prepare = Callable[[Iterator[list[Row]]], Prepared]


def here(folder: Path, settings: Settings) -> Prepare:
    """Prepare in this process."""
    return lambda given: ((rows, prepare_records(folder, settings, rows)) for rows in given)


def write_shard(
    shard: Shard, rows: Iterator[Row], prepare: Prepare, progress: Callable[[int], object] = lambda _: None
) -> Stats:
    """Write a shard, its index and its stats, in the order of `rows` whatever does the work.

    Args:
        prepare: given batches of rows, yields each with what `prepare_records` makes of it.
        progress: called with the number of pictures done since its last call.
    """
    skipped: list[tuple[str, str]] = []
    counts: Counter[int] = Counter()
    stats_path(shard.path).unlink(missing_ok=True)
    with writing(shard.path) as writer:
        for batch, results in prepare(batches(rows, BATCH)):
            for row, result in zip(batch, results, strict=True):
                if isinstance(result, str):
                    skipped.append((printable(row.name), printable(result)))
                else:
                    writer.write(result)
                    counts.update(np.frombuffer(row.labels, LABEL_TYPE).tolist())
            progress(len(batch))
    stats = Stats(shard.made_of, writer.records, writer.bytes, skipped, dict(sorted(counts.items())))
    write_json(stats_path(shard.path), asdict(stats))
    return stats


def write_alone(folder: Path, settings: Settings, job: tuple[Shard, list[Row]]) -> None:
    """Write a shard in this process: what a Dask worker does."""
    shard, rows = job
    write_shard(shard, iter(rows), here(folder, settings))


def changes(stats: Stats, shard: Shard) -> str:
    """What is not as it was when a shard was made; empty where all is."""
    was, now = dict(stats.made_of), dict(shard.made_of)
    content = {"pictures": "the dataset's pictures", "labels": "the tags in the txt files or the rows of the CSV"}
    flags = [name for name in now if name not in content and was.get(name) != now[name]]
    if flags:
        return ", ".join(f"{flag} was {was.get(flag)} and is {now[flag]}" for flag in flags)
    changed = [words for name, words in content.items() if was.get(name) != now[name]]
    return f"{changed[0]} changed" if changed else ""
