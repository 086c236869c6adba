"""Every family of public taggers in miniature: its probabilities are those of the publishers' own way, on odd pictures.

python -m pytest tests/formats/families/test_families.py
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import wdv3_pytorch as script
from tagger.formats.families.registry import open_folder
from tagger.formats.vocabulary import category_name
from tests.families import MINIATURES, Miniature

TOLERANCE = 1e-5  # in probability


def odd_pictures(folder: Path) -> list[Path]:
    """Pictures of every kind that a decoder or a resize may treat in its own way."""
    random = np.random.default_rng(0)

    def noise(width: int, height: int, channels: int) -> Image.Image:
        small = random.integers(0, 256, (max(1, height // 9), max(1, width // 9), channels), dtype=np.uint8)
        mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
        return Image.fromarray(small[..., 0] if channels == 1 else small, mode).resize((width, height))

    pictures = {
        "plain.png": noise(211, 147, 3),
        "rgba.png": noise(120, 171, 4),
        "strip.png": noise(1, 500, 3),
        "wide.png": noise(3000, 200, 3),
        "grey.png": noise(97, 64, 1),
        "cmyk.jpg": noise(90, 130, 3).convert("CMYK"),
        "tiny.png": noise(5, 3, 3),
        "square.png": noise(64, 64, 3),
    }
    for name, picture in pictures.items():
        picture.save(folder / name)
    palette = noise(80, 60, 3).quantize(16)
    palette.info["transparency"] = 3
    palette.save(folder / "palette.png", transparency=3)
    return sorted(folder.glob("*.*g"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return odd_pictures(tmp_path_factory.mktemp("odd"))


@pytest.fixture(scope="module", params=MINIATURES)
def family(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Miniature, Path]]:
    folder = tmp_path_factory.mktemp("family")
    MINIATURES[request.param].make(folder)
    yield MINIATURES[request.param], folder


EVERYTHING = ["--threshold_json", "zero.json", "--output_format", "jsonl", "--device", "cpu", "--no_cache"]


def tag_everything(
    folder: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any, *flags: str
) -> list[dict[str, Any]]:
    """What the script says of pictures, every label of it."""
    monkeypatch.chdir(tmp_path)
    categories = open_folder(folder).vocabulary.category_names
    keys = ("caption", "tags", "general", "character", "artist", *categories)
    (tmp_path / "zero.json").write_text(json.dumps({f"{name}_threshold": 0 for name in keys if name != "rating"}))
    command = ["--image_file", *map(str, pictures), "--model_path", str(folder), *EVERYTHING, *flags]
    assert script.main(command) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_probabilities_are_the_publishers(
    family: tuple[Miniature, Path], pictures: list[Path], monkeypatch: Any, tmp_path: Path, capsys: Any
) -> None:
    miniature, folder = family
    answers = tag_everything(folder, pictures, monkeypatch, tmp_path, capsys)
    worst = 0.0
    for path, answer in zip(pictures, answers, strict=True):
        logits = miniature.expect(folder, path)
        expected = torch.softmax(logits, 0) if miniature.activation == "softmax" else torch.sigmoid(logits)
        for (name, category), p in zip(miniature.labels, expected.tolist(), strict=True):
            group = "ratings" if category == 9 else category_name(category)
            worst = max(worst, abs(answer[group][name] - p))
        count = sum(len(answer[key]) for key in answer if isinstance(answer[key], dict))
        assert count == len(miniature.labels)
    print(f"largest difference: {worst:.1e}")
    assert worst < TOLERANCE
    spread = [
        max(answer[key].values(), default=0) for answer in answers for key in answer if isinstance(answer[key], dict)
    ]
    assert np.std(spread) > 0.01  # or equal answers to all pictures would pass


def test_it_is_known_by_its_files_and_described(family: tuple[Miniature, Path], capsys: Any) -> None:
    miniature, folder = family
    described = open_folder(folder)
    assert described.family == miniature.wanted
    assert list(zip(described.vocabulary.names, described.vocabulary.categories, strict=True)) == miniature.labels
    assert (described.config is None) == miniature.onnx
    assert script.main(["--model_path", str(folder), "--describe", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert f"family: {miniature.wanted}\n" in said and "pixels:\n  upright, " in said and "  channels " in said
