"""Thresholds come from one half of the validation split and are judged on the other; what the trainer writes of it.

python -m pytest tests/training/test_evaluation.py
"""

import csv
import io
import json
import math
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score

import models
import train_pytorch
from tagger.files import write_table
from tagger.formats.vocabulary import Vocabulary, read_vocabulary
from tagger.training import trainer
from tagger.training.evaluation import SHRINKAGE, TAG_COLUMNS, Evaluation
from tests.helpers import error_line, tree

VOCABULARY = Vocabulary(
    ("general", "explicit", "a", "b", "c", "somebody", "x", "y"), (9, 9, 0, 0, 0, 4, 1, 1), (9, 8, 7, 6, 5, 4, 3, 2)
)


def evaluated(logits: torch.Tensor, targets: torch.Tensor) -> Evaluation:
    evaluation = Evaluation(VOCABULARY, torch.device("cpu"))
    for start in range(0, len(logits), 7):
        rows = slice(start, start + 7)
        numbers = list(range(len(logits)))[rows]
        evaluation.update(numbers, logits[rows], targets[rows], torch.tensor(float(start)))
    return evaluation


@pytest.fixture(scope="module")
def scores() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets (400, 8); in the odd half the scores of tag `b` are all shifted up."""
    chance = torch.Generator().manual_seed(5)
    targets = (torch.rand(400, 8, generator=chance) < 0.3).float()
    logits = 3 * targets - 2 + 1.5 * torch.randn(400, 8, generator=chance)
    logits[1::2, 3] += 4
    return logits, targets


def test_f1_is_that_of_the_half_that_fitted_nothing(scores: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, targets = scores
    evaluation = evaluated(logits, targets)
    threshold = evaluation.metrics()["threshold"]
    fitting, reporting = slice(0, None, 2), slice(1, None, 2)
    predicted = torch.sigmoid(logits) > threshold
    precision_recall = (predicted[fitting].sum() / targets[fitting].sum()).item()
    assert precision_recall == pytest.approx(1, abs=0.05)  # predictions = positives: precision = recall
    for average in ("macro", "micro"):
        expected = f1_score(targets[reporting].numpy(), predicted[reporting].numpy(), average=average)
        assert evaluation.metrics()[f"{average}_F1"] == pytest.approx(expected, abs=0.01)
    everything = average_precision_score(targets.numpy(), logits.numpy(), average="macro")
    assert evaluation.metrics()["mAP"] == pytest.approx(everything, abs=0.005)


def test_thresholds_do_not_see_the_reporting_half(scores: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, targets = scores
    other = logits.clone()
    other[1::2] = -logits[1::2]
    assert evaluated(logits, targets).thresholds() == evaluated(other, targets).thresholds()
    assert evaluated(logits, targets).metrics()["macro_F1"] > evaluated(other, targets).metrics()["macro_F1"]


def test_a_category_that_never_occurs_has_the_default(scores: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, targets = scores
    targets = targets.clone()
    targets[:, 5] = 0
    evaluation = evaluated(logits, targets)
    assert evaluation.thresholds()["character_threshold"] == pytest.approx(0.75, abs=0.01)
    assert evaluation.thresholds()["general_threshold"] != pytest.approx(0.35, abs=0.01)
    assert math.isnan(evaluation.metrics()["mAP_character"])
    assert not any(line.startswith("character") for line in evaluation.report())


def test_a_rare_tags_threshold_is_drawn_to_its_categorys() -> None:
    """One positive at logit 6, negatives at -6, and a tag like it with sixty."""
    chance = torch.Generator().manual_seed(6)
    targets = (torch.rand(400, 8, generator=chance) < 0.3).float()
    logits = 4 * targets - 2 + 0.3 * torch.randn(400, 8, generator=chance)
    for column, positives in ((2, 1), (3, 60)):
        targets[:, column] = 0
        targets[: 2 * positives : 2, column] = 1
        logits[:, column] = 12 * targets[:, column] - 6 + 0.01 * torch.randn(400, generator=chance)
    evaluation = evaluated(logits, targets)
    rows = {str(row[0]): dict(zip(TAG_COLUMNS, row, strict=True)) for row in evaluation.tag_rows()}
    rare, common = (torch.tensor(float(str(rows[name]["threshold"]))).logit().item() for name in "ab")
    category = torch.tensor(evaluation.thresholds()["general_threshold"]).logit().item()
    lowest = -5.95  # anything between the negatives and the positives is best; the first such bin is taken
    for positives, threshold in ((1, rare), (60, common)):
        expected = (positives * lowest + SHRINKAGE * category) / (positives + SHRINKAGE)
        assert threshold == pytest.approx(expected, abs=0.1)
    assert rows["a"]["F1"] == ""  # no positive in the reporting half
    assert rows["a"]["AP"] == "1.0000"


# --- what the trainer makes of it ---


def train(records: Path, folder: Path, *more: object) -> int:
    flags = ["--dataset_root", records, "--output_dir", folder, "--model", "eva02_tiny", "--image_size", 28]
    return train_pytorch.main([*map(str, flags), "--batch_size", "8", "--device", "cpu", *map(str, more)])


def test_the_files_of_a_run(checkpoint: Path) -> None:
    assert set(tree(checkpoint)) >= {"curves.png", "metrics.csv", "tag_metrics.csv", "threshold.json"}
    thresholds = json.loads((checkpoint / "threshold.json").read_text())
    assert list(thresholds) == [f"{name}_threshold" for name in ("general", "character", "artist", "caption", "tags")]
    vocabulary = read_vocabulary(checkpoint / "selected_tags.csv")
    rows = list(csv.DictReader(io.StringIO((checkpoint / "tag_metrics.csv").read_text(encoding="utf-8"))))
    assert [row["name"] for row in rows] == list(vocabulary.names)
    assert list(rows[0]) == ["name", "category", "count", "AP", "threshold", "F1"]
    (epoch,) = csv.DictReader(io.StringIO((checkpoint / "metrics.csv").read_text()))
    assert float(epoch["loss"]) > 0 and float(epoch["macro_F1_general"]) >= 0 and float(epoch["images_per_s"]) > 0
    with Image.open(checkpoint / "curves.png") as image:
        assert image.size == (1200, 840)


def test_the_users_threshold_json_is_not_touched(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "threshold.json").write_text("mine")
    assert train(records, Path("checkpoints"), "--epochs", 1) == 0
    assert (tmp_path / "threshold.json").read_text() == "mine"


@pytest.mark.parametrize(("metric", "best"), [("loss", 1), ("map", 2)])
def test_early_stopping_by_either_metric(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, best: int, capfd: Any
) -> None:
    """A made-up run: the loss is best in epoch 1 and the mAP in epoch 2."""
    course = iter([(1.0, 0.1), (2.0, 0.4), (3.0, 0.3), (4.0, 0.2), (5.0, 0.1)])

    def metrics(self: Evaluation) -> dict[str, float]:
        return dict(zip(("loss", "mAP"), next(course), strict=True))

    monkeypatch.setattr(Evaluation, "metrics", metrics)
    monkeypatch.setattr(trainer.Trainer, "train_step", lambda self, batches, images: torch.zeros(()))
    assert train(records, tmp_path, "--epochs", 5, "--patience", 2, "--early_stopping_metric", metric) == 0
    out, err = capfd.readouterr()
    assert f"stopped: no better epoch since epoch {best}" in err
    assert f"best: epoch {best}, " in out
    assert (tmp_path / f"eva02_tiny_epoch_{best + 2}.pth").exists()
    assert not (tmp_path / f"eva02_tiny_epoch_{best + 3}.pth").exists()


def test_not_a_number_stops_with_the_step(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    inner = trainer.Trainer.targets_of
    calls = iter(range(100))
    monkeypatch.setattr(
        trainer.Trainer, "targets_of", lambda self, batch: inner(self, batch) * (math.nan if next(calls) == 1 else 1)
    )
    assert train(records, tmp_path, "--epochs", 1) == 2
    line = error_line(capfd.readouterr().err)
    assert "not a finite number at step 2; start again with a lower --lr" in line
    assert sorted(path.name for path in tmp_path.glob("*.p*")) == ["resume_00000000.pt"]


def test_an_infinite_gradient_stops_too(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(math.inf))
    assert train(records, tmp_path, "--epochs", 1) == 2
    assert "not a finite number at step 1; " in error_line(capfd.readouterr().err)


def test_columns_that_come_later_have_empty_cells_before(tmp_path: Path) -> None:
    write_table(tmp_path / "m.csv", [{"epoch": 1}, {"epoch": 2, "MFU": 0.5}])
    assert (tmp_path / "m.csv").read_text() == "epoch,MFU\n1,\n2,0.5\n"


def test_out_of_memory_names_the_batch_size_that_fits(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """A model that takes three images at a time. What did not fit is let go of before less is tried."""
    inner = models.build
    refused: list[weakref.ref] = []
    held = []

    def small(*arguments: Any, **more: Any) -> Any:
        def refuse(module: Any, inputs: tuple[torch.Tensor]) -> None:
            held.append(sum(pixels() is not None for pixels in refused))
            if len(inputs[0]) > 3:
                refused.append(weakref.ref(inputs[0]))
                raise torch.OutOfMemoryError("CUDA out of memory")

        model = inner(*arguments, **more)
        model.register_forward_pre_hook(refuse)
        return model

    monkeypatch.setattr(models, "build", small)
    assert train(records, tmp_path, "--epochs", 1) == 2
    line = error_line(capfd.readouterr().err)
    assert "--batch_size 8: out of memory on cpu; 2 fits: pass --batch_size 2 --grad_accumulation 4" in line
    assert held == [0, 0, 0]


def test_a_dry_run_writes_nothing(records: Path, tmp_path: Path, capfd: Any) -> None:
    assert train(records, tmp_path / "out", "--dry_run") == 0
    out = capfd.readouterr().out
    assert "eva02_tiny: 5.5 M parameters, " in out and "18 + 6 images, 3 steps an epoch, on cpu" in out
    assert "memory: about 0.1 GiB" in out
    assert train(records, tmp_path / "out", "--dry_run", "--val_images", 4) == 0
    assert "18 + 4 images, 3 steps an epoch" in capfd.readouterr().out
    assert not (tmp_path / "out").exists()


def test_further_categories_have_metrics_and_thresholds_of_their_own(
    scores: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    logits, targets = scores
    names = VOCABULARY.names
    vocabulary = Vocabulary(names, (9, 9, 0, 0, 3, 4, 5, "year"), VOCABULARY.counts)
    evaluation = Evaluation(vocabulary, torch.device("cpu"))
    evaluation.update(list(range(len(logits))), logits, targets, torch.tensor(1.0))
    metrics = evaluation.metrics()
    assert metrics["mAP_copyright"] == pytest.approx(
        average_precision_score(targets[:, 4].numpy(), logits[:, 4].numpy()), abs=5e-3
    )
    assert metrics["macro_F1_meta"] > 0 and metrics["macro_F1_year"] > 0 and math.isnan(metrics["mAP_artist"])
    evaluation.write(tmp_path)
    written = json.loads((tmp_path / "threshold.json").read_text())
    usual = ("general", "character", "artist", "caption", "tags")
    assert list(written) == [f"{name}_threshold" for name in (*usual, "copyright", "meta", "year")]
    assert any(line.startswith("copyright_threshold ") for line in evaluation.report())
    # A vocabulary of the usual four kinds has what it always had.
    plain = evaluated(logits, targets)
    assert list(plain.thresholds()) == [f"{name}_threshold" for name in usual]
    assert not any("copyright" in name for name in plain.metrics())
