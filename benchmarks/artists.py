"""New artists for a model that knows others: the old default, the new one, a frozen backbone, and teaching.

    python -m benchmarks.artists --output-dir artists-benchmark --seeds 0 1 2     # half an hour of one core a seed

Draws artists with a long tail: line width, palette, paper, grain and blur are the artist's, shapes are not. A tiny
model learns every second artist from scratch; each way then gives it the others, from the same pictures, and is asked
about pictures that none has seen. Prints a table: top-1 artist, mean AP of the artists, both for those with at most 8
pictures, and CPU seconds with one thread. What is there of an earlier run is not made again.

What it does not tell: the drawings are simple and the model is tiny. Public taggers were trained for content, so style
may need their upper blocks too (--unfreeze_last).
"""

import argparse
import colorsys
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from sklearn.metrics import average_precision_score

from benchmarks.processes import ROOT, BenchmarkError, failure
from benchmarks.table import Row
from tagger.files import write_json

RATINGS = ("general", "sensitive", "questionable", "explicit")
SIDE = 112  # pixels
ARTISTS, IMAGES = 250, 7000
FEW = 8  # pictures, of artists that are counted by themselves
USUAL = "--image_size 112 --batch_size 32 --device cpu --num_workers 0"
BASE = "--model eva02_tiny --lr 4e-3 --epochs 10"
# Each way is train_pytorch.py with these flags. What of the old default no flag brings back: an optimizer that forgets
# a rare artist after 20 steps, and a first step that teaches nothing.
WAYS = {
    "old default": "--epochs 6 --head_lr 1 --early_stopping_metric loss",
    "default": "--epochs 6",
    "frozen": "--epochs 6 --freeze_backbone",
    "frozen, repeated": "--epochs 6 --freeze_backbone --repeat_factor 0.01",
    "frozen, adjusted": "--epochs 6 --freeze_backbone --loss logit_adjusted",
    "taught": "--teach {pictures}",
}


# --- drawings -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Style:
    """What is an artist's own."""

    hues: tuple[float, ...]
    saturation: float
    width: int
    paper: tuple[int, ...]
    grain: float
    blur: float
    dots: bool

    @classmethod
    def of(cls, seed: int, artist: int) -> "Style":
        random = np.random.default_rng((seed, artist, 0))
        return cls(
            hues=tuple(random.random(3)),
            saturation=random.uniform(0.3, 1),
            width=int(random.integers(1, 6)),
            paper=tuple(map(int, random.integers(150, 256, 3))),
            grain=random.uniform(0, 25),
            blur=random.uniform(0, 1.2),
            dots=bool(random.random() < 0.5),
        )


def draw(style: Style, random: np.random.Generator) -> Image.Image:
    """A picture by an artist: a few outlines anywhere."""
    # No two sheets are alike: paper of one exact colour would give every artist away.
    sheet = np.clip(np.array(style.paper) + random.normal(0, 12, 3), 0, 255).astype(int)
    image = Image.new("RGB", (SIDE, SIDE), tuple(sheet.tolist()))
    pen = ImageDraw.Draw(image)
    outline = (pen.ellipse, pen.rectangle)[random.integers(2)]
    for _ in range(random.integers(4, 10)):
        hue = (style.hues[random.integers(3)] + random.normal(0, 0.03)) % 1
        red, green, blue = colorsys.hsv_to_rgb(hue, style.saturation, random.uniform(0.4, 0.9))
        colour = (round(255 * red), round(255 * green), round(255 * blue))
        left, top = map(int, random.integers(0, SIDE - 22, 2))
        width, height = map(int, random.integers(10, 60, 2))
        outline((left, top, left + width, top + height), outline=colour, width=style.width)
        if style.dots:
            pen.ellipse((left + 5, top + 5, left + 12, top + 12), fill=colour)
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(style.blur)), dtype=float)
    pixels = pixels + random.normal(0, style.grain, (SIDE, SIDE, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def counts(artists: int, images: int) -> list[int]:
    """Pictures of each artist: a long tail, and at least FEW."""
    shares = np.arange(1, artists + 1) ** -0.9
    return [max(FEW, round(images * share)) for share in shares / shares.sum()]


def draw_all(folder: Path, seed: int, artists: int, images: int) -> None:
    """Pairs of the first model's artists (base), of the others (new), and more of these (unseen)."""
    for artist, count in enumerate(counts(artists, images)):
        style, half = Style.of(seed, artist), ("base", "new")[artist % 2]
        parts = {half: range(count)} | ({"unseen": range(count, count + 4)} if half == "new" else {})
        for part, numbers in parts.items():
            (folder / part).mkdir(parents=True, exist_ok=True)
            for number in numbers:
                random = np.random.default_rng((seed, artist, 1 + number))
                stem = folder / part / f"{artist:04}_{number:04}"
                draw(style, random).save(stem.with_suffix(".jpg"), quality=92)
                stem.with_suffix(".txt").write_text(f"{RATINGS[number % 4]},artist_{artist:04}")
    for half in ("base", "new"):
        rows = [f"{name},9" for name in RATINGS]
        rows += [f"artist_{artist:04},1" for artist in range(half == "new", artists, 2)]
        (folder / half / "tag_categories.csv").write_text("\n".join(["name,category", *rows]) + "\n")


# --- runs -----------------------------------------------------------------------------------------------------------


def run(script: str, *arguments: object) -> tuple[str, float]:
    """Run a script with one thread; what it printed, and its CPU seconds."""
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(failure(command, done.returncode, done.stderr))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prepare(folder: Path, seed: int, artists: int, images: int) -> None:
    """Draw, make records, and train the first model."""
    if not (folder / "drawn").exists():
        draw_all(folder, seed, artists, images)
        (folder / "drawn").touch()
    for half in ("base", "new"):
        tags = folder / f"{half}.csv"
        if not tags.exists():
            tags.write_text("\n".join(["name,category", *(f"{name},9" for name in RATINGS)]) + "\n")
        flags = ("--dataset-folder", folder / half, "--output-path", folder / f"records-{half}", "--tags-csv", tags)
        run("create_tfrecord.py", *flags, "--img-size", SIDE, "--split-ratio", 0.9)
    where = ("--dataset_root", folder / "records-base", "--output_dir", folder / "base-model")
    run("train_pytorch.py", *where, *USUAL.split(), *BASE.split(), "--resume", "auto")


def go(name: str, folder: Path) -> dict[str, float]:
    """Give the first model the new artists in one way, and ask it about unseen pictures."""
    output = folder / name.replace(", ", "-").replace(" ", "-")
    result = output / "result.json"
    if result.exists():
        kept: dict[str, float] = json.loads(result.read_text())
        return kept
    shutil.rmtree(output, ignore_errors=True)
    flags = WAYS[name].format(pictures=folder / "new").split()
    if "--teach" not in flags:
        flags += ["--dataset_root", str(folder / "records-new"), *USUAL.split()]
    start = ("--pretrained", folder / "base-model", "--output_dir", output)
    _, seconds = run("train_pytorch.py", *start, "--device", "cpu", *flags)
    found = score(output, folder) | {"CPU seconds": seconds}
    write_json(result, found)
    return found


def score(model: Path, folder: Path) -> dict[str, float]:
    """How well a model knows the new artists, on pictures that it has not seen."""
    asked = ("--image_file", folder / "unseen", "--model_path", model, "--device", "cpu", "--no_cache")
    said, _ = run("wdv3_pytorch.py", *asked, "--artist_threshold", 0, "--output_format", "jsonl")
    answers = [json.loads(line) for line in said.splitlines()]
    truth = np.array([int(Path(answer["image"]).name[:4]) for answer in answers])
    artists = sorted(set(truth))
    p = np.array([[answer["artist"].get(f"artist_{artist:04}", 0.0) for artist in artists] for answer in answers])
    right = np.array(artists)[p.argmax(1)] == truth
    ap = np.array([average_precision_score(truth == artist, p[:, column]) for column, artist in enumerate(artists)])
    few = np.array([len(list((folder / "new").glob(f"{artist:04}_*.jpg"))) <= FEW for artist in artists])
    return {
        "top-1": float(right.mean()),
        "mAP": float(ap.mean()),
        "top-1, few": float(right[few[np.searchsorted(artists, truth)]].mean()),
        "AP, few": float(ap[few].mean()),
    }


# --- the table ------------------------------------------------------------------------------------------------------


def table(results: dict[str, list[dict[str, float]]]) -> Iterator[str]:
    """A line for each way: means over the seeds, and CPU seconds as a ratio to the default's."""
    columns = list(next(iter(results.values()))[0])
    yield "| | " + " | ".join(columns) + " | ratio |"
    yield "|---|" + "---|" * (len(columns) + 1)
    usual = np.mean([each["CPU seconds"] for each in results["default"]])
    for name, each in results.items():
        means = [float(np.mean([one[column] for one in each])) for column in columns]
        cells = [f"{mean:.3f}" for mean in means[:-1]] + [f"{means[-1]:.0f}", f"{means[-1] / usual:.2f}"]
        yield f"| {name} | " + " | ".join(cells) + " |"


def measure(
    folder: Path, seeds: Sequence[int], artists: int, images: int, ways: Sequence[str]
) -> dict[str, list[dict[str, float]]]:
    """What each way and seed scores; prints the table. What is in the folder is not made again."""
    results: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:
        place = folder / f"{seed}-{artists}-{images}"
        prepare(place, seed, artists, images)
        for name in dict.fromkeys(("default", *ways)):
            results.setdefault(name, []).append(go(name, place))
            print(f"seed {seed}, {name}: {results[name][-1]}", flush=True)
    print(*table(results), sep="\n")
    return results


def rows(folder: Path, quick: bool) -> list[Row]:
    artists, images, ways = (8, 64, ["taught"]) if quick else (ARTISTS, IMAGES, list(WAYS))
    results = measure(folder / "artists", [0], artists, images, ways)
    usual = results["default"][0]["top-1"]
    others = {name: ("all weights, default", usual) for name in results if name != "default"}
    return [
        Row(f"new artists, {name}: the right one comes first", "", found[0]["top-1"], *others.get(name, ()))
        for name, found in results.items()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=Path, default=Path("artists-benchmark"), help="(default: ./%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(default: %(default)s)")
    parser.add_argument("--artists", type=int, default=ARTISTS, help="half of them are new (default: %(default)s)")
    parser.add_argument("--images", type=int, default=IMAGES, help="(default: %(default)s)")
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=list(WAYS))
    arguments = parser.parse_args(argv)
    measure(arguments.output_dir, arguments.seeds, arguments.artists, arguments.images, arguments.ways)
    return 0


if __name__ == "__main__":
    sys.exit(main())
