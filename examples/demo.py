"""The whole pipeline on a booru of its own, as a newcomer would run it: crawl, prepare, train, tag.

    make demo                        # or: python -m examples.demo [--quick]

Serves drawn portraits from this machine, runs every script in order, trains eva02_tiny on the CPU, and tags drawings
that were never crawled. It ends with what the model says of them, and with exit code 1 where it did not learn.
Everything it makes is in demo/. --quick does the same with so few drawings that nothing can be learnt.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.picture import draw_result
from examples.sample_booru.server import start

ROOT = Path(__file__).resolve().parent.parent
FIRST_UNSEEN = 100_000  # the numbers of the drawings that the booru does not serve begin here
GOAL = 0.9
SHOWN_WORDS = 16  # of a command; more are file names


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    posts: int  # that the booru serves; a few of them are no images
    pairs: int
    epochs: int
    unseen: int
    image_size: int = 84
    learning_rate: float = 4e-3


FULL = Scale(posts=1280, pairs=1200, epochs=36, unseen=200)
QUICK = Scale(posts=60, pairs=48, epochs=1, unseen=8)


def run(script: str, *options: object, cwd: Path, quietly: bool = False) -> str:
    """Run one of the toolkit's scripts, its command shown first and its progress as it comes; what it printed."""
    words = [script, *map(str, options)]
    shown = words if len(words) <= SHOWN_WORDS else [*words[:SHOWN_WORDS], "…"]
    print("\n$ python " + " ".join(shown))
    command = [sys.executable, str(ROOT / script), *words[1:]]
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if not quietly:
                print(line, end="", flush=True)
    if process.returncode:
        sys.exit(f"demo: {script} ended with exit code {process.returncode}")
    return "".join(lines)


def truth_of(image: Path, vocabulary: dict[str, str]) -> dict[str, list[str]]:
    """The tags of a drawing by category, from the txt beside it."""
    names = image.with_suffix(".txt").read_text(encoding="utf-8").split(",")
    truth: dict[str, list[str]] = {}
    for name in names:
        truth.setdefault(vocabulary.get(name, "unknown"), []).append(name)
    return truth


def macro_f1(truths: Sequence[Iterable[str]], predictions: Sequence[Iterable[str]]) -> float:
    """Mean over the tags that occur in the truths of 2 TP / (2 TP + FP + FN)."""
    right, actual, predicted = Counter[str](), Counter[str](), Counter[str]()
    for truth, prediction in zip(map(set, truths), map(set, predictions), strict=True):
        actual.update(truth)
        predicted.update(prediction)
        right.update(truth & prediction)
    return sum(2 * right[tag] / (actual[tag] + predicted[tag]) for tag in actual) / len(actual)


def tag_images(folder: Path, images: Sequence[Path], *options: object, quietly: bool = False) -> str:
    """What wdv3_pytorch.py says of images."""
    model = ("--model_path", "checkpoints")
    return run("wdv3_pytorch.py", *model, *options, "--image_file", *images, cwd=folder, quietly=quietly)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="so few drawings that nothing can be learnt: for CI")
    parser.add_argument("--output-dir", type=Path, default=ROOT / "demo", help="is emptied first (default: demo)")
    arguments = parser.parse_args(argv)
    scale = QUICK if arguments.quick else FULL
    started = time.monotonic()
    folder: Path = arguments.output_dir
    if folder.exists() and not (folder / "threshold.json").exists() and any(folder.iterdir()):
        parser.error(f"--output-dir {folder}: not empty, and not an earlier demo's; name another folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "threshold.json", folder)

    print(f"A booru with {scale.posts} drawings on this machine:")
    _, booru = start(posts=scale.posts)
    all_categories = "rating,general,character,artist"
    run(
        "simple_dan_crawl.py",
        "--base-url",
        booru.base_url,
        "--rate",
        1000,
        "--target-count",
        scale.pairs,
        "--categories",
        all_categories,
        cwd=folder,
    )
    run("replace_blanks.py", cwd=folder)
    run("generate_selected_tags.py", cwd=folder)
    run("create_tfrecord.py", "--img-size", scale.image_size, "--split-ratio", 0.9, cwd=folder)
    run(
        "train_pytorch.py",
        "--model",
        "eva02_tiny",
        "--image_size",
        scale.image_size,
        "--lr",
        scale.learning_rate,
        "--epochs",
        scale.epochs,
        "--device",
        "cpu",
        cwd=folder,
    )

    print(f"\n{scale.unseen} drawings that were never crawled:")
    command = [sys.executable, "-m", "examples.sample_booru", "draw", "--output-dir", str(folder.resolve() / "unseen")]
    subprocess.run([*command, "--posts", str(scale.unseen), "--first", str(FIRST_UNSEEN)], cwd=ROOT, check=True)
    images = sorted(path.relative_to(folder) for path in (folder / "unseen").iterdir() if path.suffix != ".txt")
    everything = ("--output_format", "jsonl", "--artist_threshold", 0)
    lines = tag_images(folder, [Path("unseen")], *everything, quietly=True).splitlines()
    results: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return sum_up(folder, images, results, started, arguments.quick)


def sum_up(folder: Path, images: Sequence[Path], results: Sequence[dict[str, Any]], started: float, quick: bool) -> int:
    """Print what was learnt, and draw it; 1 where that is less than the goal."""
    category = {}
    for line in (folder / "selected_tags.csv").read_text(encoding="utf-8").splitlines()[1:]:
        name, _, number = line.rpartition(",")
        category[name] = {"9": "rating", "0": "general", "4": "character", "1": "artist"}[number]
    truths = [truth_of(folder / image, category) for image in images]
    score = macro_f1([truth.get("general", []) for truth in truths], [result["general"] for result in results])
    first = [next(iter(result["artist"])) in truth["artist"] for truth, result in zip(truths, results, strict=True)]
    artist = sum(first) / len(first)

    example = images[0]
    print(f"\nOne of them, {example}. Its true tags:\n")
    for name in ("rating", "character", "general", "artist"):
        print(f"  {name}: {', '.join(truths[0].get(name, ['none']))}")
    print("\nWhat the model says:")
    tag_images(folder, [example], "--artist_string", "nai")
    tag_images(folder, [Path("unseen")], "--report", "report.html", quietly=True)
    draw_result([folder / image for image in images[:6]], truths[:6], results[:6]).save(folder / "result.png")
    print(f"\n{folder / 'result.png'} shows more.\n")

    print(f"On {len(images)} unseen drawings:")
    print(f"  macro-F1 of general tags   {score:.3f}")
    print(f"  the right artist first     {artist:.3f}")
    print(f"  after {time.monotonic() - started:.0f} seconds in all")
    print(f"\nOpen {folder / 'report.html'} in a browser: all of them, with a slider for each threshold.")
    if not quick and min(score, artist) <= GOAL:
        print(f"demo: it should have learnt more: both above {GOAL}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
