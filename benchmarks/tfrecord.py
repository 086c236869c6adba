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
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SIZE = (1200, 1700)
PICTURES, LINKS = 600, 10
TARGET = 224
POLL = 0.05  # seconds

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


def make_corpus(folder: Path, noise: float) -> None:
    """600 pairs in folder/few, and 6,000 in folder/many."""
    from examples.sample_booru.drawing import draw_portrait
    from examples.sample_booru.portraits import Portrait

    random = np.random.default_rng(0)
    field = random.normal(0, noise, (SIZE[1] + 200, SIZE[0] + 200)).round().astype(np.int16)
    (folder / "few").mkdir(parents=True)
    (folder / "many").mkdir()
    for number in range(PICTURES):
        portrait = Portrait.of(number, kind="jpg")
        image = folder / "few" / f"{number:04}.jpg"
        image.write_bytes(grainy(draw_portrait(portrait), field, random))
        image.with_suffix(".txt").write_text(f"{portrait.rating},{','.join(portrait.general)}", encoding="utf-8")
        for link in range(LINKS):
            for file in (image, image.with_suffix(".txt")):
                os.link(file, folder / "many" / f"{link}_{file.name}")


class Run(NamedTuple):
    """Wall and CPU seconds, the largest memory in MiB of the process and all below it, and what it printed."""

    seconds: float
    cpu: float
    peak: float
    output: str


def run(command: Sequence[object]) -> Run:
    started = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([*map(str, command)], cwd=ROOT, stdout=output, stderr=subprocess.DEVNULL)
        peak, watched = 0, psutil.Process(process.pid)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, memory_of(watched))
            time.sleep(POLL)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, command
        output.seek(0)
        return Run(seconds, usage.ru_utime + usage.ru_stime, peak / 2**20, output.read().decode())


def memory_of(process: psutil.Process) -> int:
    total = 0
    try:
        for each in (process, *process.children(recursive=True)):
            total += each.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # it ended while it was asked
    return total


def ours(dataset: Path, scratch: Path, workers: int) -> Run:
    """One run of the script, from nothing."""
    shutil.rmtree(scratch / "out", ignore_errors=True)
    (scratch / "tags.csv").write_text("name,category\n", encoding="utf-8")
    flags = ["--dataset-folder", dataset, "--output-path", scratch / "out", "--tags-csv", scratch / "tags.csv"]
    return run([sys.executable, ROOT / "create_tfrecord.py", *flags, "--img-size", TARGET, "--workers", workers])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=Path(tempfile.gettempdir(), "tfrecord-corpus"))
    parser.add_argument("--noise", type=float, default=1.5, help="grain in grey levels (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="(default: %(default)s)")
    arguments = parser.parse_args(argv)
    corpus = arguments.corpus / f"noise-{arguments.noise:g}"
    if not (corpus / "finished").exists():
        shutil.rmtree(corpus, ignore_errors=True)
        make_corpus(corpus, arguments.noise)
        (corpus / "finished").touch()
    few, many = corpus / "few", corpus / "many"
    weight = statistics.mean(path.stat().st_size for path in few.glob("*.jpg")) / 1000
    print(f"{PICTURES} JPEGs of {SIZE[0]} x {SIZE[1]}, {weight:.0f} kB each, to {TARGET} x {TARGET}, on ", end="")
    print(f"{arguments.workers} cores, medians of {arguments.rounds} rounds")

    loops: dict[str, list[float]] = {"baseline": [], "limit": [], "ours": []}
    whole: dict[str, list[float]] = {"baseline": [], "ours, 600": [], "ours, 6,000": []}
    cpu: dict[str, list[float]] = {"baseline": [], "limit": [], "ours": []}
    peaks: dict[str, list[float]] = {"ours, 600": [], "ours, 6,000": []}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for _ in range(arguments.rounds):
            baseline = run([sys.executable, "-c", BASELINE, few, scratch / "baseline.tfrecord"])
            limit = run([sys.executable, "-c", LIMIT, few])
            short, long = (ours(dataset, scratch, arguments.workers) for dataset in (few, many))
            for key, done, cores in (("baseline", baseline, 1), ("limit", limit, arguments.workers)):
                rate, each = map(float, done.output.split())
                loops[key].append(rate * cores)
                cpu[key].append(each * 1000)
            loops["ours"].append(PICTURES * (LINKS - 1) / (long.seconds - short.seconds))
            cpu["ours"].append((long.cpu - short.cpu) / (PICTURES * (LINKS - 1)) * 1000)
            whole["baseline"].append(PICTURES / baseline.seconds)
            for key, done, count in (("ours, 600", short, PICTURES), ("ours, 6,000", long, PICTURES * LINKS)):
                whole[key].append(count / done.seconds)
                peaks[key].append(done.peak)
    rates = show("images/s without start-up", loops)
    total = show("images/s with start-up", whole)
    each_cpu = show("CPU ms per image", cpu)
    memory = show("peak memory, MiB", peaks)
    print(f"\nours / baseline      {rates['ours'] / rates['baseline']:.2f} without start-up, ", end="")
    print(f"{total['ours, 6,000'] / total['baseline']:.2f} with it, ", end="")
    print(f"{each_cpu['baseline'] / each_cpu['ours'] * arguments.workers:.2f} by CPU time")
    print(f"ours / limit         {rates['ours'] / rates['limit']:.2f}, ", end="")
    print(f"{each_cpu['limit'] / each_cpu['ours']:.2f} by CPU time")
    print(f"memory 6,000 / 600   {memory['ours, 6,000'] / memory['ours, 600']:.2f}")
    return 0


def show(title: str, table: dict[str, list[float]]) -> dict[str, float]:
    """Print medians and what they are of; the medians."""
    print(f"\n{title}")
    medians = {name: statistics.median(values) for name, values in table.items()}
    for name, values in table.items():
        print(f"  {name:<12} {medians[name]:8.1f}   ({' '.join(f'{value:.1f}' for value in values)})")
    return medians


if __name__ == "__main__":
    sys.exit(main())
