"""create_tfrecord.py on 300 images that are damaged, lie about themselves, or would fill the memory.

python -m pytest tests/tfrecord/test_fuzz.py
"""

import csv
import io
import json
import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagger import images
from tagger.formats.records import RecordFile
from tests.helpers import run_script, write_csv

IMAGES = 300
KINDS = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
HUGE = 60_000  # pixels a side: 10 GB, beyond Pillow's limit


def encoded(number: int, kind: str) -> bytes:
    """A picture that differs from every other."""
    noise = np.random.default_rng(number)
    pixels = np.kron(noise.integers(0, 256, (6, 5, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def truncate(data: bytes, rng: random.Random, kind: str) -> bytes:
    return data[: rng.randrange(len(data))]


def flip_bits(data: bytes, rng: random.Random, kind: str) -> bytes:
    spoilt = bytearray(data)
    for _ in range(rng.choice([1, 3, 30])):
        spoilt[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def swap_header(data: bytes, rng: random.Random, kind: str) -> bytes:
    other = encoded(0, rng.choice([name for name in KINDS.values() if name != kind]))
    length = rng.choice([4, 16, 64])
    return other[:length] + data[length:]


def zero_bytes(data: bytes, rng: random.Random, kind: str) -> bytes:
    start = rng.randrange(len(data))
    length = rng.choice([1, 50, len(data)])
    return data[:start] + bytes(min(length, len(data) - start)) + data[start + length :]


def claim_to_be_huge(data: bytes, rng: random.Random, kind: str) -> bytes:
    """The declared width and height, set to HUGE or beyond."""
    if kind == "PNG":  # IHDR: width, height (RFC 2083, section 4.1.1), and its CRC
        head = b"IHDR" + struct.pack(">II", HUGE, HUGE) + data[24:29]
        return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]
    if kind == "JPEG":  # SOF0: length, precision, height, width (T.81, B.2.2)
        place = data.index(b"\xff\xc0") + 5
        return data[:place] + struct.pack(">HH", HUGE, HUGE) + data[place + 4 :]
    place = data.index(b"\x9d\x01\x2a") + 3  # VP8's key frame: 14 bits each (RFC 6386, 9.1)
    return data[:place] + struct.pack("<HH", 0x3FFF, 0x3FFF) + data[place + 4 :]


MUTATIONS: list[Callable[[bytes, random.Random, str], bytes]] = [
    truncate,
    flip_bits,
    swap_header,
    zero_bytes,
    claim_to_be_huge,
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """./dataset of a new folder with 300 mutated images, named by what was done to them."""
    root = tmp_path_factory.mktemp("fuzz")
    (root / "dataset").mkdir()
    rng = random.Random(4)
    for number in range(IMAGES):
        mutate = MUTATIONS[number % len(MUTATIONS)]
        suffix, kind = list(KINDS.items())[number // len(MUTATIONS) % len(KINDS)]
        image = root / "dataset" / f"{mutate.__name__}-{number}{suffix}"
        image.write_bytes(mutate(encoded(number, kind), rng, kind))
        image.with_suffix(".txt").write_text("general", encoding="utf-8")
    write_csv(root / "selected_tags.csv", ["general,9"])
    return root


def test_every_image_is_accounted_for(dataset: Path) -> None:
    done = run_script("create_tfrecord.py", "--img-size", 28, cwd=dataset)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    output = dataset / "output-datasets"
    with open(output / "skipped.csv", encoding="utf-8", newline="") as file:
        skipped = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    written = []
    for split in ("train", "val"):
        records = RecordFile(output / f"record_shards_{split}" / f"aibooru_{split}.tfrecord")
        for number in range(len(records)):
            record = records[number]
            written.append(record.name)
            with Image.open(io.BytesIO(record.image)) as image:
                assert image.size == (28, 28)
                image.load()
    about = json.loads((output / "aibooru.json").read_text(encoding="utf-8"))
    assert len(written) == about["train_samples"] + about["val_samples"]
    assert sorted([*written, *skipped]) == sorted(
        path.name for path in (dataset / "dataset").iterdir() if path.suffix != ".txt"
    )
    assert "crashed" not in "".join(skipped.values())
    # The mutations bite, and do not all bite: some flipped bits are but another shade.
    lost = Counter(name.partition("-")[0] for name in skipped)
    assert lost["truncate"] >= 55 and lost["swap_header"] >= 50 and lost["claim_to_be_huge"] == 60
    assert 10 < len(written) < 150


def test_what_is_written_is_what_is_decodable(dataset: Path) -> None:
    """Nothing is thinned silently: an image that opens in full is in the records."""
    with open(dataset / "output-datasets" / "skipped.csv", encoding="utf-8", newline="") as file:
        skipped = {row["file"] for row in csv.DictReader(file)}
    for path in (dataset / "dataset").iterdir():
        if path.suffix != ".txt":
            try:
                images.open_image(path)
                assert path.name not in skipped
            except images.UnreadableImage:
                assert path.name in skipped
