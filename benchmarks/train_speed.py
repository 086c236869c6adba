"""Images a second of train_pytorch.py, beside the training loop of timm's train.py; and memory by number of images.

    python -m benchmarks.train_speed                             # draws pictures and makes records of them first
    python -m benchmarks.train_speed --dataset-root records      # those of create_tfrecord.py --img-size 112

Both train the same EVA-02 with the same number of classes, batch, precision (float32), optimizer (AdamW), clipping and
augmentation (flip, random crop), decode JPEGs in the training process, and keep a progress line. timm's loop is that of
its train.py without its logging: create_loader, BinaryCrossEntropy, create_optimizer_v2, dispatch_clip_grad. It reads
the same JPEGs as files. The runs alternate; the medians and their ratio are printed. Then ours trains for an
epoch on the same records ten times over: its peak memory beside that before.
"""

import argparse
import csv
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.corpus import records
from benchmarks.processes import python, require, script
from benchmarks.table import Chinese, Goal, Row
from tagger.formats.records import ABOUT_FILE, RecordFile, shard_paths
from tagger.formats.vocabulary import VOCABULARY_FILE
from tagger.training.checkpoints import METRICS_FILE

IMAGES = 640  # of a timed epoch: ten seconds of two cores
SIZE, BATCH_SIZE, ROUNDS = 112, 32, 3
TIMES = 10  # the larger dataset of the memory's measurement

TIMM = """
import sys, time
import timm, torch
from timm.data import create_dataset, create_loader
from timm.loss import BinaryCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import AverageMeter, dispatch_clip_grad
from tqdm import tqdm

folder, size, classes, batch_size = sys.argv[1], *map(int, sys.argv[2:])
model = timm.create_model("eva02_tiny_patch14_336", img_size=size, num_classes=classes, global_pool="avg")
loader = create_loader(
    create_dataset("", root=folder), (3, size, size), batch_size, is_training=True, use_prefetcher=False,
    no_aug=False, scale=(0.87 ** 2, 1.0), ratio=(1.0, 1.0), hflip=0.5, color_jitter=0.0, interpolation="bicubic",
    mean=(0.5,) * 3, std=(0.5,) * 3, num_workers=0, persistent_workers=False,
)
loss_of = BinaryCrossEntropy(smoothing=0.0)
optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-4, weight_decay=0.05)
schedule = CosineLRScheduler(optimizer, t_initial=1000, t_in_epochs=False)
steps, losses = 0, AverageMeter()
model.train()
for epoch in range(2):
    started, images = time.perf_counter(), 0
    for inputs, target in tqdm(loader):
        loss = loss_of(model(inputs), target)
        optimizer.zero_grad()
        loss.backward()
        dispatch_clip_grad(model.parameters(), value=1.0)
        optimizer.step()
        losses.update(loss.item(), len(inputs))
        steps += 1
        images += len(inputs)
        schedule.step_update(num_updates=steps)
print(images / (time.perf_counter() - started))  # of the second epoch
"""


def unpack(source: RecordFile, folder: Path, count: int) -> None:
    """The first JPEGs of records as an image folder of one class."""
    (folder / "class").mkdir(parents=True)
    for number in range(count):
        (folder / "class" / f"{number}.jpg").write_bytes(source[number].image)


def first_records(root: Path, folder: Path, count: int, times: int = 1) -> Path:
    """A dataset folder with the first `count` records of the train split, `times` over, and none for validation."""
    source = RecordFile(shard_paths(root, "train", 1)[0])
    size = int(source.offsets[count - 1] + source.sizes[count - 1]) if count < len(source) else None
    for split in ("train", "val"):
        (path,) = shard_paths(folder, split, 1)
        path.parent.mkdir(parents=True)
        with open(source.path, "rb") as whole, open(path, "wb") as part:
            data = whole.read(size)
            for _ in range(times if split == "train" else 0):
                part.write(data)
    about = json.loads((root / ABOUT_FILE).read_text(encoding="utf-8"))
    about |= {"train_samples": count * times, "val_samples": 0, "train_shards": 1, "val_shards": 1}
    (folder / ABOUT_FILE).write_text(json.dumps(about), encoding="utf-8")
    shutil.copy(root / VOCABULARY_FILE, folder)
    return folder


def ours(root: Path, output: Path, *flags: object) -> tuple[float, float]:
    """Train; images/s of the last epoch, and the peak of resident memory in MiB."""
    shutil.rmtree(output, ignore_errors=True)
    given = ["--dataset_root", root, "--output_dir", output, "--model", "eva02_tiny", "--device", "cpu", *flags]
    same = ["--optimizer", "adamw", "--patch_dropout", 0, "--layer_decay", 1, "--num_workers", 0, "--patience", 0]
    done = script("train_pytorch.py", *given, *same, memory=True)
    with open(output / METRICS_FILE, encoding="utf-8", newline="") as file:
        return float(list(csv.DictReader(file))[-1]["images_per_s"]), done.peak


@dataclass(frozen=True)
class Figures:
    """Median images/s of both loops, and the peak of ours in MiB with few and many images."""

    ours: float
    timm: float
    few: float
    many: float


def measure(root: Path, image_size: int, batch_size: int, rounds: int, most: int = IMAGES) -> Figures:
    """Train with both on at most `most` of the records; prints what they took."""
    require("torch", "timm")
    source = RecordFile(shard_paths(root, "train", 1)[0])
    classes = json.loads((root / ABOUT_FILE).read_text(encoding="utf-8"))["num_classes"]
    count = min(most, len(source))
    rates: dict[str, list[float]] = {"ours": [], "timm": []}
    few = 0.0
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        unpack(source, scratch / "files", count)
        timed = first_records(root, scratch / "records", count)
        flags = ["--image_size", image_size, "--batch_size", batch_size, "--epochs"]
        for _ in range(rounds):
            rate, peak = ours(timed, scratch / "checkpoints", *flags, 2)
            rates["ours"].append(rate)
            few = max(few, peak)
            rates["timm"].append(float(python(TIMM, scratch / "files", image_size, classes, batch_size).output))
        more = first_records(root, scratch / "many", count, TIMES)
        many = ours(more, scratch / "checkpoints", *flags, 1)[1]
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"images/s of eva02_tiny at {image_size}, {classes} classes, batches of {batch_size}")
    for name, values in rates.items():
        print(f"  {name:<6} {medians[name]:7.1f}   ({' '.join(f'{value:.1f}' for value in values)})")
    print(f"ours / timm   {medians['ours'] / medians['timm']:.2f}")
    print(f"peak memory   {few:.0f} MiB with {count} images, {many:.0f} MiB with {count * TIMES}: {many / few:.3f}")
    return Figures(medians["ours"], medians["timm"], few, many)


def own_records(folder: Path, images: int) -> Path:
    """Records of drawn portraits, `images` of them for training; made once."""
    return records(folder, images * 10 // 9 + 1, SIZE)


def rows(folder: Path, quick: bool) -> list[Row]:
    images = 4 if quick else IMAGES
    root = own_records(folder, images)
    found = measure(root, 28 if quick else SIZE, 2 if quick else BATCH_SIZE, 1 if quick else ROUNDS, images)
    return [
        Row(
            "train_pytorch.py on a processor, eva02_tiny at 112 px",
            "images/s",
            found.ours,
            "timm's train.py loop",
            found.timm,
            Goal(1, at_least=True),
            zh=Chinese("train_pytorch.py 用 CPU 训练 eva02_tiny，112 px", "timm 的 train.py 训练循环"),
            wall=True,
        ),
        Row(
            f"train_pytorch.py: peak memory with {images * TIMES:,} images",
            "MiB",
            found.many,
            f"{images:,} images",
            found.few,
            Goal(1.1),
        ),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset-root", type=Path, help="records in one shard (default: makes its own)")
    parser.add_argument("--image-size", type=int, default=SIZE, help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(default: %(default)s)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.dataset_root or own_records(Path(scratch), IMAGES)
        measure(root, arguments.image_size, arguments.batch_size, arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
