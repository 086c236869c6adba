"""Images a second and peak memory of simple_dan_crawl.py, beside gallery-dl's on the same server in the same run.

    python /path/to/booru/serve.py --port 8765 --latency 0.05 &      # anything that speaks Danbooru's API
    pip install gallery-dl
    python benchmarks/crawl.py --base-url http://127.0.0.1:8765 --images 300

Both run as their users run them, start-up included, gallery-dl without its pauses between requests and ours with
--rate lifted. The runs alternate; the medians and their ratio are printed. Only for servers on this machine.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = {".jpg", ".png", ".webp", ".gif"}


def ours(base_url: str, images: int, jobs: int, folder: Path) -> list[str]:
    script = str(ROOT / "simple_dan_crawl.py")
    options = {
        "--base-url": base_url,
        "--target-count": images,
        "--output-dir": folder,
        "--rate": 10_000,
        "--jobs": jobs,
    }
    return [sys.executable, script, *(str(word) for option in options.items() for word in option)]


def gallery_dl(program: str, base_url: str, images: int, folder: Path) -> list[str]:
    quick = ["--config-ignore", "--option", "sleep-request=0", "--option", "sleep=0", "--quiet"]
    return [program, *quick, "--range", f"1-{images}", "--directory", str(folder), f"Danbooru:{base_url}/posts?tags="]


def measure(command: list[str], folder: Path) -> tuple[float, float]:
    """Images a second and peak memory in MiB of one run."""
    started = time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
    seconds = time.monotonic() - started
    count = sum(path.suffix in SUFFIXES for path in folder.rglob("*"))
    return count / seconds, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=32, help="of ours; gallery-dl has no such thing")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--gallery-dl", default="gallery-dl", help="the program (default: %(default)s)")
    arguments = parser.parse_args()
    if urlsplit(arguments.base_url).hostname not in ("127.0.0.1", "localhost"):
        parser.error("--base-url: a benchmark without pauses is for a server on this machine")

    results: dict[str, list[tuple[float, float]]] = {"simple_dan_crawl.py": [], "gallery-dl": []}
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in range(arguments.repeats):
            folder = Path(scratch) / f"ours{repeat}"
            command = ours(arguments.base_url, arguments.images, arguments.jobs, folder)
            results["simple_dan_crawl.py"].append(measure(command, folder))
            folder = Path(scratch) / f"gallery-dl{repeat}"
            command = gallery_dl(arguments.gallery_dl, arguments.base_url, arguments.images, folder)
            results["gallery-dl"].append(measure(command, folder))
    rates = {}
    for name, runs in results.items():
        rates[name] = statistics.median(rate for rate, _ in runs)
        print(f"{name:20} {rates[name]:7.1f} images/s  {max(memory for _, memory in runs):6.0f} MiB at its peak")
    print(f"ratio {rates['simple_dan_crawl.py'] / rates['gallery-dl']:.1f}")


if __name__ == "__main__":
    main()
