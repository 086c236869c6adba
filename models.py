"""EVA-02 on timm's `Eva`: build a model from its config.json, load and save its weights.

State dicts have timm's keys, so that `timm.create_model` takes them too:

    python -c "import models; print(models.build(models.make_config('eva02_tiny', 224, num_classes=10)))"
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import SwiGLU
from timm.models.eva import Eva
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from tagger.files import UserError
from tagger.formats.weights import load_weights

PATCH_SIZE = 14
ALIGNED_TO = 8  # numbers of a matrix row; 16 bytes of bfloat16, below which a GPU's fast kernels refuse a matrix

# Fang et al., EVA-02 (arXiv:2303.11331), table 2; the arguments are those of timm's functions of the same names.
# Parameters without the head: 5.5 M, 22 M, 86 M, 303 M.
MODELS: dict[str, dict[str, Any]] = {
    "eva02_tiny": {"architecture": "eva02_tiny_patch14_336", "embed_dim": 192, "depth": 12, "num_heads": 3},
    "eva02_small": {"architecture": "eva02_small_patch14_336", "embed_dim": 384, "depth": 12, "num_heads": 6},
    "eva02_base": {
        "architecture": "eva02_base_patch14_448", "embed_dim": 768, "depth": 12, "num_heads": 12,
        "qkv_fused": False, "scale_mlp": True,
    },
    "eva02_large": {
        "architecture": "eva02_large_patch14_448", "embed_dim": 1024, "depth": 24, "num_heads": 16,
        "qkv_fused": False, "scale_mlp": True,
    },
}  # fmt: skip
COMMON = {
    "patch_size": PATCH_SIZE, "mlp_ratio": 4 * 2 / 3, "swiglu_mlp": True, "use_rot_pos_emb": True,
    "ref_feat_shape": (16, 16),  # of a config.json that says nothing of it, as timm writes them
}  # fmt: skip


def make_config(
    model: str, image_size: int, num_classes: int, channel_order: str = "RGB", tags_sha256: str = ""
) -> dict[str, Any]:
    """The config.json of a new model: timm's and Hugging Face's form, and our own key `tagger`.

    Args:
        model: a key of `MODELS`.
        image_size: the side of the square input in pixels, divisible by 14.
        num_classes: the number of labels.
        channel_order: "RGB", or "BGR" as WD v3 models want.
        tags_sha256: the vocabulary's fingerprint, checked at inference.

    Raises:
        UserError: the image size is not divisible by the patch size.
    """
    if image_size < PATCH_SIZE or image_size % PATCH_SIZE:
        near = max(1, round(image_size / PATCH_SIZE)) * PATCH_SIZE
        raise UserError(f"image size {image_size} is not divisible by {PATCH_SIZE}; {near} is")
    grid = image_size // PATCH_SIZE
    half = [0.5, 0.5, 0.5]
    return {
        "architecture": MODELS[model]["architecture"],
        "num_classes": num_classes,
        "num_features": MODELS[model]["embed_dim"],
        "global_pool": "avg",
        # RoPE positions are scaled to ref_feat_shape; the default of 16 would be another model without an error.
        "model_args": {"img_size": image_size, "ref_feat_shape": [grid, grid]},
        "pretrained_cfg": {
            "input_size": [3, image_size, image_size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": half,
            "std": half,
            "num_classes": num_classes,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
        "tagger": {"model": model, "channel_order": channel_order, "tags_sha256": tags_sha256},
    }


class PaddedSwiGLU(nn.Module):
    """timm's SwiGLU, which on a GPU computes with zeros up to a width that its fast kernels take.

    The hidden width of EVA-02 Large is 1024 * 8 / 3 = 2,730: rows of 5,460 bytes in bfloat16, no multiple of 16, and
    two thirds of the model's work is in products of that width. The zeros change nothing: a gate of 0 gives 0, the norm
    sees the true width alone, and the last product adds zeros. Parameters keep timm's names and shapes.

    Args:
        mlp: its layers are taken over.
    """

    def __init__(self, mlp: SwiGLU) -> None:
        super().__init__()
        self.fc1_g, self.fc1_x, self.act, self.drop1 = mlp.fc1_g, mlp.fc1_x, mlp.act, mlp.drop1
        self.norm, self.fc2, self.drop2 = mlp.norm, mlp.fc2, mlp.drop2

    def forward(self, tokens: Tensor) -> Tensor:
        """(…, D) to (…, D)."""
        return self.padded(tokens) if tokens.is_cuda else self.plain(tokens)

    def plain(self, tokens: Tensor) -> Tensor:
        """As timm computes it: a CPU gains nothing by zeros, and an ONNX file is without them."""
        hidden = self.drop1(self.act(self.fc1_g(tokens)) * self.fc1_x(tokens))
        output: Tensor = self.drop2(self.fc2(self.norm(hidden)))
        return output

    def padded(self, tokens: Tensor) -> Tensor:
        """The same with zeros, on any device."""
        width = self.fc2.weight.shape[1]
        zeros = -width % ALIGNED_TO
        gate, value = (
            linear(tokens, pad(_cast(layer.weight), (0, 0, 0, zeros)), _padded_bias(layer.bias, zeros))
            for layer in (self.fc1_g, self.fc1_x)
        )
        hidden = self.norm(self.drop1(self.act(gate) * value)[..., :width])
        weight = pad(_cast(self.fc2.weight), (0, zeros))
        output: Tensor = self.drop2(linear(pad(_cast(hidden), (0, zeros)), weight, self.fc2.bias))
        return output


def _cast(tensor: Tensor) -> Tensor:
    """In autocast's type, as its matrix products would have it: half as much to copy while padding."""
    kind = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tensor


def _padded_bias(bias: Tensor | None, zeros: int) -> Tensor | None:
    return None if bias is None else pad(bias, (0, zeros))


def _align(model: nn.Module) -> nn.Module:
    """The model, each SwiGLU of an unaligned width replaced by one that pads."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, SwiGLU) and layer.fc2.weight.shape[1] % ALIGNED_TO:
                setattr(parent, name, PaddedSwiGLU(layer))
    return model


def model_name(config: Mapping[str, Any]) -> str:
    """Ours for an architecture that we offer, else timm's: what checkpoints are named after."""
    architecture: str = config["architecture"]
    return next((name for name, spec in MODELS.items() if spec["architecture"] == architecture), architecture)


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
            model: nn.Module = timm.model_entrypoint(architecture)(**arguments | {"pretrained": False})
        else:
            model = Eva(**COMMON | {key: value for key, value in ours.items() if key != "architecture"} | arguments)
    except Exception as error:  # whatever a stranger's arguments make timm and torch stumble over
        reason = f"{type(error).__name__}: {error}"
        what = f"{architecture} with {arguments} cannot be built ({reason})"
        raise UserError(f"config.json: {what}; use the config.json that came with the weights") from None
    return _align(model)


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
