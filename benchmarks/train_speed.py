"""Images a second of train_pytorch.py, beside the training loop of timm's train.py; and memory by number of images.

    python -m benchmarks.train_speed --dataset-root records      # records of create_tfrecord.py --img-size 112

Both train the same EVA-02 with the same number of classes, batch, precision (float32), optimizer (AdamW), clipping and
augmentation (flip, random crop), decode JPEGs in the training process, and keep a progress line. timm's loop is that of
its train.py without its logging: create_loader, BinaryCrossEntropy, create_optimizer_v2, dispatch_clip_grad. It reads
the same JPEGs as files. The runs alternate; the medians and their ratio are printed. Then ours trains on the records
and on the same records ten times over, at a small size: the peak memory of both.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tagger.formats.records import ABOUT_FILE, RecordFile, shard_paths
from tagger.formats.vocabulary import VOCABULARY_FILE
from tagger.training.checkpoints import METRICS_FILE

ROOT = Path(__file__).resolve().parent.parent
IMAGES = 640  # of a timed epoch: a minute
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


def unpack(source: RecordFile, folder: Path) -> None:
    """The JPEGs of records as an image folder of one class."""
    (folder / "class").mkdir(parents=True)
    for number in range(min(IMAGES, len(source))):
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
    command = [sys.executable, ROOT / "train_pytorch.py", *given, *same]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    with open(output / METRICS_FILE, encoding="utf-8", newline="") as file:
        return float(list(csv.DictReader(file))[-1]["images_per_s"]), usage.ru_maxrss / 1024


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset-root", type=Path, default=Path("output-datasets"), help="(default: ./%(default)s)")
    parser.add_argument("--image-size", type=int, default=112, help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    arguments = parser.parse_args(argv)
    source = RecordFile(shard_paths(arguments.dataset_root, "train", 1)[0])
    classes = json.loads((arguments.dataset_root / ABOUT_FILE).read_text(encoding="utf-8"))["num_classes"]
    count = min(IMAGES, len(source))
    rates: dict[str, list[float]] = {"ours": [], "timm": []}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        unpack(source, scratch / "files")
        timed = first_records(arguments.dataset_root, scratch / "records", count)
        sizes = [arguments.image_size, classes, arguments.batch_size]
        flags = ["--image_size", arguments.image_size, "--batch_size", arguments.batch_size, "--epochs", 2]
        for _ in range(arguments.rounds):
            rates["ours"].append(ours(timed, scratch / "checkpoints", *flags)[0])
            command = [sys.executable, "-c", TIMM, scratch / "files", *sizes]
            done = subprocess.run(
                [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
            )
            rates["timm"].append(float(done.stdout))
        small = ["--image_size", 28, "--batch_size", 32, "--epochs", 1]
        few = ours(timed, scratch / "checkpoints", *small)[1]
        many = ours(
            first_records(arguments.dataset_root, scratch / "many", count, TIMES), scratch / "checkpoints", *small
        )[1]
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"images/s of eva02_tiny at {arguments.image_size}, {classes} classes, batches of {arguments.batch_size}")
    for name, values in rates.items():
        print(f"  {name:<6} {medians[name]:7.1f}   ({' '.join(f'{value:.1f}' for value in values)})")
    print(f"ours / timm   {medians['ours'] / medians['timm']:.2f}")
    print(f"peak memory   {few:.0f} MiB with {count} images, {many:.0f} MiB with {count * TIMES}: {many / few:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
