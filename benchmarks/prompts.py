"""wdv3_pytorch.py --embedded_prompt only on PNGs of 1 MB: files/s beside Pillow, which reads the same texts.

    python -m benchmarks.prompts

Makes --count pictures of noise with a NovelAI prompt in a temporary folder, and prints for each contender the median of
--rounds, in turn:

  script    the whole command, from its start to its end, with a vocabulary of 10,000 tags
  reader    read_embedded alone: texts, grammar, artists of a prompt of 64 tags
  texts     read_containers alone: the texts, also those behind the pixels, which Pillow finds only by decoding them
  Pillow    Image.open and its `info`, as most readers of prompts do; no grammar
  hidden    read_embedded on pictures without a text, whose pixels are decoded to look for a hidden one

On two cores of a Xeon, Python 3.11, Pillow 13, other work beside it:

  script 808, reader 940, texts 10,154, Pillow 28,413, hidden 291 files/s: the texts take 2.8 times as long as Pillow,
  and of an answer the grammar of 64 tags takes nine tenths
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from benchmarks.processes import ROOT, script
from benchmarks.table import Chinese, Goal, Row
from tagger.formats.vocabulary import read_vocabulary
from tagger.inference.embedded.answer import make_lookup
from tagger.inference.embedded.artists import Lookup
from tagger.inference.embedded.containers import read_containers
from tagger.inference.embedded.reading import read_embedded

COUNT, ROUNDS = 1000, 3
SIDE = 592  # pixels of noise that make 1 MB
PROMPT = "1girl, solo, 1.2::artist:aoi kumo ::, {artist:mori}, year 2024, very aesthetic, " + ", ".join(
    f"tag number {i}" for i in range(60)
)


def make_pictures(folder: Path, count: int, *, with_prompt: bool) -> list[Path]:
    """PNGs of noise. The pixels are packed once: their content is no matter, and no file is a copy of another."""
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    paths = []
    for number in range(count):
        info = PngImagePlugin.PngInfo()
        if with_prompt:
            prompt = f"{PROMPT}, number {number}"
            caption = {"caption": {"base_caption": prompt, "char_captions": []}}
            comment = {"prompt": prompt, "uc": "lowres", "seed": number, "v4_prompt": caption}
            info.add_text("Software", "NovelAI")
            info.add_text("Description", prompt)
            info.add_text("Comment", json.dumps(comment))
        path = folder / f"{number:04}.png"
        image.save(path, pnginfo=info, compress_level=1)
        paths.append(path)
    return paths


def read_with_pillow(paths: Sequence[Path]) -> None:
    for path in paths:
        with Image.open(path) as image:
            assert image.info["Software"] == "NovelAI"


def read_texts(paths: Sequence[Path]) -> None:
    for path in paths:
        assert read_containers(path).fields["png"]["Software"] == "NovelAI"


def read_here(paths: Sequence[Path], lookup: Lookup, artists: int) -> None:
    for path in paths:
        assert len(read_embedded(path, lookup).artists) == artists


def run_script(folder: Path) -> None:
    given = ("--embedded_prompt", "only", "--image_file", folder, "--tags_csv", ROOT / "selected_tags.csv")
    done = script("wdv3_pytorch.py", *given, "--output_format", "jsonl")
    assert '"aoi_kumo": 1.2, "mori": 1.05' in done.output


def seconds(work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def measure(count: int, rounds: int) -> dict[str, float]:
    """Files a second of each contender; prints them."""
    lookup = make_lookup(read_vocabulary(ROOT / "selected_tags.csv"), None)
    with tempfile.TemporaryDirectory() as scratch:
        prompts, bare = Path(scratch, "prompts"), Path(scratch, "bare")
        prompts.mkdir()
        bare.mkdir()
        paths = make_pictures(prompts, count, with_prompt=True)
        without = make_pictures(bare, max(1, count // 20), with_prompt=False)
        size = statistics.mean(path.stat().st_size for path in paths)
        print(f"{len(paths):,} PNGs of {size / 1e6:.2f} MB")
        contenders: dict[str, tuple[int, Callable[[], None]]] = {
            "script": (len(paths), lambda: run_script(prompts)),
            "reader": (len(paths), lambda: read_here(paths, lookup, artists=2)),
            "texts": (len(paths), lambda: read_texts(paths)),
            "Pillow": (len(paths), lambda: read_with_pillow(paths)),
            "hidden": (len(without), lambda: read_here(without, lookup, artists=0)),
        }
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, (_, work) in contenders.items():
                taken[name].append(seconds(work))
        speeds = {name: number / statistics.median(taken[name]) for name, (number, _) in contenders.items()}
    for name, speed in speeds.items():
        print(f"{name:8} {speed:8,.0f} files/s   {speed / speeds['Pillow']:.2f} of Pillow's")
    return speeds


def rows(_: Path, quick: bool) -> list[Row]:
    found = measure(20 if quick else COUNT, 1 if quick else ROUNDS)
    return [
        Row(
            "wdv3_pytorch.py --embedded_prompt only, on PNGs of 1 MB",
            "files/s",
            found["script"],
            goal=Goal(200, at_least=True, of_ratio=False),
            zh=Chinese("wdv3_pytorch.py --embedded_prompt only，1 MB 的 PNG"),
            wall=True,
        ),
        Row(
            "the same: reading the texts alone",
            "files/s",
            found["texts"],
            "Pillow, which finds only those before the pixels",
            found["Pillow"],
            wall=True,
        ),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=COUNT, help="pictures (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(default: %(default)s)")
    arguments = parser.parse_args(argv)
    measure(arguments.count, arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
