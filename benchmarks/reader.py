"""Images a second of the trainer's loader, beside a tf.data pipeline that does the same work on the same file.

    python -m benchmarks.reader                          # makes records of 6,000 grainy pictures first
    python -m benchmarks.reader --dataset-root records   # those of create_tfrecord.py, two minutes

Both read the train split in a random order, check the checksums, decode the JPEGs, cut out a random square of 87 to
100 %, scale it back (bicubic), flip every other image and yield batches of 32: uint8 pixels and the label indices. Each
runs in a process of its own, with as many decoding processes or threads as there are cores; the runs alternate, and the
medians and their ratio are printed, and CPU ms an image, which other work on the machine disturbs less.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.corpus import make_records
from benchmarks.processes import python, require
from benchmarks.table import Chinese, Goal, Row, cores
from benchmarks.tfrecord import PICTURES, WITHOUT_GPU, make_corpus

SIZE = 224  # pixels
WARM_UP = 20  # batches, until processes and threads are warm
SECONDS, ROUNDS = 15, 3

OURS = """
import sys, time
from pathlib import Path
import torch
from tagger.formats.records import RecordFiles
from tagger.preparation import on_white_square
from tagger.training.data import EpochBatches, TaggedImages, make_loader, to_device

path, size, cores, warm_up, seconds = sys.argv[1], *map(int, sys.argv[2:5]), float(sys.argv[5])
file = RecordFiles([Path(path)])
batches = EpochBatches(len(file), 32, shuffle=True)
data = TaggedImages(file, on_white_square(size), hflip=0.5, crop_min=0.87)
loader = make_loader(data, batches, cores, torch.device("cpu"))

def endless():
    while True:
        yield from to_device(loader, torch.device("cpu"))
        batches.epoch += 1
"""

TF_DATA = """
import sys, time
import tensorflow as tf

path, size, cores, warm_up, seconds = sys.argv[1], *map(int, sys.argv[2:5]), float(sys.argv[5])
tf.config.threading.set_inter_op_parallelism_threads(cores)
tf.config.threading.set_intra_op_parallelism_threads(cores)
features = {
    "image_bytes": tf.io.FixedLenFeature([], tf.string),
    "label_indexes": tf.io.VarLenFeature(tf.int64),
}

def prepare(data):
    example = tf.io.parse_single_example(data, features)
    full = tf.io.extract_jpeg_shape(example["image_bytes"])[0]
    side = tf.cast(tf.cast(full, tf.float32) * tf.random.uniform([], 0.87, 1.0), tf.int32)
    top = tf.random.uniform([], 0, full - side + 1, tf.int32)
    left = tf.random.uniform([], 0, full - side + 1, tf.int32)
    # The accurate DCT is ours too; tensorflow's default is the fast one.
    crop = [top, left, side, side]
    image = tf.io.decode_and_crop_jpeg(example["image_bytes"], crop, channels=3, dct_method="INTEGER_ACCURATE")
    image = tf.image.resize(image, (size, size), "bicubic")
    image = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
    return tf.image.random_flip_left_right(image), example["label_indexes"]

def endless():
    data = tf.data.TFRecordDataset(path).shuffle(2048).repeat().map(prepare, tf.data.AUTOTUNE, deterministic=False)
    yield from data.batch(32).prefetch(tf.data.AUTOTUNE)
"""

MEASURE = """
import psutil

def cpu():  # seconds, with the decoding processes
    here = psutil.Process()
    return sum(sum(each.cpu_times()[:2]) for each in (here, *here.children(recursive=True)))

if __name__ == "__main__":
    batches_of = endless()
    for _ in range(warm_up):
        next(batches_of)
    images, started, cpu_before = 0, time.perf_counter(), cpu()
    while time.perf_counter() - started < seconds:
        images += len(next(batches_of)[0])
    print(images / (time.perf_counter() - started), (cpu() - cpu_before) / images * 1000)
"""


@dataclass(frozen=True)
class Contest:
    """How long each reader runs, and with how much."""

    size: int = SIZE
    cores: int = cores()
    warm_up: int = WARM_UP
    seconds: float = SECONDS
    rounds: int = ROUNDS


@dataclass(frozen=True)
class Speed:
    """Images a second, and CPU ms an image of all processes and threads."""

    rate: float
    cpu: float


def read(program: str, path: Path, contest: Contest) -> Speed:
    """How fast a program yields images."""
    given = (contest.size, contest.cores, contest.warm_up, contest.seconds)
    done = python(program + MEASURE, path, *given, environment=WITHOUT_GPU)
    return Speed(*map(float, done.output.split()))


def measure(dataset_root: Path, contest: Contest) -> dict[str, Speed]:
    """The medians of each; prints them."""
    require("tensorflow", "torch", "psutil")
    path = dataset_root / "record_shards_train" / "aibooru_train.tfrecord"
    runs: dict[str, list[Speed]] = {"ours": [], "tf.data": []}
    for _ in range(contest.rounds):
        for name, program in (("ours", OURS), ("tf.data", TF_DATA)):
            runs[name].append(read(program, path, contest))
    medians = {
        name: Speed(statistics.median(each.rate for each in all_runs), statistics.median(each.cpu for each in all_runs))
        for name, all_runs in runs.items()
    }
    print(f"on {contest.cores} cores, medians of {contest.rounds} rounds of {contest.seconds} s")
    for name, all_runs in runs.items():
        rates = " ".join(f"{each.rate:.1f}" for each in all_runs)
        print(f"  {name:<8} {medians[name].rate:8.1f} images/s ({rates})   {medians[name].cpu:.3f} CPU ms an image")
    print(f"ours / tf.data    {medians['ours'].rate / medians['tf.data'].rate:.2f}, ", end="")
    print(f"CPU time {medians['ours'].cpu / medians['tf.data'].cpu:.2f}")
    return medians


def own_records(folder: Path, pictures: int) -> Path:
    """Records of grainy pictures, made once."""
    require("tensorflow")
    _, many = make_corpus(folder, pictures=pictures)
    return make_records(folder / f"records-grainy-{pictures}", many, SIZE, split_ratio=0.7)


def rows(folder: Path, quick: bool) -> list[Row]:
    root = own_records(folder, 2 if quick else PICTURES)
    found = measure(root, Contest(warm_up=1, seconds=0.1, rounds=1) if quick else Contest())
    return [
        Row(
            "reading records for training: decode, crop, flip",
            "images/s",
            found["ours"].rate,
            "tf.data",
            found["tf.data"].rate,
            Goal(1, at_least=True),
            zh=Chinese("训练时读取记录：解码、裁剪、翻转"),
            wall=True,
        ),
        Row("the same: CPU time an image", "ms", found["ours"].cpu, "tf.data", found["tf.data"].cpu),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset-root", type=Path, help="records in one shard (default: makes its own)")
    parser.add_argument("--image-size", type=int, default=SIZE, help="of the records (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(default: %(default)s)")
    parser.add_argument("--cores", type=int, default=cores(), help="(default: %(default)s)")
    arguments = parser.parse_args(argv)
    contest = Contest(arguments.image_size, arguments.cores, WARM_UP, arguments.seconds, arguments.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        measure(arguments.dataset_root or own_records(Path(scratch), PICTURES), contest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
