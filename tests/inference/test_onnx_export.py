"""onnx_export.py: onnxruntime gives what the model gives.

python -m pytest tests/inference/test_onnx_export.py
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import models
import wdv3_pytorch as script
from tagger import images
from tagger.files import UserError
from tagger.formats.checkpoint import own_preparation, read_config
from tagger.inference import onnx_export
from tagger.inference.onnx_export import is_export
from tagger.inference.predictor import predictions
from tagger.inference.selection import sigmoid
from tests.helpers import error_line, make_predictor, run_script


def test_onnx(checkpoint: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "model.onnx"
    assert script.main(["--model_path", str(checkpoint), "--export_onnx", str(path)]) == 0
    assert "model.onnx: written" in capsys.readouterr().err
    assert is_export(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), (wanted,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[1:]) == ("input", "tensor(float)", [28, 28, 3])
    assert wanted.shape[1] == read_config(checkpoint / "config.json")["num_classes"]
    paths = sorted(dataset.glob("*.jpg"))[:3]
    bgr = np.stack([images.to_array(images.prepare(each, 28), "BGR") for each in paths]).astype(np.float32)
    (found,) = session.run(None, {"input": bgr})
    predictor = make_predictor(checkpoint / "eva02_tiny_best.pth")
    for row, (_, logits) in zip(found, predictions(paths, predictor, None, b""), strict=True):
        assert not isinstance(logits, UserError)
        assert row.tolist() == pytest.approx(sigmoid(logits.values), abs=1e-4)


def test_one_line_is_said_and_the_command_works_again(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    flags = [
        "--model_path",
        checkpoint,
        "--export_onnx",
        "model.onnx",
        "--threshold_json",
        checkpoint / "threshold.json",
    ]
    for _ in range(2):
        done = run_script("wdv3_pytorch.py", *flags, cwd=tmp_path)
        assert done.returncode == 0 and len(done.stderr.splitlines()) == 1, done.stderr
    (tmp_path / "model.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch somebody's")
    done = run_script("wdv3_pytorch.py", *flags, cwd=tmp_path)
    assert done.returncode == 2 and "does not look like this script's output" in error_line(done.stderr)


def test_a_model_whose_answers_are_no_numbers_is_not_written(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    config = read_config(checkpoint / "config.json")
    module = models.load(config, checkpoint / "eva02_tiny_best.pth")
    torch.nn.init.constant_(module.get_classifier().bias, torch.nan)  # type: ignore[operator]
    with pytest.raises(UserError, match=r"model\.onnx: the model's answers are no numbers"):
        onnx_export.write(tmp_path / "model.onnx", module, own_preparation(config, "config.json"))
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_missing_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    path = tmp_path / "model.onnx"
    assert script.main(["--model_path", str(checkpoint), "--export_onnx", str(path)]) == 2
    line = error_line(capsys.readouterr().err)
    assert f"{path}: writing it needs onnxruntime; pip install" in line and not path.exists()
