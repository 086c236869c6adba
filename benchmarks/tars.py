"""create_tfrecord.py on pictures in tars against the same pictures as files, with their tags in a parquet.

    python -m benchmarks.tars --tars 200

Makes tars of 1,000 small JPEGs each, the same as files, and a table of 1,000,000 posts, in a temporary folder (2 GB for
200 tars), and prints for both the user + system time of all processes and the largest sum of their resident sets, asked
for every 50 ms. One worker, 64 x 64 pixels; the table and the start of tensorflow, about 10 s, are in the time.

On a virtual machine with two cores that others used as well, so in seconds of CPU:

               pictures   CPU s   MB
     20 tars     20,000    17.2   996
       files     20,000    16.3   993
    100 tars    100,000    41.9   997
       files    100,000    40.8   993
    200 tars    200,000    80.7  1004
"""

import argparse
import io
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pyarrow
import pyarrow.parquet
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
POSTS = 1_000_000  # every fourth of which is a picture's, as far as there are pictures
PER_TAR = 1_000
POLL = 0.05  # seconds


def make_pictures(folder: Path, tars: int) -> None:
    """The pictures in tars and as files, called after the ids of their posts."""
    for kind in ("tars", "files"):
        (folder / kind).mkdir()
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


def measure(folder: Path, kind: str) -> tuple[float, int]:
    """CPU seconds and the peak of memory in bytes, of all processes of one run."""
    csv = folder / f"{kind}.csv"
    csv.write_text("name,category\ngeneral,9\nsensitive,9\nquestionable,9\nexplicit,9\n", encoding="utf-8")
    flags = ["--dataset-folder", folder / kind, "--output-path", folder / f"{kind}.out", "--tags-csv", csv]
    flags += ["--metadata", folder / "posts.parquet", "--img-size", 64, "--num-shards", 8, "--workers", 1]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, ROOT / "create_tfrecord.py", *flags]
    process = subprocess.Popen(list(map(str, command)), env=os.environ | {"OMP_NUM_THREADS": "1"})
    peak = 0
    while process.poll() is None:
        total = 0
        try:
            own = psutil.Process(process.pid)
            for each in (own, *own.children(recursive=True)):
                total += each.memory_info().rss
        except psutil.Error:  # it ended meanwhile
            pass
        peak = max(peak, total)
        time.sleep(POLL)
    if process.returncode:
        sys.exit(process.returncode)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tars", type=int, default=20, metavar="N", help="of 1,000 pictures each, at most 250")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_pictures(folder, arguments.tars)
        make_table(folder / "posts.parquet")
        for kind in ("tars", "files"):
            seconds, peak = measure(folder, kind)
            print(f"{kind}: {arguments.tars * PER_TAR:,} pictures, {seconds:.1f} s of CPU, {peak / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
