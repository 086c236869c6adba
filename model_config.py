"""The models that train_pytorch.py offers, and config.json. No torch here: inference from its cache reads it too.

config.json has the form of timm and of Hugging Face, so that it describes WD v3's models as well as ours:

    python -c "import model_config; print(model_config.make_config('eva02_tiny', 224, num_classes=10))"
"""

import math
from pathlib import Path
from typing import Any

from files import UserError, read_json

PATCH_SIZE = 14

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


def read_config(path: Path | str) -> dict[str, Any]:
    """Read a config.json: ours, or that of a WD v3 repository (which has no key `tagger` and wants BGR).

    Raises:
        UserError: missing, not JSON, or without what a model needs.
    """
    config = read_json(path, "name the config.json of the checkpoint with --config_path")
    if missing := {"architecture", "num_classes", "pretrained_cfg"} - config.keys():
        raise UserError(f"{path}: no key {', '.join(sorted(missing))}; use the config.json of the checkpoint")
    try:
        config["tagger"] = {"channel_order": "BGR"} | config.get("tagger", {})
        _, height, width = config["pretrained_cfg"]["input_size"]
        sound = (
            config["num_classes"] > 0
            and isinstance(config["architecture"], str)
            and isinstance(config.get("model_args") or {}, dict)
            and height == width > 0
            and config["tagger"]["channel_order"] in ("RGB", "BGR")
            and len(config["pretrained_cfg"]["mean"]) == len(config["pretrained_cfg"]["std"]) == 3
            and all(abs(value) < math.inf for value in config["pretrained_cfg"]["mean"])
            and all(0 < value < math.inf for value in config["pretrained_cfg"]["std"])
        )
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise UserError(f"{path}: not a tagger's config; use the config.json that was written with the checkpoint")
    return config
