"""EVA-02 on timm's `Eva`: build a model from its config.json, load and save its weights.

State dicts have timm's keys, so that `timm.create_model` takes them too:

    python -c "import models, model_config as c; print(models.build(c.make_config('eva02_tiny', 224, num_classes=10)))"
"""

import functools
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
from timm.models.eva import Eva
from torch import Tensor, nn

from files import UserError, replacing
from model_config import COMMON, MODELS


def build(config: Mapping[str, Any], **overrides: Any) -> nn.Module:
    """The model that a config describes, its weights initialised at random.

    Args:
        config: the content of a config.json; `model_args` reach the constructor.
        **overrides: more constructor arguments, such as `drop_path_rate=0.1`.

    Returns:
        a module that maps float (N, 3, H, W), normalised by the config's mean and std, to logits (N, num_classes).

    Raises:
        UserError: neither we nor timm know the architecture, or it does not take these arguments.
    """
    architecture = config["architecture"]
    ours = next((spec for spec in MODELS.values() if spec["architecture"] == architecture), None)
    arguments = {"num_classes": config["num_classes"]} | (config.get("model_args") or {}) | overrides
    if pool := config.get("global_pool"):
        arguments["global_pool"] = pool
    try:
        if ours is None:
            # Not create_model: it drops arguments that are null, which tell timm's own loader to leave a layer out. And
            # a config.json is a stranger's file: it shall not make timm fetch or unpickle anything.
            if not timm.is_model(architecture):
                raise ValueError("timm knows no such model")
            return timm.model_entrypoint(architecture)(**arguments | {"pretrained": False})
        return Eva(**COMMON | {key: value for key, value in ours.items() if key != "architecture"} | arguments)
    except Exception as error:  # whatever a stranger's arguments make timm and torch stumble over
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"config.json: {architecture} with {arguments} cannot be built ({reason}); check it") from None


def load(config: Mapping[str, Any], path: Path | str) -> nn.Module:
    """The model of a config with the weights of a file, in evaluation mode, on the CPU.

    Built on the meta device and filled from a memory map: nothing is initialised twice or copied.

    Args:
        config: the content of a config.json.
        path: a state dict with timm's keys, .safetensors or .pth.

    Raises:
        UserError: missing or damaged file, a pickle that would run code, or weights of another model.
    """
    with torch.device("meta"):
        model = build(config)
    weights = load_weights(path)
    expected = model.state_dict()
    if weights.keys() != expected.keys():
        missing, extra = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
        raise UserError(
            f"{path}: weights of another model than {config['architecture']}: lacks {len(missing)} {missing[:2]}, has "
            f"{len(extra)} {extra[:2]} too many; use the config.json that was written with it"
        )
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape:
            raise UserError(
                f"{path}: {name} is {tuple(weights[name].shape)}, config.json asks for {tuple(tensor.shape)}; "
                "use the config.json that was written with it"
            )
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    _materialise_buffers(model)
    return model.requires_grad_(False).eval()


def _materialise_buffers(model: nn.Module) -> None:
    """Compute what no state dict holds (RoPE tables): timm's modules know how, once their buffers exist."""
    for module in model.modules():
        buffers = [(name, buffer) for name, buffer in module.named_buffers(recurse=False) if buffer.is_meta]
        for name, buffer in buffers:
            setattr(module, name, torch.empty_like(buffer, device="cpu"))
        if buffers:
            module.init_non_persistent_buffers()  # type: ignore[operator]


def load_weights(path: Path | str) -> dict[str, Tensor]:
    """A state dict from a .safetensors or .pth file, memory-mapped; no code in it can run.

    Raises:
        UserError: missing or damaged file, or a pickle that holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; name a checkpoint with --model_path")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: a pickle that is no plain state dict was refused; use .safetensors or a .pth of train_pytorch.py"
        ) from None
    except (safetensors.SafetensorError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: not a readable checkpoint ({reason}); copy or train it again") from None
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise UserError(f"{path}: not a plain state dict; use a .pth of train_pytorch.py or a .safetensors")
    return weights


def save_weights(path: Path | str, model: nn.Module) -> None:
    """Write the state dict, whole or not at all, so that `torch.load(weights_only=True)` takes it."""
    with replacing(path, "wb") as file:
        torch.save({name: tensor.cpu() for name, tensor in model.state_dict().items()}, file)


def normalise(pixels: Tensor, config: Mapping[str, Any]) -> Tensor:
    """What the model eats: uint8 (N, H, W, 3) in its channel order -> float32 (N, 3, H, W), mean and std of config."""
    mean, std = (_per_channel(tuple(config["pretrained_cfg"][key]), pixels.device) for key in ("mean", "std"))
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


@functools.cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Made once: copying it to a GPU at every step would wait for all that the GPU has still to do."""
    return torch.tensor(values, device=device)
