"""onnx_export.py: onnxruntime gives what the model gives.

python -m pytest tests/inference/test_onnx_export.py
"""

import sys
from pathlib import Path

import numpy as np
import pytest

import wdv3_pytorch as script
from tagger import images
from tagger.files import UserError
from tagger.formats.checkpoint import read_config
from tagger.inference.predictor import predictions
from tagger.inference.selection import sigmoid
from tests.helpers import error_line, make_predictor


def test_onnx(checkpoint: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "model.onnx"
    assert script.main(["--model_path", str(checkpoint), "--export_onnx", str(path)]) == 0
    assert "model.onnx: written" in capsys.readouterr().err
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
        assert row.tolist() == pytest.approx(sigmoid(logits), abs=1e-4)


def test_a_package_that_is_missing_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    path = tmp_path / "model.onnx"
    assert script.main(["--model_path", str(checkpoint), "--export_onnx", str(path)]) == 2
    line = error_line(capsys.readouterr().err)
    assert f"{path}: writing it needs onnxruntime; pip install" in line and not path.exists()
