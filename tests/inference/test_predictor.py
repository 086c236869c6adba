"""predictor.py: batches, what the cache knows, and reduced precision.

python -m pytest tests/inference/test_predictor.py
"""

import math
import sqlite3
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tagger.files import UserError
from tagger.inference.cache import PredictionCache
from tagger.inference.engines import torch_engine
from tagger.inference.engines.protocol import EngineHints, EngineSettings
from tagger.inference.engines.torch_engine import TorchEngine
from tagger.inference.logits import Logits
from tagger.inference.predictor import Hints, Predictor, Results, is_finite, pooled, predictions
from tagger.inference.selection import sigmoid
from tagger.preparation import on_white_square
from tests.helpers import make_predictor

PREPARATION = on_white_square(28)


def predictor_of(
    load: Callable[[], torch.nn.Module],
    device: str = "cpu",
    batch_size: int = 8,
    engine_hints: EngineHints = EngineHints(),  # noqa: B008
    hints: Hints = Hints(),  # noqa: B008
) -> Predictor:
    """A model of two labels that torch runs."""

    def open_engine() -> TorchEngine:
        return TorchEngine(load, PREPARATION, EngineSettings(device), engine_hints)

    return Predictor(open_engine, 2, batch_size, PREPARATION, hints)


class Standing:
    """An engine that only says where it is."""

    preparation, device = PREPARATION, "cpu, float32"

    def logits(self, pixels: Sequence[Any]) -> Any:
        raise AssertionError

    def broken(self) -> str | None:
        raise AssertionError


class Counted(Predictor):
    """A model that says of every image how bright it is, and counts how often it was asked for how many."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(Standing, 2, batch_size, PREPARATION)
        self.batches: list[int] = []

    def __call__(self, pixels: Sequence[Any]) -> list["array[float]"]:
        self.batches.append(len(pixels))
        self.images += len(pixels)
        return [array("f", [each.mean() / 255, 1.0]) for each in pixels]


def grey_images(folder: Path, count: int) -> list[Path]:
    paths = []
    for number in range(count):
        paths.append(folder / f"{number}.png")
        Image.new("RGB", (5, 9), (number * 9,) * 3).save(paths[-1])
    return paths


def test_only_what_is_new_goes_to_the_model_in_batches(tmp_path: Path) -> None:
    paths = grey_images(tmp_path, 11)
    paths[4].write_bytes(b"no image")
    cache = PredictionCache(tmp_path / "cache.sqlite")
    first = Counted(batch_size=3)
    alone = list(predictions(paths[2:6], first, cache, b"key"))
    assert first.batches in ([2, 1], [3])
    model = Counted(batch_size=4)
    everything = list(predictions([*paths, tmp_path / "gone.png"], model, cache, b"key"))
    assert [path.name for path, _ in everything] == [*(path.name for path in paths), "gone.png"]
    assert sum(model.batches) == 7 and max(model.batches) <= 4
    assert [everything[number] for number in (2, 3, 5)] == [alone[number] for number in (0, 1, 3)]
    assert isinstance(everything[4][1], UserError) and isinstance(everything[-1][1], UserError)
    model.batches.clear()
    again = list(predictions(paths, model, cache, b"key"))
    assert model.batches == [] and again[0] == everything[0] and again[10] == everything[10]
    list(predictions(paths[:1], model, cache, b"another checkpoint"))
    assert model.batches == [1]
    cache.close()


def test_a_damaged_entry_is_computed_anew(tmp_path: Path) -> None:
    paths = grey_images(tmp_path, 2)
    cache = PredictionCache(tmp_path / "c.sqlite")
    model = Counted(batch_size=2)
    expected = list(predictions(paths, model, cache, b"key"))
    for damaged in (b"123", b"", "text", None, b"1234" * 100):
        with sqlite3.connect(tmp_path / "c.sqlite") as database:
            database.execute("CREATE TABLE IF NOT EXISTS anything (x)")
            database.execute("UPDATE predictions SET logits = ?", (damaged if damaged is not None else 5,))
        database.close()
        assert list(predictions(paths, model, cache, b"key")) == expected
    cache.close()


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_an_old_entry_that_is_no_number_is_computed_anew(tmp_path: Path, number: float) -> None:
    paths = grey_images(tmp_path, 2)
    cache = PredictionCache(tmp_path / "c.sqlite")
    model = Counted(batch_size=2)
    expected = list(predictions(paths, model, cache, b"key"))
    with sqlite3.connect(tmp_path / "c.sqlite") as database:
        database.execute("UPDATE predictions SET logits = ?", (array("f", [0.5, number]).tobytes(),))
    database.close()
    assert list(predictions(paths, model, cache, b"key")) == expected
    assert model.batches == [2, 2]
    cache.close()


class NotANumberForBlack(torch.nn.Module):
    """A model that answers NaN for black images, though all its weights are numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        brightness = (pixels.mean((1, 2, 3)) + 1) * self.weight
        return torch.stack([brightness.log() - brightness.log() + brightness, brightness], 1)


def test_an_answer_that_is_no_number_is_the_error_of_its_image(tmp_path: Path) -> None:
    paths = []
    for number, shade in enumerate((9, 0, 200)):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (28, 28), (shade,) * 3).save(paths[-1])
    cache = PredictionCache(tmp_path / "c.sqlite")
    for _ in range(2):
        predictor = predictor_of(NotANumberForBlack, batch_size=2)
        results = dict(predictions(paths, predictor, cache, b""))
        assert "1.png: the model's answer is no number" in str(results.pop(paths[1]))
        assert all(isinstance(logits, Logits) and is_finite(logits.values) for logits in results.values())
    assert (predictor.known, predictor.images) == (2, 1)
    cache.close()


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_whether_all_are_numbers(values: list[float]) -> None:
    assert is_finite(array("f", values)) == all(map(math.isfinite, values))


def test_the_summary_counts_what_it_saw() -> None:
    predictor = Counted(batch_size=2)
    predictor.known = 3
    assert predictor.summary() == "3 images from the cache"
    predictor.images, predictor.seconds = 1, 0.5
    assert predictor.summary() == "cpu, float32: 1 image, 2.0 images/s, 3 more from the cache"


def test_the_answer_is_that_of_the_batch(checkpoint: Path, dataset: Path) -> None:
    paths = sorted(dataset.glob("*.jpg"))[:5]
    weights = checkpoint / "eva02_tiny_best.pth"
    one, many = (
        [logits for _, logits in predictions(paths, make_predictor(weights, batch_size=size), None, b"")]
        for size in (1, 4)
    )
    for alone, together in zip(one, many, strict=True):
        assert not isinstance(alone, UserError) and not isinstance(together, UserError)
        assert sigmoid(together.values) == pytest.approx(sigmoid(alone.values), abs=1e-5)


def test_bfloat16_differs_little(checkpoint: Path, dataset: Path) -> None:
    weights = checkpoint / "eva02_tiny_best.pth"
    exact, fast = (
        next(predictions([dataset / "03.jpg"], make_predictor(weights, precision=precision), None, b""))[1]
        for precision in ("float32", "bfloat16")
    )
    assert not isinstance(exact, UserError) and not isinstance(fast, UserError)
    assert exact != fast and sigmoid(fast.values) == pytest.approx(sigmoid(exact.values), abs=0.02)


@pytest.fixture
def exact_products() -> Iterator[None]:
    """float32 as torch begins with it, and as it was afterwards: a training before may have changed it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("exact_products")
def test_tf32_is_for_cuda_alone(checkpoint: Path, dataset: Path) -> None:
    torch.set_float32_matmul_precision("highest")  # the checkpoint may just have been trained
    predictor = make_predictor(checkpoint / "eva02_tiny_best.pth", precision="tf32")
    with pytest.raises(UserError, match="tf32: only CUDA GPUs know it, not cpu; choose float32"):
        next(predictions([dataset / "03.jpg"], predictor, None, b""))
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.usefixtures("exact_products")
def test_tf32_is_asked_for_before_the_model_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> torch.nn.Module:
        raise UserError(f"products are {torch.get_float32_matmul_precision()}")  # this machine may have no GPU to go on

    monkeypatch.setattr(torch_engine, "pick_device", lambda name, hint: torch.device("cuda"))
    for precision, products in (("float32", "highest"), ("tf32", "high")):
        with pytest.raises(UserError, match=f"products are {products}$"):
            TorchEngine(load, PREPARATION, EngineSettings("cuda", precision))


class OutOfMemory(torch.nn.Module):
    """A model too large for the device's memory."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("2 GiB")


def test_errors_end_with_the_callers_hints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine_hints, hints = EngineHints(device="pass --d", memory="pass --m"), Hints(path="pass --p")
    predictor = predictor_of(OutOfMemory, "cpu", engine_hints=engine_hints, hints=hints)
    with pytest.raises(UserError, match="a batch of 2 images: more than the memory of cpu holds; pass --m"):
        list(predictions(grey_images(tmp_path, 2), predictor, None, b""))
    ((_, error),) = predictions([tmp_path / "gone.png"], predictor, None, b"")
    assert str(error) == f"{tmp_path / 'gone.png'}: No such file or directory; pass --p"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    absent = predictor_of(OutOfMemory, "cuda", engine_hints=engine_hints)
    with pytest.raises(UserError, match=r"device cuda: .*pass --d"):
        list(predictions(grey_images(tmp_path, 1), absent, None, b""))


def test_pooling_passes_errors_on() -> None:
    error = UserError("damaged")
    results: list[Results] = [
        (Path("a"), (Logits.of([0.0, 2.0]), Logits.of([1.0]))),
        (Path("b"), error),
        (Path("c"), (Logits.of([1.0, 4.0]), Logits.of([2.0]))),
    ]
    means = (Logits.of([0.5, 3.0]), Logits.of([1.5]))
    assert list(pooled(results)) == [(Path("b"), error), (Path("2 images together"), means)]
    assert list(pooled(results[1:2])) == [(Path("b"), error)]
