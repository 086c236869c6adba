"""Two processes, and batches in parts, learn what one process with whole batches learns.

python -m pytest tests/training/test_ddp.py
"""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

import train_pytorch
from tests.helpers import ROOT, free_port

# Which patches are left out is a matter of the process, and Muon's bfloat16 enlarges the last digit's differences.
FLAGS = [
    *("--model", "eva02_tiny", "--image_size", "28", "--epochs", "2", "--device", "cpu", "--lr", "1e-3"),
    *("--optimizer", "adamw", "--patch_dropout", "0"),
]


def flags(records: Path, folder: Path, *more: object) -> list[str]:
    return ["--dataset_root", str(records), "--output_dir", str(folder), *FLAGS, *map(str, more)]


def curve(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def alone(records: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    folder = tmp_path_factory.mktemp("alone")
    assert train_pytorch.main(flags(records, folder, "--batch_size", 8)) == 0
    return curve(folder)


def assert_same(rows: list[dict[str, str]], expected: list[dict[str, str]]) -> None:
    assert [row["step"] for row in rows] == [row["step"] for row in expected] == ["3", "6"]
    for row, other in zip(rows, expected, strict=True):
        for name in ("lr", "train_loss", "loss", "mAP"):
            assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-4), name
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])


def test_two_processes_learn_what_one_does(records: Path, alone: list[dict[str, str]], tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--nproc_per_node",
                "2",
                "--master_port",
                str(free_port()),
            ),
            str(ROOT / "train_pytorch.py"),
            *flags(records, tmp_path, "--batch_size", 4, "--export_dir", tmp_path / "exported"),
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert_same(curve(tmp_path), alone)
    assert done.stdout.count("epoch 2:") == 1
    assert "3 steps an epoch, on cpu in 2 processes" in done.stderr
    assert (tmp_path / "exported" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "how", [["--batch_size", "4", "--grad_accumulation", "2"], ["--batch_size", "8", "--grad_checkpointing"]]
)
def test_less_memory_same_curve(records: Path, alone: list[dict[str, str]], tmp_path: Path, how: list[str]) -> None:
    assert train_pytorch.main(flags(records, tmp_path, *how)) == 0
    assert_same(curve(tmp_path), alone)
