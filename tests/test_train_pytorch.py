"""train_pytorch.py: what it writes, what steers it, and what it refuses, with the smallest of its models.

python -m pytest tests/test_train_pytorch.py
"""

import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

import models
import train_pytorch as script
from models import MODELS
from tagger.formats.checkpoint import read_config
from tagger.formats.records import RecordFile
from tagger.formats.vocabulary import CHARACTER, read_categories, read_vocabulary
from tagger.training import distributed
from tagger.training.data import Batch, TaggedImages, mixup
from tagger.training.loss import LOSSES
from tagger.training.optimizer import OPTIMIZERS
from tagger.training.trainer import Trainer
from tests.conftest import INPUT_SIZE
from tests.helpers import ROOT, error_line, flip_byte, lines_of, run_script, tree

TRAIN = Path("record_shards_train", "aibooru_train.tfrecord")
CPU = torch.device("cpu")


def train(records: Path, output: Path, *flags: object) -> int:
    """One epoch of eva02_tiny at 28 pixels, unless the flags say otherwise."""
    usual = ["--model", "eva02_tiny", "--image_size", INPUT_SIZE, "--epochs", 1, "--batch_size", 8, "--device", "cpu"]
    arguments = ["--dataset_root", records, "--output_dir", output, *usual, *flags]
    return script.main([*map(str, arguments)])


@pytest.fixture
def copied(records: Path, tmp_path: Path) -> Path:
    """Records that a test may spoil."""
    return Path(shutil.copytree(records, tmp_path / "records"))


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """eva02_tiny with one block of its twelve, for what does not depend on the model."""
    monkeypatch.setitem(MODELS["eva02_tiny"], "depth", 1)


class Loss:
    """An evaluation that knows a loss and nothing else."""

    def __init__(self, loss: float) -> None:
        self.loss = loss

    def metrics(self) -> dict[str, float]:
        return {"loss": self.loss, "mAP": math.nan}

    def report(self) -> list[str]:
        return []

    def write(self, folder: Path) -> None:
        pass


class Rehearsal:
    """What a run does between its epochs, with nothing learnt in them."""

    def __init__(self) -> None:
        self.losses: Iterator[float] = iter(lambda: 1.0, 2.0)  # of validation; always 1 unless a test says otherwise
        self.during: Callable[[Trainer], object] = lambda _: None  # called in every epoch
        self.epochs = 0

    def train_epoch(self, trainer: Trainer, *_: object) -> float:
        self.epochs += 1
        with torch.no_grad():
            trainer.model.head.bias.fill_(self.epochs)  # type: ignore[operator, union-attr]
        self.during(trainer)
        return 1.0

    def validate(self, *_: object) -> Loss:
        return Loss(next(self.losses))


@pytest.fixture
def rehearsal(shallow: None, monkeypatch: pytest.MonkeyPatch) -> Rehearsal:
    rehearsal = Rehearsal()
    monkeypatch.setattr(Trainer, "train_epoch", lambda trainer, *_: rehearsal.train_epoch(trainer))
    monkeypatch.setattr(Trainer, "validate", rehearsal.validate)
    return rehearsal


# --- what is written ------------------------------------------------------------------------------------------------


def test_a_checkpoint_folder_is_complete(checkpoint: Path) -> None:
    needed = ["config.json", "eva02_tiny_best.pth", "eva02_tiny_epoch_1.pth", "selected_tags.csv"]
    measured = ["curves.png", "metrics.csv", "tag_metrics.csv", "threshold.json"]
    assert tree(checkpoint) == sorted([".tagger.lock", *needed, *measured, "resume_00000000.pt", "resume_00000003.pt"])


def test_checkpoints_are_plain_state_dicts_that_infer(checkpoint: Path, records: Path) -> None:
    config = read_config(checkpoint / "config.json")
    vocabulary = read_vocabulary(checkpoint / "selected_tags.csv")
    assert vocabulary == read_vocabulary(records / "selected_tags.csv")
    assert config["tagger"] == {"model": "eva02_tiny", "channel_order": "RGB", "tags_sha256": vocabulary.sha256}
    assert config["model_args"]["img_size"] == INPUT_SIZE
    state = torch.load(checkpoint / "eva02_tiny_epoch_1.pth", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in state.values())
    model = models.load(config, checkpoint / "eva02_tiny_best.pth")
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, INPUT_SIZE, INPUT_SIZE)).shape == (1, len(vocabulary))


def test_inference_has_all_it_needs_before_the_first_epoch(records: Path, tmp_path: Path, rehearsal: Rehearsal) -> None:
    seen: list[list[str]] = []
    rehearsal.during = lambda _: seen.append(tree(tmp_path / "out"))
    assert train(records, tmp_path / "out") == 0
    assert seen == [[".tagger.lock", "config.json", "resume_00000000.pt", "selected_tags.csv"]]


@pytest.mark.usefixtures("shallow")
def test_the_metrics_of_every_epoch_are_printed(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(records, tmp_path / "out", "--epochs", 2) == 0
    captured = capsys.readouterr()
    first, second, best, *thresholds = captured.out.splitlines()
    assert thresholds[0].startswith("  general_threshold 0.") and "macro-F1 0." in thresholds[0]
    metrics = dict(re.findall(r"(\w+) ([0-9.]+)(?:,|$)", second))
    assert first.startswith("epoch 1: ") and second.startswith("epoch 2: ") and "images/s" in second
    names = {"train_loss", "loss", "mAP", "mAP_rating", "mAP_general", "macro_F1", "micro_F1", "threshold"}
    assert names <= metrics.keys() and {"top1_rating", "top1_artist"} <= metrics.keys()
    assert all(0 <= float(value) <= 1 for name, value in metrics.items() if "loss" not in name)
    assert re.match(r"best: epoch [12], loss [0-9.]+, .*eva02_tiny_best\.pth$", best)
    assert "18 + 6 images" in captured.err and "lr=" in captured.err


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("flags", [[], ["--ema_decay", 0.5]])
def test_the_printed_loss_is_that_of_the_checkpoint_on_the_validation_split(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[object]
) -> None:
    # 4 + 2 validation images: the mean is over images.
    assert train(records, tmp_path, "--batch_size", 4, "--lr", 1e-2, *flags) == 0
    printed = re.search(r", loss ([0-9.]+)", capsys.readouterr().out)
    config = read_config(tmp_path / "config.json")
    model = models.load(config, tmp_path / "eva02_tiny_epoch_1.pth")
    file = RecordFile(records / "record_shards_val" / "aibooru_val.tfrecord")
    losses = []
    for record in (file[number] for number in range(len(file))):
        image = Image.open(BytesIO(record.image)).resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.inference_mode():
            p = torch.sigmoid(model(pixels)[0].double())
        labels = torch.zeros(len(p), dtype=torch.bool)
        labels[list(record.labels)] = True
        losses.append(-(p[labels].log().sum() + (1 - p[~labels]).log().sum()).item())
    assert printed is not None and float(printed[1]) == pytest.approx(np.mean(losses), abs=1e-3)


@pytest.mark.usefixtures("shallow")
def test_it_learns(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--epochs", 5, "--batch_size", 2, "--lr", 1e-3, "--hflip", 0, "--crop_min", 1]
    assert train(records, tmp_path, *flags) == 0
    losses = [float(loss) for loss in re.findall(r"train_loss ([0-9.]+)", capsys.readouterr().out)]
    assert len(losses) == 5 and losses[-1] < 0.9 * losses[0]


# --- best, patience, overwrite --------------------------------------------------------------------------------------


def head_bias(path: Path) -> float:
    """What the rehearsal wrote into a checkpoint: the number of its epoch."""
    return torch.load(path, weights_only=True)["head.bias"][0].item()


def test_best_is_the_epoch_of_the_lowest_validation_loss(
    records: Path, tmp_path: Path, rehearsal: Rehearsal, capsys: pytest.CaptureFixture[str]
) -> None:
    rehearsal.losses = iter([3.0, 1.0, 2.0])
    assert train(records, tmp_path, "--epochs", 3) == 0
    assert [head_bias(tmp_path / f"eva02_tiny_{name}.pth") for name in ("epoch_1", "epoch_3", "best")] == [1, 3, 2]
    assert "best: epoch 2, loss 1.0000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "losses", "epochs"),
    [
        (["--patience", 2], [1, 2, 3, 4, 5, 6, 7, 8], 3),
        (["--patience", 2], [3, 4, 2, 3, 4, 5, 6, 7], 5),
        (["--patience", 2], [1, 1, 1, 1, 1, 1, 1, 1], 3),
        (["--patience", 0], [1, 2, 3, 4, 5, 6, 7, 8], 8),
        ([], [1, 2, 3, 4, 5, 6, 7, 8], 6),
    ],
)
def test_it_stops_after_so_many_epochs_without_a_lower_loss(
    records: Path,
    tmp_path: Path,
    rehearsal: Rehearsal,
    capsys: pytest.CaptureFixture[str],
    flags: list[object],
    losses: list[float],
    epochs: int,
) -> None:
    rehearsal.losses = iter(losses)
    assert train(records, tmp_path, "--epochs", 8, *flags) == 0
    assert rehearsal.epochs == epochs
    assert ("stopped" in capsys.readouterr().err) == (epochs < 8)


def test_an_earlier_run_is_replaced_only_with_overwrite(
    records: Path, tmp_path: Path, rehearsal: Rehearsal, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(records, tmp_path, "--epochs", 3) == 0
    before = {name: (tmp_path / name).read_bytes() for name in tree(tmp_path)}
    capsys.readouterr()
    assert train(records, tmp_path) == 2
    line = error_line(capsys.readouterr().err)
    assert str(tmp_path) in line and "--overwrite" in line
    assert {name: (tmp_path / name).read_bytes() for name in tree(tmp_path)} == before
    others = ["mine.txt", "yolo_best.pth", "yolo_epoch_3.pth"]
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / "threshold.json").write_text('{"general_threshold": 0.9}')  # fitted to the weights that go
    assert train(records, tmp_path, "--overwrite") == 0
    assert [name for name in tree(tmp_path) if "eva02_tiny_epoch" in name] == ["eva02_tiny_epoch_1.pth"]
    assert set(others) <= set(tree(tmp_path)) and "threshold.json" not in tree(tmp_path)


def test_checkpoints_of_the_model_before_go(records: Path, tmp_path: Path, rehearsal: Rehearsal) -> None:
    assert train(records, tmp_path, "--epochs", 2) == 0
    assert train(records, tmp_path, "--model", "eva02_small", "--overwrite") == 0
    assert [path.name for path in sorted(tmp_path.glob("*.pth"))] == ["eva02_small_best.pth", "eva02_small_epoch_1.pth"]


def test_a_run_that_died_before_its_first_checkpoint_is_no_obstacle(
    records: Path, tmp_path: Path, rehearsal: Rehearsal
) -> None:
    (tmp_path / "config.json").write_text('{"tagger": {}}')
    (tmp_path / "resume_00000000.pt").touch()
    assert train(records, tmp_path) == 0
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == "eva02_tiny_patch14_336"


OURS = ("config.json", "selected_tags.csv", "threshold.json", "tag_metrics.csv", "metrics.csv", "curves.png")


@pytest.mark.parametrize("name", OURS)
def test_somebodys_files_are_not_replaced_unasked(
    records: Path, tmp_path: Path, rehearsal: Rehearsal, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).write_text("mine")
    assert train(records, tmp_path) == 2
    line = error_line(capsys.readouterr().err)
    assert f"{tmp_path / name}: stands there and does not look like this script's output" in line
    assert "name another --output_dir, or pass --overwrite" in line
    assert tree(tmp_path) == [name] and (tmp_path / name).read_text() == "mine" and rehearsal.epochs == 0
    assert train(records, tmp_path, "--overwrite") == 0


@pytest.mark.parametrize("flag", ["--output_dir", "--export_dir"])
def test_files_of_the_toolkit_are_never_replaced(
    records: Path, tmp_path: Path, rehearsal: Rehearsal, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    before = {name: (ROOT / name).read_bytes() for name in ("selected_tags.csv", "threshold.json")}
    assert train(records, tmp_path / "out", "--overwrite", flag, ROOT) == 2
    line = error_line(capsys.readouterr().err)
    assert f"selected_tags.csv: a file of the toolkit; name another {flag}" in line
    assert {name: (ROOT / name).read_bytes() for name in before} == before and rehearsal.epochs == 0
    assert not [name for name in ("config.json", "model.safetensors", ".tagger.lock") if (ROOT / name).exists()]


def test_inputs_are_never_replaced(
    copied: Path, tmp_path: Path, rehearsal: Rehearsal, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {name: (copied / name).read_bytes() for name in tree(copied)}
    for flag in ("--output_dir", "--export_dir"):
        assert train(copied, tmp_path / "out", "--overwrite", flag, copied) == 2
        assert "selected_tags.csv: an input of this run; name another" in error_line(capsys.readouterr().err)
    assert {name: (copied / name).read_bytes() for name in tree(copied)} == before
    source = tmp_path / "source"
    assert train(copied, source) == 0
    assert train(copied, source, "--pretrained", source, "--overwrite") == 2
    assert "config.json: an input of this run" in error_line(capsys.readouterr().err)
    assert (source / "eva02_tiny_best.pth").exists()


def test_another_models_folder_is_no_place_to_export_to(
    records: Path, tmp_path: Path, rehearsal: Rehearsal, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "wd"
    folder.mkdir()
    (folder / "config.json").write_text('{"architecture": "vit"}')
    (folder / "model.safetensors").write_text("somebody's")
    assert train(records, tmp_path / "out", "--export_dir", folder) == 2
    assert "name another --export_dir, or pass --overwrite" in error_line(capsys.readouterr().err)
    assert rehearsal.epochs == 0 and (folder / "model.safetensors").read_text() == "somebody's"
    for _ in range(2):  # its own may be replaced
        assert train(records, tmp_path / "out", "--export_dir", tmp_path / "mine") in (0, 2)
        shutil.rmtree(tmp_path / "out")
    assert (tmp_path / "mine" / "model.safetensors").exists()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_neither_written_nor_taken(
    records: Path, tmp_path: Path, rehearsal: Rehearsal, capsys: pytest.CaptureFixture[str], bad: float
) -> None:
    assert train(records, tmp_path / "good") == 0
    weights = torch.load(tmp_path / "good" / "eva02_tiny_best.pth", weights_only=True)
    weights["head.bias"][1] = bad
    torch.save(weights, tmp_path / "good" / "eva02_tiny_best.pth")
    capsys.readouterr()
    assert train(records, tmp_path / "next", "--pretrained", tmp_path / "good" / "eva02_tiny_best.pth") == 2
    assert "eva02_tiny_best.pth: head.bias holds NaN or infinity" in error_line(capsys.readouterr().err)

    def spoil(trainer: Trainer) -> None:
        with torch.no_grad():
            trainer.model.head.bias.fill_(bad)  # type: ignore[operator, union-attr]

    rehearsal.during = spoil
    assert train(records, tmp_path / "bad") == 2
    line = error_line(capsys.readouterr().err)
    assert "head.bias is not a finite number at step" in line and "--lr" in line
    assert not list((tmp_path / "bad").glob("*.pth"))


@pytest.mark.usefixtures("shallow")
def test_a_model_that_answers_no_number_ends_the_run(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def overflow(module: torch.nn.Module, inputs: object, logits: torch.Tensor) -> torch.Tensor:
        return logits if module.training else logits * math.inf

    original = models.build

    def build(*arguments: Any, **more: Any) -> torch.nn.Module:
        model = original(*arguments, **more)
        model.register_forward_hook(overflow)
        return model

    monkeypatch.setattr(models, "build", build)
    assert train(records, tmp_path / "out") == 2
    assert "the loss on the validation split is not a finite number at step" in error_line(capsys.readouterr().err)
    assert not list((tmp_path / "out").glob("*.pth"))


def test_weights_alone_are_no_start(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"head.bias": torch.zeros(2)}, tmp_path / "a.pth")
    for place in (tmp_path, tmp_path / "a.pth"):
        assert train(records, tmp_path / "out", "--pretrained", place) == 2
        line = error_line(capsys.readouterr().err)
        assert "config.json: no such file; put the config.json that was published or written with these weights" in line


def test_a_flipped_bit_in_weights_to_start_from_is_found(
    records: Path, tmp_path: Path, rehearsal: Rehearsal, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(records, tmp_path / "run", "--export_dir", tmp_path / "exported") == 0
    for path in (tmp_path / "run" / "eva02_tiny_best.pth", tmp_path / "exported" / "model.safetensors"):
        flip_byte(path, path.stat().st_size // 2)
        capsys.readouterr()
        assert train(records, tmp_path / "next", "--pretrained", path) == 2
        assert f"{path.name}: damaged, its checksum is another" in error_line(capsys.readouterr().err)


def test_it_ends_with_a_command_that_tags_with_the_fitted_thresholds(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    picture = ROOT / "examples" / "pictures" / "1.jpg"
    (tmp_path / "threshold.json").write_text((ROOT / "threshold.json").read_text())
    assert train(records, Path("my checkpoints")) == 0
    line = lines_of(capsys.readouterr().err)[-1]
    command = shlex.split(line.removeprefix("tag with it: "))
    fitted = Path("my checkpoints", "threshold.json")
    assert command[-2:] == ["--threshold_json", str(fitted)]
    command[0], command[command.index("PICTURE")] = sys.executable, str(picture)
    done = subprocess.run(command, capture_output=True, text=True)
    level = json.loads(fitted.read_text())["general_threshold"]
    assert done.returncode == 0 and f"General tags (threshold={level:.2f})" in done.stdout, done.stderr


def test_on_another_drive_the_command_has_the_whole_path(
    records: Path, tmp_path: Path, rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def relpath(path: object) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr("os.path.relpath", relpath)
    assert train(records, tmp_path / "out") == 0
    assert str(ROOT / "wdv3_pytorch.py") in lines_of(capsys.readouterr().err)[-1]


@pytest.mark.usefixtures("shallow")
def test_without_a_validation_split_the_training_loss_decides(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    val = copied / "record_shards_val" / "aibooru_val.tfrecord"
    val.write_bytes(b"")
    val.with_suffix(".idx").write_bytes(b"")
    edit_json(copied / "aibooru.json", val_samples=0)
    assert train(copied, tmp_path / "out") == 0
    assert "best: epoch 1" in capsys.readouterr().out
    assert train(copied, tmp_path / "map", "--early_stopping_metric", "map") == 2
    assert "has no validation split; leave the flag out" in error_line(capsys.readouterr().err)


@pytest.mark.usefixtures("shallow")
def test_every_step_is_clipped_and_mixed_and_drops_paths(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, mix = Mock(side_effect=torch.nn.utils.clip_grad_norm_), Mock(side_effect=mixup)
    build = Mock(side_effect=models.build)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    monkeypatch.setattr("tagger.training.trainer.mixup", mix)
    monkeypatch.setattr(models, "build", build)
    assert train(records, tmp_path, "--mixup", 0.3, "--drop_path", 0.1) == 0
    assert [call.args[1] for call in clip.call_args_list] == [1.0] * 3
    assert [call.args[2] for call in mix.call_args_list] == [0.3] * 3
    assert build.call_args.kwargs["drop_path_rate"] == 0.1


# --- flags ----------------------------------------------------------------------------------------------------------


def test_the_defaults_are_the_documented_ones() -> None:
    defaults = vars(script.parse_arguments([])[0])
    expected: dict[str, Any] = {
        "dataset_root": Path("output-datasets"),
        "output_dir": Path("checkpoints"),
        "model": None,  # eva02_large, or what --pretrained is
        "image_size": 224,
        "batch_size": 32,
        "epochs": 10,
        "lr": 1e-4,
        "warmup": 0.1,
        "weight_decay": 0.05,
        "patience": 5,
        "hflip": 0.5,
        "crop_min": 0.87,
        "seed": 0,
        "device": "auto",
        "overwrite": False,
    }
    assert {name: defaults[name] for name in expected} == expected


def test_flags_may_be_spelled_with_dashes() -> None:
    arguments, _ = script.parse_arguments(["--dataset-root", "a", "--output-dir=b", "--image-size", "28"])
    assert (arguments.dataset_root, arguments.output_dir, arguments.image_size) == (Path("a"), Path("b"), 28)


@pytest.mark.parametrize("name", ["eva02_tiny", "eva02_small"])
def test_checkpoints_are_named_after_the_model(records: Path, tmp_path: Path, rehearsal: Rehearsal, name: str) -> None:
    assert train(records, tmp_path, "--model", name) == 0
    assert (tmp_path / f"{name}_epoch_1.pth").exists() and (tmp_path / f"{name}_best.pth").exists()


def test_lr_and_warmup_shape_the_schedule(records: Path, tmp_path: Path, rehearsal: Rehearsal) -> None:
    rates: list[float] = []

    def play(trainer: Trainer) -> None:
        for step in range(15):  # 5 epochs of 18 / 8 -> 3 batches
            trainer.schedule.step_update(step)
            rates.append(trainer.optimizer.param_groups[0]["lr"])

    rehearsal.during = play
    assert train(records, tmp_path, "--epochs", 5, "--lr", 0.01, "--warmup", 0.4) == 0
    rates = rates[:15]
    assert rates[:6] == pytest.approx([0.01 * (step + 1) / 7 for step in range(6)])
    assert rates[6:] == pytest.approx([0.01 * (1 + math.cos(math.pi * step / 9)) / 2 for step in range(9)])


def test_weight_decay_is_for_matrices_alone(records: Path, tmp_path: Path, rehearsal: Rehearsal) -> None:
    decays: dict[str, float] = {}

    def look(trainer: Trainer) -> None:
        groups = trainer.optimizer.param_groups
        decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
        decays.update({name: decay[id(parameter)] for name, parameter in trainer.model.named_parameters()})

    rehearsal.during = look
    assert train(records, tmp_path, "--weight_decay", 0.3) == 0
    assert decays["blocks.0.attn.qkv.weight"] == decays["head.weight"] == 0.3
    spared = [name for name, decay in decays.items() if decay == 0]
    assert {"pos_embed", "cls_token", "head.bias", "fc_norm.weight", "blocks.0.norm1.weight"} <= set(spared)


@pytest.mark.usefixtures("shallow")
def test_batch_size_and_image_size_reach_the_model(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    original = Trainer.targets_of

    def spy(trainer: Trainer, batch: Batch) -> torch.Tensor:
        shapes.append(tuple(batch[0].shape))
        return original(trainer, batch)

    monkeypatch.setattr(Trainer, "targets_of", spy)
    assert train(records, tmp_path, "--batch_size", 10, "--image_size", 42) == 0
    assert shapes == [(10, 42, 42, 3), (8, 42, 42, 3), (6, 42, 42, 3)]


@pytest.mark.usefixtures("shallow")
def test_an_optimizer_and_a_loss_are_added_with_one_entry(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(OPTIMIZERS, "sgd", lambda model, groups, lr: torch.optim.SGD(groups, lr))
    monkeypatch.setitem(LOSSES, "huber", lambda positive_weight: torch.nn.HuberLoss(reduction="sum"))
    flags = ["--optimizer", "sgd", "--loss", "huber"]
    assert train(records, tmp_path / "dry", *flags, "--dry_run") == 0
    assert "memory: about" in capsys.readouterr().out
    assert train(records, tmp_path / "out", *flags) == 0
    assert (tmp_path / "out" / "eva02_tiny_best.pth").exists()


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_an_error_and_no_fallback(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert distributed.join("auto", hint="").device == CPU
    assert train(records, tmp_path / "out", "--device", device) == 2
    assert f"device {device}" in error_line(capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


# --- the same run again ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("shallow")
def test_one_seed_gives_one_result(records: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        assert train(records, tmp_path / name, "--seed", seed) == 0
    a, b, c = (torch.load(tmp_path / name / "eva02_tiny_best.pth", weights_only=True) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["head.weight"], c["head.weight"])


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
@pytest.mark.usefixtures("shallow")
def test_a_compiled_model_learns_the_same(records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiling = Mock(side_effect=torch.compile)
    monkeypatch.setattr(torch, "compile", compiling)
    weights = []
    for name, flags in {"eager": [], "compiled": ["--compile"]}.items():
        assert train(records, tmp_path / name, *flags, "--patch_dropout", 0, "--optimizer", "adamw") == 0
        weights.append(torch.load(tmp_path / name / "eva02_tiny_best.pth", weights_only=True))
    compiling.assert_called_once()
    assert compiling.call_args.kwargs == {"dynamic": False}
    torch.testing.assert_close(weights[1], weights[0], atol=1e-5, rtol=1e-3)


@pytest.mark.usefixtures("shallow")
def test_a_model_that_cannot_be_compiled_learns_without(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def failing(network: Any, **options: Any) -> Any:
        def forward(images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no compiler was found\nand much more")

        return forward

    monkeypatch.setattr(torch, "compile", failing)
    weights = []
    for name, flags in {"eager": ["--no_compile"], "failing": ["--compile"]}.items():
        assert train(records, tmp_path / name, *flags) == 0
        weights.append(torch.load(tmp_path / name / "eva02_tiny_best.pth", weights_only=True))
    said = [line for line in capfd.readouterr().err.splitlines() if "torch.compile" in line]
    assert said == [
        "train_pytorch.py: torch.compile does not work here (RuntimeError: no compiler was found); training goes on "
        "without it"
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(("flag", "value"), [("--hflip", 1), ("--crop_min", 0.5), ("--seed", 3)])
def test_augmentation_flags_reach_the_training_images_and_not_the_validation(
    records: Path, tmp_path: Path, rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch, flag: str, value: float
) -> None:
    made: list[TaggedImages] = []
    original = TaggedImages.__init__

    def spy(dataset: TaggedImages, *arguments: Any, **options: Any) -> None:
        original(dataset, *arguments, **options)
        made.append(dataset)

    monkeypatch.setattr(TaggedImages, "__init__", spy)
    assert train(records, tmp_path, flag, value) == 0
    training, validation = made
    assert getattr(training, flag[2:]) == value
    assert (validation.hflip, validation.crop_min) == (0, 1)


@pytest.mark.usefixtures("shallow")
def test_training_with_worker_processes(records: Path, tmp_path: Path) -> None:
    assert train(records, tmp_path, "--num_workers", 2) == 0
    assert (tmp_path / "eva02_tiny_best.pth").exists()


# --- what is refused ------------------------------------------------------------------------------------------------


def edit_json(path: Path, **changes: object) -> None:
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in value.items() if value is not None}))


def edit_csv(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def damage_a_record(path: Path) -> None:
    flip_byte(path, path.stat().st_size // 2)


def forget_a_record(path: Path) -> None:
    first = int(path.with_suffix(".idx").read_text().split()[1])
    path.write_bytes(path.read_bytes()[first:])


def empty_the_train_split(root: Path) -> None:
    (root / TRAIN).write_bytes(b"")
    edit_json(root / "aibooru.json", train_samples=0)


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (shutil.rmtree, "aibooru.json: no such file"),
        (lambda root: (root / "aibooru.json").write_text("{"), "aibooru.json: not JSON"),
        (lambda root: edit_json(root / "aibooru.json", tags_sha256=None), "aibooru.json: no key tags_sha256"),
        (lambda root: edit_json(root / "aibooru.json", image_size=14), "pass --image_size 14"),
        (lambda root: edit_json(root / "aibooru.json", image_size="56"), "image_size must be a whole number above 0"),
        (lambda root: edit_json(root / "aibooru.json", train_shards=0), "train_shards must be a whole number above 0"),
        (lambda root: (root / "selected_tags.csv").unlink(), "selected_tags.csv: no such file"),
        (lambda root: edit_csv(root / "selected_tags.csv", "solo", "duo"), "selected_tags.csv: its names"),
        (lambda root: edit_csv(root / "selected_tags.csv", "count", "uses"), "selected_tags.csv: no column count"),
        (lambda root: (root / TRAIN).unlink(), "aibooru_train.tfrecord: no such file"),
        (lambda root: truncate(root / TRAIN), "aibooru_train.tfrecord: damaged at byte"),
        (lambda root: damage_a_record(root / TRAIN), "aibooru_train.tfrecord: record"),
        (lambda root: forget_a_record(root / TRAIN), "aibooru_train.tfrecord: 17 records, aibooru.json says 18"),
        (empty_the_train_split, "aibooru_train.tfrecord: no records"),
    ],
)
def test_unusable_records_are_one_line_that_names_the_file(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], object], words: str
) -> None:
    spoil(copied)
    assert train(copied, tmp_path / "out") == 2
    captured = capsys.readouterr()
    assert words in error_line(captured.err) and captured.out == ""
    assert not list(tmp_path.glob("out/*.pth"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda root: (root / "selected_tags.csv").unlink(),
        lambda root: (root / TRAIN).unlink(),
        lambda root: truncate(root / TRAIN),
        lambda root: damage_a_record(root / TRAIN),
    ],
    ids=["no vocabulary", "no shard", "cut off", "a flipped bit"],
)
def test_damaged_records_name_the_command_that_repairs_them(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], object]
) -> None:
    spoil(copied)
    assert train(copied, tmp_path / "out") == 2
    assert "; repair the folder with create_tfrecord.py --verify and the flags" in error_line(capsys.readouterr().err)


def test_a_damaged_record_is_one_line_in_a_worker_process_too(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage_a_record(copied / TRAIN)
    assert train(copied, tmp_path / "out", "--num_workers", 1) == 2
    assert "aibooru_train.tfrecord: record" in error_line(capsys.readouterr().err)


def test_categories_may_be_edited_in_the_records_vocabulary(copied: Path, tmp_path: Path, rehearsal: Rehearsal) -> None:
    edit_csv(copied / "selected_tags.csv", "solo,0,", "solo,4,")
    assert train(copied, tmp_path / "out") == 0
    assert read_categories(tmp_path / "out" / "selected_tags.csv")["solo"] == CHARACTER


@pytest.mark.parametrize(("size", "words"), [(30, "28 is"), (70, "pass --image_size 56")])
def test_unusable_image_size(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int, words: str
) -> None:
    assert train(records, tmp_path / "out", "--image_size", size) == 2
    line = error_line(capsys.readouterr().err)
    assert words in line and str(size) in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--model", "eva02_huge"],
        ["--epochs", "0"],
        ["--batch_size", "-1"],
        ["--lr", "0"],
        ["--lr", "fast"],
        ["--warmup", "2"],
        ["--patience", "-1"],
        ["--hflip", "1.1"],
        ["--crop_min", "0"],
        ["--patch_dropout", "1"],
        ["--export_dir", "checkpoints"],
        ["--weight_decay", "-1"],
        ["--num_workers", "-1"],
        ["--device", "tpu"],
        ["--seed", "-1"],
        ["--image_size", "0"],
    ],
)
def test_wrong_values_are_refused(capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        script.main(flags)
    assert caught.value.code == 2
    assert flags[0] in error_line(capsys.readouterr().err)


def test_interrupting_keeps_the_checkpoints_that_are_there(
    records: Path, tmp_path: Path, rehearsal: Rehearsal, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(trainer: Trainer) -> None:
        if rehearsal.epochs == 2:
            raise KeyboardInterrupt

    rehearsal.during = interrupt
    assert train(records, tmp_path, "--epochs", 3) == 130
    assert lines_of(capsys.readouterr().err)[-1] == "train_pytorch.py: interrupted"
    assert head_bias(tmp_path / "eva02_tiny_epoch_1.pth") == head_bias(tmp_path / "eva02_tiny_best.pth") == 1


def test_in_a_process_of_its_own(records: Path, tmp_path: Path) -> None:
    done = run_script("train_pytorch.py", "--dataset_root", tmp_path / "gone", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert "train_pytorch.py: error: " in error_line(done.stderr) and "gone" in error_line(done.stderr)
