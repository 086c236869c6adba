"""Whether the pipeline still gives, byte for byte, what it gave at another commit: for moves and the like.

    python -m tests.same_output HEAD~3

Checks the other commit out beside this one, runs every script of both on the sample booru, two epochs of eva02_tiny on
the CPU among them, and compares all files and all that was printed. Exit code 1 where anything differs.
"""

import argparse
import csv
import filecmp
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from examples.sample_booru.server import start
from tagger.files import write_json
from tagger.formats.thresholds import THRESHOLDS_FILE, default_thresholds
from tests.helpers import ROOT, tree

PAIRS = 48
SIZES = ("--img-size", 56)
TRAINING = ("--model", "eva02_tiny", "--image_size", 28, "--batch_size", 8, "--epochs", 2, "--device", "cpu")
TAG = ("wdv3_pytorch.py", "--image_file", "dataset", "--model_path", "checkpoints", "--device", "cpu")
LOW = (
    "--gen_threshold",
    0.2,
    "--char_threshold",
    0.02,
    "--artist_threshold",
    0.05,
)  # so that there is something to see

# What is printed on stdout by each command is kept as <name>.stdout beside the files that it writes.
COMMANDS: dict[str, tuple[object, ...]] = {
    "crawl": (
        *("simple_dan_crawl.py", "--rate", 1000, "--target-count", PAIRS),
        *("--categories", "rating,general,character,artist"),
    ),
    "tidy": ("replace_blanks.py",),
    "vocabulary": ("generate_selected_tags.py", "--with-count"),
    "vocabulary_wd": ("generate_selected_tags.py", "--format", "wd", "--output-csv", "wd.csv"),
    "records": ("create_tfrecord.py", *SIZES, "--split-ratio", 0.75, "--num-shards", 2, "--tags-csv", "wd.csv"),
    "train": ("train_pytorch.py", *TRAINING, "--export_dir", "exported"),
    "text": (*TAG, *LOW),
    "json": (*TAG, *LOW, "--output_format", "json", "--artist_string", "nai"),
    "jsonl": (*TAG, *LOW, "--output_format", "jsonl", "--artist_string", "sdxl"),
    "csv": (*TAG, *LOW, "--output_format", "csv", "--artist_string", "booru", "--tag_order", "probability"),
    "mcut": (*TAG, "--mcut", "--tag_order", "csv", "--exclude_tags", "solo"),
    "per_tag": (*TAG, "--thresholds", "per_tag", "--underscores", "space", "--escape_parentheses"),
    "pool": (*TAG, "--pool", *LOW, "--always_first", "solo"),
    "report": (*TAG, *LOW, "--report", "report.html", "--output_format", "text"),
    "captions": (*TAG, *LOW, "--write_captions", "--existing", "append", "--underscores", "space"),
}


def run_pipeline(scripts: Path, folder: Path, base_url: str) -> None:
    """Run all commands of one checkout in a folder of its own."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(scripts),
        "XDG_CACHE_HOME": str(folder.parent / f"{folder.name}-cache"),
        "OMP_NUM_THREADS": "1",  # the order of a sum depends on the number of threads
        "PYTHONIOENCODING": "utf-8",
    }
    folder.mkdir(parents=True)
    # Without a threshold.json version 0.1.0 knew the built-in thresholds alone, and not those of the checkpoint.
    write_json(folder / THRESHOLDS_FILE, default_thresholds())
    for name, (script, *flags) in COMMANDS.items():
        site = ["--base-url", base_url] if name == "crawl" else []
        command = [sys.executable, str(scripts / str(script)), *map(str, flags), *site]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8")
        if done.returncode:
            sys.exit(f"same_output: {scripts}: {name} ended with exit code {done.returncode}\n{done.stderr}")
        (folder / f"{name}.stdout").write_text(done.stdout, encoding="utf-8")


def content(path: Path) -> Any:
    """What of a file must be the same: its bytes, but for the speed of a run and what surrounds a report's data."""
    if path.name == "metrics.csv":
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
        return [{key: value for key, value in row.items() if key != "images_per_s"} for row in rows]
    if path.name == "train.stdout":
        return re.sub(r"[\d.]+ images/s", "", path.read_text(encoding="utf-8"))
    if path.suffix == ".html":
        # One line of JSON in the page; a later page may say more of an image than an earlier one.
        found = re.search(r"^.*(\{\"thresholds\".*\})", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert found, path
        images = json.loads(found[1])["images"]
        keys = ("name", "thumbnail", "rating", "general", "character", "artist")
        return [{key: image[key] for key in keys} for image in images]
    return path.read_bytes()


def differences(before: Path, after: Path) -> list[str]:
    """A line for each file that is not the same in both folders, but for those of the scripts' own: locks and times."""
    lines = []
    names = {
        folder: {name for name in tree(folder) if not Path(name).name.startswith(".")} for folder in (before, after)
    }
    lines += [f"{name}: only before" for name in sorted(names[before] - names[after])]
    lines += [f"{name}: only after" for name in sorted(names[after] - names[before])]
    for name in sorted(names[before] & names[after]):
        if filecmp.cmp(before / name, after / name, shallow=False):
            continue
        if name.endswith(".pt"):
            old, new = (torch.load(folder / name, weights_only=True) for folder in (before, after))
            same = all(torch.equal(old["model"][key], new["model"][key]) for key in old["model"])
        else:
            same = content(before / name) == content(after / name)
        if not same:
            lines.append(f"{name}: differs")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="the one to compare with")
    parser.add_argument("--output-dir", type=Path, help="keep both folders here (default: a temporary folder)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        checkout = Path(scratch) / "checkout"
        subprocess.run(
            ["git", "worktree", "add", "--detach", "--quiet", checkout, arguments.commit], cwd=ROOT, check=True
        )
        folder = (arguments.output_dir or Path(scratch) / "output").resolve()
        server, booru = start(posts=PAIRS + 20)
        try:
            run_pipeline(checkout, folder / "before", booru.base_url)
            run_pipeline(ROOT, folder / "after", booru.base_url)
        finally:
            server.shutdown()
            subprocess.run(["git", "worktree", "remove", "--force", checkout], cwd=ROOT, check=True)
        lines = differences(folder / "before", folder / "after")
        print(*lines, f"{len(tree(folder / 'after'))} files compared, {len(lines)} differ", sep="\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
