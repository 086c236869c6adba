"""Images a second and peak memory of simple_dan_crawl.py, beside gallery-dl's on the same server in the same run.

    pip install gallery-dl
    python -m benchmarks.crawl --images 300

The server is the project's own booru (examples/sample_booru) with a pause before every answer, as a network has;
--base-url names another one on this machine. Both crawlers run as their users run them, start-up included, gallery-dl
without its pauses between requests and ours with --rate lifted. The runs alternate; the medians and their ratio are
printed.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.processes import ROOT, Run, flags, run
from benchmarks.table import Chinese, Goal, Row
from examples.sample_booru.server import start

FILES = {".jpg", ".png", ".webp", ".gif", ".mp4", ".webm", ".zip"}  # gallery-dl fetches films, too
LATENCY = 0.05  # seconds before every answer of the server
STATIC = 0.8  # at least this share of its posts are pictures, which ours counts
GALLERY_DL = "gallery-dl"


@dataclass(frozen=True)
class Contest:
    """What is fetched from where, and how."""

    base_url: str
    images: int
    jobs: int
    repeats: int
    gallery_dl: str


def ours(contest: Contest, folder: Path) -> list[object]:
    options = flags(
        {
            "--base-url": contest.base_url,
            "--target-count": contest.images,
            "--output-dir": folder,
            "--rate": 10_000,
            "--jobs": contest.jobs,
        }
    )
    return [sys.executable, ROOT / "simple_dan_crawl.py", *options]


def gallery_dl(contest: Contest, folder: Path) -> list[object]:
    quick = ["--config-ignore", "--option", "sleep-request=0", "--option", "sleep=0", "--quiet"]
    posts = f"Danbooru:{contest.base_url}/posts?tags="
    return [contest.gallery_dl, *quick, "--range", f"1-{contest.images}", "--directory", folder, posts]


def rate(done: Run, folder: Path) -> float:
    """Files a second that a run has fetched."""
    return sum(path.suffix in FILES for path in folder.rglob("*")) / done.seconds


def measure(contest: Contest) -> dict[str, tuple[float, float]]:
    """Files a second and peak memory in MiB of those that are here, ours first; prints them."""
    contenders = {"simple_dan_crawl.py": ours}
    if shutil.which(contest.gallery_dl):
        contenders[GALLERY_DL] = gallery_dl
    else:
        print(f"{contest.gallery_dl} is not installed: pip install gallery-dl")
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in range(contest.repeats):
            for name, command in contenders.items():
                folder = Path(scratch) / f"{name}{repeat}"
                done = run(command(contest, folder), memory=True)
                results[name].append((rate(done, folder), done.peak))
    found = {}
    for name, runs in results.items():
        found[name] = statistics.median(each for each, _ in runs), max(memory for _, memory in runs)
        print(f"{name:20} {found[name][0]:7.1f} images/s  {found[name][1]:6.0f} MiB at its peak")
    if GALLERY_DL in found:
        print(f"ratio {found['simple_dan_crawl.py'][0] / found[GALLERY_DL][0]:.1f}")
    return found


def measure_here(contest: Contest) -> dict[str, tuple[float, float]]:
    """The same on a booru of our own, where the contest names none."""
    if contest.base_url:
        return measure(contest)
    server, booru = start(int(contest.images / STATIC) + 10, latency=LATENCY)
    try:
        return measure(Contest(booru.base_url, contest.images, contest.jobs, contest.repeats, contest.gallery_dl))
    finally:
        server.shutdown()
        server.server_close()


def rows(_: Path, quick: bool) -> list[Row]:
    found = measure_here(Contest("", images=6, jobs=4, repeats=1, gallery_dl=GALLERY_DL) if quick else DEFAULT)
    (speed, memory), theirs = found["simple_dan_crawl.py"], found.get(GALLERY_DL)
    note = "" if theirs else "not installed"
    return [
        Row(
            "simple_dan_crawl.py, from a server with 50 ms latency",
            "images/s",
            speed,
            GALLERY_DL,
            theirs and theirs[0],
            Goal(8, at_least=True),
            note,
            zh=Chinese("simple_dan_crawl.py，服务器延迟 50 毫秒", note="未安装"),
            wall=True,
        ),
        Row("the same: peak memory", "MiB", memory, GALLERY_DL, theirs and theirs[1], note=note),
    ]


DEFAULT = Contest("", images=300, jobs=32, repeats=3, gallery_dl=GALLERY_DL)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", default=DEFAULT.base_url, help="of a booru on this machine (default: its own)")
    parser.add_argument("--images", type=int, default=DEFAULT.images, help="(default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=DEFAULT.jobs, help="of ours; gallery-dl has no such thing")
    parser.add_argument("--repeats", type=int, default=DEFAULT.repeats, help="(default: %(default)s)")
    parser.add_argument("--gallery-dl", default=DEFAULT.gallery_dl, help="the program (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.base_url and urlsplit(arguments.base_url).hostname not in ("127.0.0.1", "localhost"):
        parser.error("--base-url: a benchmark without pauses is for a server on this machine")
    measure_here(Contest(**vars(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
