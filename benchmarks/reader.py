"""Images a second of the trainer's loader, beside a tf.data pipeline that does the same work on the same file.

    python benchmarks/tfrecord.py                                    # once, for its 6,000 pictures
    python create_tfrecord.py --dataset-folder CORPUS/many --tags-csv new.csv --output-path records
    python benchmarks/reader.py --dataset-root records               # two minutes

Both read the train split in a random order, check the checksums, decode the JPEGs, cut out a random square of 87 to
100 %, scale it back (bicubic), flip every other image and yield batches of 32: uint8 pixels and the label indices. Each
runs in a process of its own, with as many decoding processes or threads as there are cores; the runs alternate, and the
medians and their ratio are printed.
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

OURS = """
import sys, time
from pathlib import Path
import torch
from tagger.formats.records import RecordFiles
from tagger.preparation import on_white_square
from tagger.training.data import EpochBatches, TaggedImages, make_loader, to_device

path, size, cores, seconds = sys.argv[1], *map(int, sys.argv[2:])
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

path, size, cores, seconds = sys.argv[1], *map(int, sys.argv[2:])
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
if __name__ == "__main__":
    batches_of = endless()
    for _ in range(20):  # until processes and threads are warm
        next(batches_of)
    images, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        images += len(next(batches_of)[0])
    print(images / (time.perf_counter() - started))
"""


def rate(program: str, path: Path, size: int, cores: int, seconds: int) -> float:
    """Images a second that a program yields."""
    command = [sys.executable, "-c", program + MEASURE, str(path), *map(str, (size, cores, seconds))]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    done.check_returncode()
    return float(done.stdout)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dataset-root", type=Path, default=Path("output-datasets"), help="one shard (default: ./%(default)s)"
    )
    parser.add_argument("--image-size", type=int, default=224, help="of the records (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=15, help="of each run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="(default: %(default)s)")
    arguments = parser.parse_args(argv)
    path = arguments.dataset_root / "record_shards_train" / "aibooru_train.tfrecord"
    rates: dict[str, list[float]] = {"ours": [], "tf.data": []}
    for _ in range(arguments.rounds):
        for name, program in (("ours", OURS), ("tf.data", TF_DATA)):
            rates[name].append(rate(program, path, arguments.image_size, arguments.cores, arguments.seconds))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"images/s on {arguments.cores} cores, medians of {arguments.rounds} rounds of {arguments.seconds} s")
    for name, values in rates.items():
        print(f"  {name:<8} {medians[name]:8.1f}   ({' '.join(f'{value:.1f}' for value in values)})")
    print(f"ours / tf.data    {medians['ours'] / medians['tf.data']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
