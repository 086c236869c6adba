"""Two processes, and batches in parts, learn what one process with whole batches learns.

python -m pytest tests/training/test_ddp.py
"""

import csv
import os
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


def torchrun(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in two processes, to its end."""
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    done = subprocess.run(
        [sys.executable, *launch, *words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return done


def in_two_processes(code: str, folder: Path) -> list[str]:
    """The words that two processes print which run some code."""
    (folder / "run.py").write_text(code)
    return torchrun("run.py", cwd=folder).stdout.split()


def test_two_processes_learn_what_one_does(records: Path, alone: list[dict[str, str]], tmp_path: Path) -> None:
    more = ["--batch_size", 4, "--export_dir", tmp_path / "exported"]
    done = torchrun(str(ROOT / "train_pytorch.py"), *flags(records, tmp_path, *more), cwd=ROOT)
    assert_same(curve(tmp_path), alone)
    assert done.stdout.count("epoch 2:") == 1
    assert "3 steps an epoch, on cpu in 2 processes" in done.stderr
    assert (tmp_path / "exported" / "model.safetensors").exists()


def test_gradients_travel_as_bfloat16(tmp_path: Path) -> None:
    """Of two processes' gradients, 1 + 2^-10 and 1, bfloat16 keeps 1 and 1."""
    code = (
        "import torch\n"
        "from tagger.training import distributed\n"
        "with distributed.join('cpu', '') as world:\n"
        "    for compressed in (False, True):\n"
        "        model = torch.nn.Linear(1, 1, bias=False)\n"
        "        network = distributed.shared(model, world.device, compressed)\n"
        "        network(torch.full((1, 1), 1 + (2**-10 if world.is_first else 0.0))).sum().backward()\n"
        "        world.print(str((model.weight.grad - 1).item() * 2**11))\n"
        "    world.wait()\n"
    )
    assert in_two_processes(code, tmp_path) == ["1.0", "0.0"]


def test_processes_share_muons_matrices(tmp_path: Path) -> None:
    """Five matrices among two processes, and one among both: the updates of one process, bit for bit."""
    code = (
        "import torch\n"
        "from tagger.training import distributed\n"
        "from tagger.training.muon import BatchedMuon\n"
        "def learnt():\n"
        "    torch.manual_seed(0)\n"
        "    shapes = [(6, 10), (10, 6), (6, 10), (6, 10), (6, 10), (4, 4)]\n"
        "    matrices = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]\n"
        "    optimizer = BatchedMuon([{'params': matrices, 'use_fallback': False}], lr=1e-2)\n"
        "    for _ in range(3):\n"
        "        for matrix in matrices:\n"
        "            matrix.grad = torch.randn(matrix.shape)\n"
        "        optimizer.step()\n"
        "    return matrices\n"
        "alone = learnt()\n"
        "with distributed.join('cpu', '') as world:\n"
        "    equal = all(map(torch.equal, alone, learnt()))\n"
        "    assert not world.any(not equal)\n"
        "    world.print('equal')\n"
        "    world.wait()\n"
    )
    assert in_two_processes(code, tmp_path) == ["equal"]


@pytest.mark.parametrize(
    "how", [["--batch_size", "4", "--grad_accumulation", "2"], ["--batch_size", "8", "--grad_checkpointing"]]
)
def test_less_memory_same_curve(records: Path, alone: list[dict[str, str]], tmp_path: Path, how: list[str]) -> None:
    assert train_pytorch.main(flags(records, tmp_path, *how)) == 0
    assert_same(curve(tmp_path), alone)
