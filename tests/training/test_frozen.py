"""A frozen backbone: features are computed once, a killed run goes on, old tags stay, and the files are the usual ones.

python -m pytest tests/training/test_frozen.py
"""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import models
import train_pytorch
from tagger.formats.checkpoint import read_config
from tagger.formats.vocabulary import ARTIST, Vocabulary, read_vocabulary, write_vocabulary
from tagger.formats.weights import load_weights
from tagger.training.frozen import FrozenHead, unfreeze_last
from tests.conftest import INPUT_SIZE
from tests.helpers import ROOT, lines_of, run_script, tree, write_pair

EPOCHS = 3


@pytest.fixture(scope="module")
def grown(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of four artists whom the checkpoint does not know, beside its own tags."""
    folder = tmp_path_factory.mktemp("grown")
    old = read_vocabulary(checkpoint / "selected_tags.csv")
    names = [f"painter_{number}" for number in range(4)]
    write_vocabulary(folder / "tags.csv", Vocabulary((*old.names, *names), (*old.categories, *[ARTIST] * 4)))
    for number in range(24):
        tags = ["general", "1girl", names[number % 4]]
        write_pair(folder / "dataset", f"image{number}.png", tags, grey=10 * number)
    flags = ("--dataset-folder", "dataset", "--tags-csv", "tags.csv", "--img-size", 56, "--split-ratio", 0.75)
    done = run_script("create_tfrecord.py", *flags, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "output-datasets"


def flags(grown: Path, checkpoint: Path, folder: Path, *more: object) -> list[str]:
    usual = ["--dataset_root", grown, "--pretrained", checkpoint, "--freeze_backbone", "--output_dir", folder]
    usual += ["--image_size", INPUT_SIZE, "--batch_size", 4, "--epochs", EPOCHS, "--device", "cpu"]
    return [str(word) for word in (*usual, *more)]


@pytest.fixture(scope="module")
def frozen(grown: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frozen") / "head"
    done = run_script("train_pytorch.py", *flags(grown, checkpoint, folder), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_files_are_those_of_any_run(frozen: Path, checkpoint: Path, grown: Path) -> None:
    usual = {"config.json", "selected_tags.csv", "eva02_tiny_best.pth", "threshold.json", "tag_metrics.csv"}
    assert usual <= set(tree(frozen))
    weights, before = load_weights(frozen / "eva02_tiny_best.pth"), load_weights(checkpoint / "eva02_tiny_best.pth")
    old = len(read_vocabulary(checkpoint / "selected_tags.csv"))
    assert weights.keys() == before.keys()
    for name, tensor in before.items():  # what the model knew is there, bit for bit
        assert torch.equal(weights[name][:old] if name.startswith("head.") else weights[name], tensor), name
    assert (weights["head.weight"][old:].norm(dim=1) > 0.01).all()
    models.load(read_config(frozen / "config.json"), frozen / "eva02_tiny_best.pth")


def test_what_is_learnt_on_features_is_what_the_whole_model_says(frozen: Path, grown: Path) -> None:
    table = (frozen / "tag_metrics.csv").read_text().splitlines()
    done = run_script(
        *("train_pytorch.py", "--dataset_root", grown, "--pretrained", frozen, "--epochs", 0, "--device", "cpu"),
        *("--image_size", INPUT_SIZE, "--output_dir", frozen.parent / "converted"),
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    whole = load_weights(frozen.parent / "converted" / "eva02_tiny_epoch_0.pth")
    assert torch.equal(whole["head.weight"], load_weights(frozen / "eva02_tiny_best.pth")["head.weight"])
    assert len(table) == len(whole["head.bias"]) + 1


def test_features_are_computed_once(grown: Path, checkpoint: Path, frozen: Path, tmp_path: Path) -> None:
    features = {path.relative_to(frozen): path.stat().st_mtime_ns for path in frozen.glob("features/*/*.npy")}
    assert len(features) == 3  # two views of the training images, one of the others
    done = run_script("train_pytorch.py", *flags(grown, checkpoint, frozen, "--overwrite", "--head_lr", 50), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert {path.relative_to(frozen): path.stat().st_mtime_ns for path in frozen.glob("features/*/*.npy")} == features
    assert "features of" not in done.stderr
    # Other weights, other pixels or other records are other features.
    done = run_script(
        "train_pytorch.py", *flags(grown, checkpoint, frozen, "--overwrite", "--image_size", 56), cwd=ROOT
    )
    assert done.returncode == 0 and len(list(frozen.glob("features/*"))) == 4, done.stderr


KILLED = """
import os, signal, sys
import train_pytorch
from tagger.training import features, trainer
left = int(sys.argv[1])
def counted(inner):
    def call(*arguments):
        global left
        result = inner(*arguments)
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call
if sys.argv[2] == "features":
    features.CHUNK = 5
    features.FeatureStore.write = counted(features.FeatureStore.write)
else:
    trainer.Trainer.train_step = counted(trainer.Trainer.train_step)
sys.exit(train_pytorch.main(sys.argv[3:]))
"""


LONG_TAIL = ("--repeat_factor", 0.9, "--loss", "logit_adjusted")


@pytest.mark.parametrize(
    ("where", "after", "more"),
    [("steps", 7, ()), ("steps", 12, ()), ("steps", 11, LONG_TAIL), ("steps", 18, LONG_TAIL)],
)
def test_killed_and_run_again(
    where: str, after: int, more: tuple[object, ...], grown: Path, checkpoint: Path, tmp_path: Path
) -> None:
    def weights(folder: Path) -> dict[str, torch.Tensor]:
        return load_weights(folder / "eva02_tiny_best.pth")

    for name, killed in (("undisturbed", False), ("killed", True)):
        command = flags(grown, checkpoint, tmp_path / name, "--resume", "auto", "--save_every_steps", 2, *more)
        if killed:
            code = [sys.executable, "-c", KILLED, str(after), where, *command]
            assert subprocess.run(code, cwd=ROOT, capture_output=True).returncode == -signal.SIGKILL
        done = run_script("train_pytorch.py", *command, cwd=ROOT)
        assert done.returncode == 0, done.stderr
    ours, theirs = weights(tmp_path / "killed"), weights(tmp_path / "undisturbed")
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_killed_while_features_are_computed(grown: Path, checkpoint: Path, tmp_path: Path) -> None:
    command = flags(grown, checkpoint, tmp_path / "out", "--resume", "auto")
    code = [sys.executable, "-c", KILLED, "3", "features", *command]
    assert subprocess.run(code, cwd=ROOT, capture_output=True).returncode == -signal.SIGKILL
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("out/features/*/*.npy")}
    assert len(kept) == 3
    again = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "pass")
    done = subprocess.run([sys.executable, "-c", again, "99", "features", *command], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    now = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("out/features/train-*/*.npy")}
    assert kept.items() <= now.items() and len(now) == 8


def test_a_run_goes_on_with_its_own_flags(grown: Path, checkpoint: Path, frozen: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert train_pytorch.main(flags(grown, checkpoint, folder, "--epochs", 2)) == 0
    assert train_pytorch.main(["--output_dir", str(folder), "--resume", "--epochs", "3", "--device", "cpu"]) == 0
    assert len((folder / "metrics.csv").read_text().splitlines()) == 4


def test_what_has_no_meaning_is_refused(records: Path, checkpoint: Path, tmp_path: Path, capfd: Any) -> None:
    command = flags(records, checkpoint, tmp_path / "out")
    assert train_pytorch.main(command) == 2
    line = lines_of(capfd.readouterr().err)[-1]
    assert "no tag that" in line and "--train_old_tags" in line
    assert train_pytorch.main([*command, "--train_old_tags", "--overwrite"]) == 0
    capfd.readouterr()
    for more in (["--freeze_backbone"], ["--train_old_tags"]):
        with pytest.raises(SystemExit):
            train_pytorch.main(["--dataset_root", str(records), *more])
    assert train_pytorch.main([*command[:4], *command[5:], "--unfreeze_last", "99", "--overwrite"]) == 2
    assert "--unfreeze_last 99: it has no 99 blocks" in lines_of(capfd.readouterr().err)[-1]


def test_the_last_blocks_alone_learn(grown: Path, checkpoint: Path, tmp_path: Path) -> None:
    command = flags(grown, checkpoint, tmp_path / "out", "--unfreeze_last", 2, "--epochs", 1, "--patch_dropout", 0)
    command.remove("--freeze_backbone")
    assert train_pytorch.main(command) == 0
    before, after = (load_weights(path / "eva02_tiny_best.pth") for path in (checkpoint, tmp_path / "out"))
    changed = {name for name in before if not name.startswith("head.") and not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith(("blocks.10.", "blocks.11.", "fc_norm.")) for name in changed)


def test_the_head_of_any_wd_architecture(repository: tuple[Path, Any]) -> None:
    _, model = repository
    head = model.get_classifier()
    frozen = FrozenHead(model, torch.tensor([1, 4]))
    features = torch.randn(3, head.in_features)
    assert torch.allclose(frozen(features), head(features), atol=1e-6)
    old = head.weight.detach().clone()
    frozen.start_from(torch.ones(2, head.in_features), torch.ones(2))
    whole = frozen.whole().get_classifier()  # type: ignore[operator]
    assert torch.equal(whole.weight[[0, 2, 3]], old[[0, 2, 3]]) and (whole.weight[[1, 4]] == 1).all()
    with pytest.raises(ValueError, match="it has no 99 blocks"):
        unfreeze_last(model, 99)


def test_the_rate_of_the_head_is_its_own() -> None:
    _, given = train_pytorch.parse_arguments(["--pretrained", "x", "--freeze_backbone"])
    settings = train_pytorch.make_settings(given)
    assert settings.recipe.head_lr == 100 and settings.recipe.lr == 1e-4
    assert settings.recipe.early_stopping_metric == "map"
    assert json.loads(json.dumps(settings.remembered()))["freeze_backbone"] is True
