"""create_tfrecord.py against the original's way and against what the cores can do.

    python -m benchmarks.tfrecord

Builds 600 JPEGs of 1200 x 1700 from drawings with film grain (once, in --corpus) and prints, at 224 x 224:

  baseline   what the original did, in one process: Pillow's full decode, Lanczos, tensorflow's TFRecordWriter
  limit      one process that does nothing but decode, resize and encode bytes in memory, times the cores
  ours       create_tfrecord.py on 600 pairs and on 6,000 (hard links to the 600), hashing and reading included

each as the median of --rounds. "with start-up" is the wall time of the whole process, imports and workers included;
"without" is, for the baseline and the limit, the loop alone, and for ours what the other 5,400 pairs add: (6,000 - 600)
/ (seconds of the 6,000 - seconds of the 600). Memory is the largest sum of the resident sets of the script and all its
processes, asked for every 50 ms. CPU ms per image is user + system time of all processes, which other work on the
machine disturbs less than images/s: cores x 1000 / it is the rate of a machine that has nothing else to do.
"""

import argparse
import io
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.corpus import FINISHED, made_once
from benchmarks.processes import Run, flags, python, require, script
from benchmarks.table import Chinese, Goal, Row, cores, say
from examples.sample_booru.drawing import draw_portrait
from examples.sample_booru.portraits import Portrait

SIZE = (1200, 1700)
PICTURES, LINKS = 600, 10
NOISE = 1.5  # grey levels
ROUNDS = 3
TARGET = 224
WITHOUT_GPU = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}

BASELINE = """
import io, os, sys, time
from pathlib import Path
os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
import tensorflow as tf
from PIL import Image

def feature(kind, values):
    return tf.train.Feature(**{f"{kind}_list": getattr(tf.train, f"{kind.capitalize()}List")(value=values)})

paths = sorted(Path(sys.argv[1]).glob("*.jpg"))
started, cpu = time.perf_counter(), time.process_time()
index = {}
with tf.io.TFRecordWriter(sys.argv[2]) as writer:
    for number, path in enumerate(paths):
        names = path.with_suffix(".txt").read_text(encoding="utf-8").split(",")
        image = Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        image.save(out, "JPEG", quality=95)
        features = {
            "image_id": feature("int64", [number]),
            "image_bytes": feature("bytes", [out.getvalue()]),
            "label_indexes": feature("int64", [index.setdefault(name, len(index)) for name in names]),
        }
        writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
print(len(paths) / (time.perf_counter() - started), (time.process_time() - cpu) / len(paths))
"""

LIMIT = """
import sys, time
from pathlib import Path
from tagger import images

pictures = [path.read_bytes() for path in sorted(Path(sys.argv[1]).glob("*.jpg"))]
started, cpu = time.perf_counter(), time.process_time()
for data in pictures:
    images.encode_jpeg(images.prepare(data, 224, reduced_decoding=True))
print(len(pictures) / (time.perf_counter() - started), (time.process_time() - cpu) / len(pictures))
"""


def grainy(portrait: Image.Image, field: np.ndarray, random: np.random.Generator) -> bytes:
    """A drawing at full size with grain, as JPEG; the grain is a window of a larger field."""
    pixels = np.asarray(portrait.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC), dtype=np.int16)
    top, left = random.integers(0, np.subtract(field.shape, (SIZE[1], SIZE[0])), endpoint=True)
    grain = field[top : top + SIZE[1], left : left + SIZE[0], None]
    out = io.BytesIO()
    Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def make_corpus(folder: Path, noise: float = NOISE, pictures: int = PICTURES) -> tuple[Path, Path]:
    """`pictures` pairs in a folder, and LINKS links to each in another; made once."""
    corpus = folder / f"grainy-{pictures}-{noise:g}"
    few, many = corpus / "few", corpus / "many"
    if made_once(corpus):
        return few, many
    say(f"drawing {pictures:,} pictures of {SIZE[0]} x {SIZE[1]}")
    random = np.random.default_rng(0)
    field = random.normal(0, noise, (SIZE[1] + 200, SIZE[0] + 200)).round().astype(np.int16)
    few.mkdir(parents=True)
    many.mkdir()
    for number in range(pictures):
        portrait = Portrait.of(number, kind="jpg")
        image = few / f"{number:04}.jpg"
        image.write_bytes(grainy(draw_portrait(portrait), field, random))
        image.with_suffix(".txt").write_text(f"{portrait.rating},{','.join(portrait.general)}", encoding="utf-8")
        for link in range(LINKS):
            for file in (image, image.with_suffix(".txt")):
                os.link(file, many / f"{link}_{file.name}")
    (corpus / FINISHED).touch()
    return few, many


def ours(dataset: Path, scratch: Path, workers: int) -> Run:
    """One run of the script, from nothing."""
    shutil.rmtree(scratch / "out", ignore_errors=True)
    (scratch / "tags.csv").write_text("name,category\n", encoding="utf-8")
    given = {"--dataset-folder": dataset, "--output-path": scratch / "out", "--tags-csv": scratch / "tags.csv"}
    return script("create_tfrecord.py", *flags(given), "--img-size", TARGET, "--workers", workers, memory=True)


@dataclass(frozen=True)
class Figures:
    """Medians by name: images/s without and with start-up, CPU ms a picture, and MiB."""

    rates: dict[str, float]
    whole: dict[str, float]
    cpu: dict[str, float]
    peaks: dict[str, float]


def measure(few: Path, many: Path, workers: int, rounds: int) -> Figures:
    """What each of the contenders takes; prints it."""
    pictures = len(list(few.glob("*.jpg")))
    more = pictures * (LINKS - 1)
    loops: dict[str, list[float]] = {"baseline": [], "limit": [], "ours": []}
    whole: dict[str, list[float]] = {"baseline": [], "ours, few": [], "ours, many": []}
    cpu: dict[str, list[float]] = {"baseline": [], "limit": [], "ours": []}
    peaks: dict[str, list[float]] = {"few": [], "many": []}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for _ in range(rounds):
            baseline = python(BASELINE, few, scratch / "baseline.tfrecord", environment=WITHOUT_GPU)
            limit = python(LIMIT, few)
            short, long = (ours(dataset, scratch, workers) for dataset in (few, many))
            for key, done, processes in (("baseline", baseline, 1), ("limit", limit, workers)):
                rate, each = map(float, done.output.split())
                loops[key].append(rate * processes)
                cpu[key].append(each * 1000)
            # Where a machine is busy or the pictures are few, the second run may even be the shorter one.
            loops["ours"].append(more / max(long.seconds - short.seconds, 1e-3))
            cpu["ours"].append(max(long.cpu - short.cpu, 1e-3) / more * 1000)
            whole["baseline"].append(pictures / baseline.seconds)
            for key, done, count in (("few", short, pictures), ("many", long, pictures * LINKS)):
                whole[f"ours, {key}"].append(count / done.seconds)
                peaks[key].append(done.peak)
    return Figures(
        show("images/s without start-up", loops),
        show("images/s with start-up", whole),
        show("CPU ms per image", cpu),
        show("peak memory, MiB", peaks),
    )


def show(title: str, table: dict[str, list[float]]) -> dict[str, float]:
    """Print medians and what they are of; the medians."""
    print(f"\n{title}")
    medians = {name: statistics.median(values) for name, values in table.items()}
    for name, values in table.items():
        print(f"  {name:<12} {medians[name]:8.1f}   ({' '.join(f'{value:.1f}' for value in values)})")
    return medians


def rows(folder: Path, quick: bool) -> list[Row]:
    require("tensorflow")
    pictures = 2 if quick else PICTURES
    few, many = make_corpus(folder, pictures=pictures)
    found = measure(few, many, cores(), 1 if quick else ROUNDS)
    return [
        Row(
            "create_tfrecord.py, JPEGs of 1200 × 1700 to 224 × 224",
            "images/s",
            found.rates["ours"],
            "the plain way (Pillow, Lanczos, TFRecordWriter)",
            found.rates["baseline"],
            Goal(10, at_least=True),
            zh=Chinese(
                "create_tfrecord.py，1200 × 1700 的 JPEG 到 224 × 224", "普通写法（Pillow、Lanczos、TFRecordWriter）"
            ),
            wall=True,
        ),
        Row(
            "the same: CPU time a picture",
            "ms",
            found.cpu["ours"],
            "nothing but decoding, resizing, encoding",
            found.cpu["limit"],
            Goal(1 / 0.85),
        ),
        Row(
            f"the same: peak memory with {pictures * LINKS:,} pictures",
            "MiB",
            found.peaks["many"],
            f"{pictures:,} pictures",
            found.peaks["few"],
            Goal(1.1),
        ),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=Path(tempfile.gettempdir(), "tfrecord-corpus"))
    parser.add_argument("--noise", type=float, default=NOISE, help="grain in grey levels (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, default=cores(), help="(default: %(default)s)")
    arguments = parser.parse_args(argv)
    few, many = make_corpus(arguments.corpus, arguments.noise)
    weight = statistics.mean(path.stat().st_size for path in few.glob("*.jpg")) / 1000
    print(f"{PICTURES} JPEGs of {SIZE[0]} x {SIZE[1]}, {weight:.0f} kB each, to {TARGET} x {TARGET}, on ", end="")
    print(f"{arguments.workers} cores, medians of {arguments.rounds} rounds")
    found = measure(few, many, arguments.workers, arguments.rounds)
    print(f"\nours / baseline      {found.rates['ours'] / found.rates['baseline']:.2f} without start-up, ", end="")
    print(f"{found.whole['ours, many'] / found.whole['baseline']:.2f} with it, ", end="")
    print(f"{found.cpu['baseline'] / found.cpu['ours'] * arguments.workers:.2f} by CPU time")
    print(f"ours / limit         {found.rates['ours'] / found.rates['limit']:.2f}, ", end="")
    print(f"{found.cpu['limit'] / found.cpu['ours']:.2f} by CPU time")
    print(f"memory 6,000 / 600   {found.peaks['many'] / found.peaks['few']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
