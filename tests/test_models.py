"""EVA-02 and its config.json: the same logits as timm's own models, and refusal of weights that do not fit.

python -m pytest tests/test_models.py
"""

import copy
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

import models
from models import MODELS, make_config
from tagger.device import normalise
from tagger.files import UserError
from tagger.formats.checkpoint import own_preparation, read_config
from tagger.formats.weights import load_weights, save_weights
from tagger.preparation import on_white_square

CLASSES = 5


def inputs(size: int, count: int = 2) -> Tensor:
    """Normalised images, the same every time."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def sharpened(model: nn.Module) -> nn.Module:
    """Freshly initialised, attention is all but even and logits are all but 0: no difference would show in them."""
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            parameter.add_(torch.linspace(-0.1, 0.1, parameter.numel()))
        else:
            parameter.mul_(1000 if name == "head.weight" else 5)
    return model.eval()


def timms(config: dict[str, Any]) -> nn.Module:
    """What timm alone makes of a config.json."""
    return timm.create_model(config["architecture"], num_classes=config["num_classes"], **config["model_args"])


def assert_same_logits(ours: nn.Module, theirs: nn.Module, images: Tensor) -> None:
    with torch.inference_mode():
        logits = ours(images)
        assert logits.shape == (len(images), CLASSES) and logits.std() > 0.1
        torch.testing.assert_close(logits, theirs(images), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def tiny() -> tuple[dict[str, Any], nn.Module]:
    torch.manual_seed(0)
    config = make_config("eva02_tiny", 28, CLASSES)
    return config, sharpened(models.build(config))


@pytest.fixture(scope="module")
def weights(tiny: tuple[dict[str, Any], nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    save_weights(path, tiny[1])
    return path


# --- the same model as timm's ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size"), [("eva02_tiny", 28), ("eva02_tiny", 56), ("eva02_small", 28), ("eva02_base", 28)]
)
def test_logits_are_timms(name: str, size: int, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = make_config(name, size, CLASSES)
    theirs = sharpened(timms(config))
    save_weights(tmp_path / "model.pth", theirs)
    assert_same_logits(models.load(config, tmp_path / "model.pth"), theirs, inputs(size))


@pytest.fixture(scope="module")
def large() -> Iterator[tuple[dict[str, Any], nn.Module]]:
    torch.manual_seed(0)
    config = make_config("eva02_large", 224, CLASSES)
    yield config, models.build(config)


def test_eva02_large_takes_a_step_at_224(large: tuple[dict[str, Any], nn.Module]) -> None:
    _, model = large
    assert len(model.blocks) == 24  # type: ignore[arg-type]
    model.train()
    loss = nn.functional.binary_cross_entropy_with_logits(model(inputs(224, 1)), torch.ones(1, CLASSES))
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    model.zero_grad(set_to_none=True)
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert sum(bool(gradient.any()) for gradient in gradients if gradient is not None) > 0.9 * len(gradients)


def test_eva02_larges_logits_are_timms(large: tuple[dict[str, Any], nn.Module]) -> None:
    config, model = large
    ours, theirs = sharpened(model), timms(config).eval()
    theirs.load_state_dict(ours.state_dict(), assign=True)
    assert_same_logits(ours, theirs, inputs(224, 1))


def test_the_scale_of_positions_reaches_the_model(tiny: tuple[dict[str, Any], nn.Module]) -> None:
    config, model = tiny
    other = copy.deepcopy(config)
    other["model_args"]["ref_feat_shape"] = [16, 16]  # timm's default: the same keys and shapes, other positions
    wrong = models.build(other).eval()
    wrong.load_state_dict(model.state_dict())
    with torch.inference_mode():
        assert (model(inputs(28)) - wrong(inputs(28))).abs().max() > 0.01


def test_a_config_that_is_silent_about_positions_means_timms(tmp_path: Path) -> None:
    theirs: Any = sharpened(timm.create_model("eva02_tiny_patch14_336", num_classes=CLASSES, depth=2))
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "eva02_tiny_patch14_336", "num_classes": CLASSES, "model_args": {"depth": 2}}
    config["model_args"]["img_size"] = 336  # type: ignore[index]
    assert_same_logits(models.load(config, tmp_path / "model.safetensors"), theirs, inputs(336, 1))


@pytest.mark.parametrize(
    ("architecture", "model_args"),
    [
        ("eva02_tiny_patch14_336", {"num_heads": 0}),
        ("eva02_tiny_patch14_336", {"patch_size": 0}),
        ("vit_tiny_patch16_224", {"act_layer": "no such layer"}),
        ("vit_tiny_patch16_224", {"depth": "two"}),
    ],
)
def test_arguments_that_build_nothing_are_one_line(architecture: str, model_args: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"config\.json: .* cannot be built"):
        models.build({"architecture": architecture, "num_classes": 3, "model_args": model_args})


def test_overrides_reach_the_constructor(tiny: tuple[dict[str, Any], nn.Module]) -> None:
    assert len(models.build(tiny[0], depth=2).blocks) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_224", "convnext_atto", "swinv2_tiny_window8_256"])
def test_other_architectures_of_wd_v3_load_as_timm_builds_them(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    theirs: Any = sharpened(timm.create_model(architecture, num_classes=CLASSES))
    size = theirs.pretrained_cfg["input_size"][1]
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    loaded = models.load({"architecture": architecture, "num_classes": CLASSES}, tmp_path / "model.safetensors")
    assert_same_logits(loaded, theirs, inputs(size, 1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "eva03_huge"}, "eva03_huge"),
        ({"architecture": "vit_tiny_patch16_224", "model_args": {"checkpoint_path": "x.pth"}}, "checkpoint_path"),
        ({"architecture": "vit_tiny_patch16_224", "model_args": {"no_such_argument": 1}}, "no_such_argument"),
        ({"model_args": {"no_such_argument": 1}}, "no_such_argument"),
    ],
)
def test_what_cannot_be_built_is_named(
    tiny: tuple[dict[str, Any], nn.Module], change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        models.build(tiny[0] | change)


# --- a hidden width that a GPU's fast kernels refuse ------------------------------------------------------------------


def narrow() -> dict[str, Any]:
    """A config of EVA-02 Base's form with a hidden width of 170, no multiple of 8."""
    config = make_config("eva02_base", 28, CLASSES)
    config["model_args"] |= {"embed_dim": 64, "depth": 2, "num_heads": 2}
    return config


def everywhere_padded(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    monkeypatch.setattr(models.PaddedSwiGLU, "plain", models.PaddedSwiGLU.padded)
    return model


def test_only_an_unaligned_width_is_padded(large: tuple[dict[str, Any], nn.Module]) -> None:
    def padded(model: nn.Module) -> int:
        return sum(isinstance(module, models.PaddedSwiGLU) for module in model.modules())

    assert padded(large[1]) == 24 and padded(models.build(narrow())) == 2
    assert padded(models.build(make_config("eva02_base", 28, CLASSES))) == 0


@pytest.mark.parametrize("cuts", [{}, {"scale_mlp": False, "swiglu_align_to": 2}])
def test_zeros_change_neither_outputs_nor_gradients(cuts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = narrow()
    config["model_args"] |= cuts
    ours = sharpened(models.build(config)).double()
    theirs = timms(config).eval().double()
    theirs.load_state_dict(ours.state_dict())  # timm's names and shapes
    assert list(theirs.state_dict()) == list(ours.state_dict())
    everywhere_padded(ours, monkeypatch)
    logits = [model(inputs(28).double()) for model in (ours, theirs)]
    scale = logits[1].abs().max().item()
    assert (logits[0] - logits[1]).abs().max().item() <= 1e-15 * max(1, scale) * 4
    for each in logits:
        each.square().mean().backward()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None and other.grad is not None
        assert (mine.grad - other.grad).abs().max() <= 8e-14 * max(1, other.grad.abs().max().item()), name


def test_zeros_and_autocast_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    plain = sharpened(models.build(narrow()))
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        expected = plain(inputs(28))
        everywhere_padded(plain, monkeypatch)
        torch.testing.assert_close(plain(inputs(28)), expected, rtol=0.02, atol=0.02)


# --- loading and saving ---------------------------------------------------------------------------------------------


def test_saved_weights_have_timms_keys_and_are_plain_tensors(weights: Path) -> None:
    state = torch.load(weights, weights_only=True)
    assert state.keys() == timms(make_config("eva02_tiny", 28, CLASSES)).state_dict().keys()
    assert all(type(tensor) is Tensor for tensor in state.values())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_loaded_model_is_the_saved_one(
    tiny: tuple[dict[str, Any], nn.Module], weights: Path, tmp_path: Path, suffix: str
) -> None:
    config, model = tiny
    path = weights
    if suffix == ".safetensors":
        path = tmp_path / "model.safetensors"
        safetensors.torch.save_file(model.state_dict(), path)
    loaded = models.load(config, path)
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    with torch.inference_mode():
        assert torch.equal(loaded(inputs(28)), model(inputs(28)))


def test_rope_tables_are_there_after_loading_and_stay_float32(
    tiny: tuple[dict[str, Any], nn.Module], weights: Path
) -> None:
    config, model = tiny
    buffers = dict(models.load(config, weights).named_buffers())
    expected = dict(model.named_buffers())
    assert buffers.keys() == expected.keys() and any("rope" in name for name in buffers)
    for name, buffer in buffers.items():
        assert buffer.device.type == "cpu" and buffer.dtype == torch.float32
        assert torch.equal(buffer, expected[name])


def test_half_precision_weights_become_float32(
    tiny: tuple[dict[str, Any], nn.Module], weights: Path, tmp_path: Path
) -> None:
    config, model = tiny
    state = {name: tensor.half() for name, tensor in torch.load(weights, weights_only=True).items()}
    safetensors.torch.save_file(state, tmp_path / "half.safetensors")
    loaded = models.load(config, tmp_path / "half.safetensors")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    with torch.inference_mode():
        torch.testing.assert_close(loaded(inputs(28)), model(inputs(28)), rtol=0, atol=1e-2)


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, save: Callable[[object, Path], None]) -> None:
    save({"head.bias": Malicious(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(UserError) as caught:
        load_weights(tmp_path / "evil.pth")
    assert "evil.pth" in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "truncated"])
def test_unreadable_weights_are_named_in_one_line(
    tiny: tuple[dict[str, Any], nn.Module], weights: Path, tmp_path: Path, suffix: str, damage: str
) -> None:
    path = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        whole = weights.read_bytes()
    else:
        whole = safetensors.torch.save(torch.load(weights, weights_only=True))
    contents = {"empty": b"", "garbage": b"no model " * 99, "truncated": whole[: len(whole) // 2]}
    if damage != "missing":
        path.write_bytes(contents[damage])
    with pytest.raises(UserError) as caught:
        models.load(tiny[0], path)
    assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value).splitlines()) == 1


def without_head(state: dict[str, Tensor]) -> object:
    return {name: tensor for name, tensor in state.items() if name != "head.bias"}


def with_more(state: dict[str, Tensor]) -> object:
    return state | {"head.extra": torch.zeros(1)}


def with_other_classes(state: dict[str, Tensor]) -> object:
    return state | {"head.weight": torch.zeros(CLASSES + 1, 192), "head.bias": torch.zeros(CLASSES + 1)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_head, r"lacks 1 \['head\.bias'\], has 0"),
        (with_more, r"lacks 0 \[\], has 1 \['head\.extra'\]"),
        (with_other_classes, r"head\.weight is \(6, 192\).*\(5, 192\)"),
        (lambda state: list(state.values()), "no state dict in it"),
        (lambda state: {"weights": state}, "no state dict in it"),
    ],
)
def test_weights_of_another_model_are_refused_by_name(
    tiny: tuple[dict[str, Any], nn.Module],
    weights: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], object],
    words: str,
) -> None:
    torch.save(change(torch.load(weights, weights_only=True)), tmp_path / "other.pth")
    with pytest.raises(UserError, match=rf"other\.pth: .*{words}"):
        models.load(tiny[0], tmp_path / "other.pth")


def test_pixels_become_what_the_model_eats() -> None:
    preparation = own_preparation(make_config("eva02_tiny", 28, CLASSES), "config.json")
    pixels = torch.zeros(2, 4, 6, 3, dtype=torch.uint8)
    pixels[0, 1, 2] = torch.tensor([0, 51, 255])
    eaten = normalise(pixels, preparation)
    assert eaten.shape == (2, 3, 4, 6) and eaten.dtype == torch.float32 and eaten.is_contiguous()
    torch.testing.assert_close(eaten[0, :, 1, 2], torch.tensor([-1.0, -0.6, 1.0]))
    other = on_white_square(28, mean=(0.2, 0.2, 0.2), std=(0.1, 0.2, 0.4))
    torch.testing.assert_close(normalise(pixels, other)[0, :, 1, 2], torch.tensor([-2.0, 0.0, 2.0]))


# --- config.json ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "width"), list(zip(MODELS, (192, 384, 768, 1024), strict=True)))
def test_a_config_describes_the_model_to_timm(name: str, width: int) -> None:
    config = make_config(name, 448, 7, tags_sha256="abc")
    assert config["architecture"].startswith(name) and config["num_features"] == width
    assert config["model_args"] == {"img_size": 448, "ref_feat_shape": [32, 32]}  # as WD v3's own config.json
    about = config["pretrained_cfg"]
    assert config["num_classes"] == about["num_classes"] == 7 and about["input_size"] == [3, 448, 448]
    assert about["mean"] == about["std"] == [0.5] * 3 and about["interpolation"] == "bicubic"
    assert config["tagger"] == {"model": name, "channel_order": "RGB", "tags_sha256": "abc"}


@pytest.mark.parametrize(("size", "near"), [(225, 224), (1, 14), (223, 224), (13, 14), (0, 14)])
def test_an_image_size_that_14_does_not_divide_is_refused_with_one_that_it_does(size: int, near: int) -> None:
    with pytest.raises(UserError, match=rf"{size} is not divisible by 14; {near} is"):
        make_config("eva02_tiny", size, CLASSES)


WD_V3 = {
    "architecture": "eva02_large_patch14_448",
    "num_classes": 10861,
    "num_features": 1024,
    "global_pool": "avg",
    "model_args": {"img_size": 448, "ref_feat_shape": [32, 32]},
    "pretrained_cfg": {"input_size": [3, 448, 448], "mean": [0.5] * 3, "std": [0.5] * 3, "num_classes": 10861},
}


def test_a_config_without_our_key_is_read_without_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(WD_V3))
    assert read_config(tmp_path / "config.json") == WD_V3 | {"tagger": {}}


def test_our_own_config_is_read_as_written(tmp_path: Path) -> None:
    config = make_config("eva02_tiny", 28, CLASSES, tags_sha256="abc")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_config(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": None}, "no key architecture"),
        ({"num_classes": None}, "no key num_classes"),
        ({"pretrained_cfg": None}, "no key pretrained_cfg"),
        ({"num_classes": "many"}, "not a tagger's config"),
        ({"num_classes": 0}, "not a tagger's config"),
        ({"pretrained_cfg": {"input_size": [3, 448, 224], "mean": [0.5] * 3, "std": [0.5] * 3}}, "not a tagger's"),
        ({"pretrained_cfg": {"input_size": [3, 448, 448], "mean": [0.5], "std": [0.5] * 3}}, "not a tagger's config"),
        ({"pretrained_cfg": {"input_size": [3, 448, 448]}}, "not a tagger's config"),
        ({"pretrained_cfg": {"input_size": [3, 448, 448], "mean": [[0.5]] * 3, "std": [0.5] * 3}}, "not a tagger's"),
        ({"pretrained_cfg": {"input_size": [3, 448, 448], "mean": [0.5] * 3, "std": [0, 0, 0]}}, "not a tagger's"),
        ({"pretrained_cfg": []}, "not a tagger's config"),
        ({"tagger": {"channel_order": "GBR"}}, "not a tagger's config"),
        ({"tagger": "RGB"}, "not a tagger's config"),
        ({"architecture": []}, "not a tagger's config"),
        ({"model_args": [1]}, "not a tagger's config"),
    ],
)
def test_an_unusable_config_is_refused_in_one_line(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    config = {key: value for key, value in {**WD_V3, **change}.items() if value is not None}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    with pytest.raises(UserError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: ") and words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", [None, "", "{", "[]"])
def test_a_missing_or_malformed_config_is_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json: .*; name its config$"):
        read_config(tmp_path / "config.json", hint="name its config")
