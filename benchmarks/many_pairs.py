"""create_tfrecord.py on many pairs: is its memory flat, and what does a pair cost on top of its picture?

    python -m benchmarks.many_pairs                                   # 20,000 and 100,000 pairs
    python -m benchmarks.many_pairs --pairs 20000 100000 1000000      # an hour of two cores, and 6 GB of disk

The pictures are tiny, so that what is measured is all else: listing, hashing, the catalog, the writer. There is one for
every 1,000 pairs, which are hard links to it. Printed for each number of pairs: the peak of memory of all processes,
CPU seconds, CPU ms of a further pair on top of decoding and encoding its picture, and CPU seconds of a second run that
finds all done.
"""

import argparse
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.processes import ROOT, flags, python, script
from benchmarks.table import Chinese, Goal, Row, say
from tagger.formats.vocabulary import VOCABULARY_FILE

LINKS = 1000  # to one file; NTFS allows 1,024
SIDE = 64  # pixels of a picture
STORED = 32  # pixels of a record's
TAGS = 30  # of a picture, as many as Danbooru's have
DEFAULT_PAIRS = (20_000, 100_000)
QUICK_PAIRS = (40, 200)

# What a picture costs by itself.
DECODING = """
import sys, time
from pathlib import Path
from tagger import images

pictures = [path.read_bytes() for path in sorted(Path(sys.argv[1]).glob("*.jpg"))]
rounds = max(1, 2000 // len(pictures))
start = time.process_time()
for _ in range(rounds):
    for data in pictures:
        images.encode_jpeg(images.prepare(data, int(sys.argv[2]), reduced_decoding=True))
print((time.process_time() - start) / rounds / len(pictures) * 1000)
"""


@dataclass(frozen=True)
class Cost:
    """What a number of pairs took: MiB of all processes, CPU seconds of the first run, and of a second one."""

    pairs: int
    peak: float
    cpu: float
    again: float


def make_pairs(folder: Path, originals: Path, pairs: int) -> None:
    """A dataset of tiny pictures with tags of the shipped vocabulary."""
    names = (ROOT / VOCABULARY_FILE).read_text(encoding="utf-8").splitlines()[5:]
    tags = np.array([name.rpartition(",")[0] for name in names if not name.startswith('"')])
    random = np.random.default_rng(0)
    for path in (folder, originals):
        path.mkdir(parents=True)
    for first in range(0, pairs, LINKS):
        out = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(out, "JPEG", quality=90)
        image = originals / f"{first}.jpg"
        image.write_bytes(out.getvalue())
        image.with_suffix(".txt").write_text("general," + ",".join(random.choice(tags, TAGS)), encoding="utf-8")
        for number in range(first, min(pairs, first + LINKS)):
            for original in (image, image.with_suffix(".txt")):
                os.link(original, folder / f"{number:08}{original.suffix}")


def cost(place: Path, pairs: int) -> tuple[Cost, float]:
    """What `pairs` pairs take, in a folder that is removed afterwards; and CPU ms of decoding one picture."""
    say(f"many_pairs: {pairs:,} pairs")
    try:
        make_pairs(place / "dataset", place / "originals", pairs)
        decoding = float(python(DECODING, place / "originals", STORED).output)
        shutil.copy(ROOT / VOCABULARY_FILE, place / "tags.csv")
        given = flags({"--dataset-folder": place / "dataset", "--output-path": place / "records"})
        given += flags({"--tags-csv": place / "tags.csv", "--img-size": STORED, "--num-shards": 4})
        first, second = script("create_tfrecord.py", *given, memory=True), script("create_tfrecord.py", *given)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return Cost(pairs, first.peak, first.cpu, second.cpu), decoding


def measure(folder: Path, pairs: Sequence[int]) -> tuple[list[Cost], list[float]]:
    """The cost of each number of pairs, and of each but the first CPU ms a pair on top of decoding; prints them."""
    costs: list[Cost] = []
    extra: list[float] = []
    for number in pairs:
        found, decoding = cost(folder / "many-pairs", number)
        more = ""
        if costs:  # against the smallest number: what it takes to start the script is in both
            each = (found.cpu - costs[0].cpu) / (found.pairs - costs[0].pairs) * 1000
            extra.append(each - decoding)
            more = f", a pair {extra[-1]:.3f} CPU ms on top of decoding ({decoding:.3f})"
        costs.append(found)
        print(
            f"{number:>10,} pairs: peak {found.peak:.0f} MiB, {found.cpu:.1f} CPU s{more}; "
            f"all found done in {found.again:.2f} CPU s",
            flush=True,
        )
    return costs, extra


def rows(folder: Path, quick: bool) -> list[Row]:
    costs, extra = measure(folder, QUICK_PAIRS if quick else DEFAULT_PAIRS)
    few, many = costs[0], costs[-1]
    return [
        Row(
            f"create_tfrecord.py: peak memory with {many.pairs:,} pairs",
            "MiB",
            many.peak,
            f"{few.pairs:,} pairs",
            few.peak,
            Goal(1.1),
            zh=Chinese(f"create_tfrecord.py：{many.pairs:,} 对图文的内存峰值", f"{few.pairs:,} 对"),
        ),
        Row(
            "create_tfrecord.py: work on a pair besides its picture",
            "CPU ms",
            extra[-1],
            goal=Goal(0.3, of_ratio=False),
        ),
        Row(f"create_tfrecord.py: finding {many.pairs:,} pairs done", "CPU s", many.again),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=list(DEFAULT_PAIRS), help="(default: %(default)s)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        measure(Path(scratch), sorted(arguments.pairs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
