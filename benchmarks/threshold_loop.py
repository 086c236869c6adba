"""The answer after an edit of threshold.json, and the cache it comes from, with 10,861 and with 200,000 tags.

    python -m benchmarks.threshold_loop

It makes its own data: small checkpoints with random weights, a picture, and logits of which few are high. Times are CPU
seconds of whole processes, python's own start included, the mean of --rounds; beside them stands what `python -c pass`
takes. That each second answer is, to the last digit, what the model says without the cache is checked as well.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.processes import ROOT, BenchmarkError, python, require, run
from benchmarks.table import Goal, Row, cells

WD_TAGS, MANY_TAGS = 10_861, 200_000
PASS_LIMITS = {WD_TAGS: 0.08, MANY_TAGS: 0.15}  # seconds for an answer, the goal
# What an answer took before only likely labels left the cache, on two quiet cores of a Xeon; and so the other figures.
NOTED = {WD_TAGS: 0.08, MANY_TAGS: 0.42}
NOTED_SELECTING, NOTED_IMAGES = 48.0, 250.0

CHECKPOINT = """
import sys
from pathlib import Path
import torch
from PIL import Image
import models
from tagger.files import write_json
from tagger.formats.vocabulary import Vocabulary, write_vocabulary
from tagger.formats.weights import save_weights

tags, folder = int(sys.argv[1]), Path(sys.argv[2])
kinds = [9] * 4 + [0] * (tags * 3 // 100) + [4] * (tags // 100)
kinds += [1] * (tags - len(kinds))
vocabulary = Vocabulary(tuple(f"tag_number_{number}" for number in range(tags)), tuple(kinds))
config = models.make_config("eva02_tiny", 28, tags, tags_sha256=vocabulary.sha256)
torch.manual_seed(0)
model = models.build(config)
with torch.no_grad():
    torch.nn.init.normal_(model.get_submodule("head").weight, std=0.1)
    torch.nn.init.constant_(model.get_submodule("head").bias, -6)
folder.mkdir()
write_vocabulary(folder / "selected_tags.csv", vocabulary)
save_weights(folder / "eva02_tiny_best.pth", model)
write_json(folder / "config.json", config)
Image.effect_noise((200, 300), 80).convert("RGB").save(folder / "picture.png")
"""

# Prints milliseconds an image from the model's logits to its tags, and how many images fit into the cache.
CACHE = """
import random, sys, time
from array import array
from pathlib import Path
import numpy
from tagger.formats.thresholds import default_thresholds, groups_of
from tagger.formats.vocabulary import Vocabulary
from tagger.inference.cache import MAX_BYTES, PredictionCache
from tagger.inference.logits import packed
from tagger.inference.selection import Demand, Request, SelectionRule, select

tags, images, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
kinds = [9] * 4 + [0] * (tags * 3 // 100) + [4] * (tags // 100)
kinds += [1] * (tags - len(kinds))
vocabulary = Vocabulary(tuple(f"tag_number_{number}" for number in range(tags)), tuple(kinds))
rule = SelectionRule(default_thresholds())
demand = Demand(Request(rule.least(groups_of(vocabulary))), vocabulary)
demand.is_met_by(demand.kept(array("f", range(tags))))  # what is made once a run is made
chance = numpy.random.default_rng(0)
cache = PredictionCache(folder / "measured.sqlite")
seconds = 0.0
for number in range(images):
    row = array("f", chance.normal(-9, 2.5, tags).astype(numpy.float32).tobytes())
    started = time.process_time()
    logits = demand.kept(row)
    assert demand.is_met_by(logits)
    select("", demand.probabilities(logits), vocabulary, rule)
    seconds += time.process_time() - started
    cache.put(b"%d" % number, packed(logits))
cache.close()
print(seconds / images * 1000, MAX_BYTES / ((folder / "measured.sqlite").stat().st_size / images))
"""


def answer_seconds(tags: int, folder: Path, rounds: int) -> tuple[float, float]:
    """CPU seconds of an answer after an edit of threshold.json, and of `python -c pass`.

    Raises:
        BenchmarkError: the answer is another one than without the cache.
    """
    place, levels = folder / f"{tags}_tags", folder / "threshold.json"
    python(CHECKPOINT, tags, place)
    # Compiled modules are kept, as on a user's machine, but not among the sources.
    kept = {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
    kept |= {"PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, ROOT / "wdv3_pytorch.py", "--image_file", place / "picture.png", "--model_path", place]
    command += ["--threshold_json", levels, "--device", "cpu"]

    def answer(threshold: float, *flags: str) -> tuple[float, str]:
        levels.write_text(json.dumps({"general_threshold": threshold, "artist_threshold": threshold}))
        done = run([*command, *flags], kept)
        return done.cpu, done.output

    answer(0.5)
    answer(0.5)
    seconds = [answer(0.5 + number / 100)[0] for number in range(rounds)]
    floor = [run([sys.executable, "-c", "pass"], kept).cpu for _ in range(rounds)]
    if answer(0.6)[1] != answer(0.6, "--no_cache")[1]:
        raise BenchmarkError(f"{tags:,} tags: the answer from the cache is another one than the model's")
    return sum(seconds) / rounds, sum(floor) / rounds


def rows(folder: Path, quick: bool) -> list[Row]:
    require("torch", "timm")
    table = []
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for tags in (300,) if quick else (WD_TAGS, MANY_TAGS):
            table += rows_of(tags, Path(scratch), 1 if quick else 20)
    return table


def rows_of(tags: int, folder: Path, rounds: int) -> list[Row]:
    """The rows of one size of the vocabulary."""
    seconds, floor = answer_seconds(tags, folder, rounds)
    selecting, images = map(float, python(CACHE, tags, 2 * rounds, folder).output.split())
    limit, huge = PASS_LIMITS.get(tags), tags == MANY_TAGS
    before = f"before, noted: {NOTED[tags]:g} s; " if tags in NOTED else ""
    return [
        Row(
            f"wdv3_pytorch.py, {tags:,} tags: the answer after an edit of threshold.json",
            "CPU s",
            seconds,
            f"{before}python -c pass",
            floor,
            None if limit is None else Goal(limit, of_ratio=False),
        ),
        Row(
            f"the same, {tags:,} tags: from the logits of an image to its tags",
            "CPU ms",
            selecting,
            f"before, noted: {NOTED_SELECTING:g} ms" if huge else "",
        ),
        Row(
            f"the same, {tags:,} tags: images that the cache holds",
            "",
            images,
            f"before, noted: {NOTED_IMAGES:g}" if huge else "",
            goal=Goal(4000, at_least=True, of_ratio=False) if huge else None,
        ),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        for tags in (WD_TAGS, MANY_TAGS):
            for row in rows_of(tags, Path(scratch), arguments.rounds):
                print("  ".join(filter(None, cells(row))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
