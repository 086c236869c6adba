"""create_tfrecord.py on pictures in tars against the same pictures as files, with their tags in a parquet.

    python -m benchmarks.tars                      # 20 tars
    python -m benchmarks.tars --tars 20 200        # memory of many, too; 4 GB of disk

Makes tars of 1,000 small JPEGs each, the same as files, and a table of 1,000,000 posts, and prints for both the CPU
seconds and the peak of memory of all processes. One worker, records of 64 x 64 pixels; the table and the start of
tensorflow, some 10 s, are in the time.
"""

import argparse
import io
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.processes import flags, require, script
from benchmarks.table import Chinese, Goal, Row, say

POSTS = 1_000_000  # every fourth of which is a picture's, as far as there are pictures
PER_TAR = 1_000
DEFAULT_TARS = (20,)
QUICK_TARS = (1,)
RATINGS = ("general", "sensitive", "questionable", "explicit")


class Cost(NamedTuple):
    """CPU seconds and peak memory, in MiB, of a number of pictures in tars, and of the same as files."""

    tars: int
    cpu: float
    peak: float
    files_cpu: float
    files_peak: float


def make_pictures(folder: Path, tars: int) -> None:
    """The pictures in tars and as files, called after the ids of their posts."""
    for kind in ("tars", "files"):
        (folder / kind).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), np.uint8)
    drawings = [Image.fromarray(each.repeat(8, axis=0).repeat(8, axis=1)) for each in pixels]
    for tar in range(tars):
        with tarfile.open(folder / "tars" / f"data-{tar:04}.tar", "w") as file:
            for number in range(tar * PER_TAR, (tar + 1) * PER_TAR):
                picture = drawings[number % 64].copy()
                picture.paste(tuple(number.to_bytes(3, "big")), (8, 8, 16, 16))  # each is another
                data = io.BytesIO()
                picture.save(data, "JPEG", quality=80)
                info = tarfile.TarInfo(f"{4 * number + 1}.jpg")
                info.size = len(data.getvalue())
                file.addfile(info, io.BytesIO(data.getvalue()))
                (folder / "files" / info.name).write_bytes(data.getvalue())


def make_table(path: Path) -> None:
    """The table, with thirty tags, an artist and a column of no use in each row."""
    import pyarrow  # late: without it this benchmark is named in the table as what cannot run
    import pyarrow.parquet

    step = 100_000
    writer = None
    for first in range(0, POSTS, step):
        ids = range(first, first + step)
        columns = {
            "id": list(ids),
            "md5": [f"{number:032x}" for number in ids],
            "rating": ["gsqe"[number % 4] for number in ids],
            "tag_string_general": [" ".join(f"tag_{number * k % 5000}" for k in range(1, 31)) for number in ids],
            "tag_string_artist": [f"artist_{number % 2000}" for number in ids],
            "source": ["x" * 80] * step,
        }
        table = pyarrow.table(columns)
        writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer
    writer.close()


def measure(folder: Path, numbers: Sequence[int]) -> list[Cost]:
    """The cost of each number of tars; prints it."""
    require("pyarrow", "psutil")
    folder.mkdir()
    table = folder / "posts.parquet"
    make_table(table)
    costs = []
    for tars in numbers:
        say(f"tars: {tars}")
        place = folder / str(tars)
        make_pictures(place, tars)
        found = []
        for kind in ("tars", "files"):
            csv_path = place / f"{kind}.csv"
            csv_path.write_text("name,category\n" + "".join(f"{name},9\n" for name in RATINGS), encoding="utf-8")
            given = flags({"--dataset-folder": place / kind, "--output-path": place / f"{kind}.out"})
            given += flags({"--tags-csv": csv_path, "--metadata": table, "--img-size": 64, "--num-shards": 8})
            found.append(script("create_tfrecord.py", *given, "--workers", 1, memory=True))
            print(
                f"{kind:>6}: {tars * PER_TAR:>9,} pictures, {found[-1].cpu:.1f} CPU s, peak {found[-1].peak:.0f} MiB",
                flush=True,
            )
        shutil.rmtree(place)
        costs.append(Cost(tars, found[0].cpu, found[0].peak, found[1].cpu, found[1].peak))
    return costs


def rows(folder: Path, quick: bool) -> list[Row]:
    *_, most = measure(folder / "tars", QUICK_TARS if quick else DEFAULT_TARS)
    pictures = f"{most.tars * PER_TAR:,} pictures"
    return [
        Row(
            f"create_tfrecord.py: {pictures} in tars",
            "CPU s",
            most.cpu,
            "the same as files",
            most.files_cpu,
            Goal(1 / 0.9),
            zh=Chinese(f"create_tfrecord.py：tar 里的 {most.tars * PER_TAR:,} 张图", "同样的图作为文件"),
        ),
        Row("create_tfrecord.py: peak memory with tars", "MiB", most.peak, "files", most.files_peak, Goal(1.1)),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tars",
        type=int,
        nargs="+",
        default=list(DEFAULT_TARS),
        metavar="N",
        help="of 1,000 pictures each, at most 250 (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        measure(Path(scratch) / "tars", arguments.tars)
    return 0


if __name__ == "__main__":
    sys.exit(main())
