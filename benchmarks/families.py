"""How long an answer takes with each family of public taggers at the size of its real vocabulary, first and again.

    python -m benchmarks.families

The models are one small layer, so what is measured is all else: Python, files of tags, the engine's import, the cache.
Prints the median of several runs in milliseconds, and what `python -c pass` takes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.families import PIXAI_V09_STAGES, Graph, csv_text
from tests.helpers import ROOT

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


def run(command: Sequence[str], cwd: Path) -> float:
    """Milliseconds of a process."""
    started = time.perf_counter()
    environment = {**os.environ, "XDG_CACHE_HOME": str(cwd)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or every run compiles the toolkit anew
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, env=environment)
    return (time.perf_counter() - started) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 60, 3), np.uint8)).save(place / "a.png")
        commands = {"python -c pass": [sys.executable, "-c", "pass"]}
        # Few tags pass, as with a model that has learnt something.
        high = {f"{word}_threshold": 0.9999 for word in (*WORDS, "caption", "tags") if word != "rating"}
        (place / "threshold.json").write_text(json.dumps(high))
        for family, make in MAKERS.items():
            folder = place / family.replace(" ", "_")
            folder.mkdir()
            make(folder)
            script = [sys.executable, str(ROOT / "wdv3_pytorch.py"), "--device", "cpu", "--image_file", "a.png"]
            commands[family] = [*script, "--model_path", folder.name]
        first = {family: run(command, place) for family, command in commands.items()}
        taken: dict[str, list[float]] = {family: [] for family in commands}
        for _ in range(arguments.rounds):  # in turns, so that all have the same share of a busy machine
            for family, command in commands.items():
                taken[family].append(run(command, place))
        nothing = statistics.median(taken["python -c pass"])
        for family, times in taken.items():
            again = statistics.median(times)
            print(f"{family:18} first {first[family]:6.0f} ms, again {again:5.0f} ms, {again - nothing:+5.0f} ms")


if __name__ == "__main__":
    main()
