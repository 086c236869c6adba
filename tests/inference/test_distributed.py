"""distributed.py: the images of a folder divided among processes of torchrun.

python -m pytest tests/inference/test_distributed.py
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tagger.inference.distributed import ProcessGroup, process_group, split
from tests.helpers import ROOT, lines_of, run_script


def test_one_process_does_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert process_group() == ProcessGroup(0, 1)
    assert list(split(range(5), lambda share: iter([-item for item in share]), process_group())) == [0, -1, -2, -3, -4]


def test_the_environment_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert process_group() == ProcessGroup(1, 3)


def test_two_processes_share_the_images(checkpoint: Path, dataset: Path, tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        shutil.copy(dataset / f"{number:02}.jpg", tmp_path)
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    flags = ["--image_file", tmp_path, "--model_path", checkpoint, "--device", "cpu", "--output_format", "jsonl"]
    flags += ["--gen_threshold", 0, "--no_cache"]
    alone = run_script("wdv3_pytorch.py", *flags, cwd=tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", ROOT / "wdv3_pytorch.py"]
    done = subprocess.run([*map(str, (*command, *flags))], cwd=tmp_path, capture_output=True, text=True)
    assert alone.returncode == 1, done.stderr
    ours, theirs = ([json.loads(line) for line in each.stdout.splitlines()] for each in (done, alone))
    assert [record["image"] for record in ours] == [record["image"] for record in theirs] and len(ours) == 4
    for one, two in zip(ours, theirs, strict=True):
        assert one["general"] == pytest.approx(two["general"], abs=1e-5)
    assert "damaged.png: " in done.stderr
    assert sum("cpu, float32: " in line for line in lines_of(done.stderr)) >= 2
