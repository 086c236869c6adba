"""How long an answer takes with each family of public taggers at the size of its real vocabulary, first and again.

    python -m benchmarks.families

The models are one small layer, so what is measured is all else: Python, files of tags, the engine's import, the cache.
Prints the median of several runs in milliseconds, and what `python -c pass` takes.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.processes import ROOT, require, run
from benchmarks.table import Goal, Row
from tests.families import PIXAI_V09_STAGES, Graph, csv_text

ROUNDS = 15

WORDS = ("general", "character", "copyright", "artist", "meta", "rating", "year")
NUMBERS = {"general": 0, "character": 4, "copyright": 3, "artist": 1, "meta": 5, "rating": 9}


def labels(count: int, words: Sequence[str]) -> list[tuple[str, str]]:
    """Invented names, about as long as Danbooru's, with their categories; four ratings, where there are any."""
    others = [word for word in words if word != "rating"]
    ratings = [(f"rating_{i}", "rating") for i in range(4 if "rating" in words else 0)]
    kinds = [others[i % len(others)] for i in range(count - len(ratings))]
    return ratings + [(f"some_{kind}_name_{i}", kind) for i, kind in enumerate(kinds)]


def write_graph(folder: Path, count: int, side: int = 64, name: str = "model.onnx", outputs: str = "logits") -> None:
    kinds = ("embedding", outputs) if outputs == "sigmoid" else ("other", outputs)
    names = ("embedding", "prediction") if outputs == "sigmoid" else ("initial_predictions", "refined_predictions")
    Graph(side, count, outputs=kinds, names=names).write(folder / name)


def maps(count: int, words: Sequence[str]) -> dict[str, object]:
    pairs = labels(count, words)
    return {"idx_to_tag": {str(i): name for i, (name, _) in enumerate(pairs)}, "tag_to_category": dict(pairs)}


def wd(folder: Path) -> None:
    pairs = labels(10_861, ("rating", "general", "character"))
    rows = [(i, name, NUMBERS[word], 7) for i, (name, word) in enumerate(pairs)]
    (folder / "selected_tags.csv").write_text(csv_text(("tag_id", "name", "category", "count"), rows))
    Graph(64, len(rows), layout="NHWC", raw=True, outputs=("sigmoid",)).write(folder / "model.onnx")


def animetimm(folder: Path) -> None:
    pairs = labels(22_298, ("rating", "general", "character", "artist"))
    rows = [(i, i, name, NUMBERS[word], *range(20), 0.4) for i, (name, word) in enumerate(pairs)]
    header = ("id", "tag_id", "name", "category", *(f"test_{i}" for i in range(20)), "best_threshold")
    (folder / "selected_tags.csv").write_text(csv_text(header, rows))
    (folder / "preprocess.json").write_text(json.dumps({"test": PIXAI_V09_STAGES}))
    write_graph(folder, len(rows), outputs="sigmoid")


def pixai(folder: Path) -> None:
    lengths = {"general": 15_043, "character": 8_308, "copyright": 2_460, "style": 4_917, "meta": 145, "rating": 4}
    tags = [f"some_{word}_name_{i}" for word, length in lengths.items() for i in range(length)]
    split = [list(pair) for pair in lengths.items()]
    (folder / "config.json").write_text(json.dumps({"tags": tags, "tags_split": split}))
    Graph(64, len(tags), names=("logits",)).write(folder / "model.onnx")


def cl_v2(folder: Path) -> None:
    data = maps(108_139, WORDS[:6])
    data["tag_to_idx"] = {name: i for i, (name, _) in enumerate(labels(108_139, WORDS[:6]))}
    (folder / "model_vocabulary.json").write_text(json.dumps(data))
    Graph(64, 108_139, names=("logits",)).write(folder / "model.onnx")


def camie(folder: Path) -> None:
    data = {"dataset_info": {"tag_mapping": maps(70_527, WORDS)}, "model_info": {"img_size": 64}}
    (folder / "camie-tagger-v2-metadata.json").write_text(json.dumps(data))
    write_graph(folder, 70_527, name="camie-tagger-v2.onnx")


def kaloscope(folder: Path) -> None:
    rows = [(i, name) for i, (name, _) in enumerate(labels(39_261, ("artist",)))]
    (folder / "class_mapping.csv").write_text(csv_text(("class_id", "class_name"), rows))
    Graph(56, len(rows)).write(folder / "model.onnx")


MAKERS: dict[str, Callable[[Path], None]] = {
    "WD v3": wd,
    "animetimm -witha": animetimm,
    "PixAI v1.0": pixai,
    "cl_tagger v2": cl_v2,
    "Camie v2": camie,
    "Kaloscope": kaloscope,
}


NOTHING = "python -c pass"


def milliseconds(command: Sequence[object], cache: Path) -> float:
    """Of a process, which keeps its cache in a folder."""
    # Where nothing compiled may be kept, every run would compile the toolkit anew.
    environment = {"XDG_CACHE_HOME": str(cache), "PYTHONDONTWRITEBYTECODE": ""}
    return run(command, environment).seconds * 1000


def measure(rounds: int, families: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The first answer of each, and the median of the later ones, in ms; with NOTHING first. Prints them."""
    require("onnx", "onnxruntime")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        picture = place / "a.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 60, 3), np.uint8)).save(picture)
        commands: dict[str, list[object]] = {NOTHING: [sys.executable, "-c", "pass"]}
        # Few tags pass, as with a model that has learnt something.
        high = {f"{word}_threshold": 0.9999 for word in (*WORDS, "caption", "tags") if word != "rating"}
        (place / "threshold.json").write_text(json.dumps(high))
        script = [sys.executable, ROOT / "wdv3_pytorch.py", "--device", "cpu", "--image_file", picture]
        for family in families:
            folder = place / family.replace(" ", "_")
            folder.mkdir()
            MAKERS[family](folder)
            commands[family] = [*script, "--model_path", folder, "--threshold_json", place / "threshold.json"]
        first = {family: milliseconds(command, place) for family, command in commands.items()}
        taken: dict[str, list[float]] = {family: [] for family in commands}
        for _ in range(rounds):  # in turns, so that all have the same share of a busy machine
            for family, command in commands.items():
                taken[family].append(milliseconds(command, place))
        found = {family: (first[family], statistics.median(times)) for family, times in taken.items()}
    for family, (once, again) in found.items():
        print(f"{family:18} first {once:6.0f} ms, again {again:5.0f} ms, {again - found[NOTHING][1]:+5.0f} ms")
    return found


def rows(_: Path, quick: bool) -> list[Row]:
    found = measure(1 if quick else ROUNDS, ["WD v3"] if quick else list(MAKERS))
    nothing = found.pop(NOTHING)[1]
    slowest = max(found, key=lambda family: found[family][1])
    return [
        Row(
            f"the answer after an edit of threshold.json, on top of {NOTHING}",
            "ms",
            found[slowest][1] - nothing,
            f"{slowest}, the slowest of {len(found)} families",
            goal=Goal(100, of_ratio=False),
            wall=True,
        )
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(default: %(default)s)")
    measure(parser.parse_args(argv).rounds, list(MAKERS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
