"""TFRecord files as the trainer reads them, against hand-made files and against tensorflow.

python -m pytest tests/formats/test_records.py
"""

import hashlib
import itertools
import json
import pickle
import struct
import subprocess
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tagger.files import UserError
from tagger.formats import records as records_module
from tagger.formats.records import Example, RecordFile, index_of, masked_crc, read_index, scan
from tagger.formats.tag_lists import read_tags
from tagger.formats.vocabulary import read_vocabulary
from tests.conftest import POSTS, STORED_SIZE
from tests.helpers import flip_byte

PAYLOADS = [b"first", b"the second, which is longer", b"3"]
TRAIN = Path("record_shards_train", "aibooru_train.tfrecord")
VAL = Path("record_shards_val", "aibooru_val.tfrecord")


def crc32c(data: bytes) -> int:
    """CRC-32C bit by bit (RFC 3720, appendix B.4), so that the test does not lean on the library of the script."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32)


def framed(payload: bytes) -> bytes:
    """One record as tensorflow's documentation of TFRecords describes it."""
    length = struct.pack("<Q", len(payload))
    return length + masked(length) + payload + masked(payload)


def write_records(path: Path, payloads: Sequence[bytes], index: bool = False) -> Path:
    path.write_bytes(b"".join(map(framed, payloads)))
    path.with_suffix(".idx").unlink(missing_ok=True)
    if index:
        sizes = [len(payload) + 16 for payload in payloads]
        rows = (f"{sum(sizes[:number])} {size}\n" for number, size in enumerate(sizes))
        path.with_suffix(".idx").write_text("".join(rows))
    return path


def read_all(path: Path) -> list[bytes]:
    file = RecordFile(path)
    return [file.read(number) for number in range(len(file))]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One path that every test writes anew."""
    return tmp_path_factory.mktemp("records") / "a.tfrecord"


# --- framing and index ----------------------------------------------------------------------------------------------


def test_the_checksum_is_crc_32c(path: Path) -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the polynomial's published check value
    assert struct.pack("<I", masked_crc(b"123456789")) == masked(b"123456789")


@given(st.lists(st.binary(max_size=60), max_size=8), st.booleans())
def test_hand_made_records_are_read_back(path: Path, payloads: list[bytes], index: bool) -> None:
    write_records(path, payloads, index)
    assert read_all(path) == payloads
    assert scan(path) == [len(framed(payload)) for payload in payloads]


@pytest.mark.parametrize("index", [False, True], ids=["without index", "with index"])
def test_every_flipped_byte_is_noticed(path: Path, index: bool) -> None:
    write_records(path, PAYLOADS, index)
    unnoticed = []
    for position in range(path.stat().st_size):
        flip_byte(path, position)
        try:
            read_all(path)
            unnoticed.append(position)
        except UserError as error:
            assert str(error).startswith(f"{path}: ") and len(str(error).splitlines()) == 1
        flip_byte(path, position)
    assert unnoticed == []
    assert read_all(path) == PAYLOADS


@pytest.mark.parametrize("index", [False, True], ids=["without index", "with index"])
def test_every_truncation_is_noticed(path: Path, index: bool) -> None:
    whole = b"".join(map(framed, PAYLOADS))
    borders = {sum(len(framed(payload)) for payload in PAYLOADS[:count]) for count in range(len(PAYLOADS) + 1)}
    for length in set(range(len(whole))) - borders:
        write_records(path, PAYLOADS, index)
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"a\.tfrecord: damaged at byte \d+"):
            RecordFile(path)


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"0 21\n",
        b"0 21\n21 43\n64 17\n81 20\n",
        b"0 21\n21 43\n65 16\n",
        b"21 0\n43 21\n17 64\n",
        b"0 21 43\n",
        b"0 81\n81 0\n",
        b"0 -21\n",
        b"no index\n",
        b"\xff\xfe\x00",
        b"0 1e9\n",
        b"0 99999999999999999999\n",
    ],
)
def test_an_index_that_does_not_fit_is_passed_over(path: Path, index: bytes) -> None:
    write_records(path, PAYLOADS)
    path.with_suffix(".idx").write_bytes(index)
    assert read_all(path) == PAYLOADS


@pytest.mark.parametrize("piece", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_an_index_is_read_in_pieces_of_any_size(
    path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, end: bytes
) -> None:
    """Lines that two pieces share, Windows' line ends, and none after the last line."""
    monkeypatch.setattr(records_module, "INDEX_PIECE", piece)
    write_records(path, PAYLOADS * 20, index=True)
    index = index_of(path)
    lines = index.read_bytes().split()
    pairs = [b" ".join(lines[number : number + 2]) for number in range(0, len(lines), 2)]
    index.write_bytes((end or b"\n").join(pairs) + end)
    bounds = read_index(index)
    file = RecordFile(path)
    assert bounds.tolist() == [0, *itertools.accumulate(scan(path))] == file.bounds.tolist()
    assert bounds[:-1].tolist() == file.offsets.tolist() and file.sizes.tolist() == scan(path)
    assert file.read(-1) == PAYLOADS[-1]
    with pytest.raises(IndexError):
        file.read(len(file))


def test_a_file_without_lines_is_not_read_to_its_end_as_an_index(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "INDEX_PIECE", 64)
    path.write_bytes(b"1" * 1000)
    with pytest.raises(ValueError, match="no lines"):
        read_index(path)


def test_an_index_of_another_file_of_the_same_size_gives_no_wrong_records(path: Path) -> None:
    write_records(path, [b"long payload", b"short"], index=True)
    index = path.with_suffix(".idx").read_bytes()
    write_records(path, [b"short", b"long payload"])
    path.with_suffix(".idx").write_bytes(index)
    with pytest.raises(UserError, match=r"a\.tfrecord"):
        read_all(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.tfrecord: no such file"):
        RecordFile(tmp_path / "gone.tfrecord")


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n" + bytes(40), b"{}", bytes(100)], ids=["png", "json", "zeros"])
def test_what_is_no_tfrecord_is_refused(path: Path, data: bytes) -> None:
    write_records(path, []).write_bytes(data)
    with pytest.raises(UserError, match=r"a\.tfrecord: damaged at byte 0"):
        RecordFile(path)


def test_a_file_can_be_sent_to_a_worker_process(path: Path) -> None:
    file = RecordFile(write_records(path, PAYLOADS))
    assert file.read(1) == PAYLOADS[1]  # now it is mapped
    copy = pickle.loads(pickle.dumps(file))
    assert [copy.read(number) for number in range(len(copy))] == PAYLOADS


# --- tf.train.Example -----------------------------------------------------------------------------------------------


def example(**features: list[int] | list[bytes]) -> bytes:
    message = Example()
    for name, values in features.items():
        feature = message.features.feature[name]
        (feature.int64_list if isinstance(values[0], int) else feature.bytes_list).value.extend(values)
    return message.SerializeToString()


def test_an_example_has_the_bytes_that_its_proto_file_says(path: Path) -> None:
    # example.proto: features=1; a map entry is key=1, value=2; feature.proto: int64_list=3, value=1 (packed varints).
    feature = b"\x1a\x04\x0a\x02\x96\x01"  # Int64List{150}
    entry = b"\x0a\x01x\x12" + bytes([len(feature)]) + feature
    features = b"\x0a" + bytes([len(entry)]) + entry
    assert example(x=[150]) == b"\x0a" + bytes([len(features)]) + features


def test_a_record_by_number(path: Path) -> None:
    data = example(image_id=[7], image_bytes=[b"\xff\xd8"], label_indexes=[0, 2**40], image_name=["ミク.jpg".encode()])
    record = RecordFile(write_records(path, [data]))[0]
    assert (record.image_id, record.image, list(record.labels), record.name) == (7, b"\xff\xd8", [0, 2**40], "ミク.jpg")


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\xff\xff no Example", id="no Example"),
        pytest.param(example(image_id=[7], image_bytes=[b"\xff\xd8"], label_indexes=[0]), id="no image_name"),
        pytest.param(example(image=[b"\xff\xd8"], label=[1]), id="other features"),
    ],
)
def test_records_of_another_tool_are_refused_by_name(path: Path, payload: bytes) -> None:
    file = RecordFile(write_records(path, [payload]))
    with pytest.raises(UserError, match=r"a\.tfrecord: record 0"):
        file[0]


def test_what_tensorflow_wrote_is_what_the_dataset_holds(records: Path, dataset: Path) -> None:
    names = read_vocabulary(records / "selected_tags.csv").names
    ids = []
    seen = {}
    for path in (records / TRAIN, records / VAL):
        file = RecordFile(path)
        for number in range(len(file)):
            record = file[number]
            ids.append(record.image_id)
            seen[record.name] = [names[label] for label in record.labels]
            with Image.open(BytesIO(record.image)) as image:
                assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (STORED_SIZE, STORED_SIZE))
    assert ids == list(range(POSTS))
    assert seen == {f"{number:02}.jpg": read_tags(dataset / f"{number:02}.txt") for number in range(POSTS)}


READ_WITH_TENSORFLOW = """
import hashlib, json, sys
import tensorflow as tf

features = {
    "image_id": tf.io.FixedLenFeature([], tf.int64),
    "image_bytes": tf.io.FixedLenFeature([], tf.string),
    "label_indexes": tf.io.VarLenFeature(tf.int64),
    "image_name": tf.io.FixedLenFeature([], tf.string),
}
for data in tf.data.TFRecordDataset(sys.argv[1]):
    example = tf.io.parse_single_example(data, features)
    labels = tf.sparse.to_dense(example["label_indexes"]).numpy().tolist()
    pixels = tf.io.decode_jpeg(example["image_bytes"], dct_method="INTEGER_ACCURATE").numpy()
    name = example["image_name"].numpy().decode()
    print(json.dumps([int(example["image_id"]), hashlib.sha256(pixels).hexdigest(), labels, name]))
"""


def test_tensorflow_reads_the_same(records: Path) -> None:
    command = [sys.executable, "-c", READ_WITH_TENSORFLOW, str(records / TRAIN)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
    file = RecordFile(records / TRAIN)
    ours = [
        [record.image_id, hashlib.sha256(pixels(record.image)).hexdigest(), list(record.labels), record.name]
        for record in (file[number] for number in range(len(file)))
    ]
    assert [json.loads(line) for line in done.stdout.splitlines()] == ours


def pixels(jpeg: bytes) -> bytes:
    """As the trainer sees them."""
    with Image.open(BytesIO(jpeg)) as image:
        return image.tobytes()


def test_the_index_that_was_written_is_what_a_scan_finds(records: Path) -> None:
    for path in (records / TRAIN, records / VAL):
        sizes = scan(path)
        rows = [list(map(int, line.split())) for line in path.with_suffix(".idx").read_text().splitlines()]
        assert rows == [[sum(sizes[:number]), size] for number, size in enumerate(sizes)]


READ_WITH_TFRECORD = """
import hashlib, json, sys
from tfrecord.reader import tfrecord_loader

description = {"image_id": "int", "image_bytes": "byte", "label_indexes": "int", "image_name": "byte"}
for shard in ((0, 2), (1, 2)):  # the index is what lets it read a part
    for record in tfrecord_loader(sys.argv[1], sys.argv[2], description, shard=shard):
        image, name = bytes(record["image_bytes"]), bytes(record["image_name"]).decode()
        labels = record["label_indexes"].tolist()
        print(json.dumps([int(record["image_id"][0]), hashlib.sha256(image).hexdigest(), labels, name]))
"""


def test_the_package_tfrecord_reads_the_same_with_our_index(records: Path) -> None:
    arguments = [str(records / TRAIN), str(index_of(records / TRAIN))]
    done = subprocess.run(
        [sys.executable, "-c", READ_WITH_TFRECORD, *arguments], capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    file = RecordFile(records / TRAIN)
    ours = [
        [record.image_id, hashlib.sha256(record.image).hexdigest(), list(record.labels), record.name]
        for record in (file[number] for number in range(len(file)))
    ]
    assert [json.loads(line) for line in done.stdout.splitlines()] == ours
