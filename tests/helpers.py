"""What several test files need: running scripts, reading their errors, making and breaking files.

from tests.helpers import error_line, run_script
"""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tagger.formats.families.registry import open_folder
from tagger.inference.engines.protocol import NO_HINTS, EngineSettings
from tagger.inference.predictor import Predictor
from tagger.inference.taggers import open_engine

ROOT = Path(__file__).resolve().parent.parent

# Names that a CSV reader which guesses types, quotes or comments would spoil.
ODD_NAMES = ["null", "nan", "NA", "None", 'don\'t_say_"lazy"', "\\m/", ":o", "=_=", "^_^", "#", "1", "0.5", "初音ミク"]

# The README's example of an answer: category and probability of each tag. whiskey passes no threshold.
EXAMPLE = {
    "general": (9, 0.95),
    "sensitive": (9, 0.04),
    "questionable": (9, 0.007),
    "explicit": (9, 0.003),
    "whiskey": (0, 0.12),
    "1girl": (0, 0.92),
    "m16a1_(girls'_frontline)": (4, 0.88),
    "artist_name_1": (1, 0.85),
}
EXAMPLE_TEXT = """\
Caption: 1girl, m16a1_(girls'_frontline), artist_name_1
Tags: 1girl, m16a1_(girls'_frontline)
Ratings:
  general: 0.950
Character tags (threshold=0.80):
  m16a1_(girls'_frontline): 0.880
General tags (threshold=0.40):
  1girl: 0.920
Artist tags (threshold=0.70):
  artist_name_1: 0.850
"""


def run_script(name: str, *arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts in a process of its own, as a user would; `environment` is added to this one's."""
    return subprocess.run(
        [sys.executable, ROOT / name, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def lines_of(stderr: str) -> list[str]:
    """The lines of what was written to stderr; a progress bar's states count as lines."""
    return [line.strip() for line in re.split(r"[\r\n]", stderr) if line.strip()]


def error_line(stderr: str) -> str:
    """The one error on stderr, which must be its last line."""
    assert "Traceback" not in stderr
    lines = lines_of(stderr)
    assert [number for number, line in enumerate(lines) if "error:" in line] == [len(lines) - 1], stderr
    return lines[-1]


def left_out(stderr: str) -> list[str]:
    """What a script says that it left out, a line for each."""
    assert "Traceback" not in stderr
    return [line for line in lines_of(stderr) if "left out:" in line]


def write_txts(folder: Path, **contents: str) -> Path:
    """Make a folder of txt files, named by their stems."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, text in contents.items():
        (folder / f"{stem}.txt").write_text(text, encoding="utf-8")
    return folder


def write_pair(folder: Path, name: str, tags: Iterable[str], grey: int = 0) -> Path:
    """Make a small image of one shade and the txt beside it; images of equal suffix and shade have equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / name
    Image.new("RGB", (20, 30), (grey, grey, 90)).save(image)
    image.with_suffix(".txt").write_text(",".join(tags), encoding="utf-8")
    return image


def paint(folder: Path, artist: int, count: int = 4, size: int = 40) -> None:
    """Pictures of one colour and one grain, which are the artist's."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(artist)
    base = random.integers(0, 256, 3)
    for number in range(count):
        noise = np.random.default_rng((artist, number)).normal(0, 5 + 20 * artist, (size, size, 3))
        Image.fromarray(np.clip(base + noise, 0, 255).astype(np.uint8)).save(folder / f"{number}.png")


def flip_byte(path: Path, position: int, mask: int = 0xFF) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)


def tree(folder: Path) -> list[str]:
    """The files below a folder, by their paths in it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def write_csv(path: Path, rows: Sequence[str], header: str = "name,category") -> Path:
    """Write a vocabulary of ours, whose rows are "name,category", or another CSV."""
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return path


def make_predictor(weights: Path, batch_size: int = 8, **settings: Any) -> Predictor:
    """A model on the CPU, with the files that lie beside its weights."""
    import models  # here, for most that import this file need no torch

    model = open_folder(weights)
    engine = partial(open_engine, model, EngineSettings(device="cpu", **settings), models.load, NO_HINTS)
    return Predictor(engine, len(model.vocabulary), batch_size, model.preparation if model.config else None)
