"""TFRecord files without tensorflow: random access through an index, checksums, and tf.train.Example.

tensorflow takes four seconds and 500 MB to import, and with torch in one process it fights over the GPU's memory. The
files are the same; the tests read them with both. The index is NVIDIA DALI's: beside `x.tfrecord`, `x.idx` with a
line `offset size` per record.

    python -c "from tagger.formats.records import RecordFile as R; print(R('aibooru_train.tfrecord')[0].labels)"
"""

import bisect
import itertools
import os
import struct
import warnings
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import IO, Any, NamedTuple

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from tagger.files import UserError, read_json, write_json

# A record is: length (uint64), CRC of the length, data, CRC of the data; all little-endian.
HEADER, FOOTER = struct.Struct("<QI"), struct.Struct("<I")
OVERHEAD = HEADER.size + FOOTER.size  # 16 bytes

INDEX_PIECE = 1 << 22  # bytes of an index that are read at once
LONGEST_LINE = 100  # bytes; two numbers of 64 bits have 40

ABOUT_FILE = "aibooru.json"
WRITE_AGAIN = "write it again"


@dataclass(frozen=True)
class About:
    """aibooru.json: what a folder of records holds. It is written last: a folder without it is not finished.

    Attributes:
        num_classes: the number of labels.
        train_samples, val_samples: records that were written.
        image_size: side of the stored images in pixels.
        tags_sha256: the fingerprint of the vocabulary beside it.
        train_shards, val_shards: files of each split.
    """

    num_classes: int
    train_samples: int
    val_samples: int
    image_size: int
    tags_sha256: str
    train_shards: int = 1
    val_shards: int = 1

    def write(self, root: Path) -> None:
        """Write it into a folder of records, whole or not at all."""
        order = (
            "num_classes",
            "train_samples",
            "val_samples",
            "train_shards",
            "val_shards",
            "image_size",
            "tags_sha256",
        )
        write_json(root / ABOUT_FILE, {key: getattr(self, key) for key in order})

    @classmethod
    def read(cls, root: Path, hint: str) -> "About":
        """Read it from a folder of records; keys that it does not know are passed over.

        Args:
            hint: ends the error, as in "name another folder".

        Raises:
            UserError: missing, not JSON, without a key, or with a number that cannot be.
        """
        path = root / ABOUT_FILE
        raw = read_json(path, hint)
        if missing := {field.name for field in fields(cls) if field.default is MISSING} - raw.keys():
            raise UserError(f"{path}: no key {', '.join(sorted(missing))}; {hint}")
        about = cls(**{field.name: raw[field.name] for field in fields(cls) if field.name in raw})
        for key in ("image_size", "train_shards", "val_shards"):
            value = getattr(about, key)
            if type(value) is not int or value < 1:
                raise UserError(f"{path}: {key} must be a whole number above 0, not {value!r}; {hint}")
        return about


class Record(NamedTuple):
    """One labelled image.

    Attributes:
        image_id: the record's running number in the whole dataset.
        image: a JPEG's bytes.
        labels: indices into the vocabulary.
        name: the image file's name in the dataset folder.
    """

    image_id: int
    image: bytes
    labels: Sequence[int]
    name: str


def _example_class() -> type[Any]:
    """protobuf's class for tensorflow.Example, from tensorflow/core/example/{example,feature}.proto.

    Declared here because the generated class lives inside tensorflow, whose import takes seconds. It has a descriptor
    pool of its own, so that it may share a process with tensorflow's.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, int, int, str | None]) -> descriptor_pb2.DescriptorProto:
        declared = file.message_type.add(name=name)
        for field_name, number, label, kind, type_name in fields:
            declared.field.add(name=field_name, number=number, label=label, type=kind, type_name=type_name)
        return declared

    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    message("BytesList", ("value", 1, many, field.TYPE_BYTES, None))
    message("FloatList", ("value", 1, many, field.TYPE_FLOAT, None))
    message("Int64List", ("value", 1, many, field.TYPE_INT64, None))
    feature = message(
        "Feature",
        ("bytes_list", 1, one, field.TYPE_MESSAGE, ".tensorflow.BytesList"),
        ("float_list", 2, one, field.TYPE_MESSAGE, ".tensorflow.FloatList"),
        ("int64_list", 3, one, field.TYPE_MESSAGE, ".tensorflow.Int64List"),
    )
    feature.oneof_decl.add(name="kind")
    for kind in feature.field:
        kind.oneof_index = 0
    features = message("Features", ("feature", 1, many, field.TYPE_MESSAGE, ".tensorflow.Features.FeatureEntry"))
    entry = features.nested_type.add(name="FeatureEntry")
    entry.field.add(name="key", number=1, label=one, type=field.TYPE_STRING)
    entry.field.add(name="value", number=2, label=one, type=field.TYPE_MESSAGE, type_name=".tensorflow.Feature")
    entry.options.map_entry = True
    message("Example", ("features", 1, one, field.TYPE_MESSAGE, ".tensorflow.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    example: type[Any] = message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))
    return example


Example = _example_class()


def masked_crc(data: bytes | memoryview) -> int:
    """The masked CRC-32C of TFRecord files (tensorflow/core/lib/hash/crc32c.h)."""
    crc: int = google_crc32c.value(bytes(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def index_of(path: Path) -> Path:
    """Where the index of a TFRecord file lies."""
    return path.with_suffix(".idx")


def shard_paths(root: Path, split: str, count: int) -> list[Path]:
    """Where the TFRecord files of a split ("train" or "val") lie in a folder of records."""
    folder, name = root / f"record_shards_{split}", f"aibooru_{split}"
    if count == 1:
        return [folder / f"{name}.tfrecord"]
    return [folder / f"{name}-{number:05}-of-{count:05}.tfrecord" for number in range(count)]


def serialize(record: Record) -> bytes:
    """A record as a serialized tf.train.Example; the same record gives the same bytes."""
    example = Example()
    feature = example.features.feature
    feature["image_id"].int64_list.value.append(record.image_id)
    feature["image_bytes"].bytes_list.value.append(record.image)
    feature["label_indexes"].int64_list.value.extend(record.labels)
    feature["image_name"].bytes_list.value.append(record.name.encode("utf-8", "surrogateescape"))
    data: bytes = example.SerializeToString(deterministic=True)  # a map's order is otherwise a matter of chance
    return data


def scan(path: Path, hint: str = WRITE_AGAIN) -> list[int]:
    """The sizes in bytes of a TFRecord file's records, framing included; every length is checked against its CRC.

    Args:
        hint: ends an error.

    Raises:
        UserError: the file is truncated or no TFRecord file.
    """
    sizes, offset, end = [], 0, path.stat().st_size
    with open(path, "rb") as file:
        while offset < end:
            head = file.read(HEADER.size)
            length, crc = HEADER.unpack(head) if len(head) == HEADER.size else (0, -1)
            if crc != masked_crc(head[:8]) or offset + length + OVERHEAD > end:
                raise UserError(f"{path}: damaged at byte {offset}; {hint}")
            sizes.append(length + OVERHEAD)
            offset += length + OVERHEAD
            file.seek(offset)
    return sizes


def read_index(path: Path) -> np.ndarray:
    """The bounds of N records from an .idx, (N + 1,) int64: each one's first byte, and the end of the last.

    Read piece by piece: as Python's numbers, 8 million records would take more than a gigabyte.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no index, or one of records that do not follow each other from the file's first byte on.
    """
    ends, end, rest = [np.zeros(1, dtype=np.int64)], 0, b""
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy's way to tell of what is no number
        while data := file.read(INDEX_PIECE):
            whole, newline, rest_of_data = data.rpartition(b"\n")
            piece, rest = (rest + whole + newline, rest_of_data) if newline else (b"", rest + data)
            if len(rest) > LONGEST_LINE:
                raise ValueError(f"{path}: no lines")
            end = _append_ends(ends, piece, end)
        _append_ends(ends, rest, end)
    return np.concatenate(ends)


def _append_ends(ends: list[np.ndarray], text: bytes, start: int) -> int:
    """Append the ends of the records in some lines of an index; the last of them, or `start` where there is none."""
    try:
        offsets, sizes = np.fromstring(text, dtype=np.int64, sep=" ").reshape(-1, 2).T
    except DeprecationWarning as error:
        raise ValueError(str(error)) from None
    if not len(sizes):
        return start
    following = offsets + sizes
    if offsets[0] != start or (offsets[1:] != following[:-1]).any() or (sizes <= OVERHEAD).any():
        raise ValueError("records that do not follow each other")
    ends.append(following)
    return int(following[-1])


class RecordFile:
    """The records of one TFRecord file, by number. It can be sent to a worker process, which opens the file anew.

    Not mapped into memory: a training run would then seem to grow until it holds the whole file.

    Args:
        hint: ends an error.

    Raises:
        UserError: on opening, where the file is missing or damaged; on reading, where a record's checksum is wrong.
    """

    def __init__(self, path: Path | str, hint: str = WRITE_AGAIN) -> None:
        self.path, self.hint = Path(path), hint
        if not self.path.is_file():
            raise UserError(f"{self.path}: no such file; {hint}")
        self.bounds = self._read_index()  # (N + 1,) int64: where each record begins, and where the last one ends
        self._file: IO[bytes] | None = None

    def _read_index(self) -> np.ndarray:
        """From the .idx where it fits the file, else from the file itself."""
        try:
            bounds = read_index(index_of(self.path))
            if bounds[-1] == self.path.stat().st_size:
                return bounds
        except (OSError, ValueError):
            pass  # no index, or an edited one: the file itself knows
        return np.cumsum([0, *scan(self.path, self.hint)], dtype=np.int64)

    @property
    def offsets(self) -> np.ndarray:
        """Where each record begins, (N,) int64."""
        return self.bounds[:-1]

    @property
    def sizes(self) -> np.ndarray:
        """The bytes of each record, framing included, (N,) int64."""
        return np.diff(self.bounds)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def read(self, number: int) -> bytes:
        """The serialized Example of one record, checked against both of its checksums."""
        number = range(len(self))[number]  # -1 is the last one
        start, end = map(int, self.bounds[number : number + 2])
        frame = self._read_at(start, size := end - start)
        if len(frame) != size:
            raise UserError(f"{self.path}: record {number} is cut off; {self.hint}")
        length, head_crc = HEADER.unpack_from(frame)
        data = frame[HEADER.size : -FOOTER.size]
        (data_crc,) = FOOTER.unpack_from(frame, size - FOOTER.size)
        if length != len(data) or head_crc != masked_crc(frame[:8]) or data_crc != masked_crc(data):
            raise UserError(f"{self.path}: record {number} is damaged; {self.hint}")
        return data

    def checksums(self) -> bytes:
        """The checksums that stand in the file behind each record, joined."""
        ends = (self.offsets + self.sizes).tolist()
        return b"".join(self._read_at(end - FOOTER.size, FOOTER.size) for end in ends)

    def _read_at(self, offset: int, size: int) -> bytes:
        if self._file is None:
            self._file = open(self.path, "rb", buffering=0)  # noqa: SIM115, for the next record
        if hasattr(os, "pread"):  # a forked process shares this one's place in the file
            return os.pread(self._file.fileno(), size, offset)
        self._file.seek(offset)
        return self._file.read(size)

    def __getitem__(self, number: int) -> Record:
        try:
            features = Example.FromString(self.read(number)).features.feature
            return Record(
                image_id=features["image_id"].int64_list.value[0],
                image=features["image_bytes"].bytes_list.value[0],
                labels=features["label_indexes"].int64_list.value,
                name=features["image_name"].bytes_list.value[0].decode("utf-8", "surrogateescape"),
            )
        except (DecodeError, IndexError):
            raise UserError(f"{self.path}: record {number} is no labelled image; {self.hint}") from None


class RecordFiles:
    """The records of several TFRecord files, numbered as if they stood in one.

    `path` is for messages: the file, or the folder of several.

    Raises:
        UserError: see `RecordFile`.
    """

    def __init__(self, paths: Sequence[Path], hint: str = WRITE_AGAIN) -> None:
        self.path = paths[0] if len(paths) == 1 else paths[0].parent
        self.files = [RecordFile(path, hint) for path in paths]
        self._ends = list(itertools.accumulate(map(len, self.files)))

    def __len__(self) -> int:
        return self._ends[-1]

    def checksums(self) -> bytes:
        """See RecordFile."""
        return b"".join(file.checksums() for file in self.files)

    def __getitem__(self, number: int) -> Record:
        file = bisect.bisect_right(self._ends, number)
        return self.files[file][number - self._ends[file] + len(self.files[file])]
