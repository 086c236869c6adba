"""Tagging with nothing but requirements-onnx.txt: no torch, timm, torchvision, tensorflow, pandas or safetensors.

python -m pytest tests/test_onnx_alone.py
"""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from PIL import Image

from tests.families import MINIATURES
from tests.helpers import ROOT, error_line

ABSENT = ("torch", "timm", "torchvision", "tensorflow", "pandas", "safetensors", "matplotlib", "httpx_socks", "onnx")


def needed_distributions() -> set[str]:
    """The packages of requirements-onnx.txt, and what they need in turn."""
    lines = (ROOT / "requirements-onnx.txt").read_text(encoding="utf-8").splitlines()
    waiting = [Requirement(text) for line in lines if (text := line.partition("#")[0].strip())]
    found: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name not in found:
            found.add(name)
            waiting += map(Requirement, importlib.metadata.requires(name) or ())
    return found


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages as pip would make it for requirements-onnx.txt alone, of links to those that are here."""
    folder = tmp_path_factory.mktemp("packages")
    for name in needed_distributions():
        files = importlib.metadata.files(name) or ()
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(importlib.metadata.distribution(name).locate_file(top))))
    return folder


def run_alone(packages: Path, cwd: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run this Python without its own packages (-S), with those of a folder."""
    return subprocess.run(
        [sys.executable, "-S", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(packages), "XDG_CACHE_HOME": str(cwd / "cache")},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def test_the_environment_holds_nothing_else(packages: Path, tmp_path: Path) -> None:
    code = f"import importlib.util as u, onnxruntime; print([name for name in {ABSENT} if u.find_spec(name)])"
    done = run_alone(packages, tmp_path, "-c", code)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


@pytest.mark.parametrize("name", [name for name, miniature in MINIATURES.items() if miniature.onnx])
def test_every_onnx_family_tags(name: str, packages: Path, tmp_path: Path) -> None:
    MINIATURES[name].make(tmp_path)
    Image.new("RGB", (30, 50), (200, 30, 90)).save(tmp_path / "a.png")
    flags = ["--image_file", "a.png", "--model_path", tmp_path, "--output_format", "json", "--report", "r.html"]
    for _ in range(2):
        done = run_alone(packages, tmp_path, ROOT / "wdv3_pytorch.py", *flags, "--artist_string", "nai")
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)) == 1 and (tmp_path / "r.html").exists()
    assert "1 image from the cache" in done.stderr


def test_a_wd_v3_folder_with_both_takes_the_graph(packages: Path, tmp_path: Path) -> None:
    for name in ("WD v3", "WD v3 ONNX"):
        MINIATURES[name].make(tmp_path)
    done = run_alone(packages, tmp_path, ROOT / "wdv3_pytorch.py", "--model_path", tmp_path, "--describe")
    assert done.returncode == 0 and "family: WD tagger, ONNX" in done.stdout, done.stderr


def test_weights_alone_say_what_is_missing(packages: Path, tmp_path: Path) -> None:
    MINIATURES["WD v3"].make(tmp_path)
    done = run_alone(packages, tmp_path, ROOT / "wdv3_pytorch.py", "--model_path", tmp_path, "--describe")
    assert done.returncode == 2
    line = error_line(done.stderr)
    assert "which needs torch and timm; pip install -r requirements.txt, or take an ONNX model" in line
