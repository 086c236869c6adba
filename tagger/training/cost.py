"""What a training step costs: FLOPs, memory, and the share of a GPU's peak that a run reaches.

python train_pytorch.py --dry_run     # prints the estimate and stops
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

# Dense bfloat16 FLOP/s with float32 accumulation, from NVIDIA's data sheets; the first name that fits counts.
PEAK_FLOPS = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "A10G": 70e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 5090": 209.5e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
}


def training_flops(model: Any, image_size: int, patch_dropout: float = 0.0) -> float | None:
    """FLOPs of one image's forward and backward pass, without what checkpointing recomputes; None for other models.

    PaLM's count (arXiv:2204.02311, appendix B): 6 per weight of a linear layer and token, and 12 L N^2 D for attention.

    Args:
        model: an EVA-02 or another plain vision transformer, timm's Eva or VisionTransformer.
        image_size: side of its input in pixels.
        patch_dropout: share of the patches that it leaves out.
    """
    if not isinstance(model, (Eva, VisionTransformer)):
        return None
    patch = model.patch_embed.patch_size[0]
    tokens = int((image_size // patch) ** 2 * (1 - patch_dropout)) + getattr(model, "num_prefix_tokens", 0)
    blocks = model.blocks
    linear = sum(layer.weight.numel() for layer in blocks.modules() if isinstance(layer, nn.Linear))
    once = model.get_classifier().weight.numel()  # the head sees one vector per image, not the tokens
    embed = sum(parameter.numel() for parameter in model.patch_embed.parameters())
    attention = 12 * len(blocks) * tokens**2 * model.embed_dim
    flops: float = 6 * tokens * (linear + embed) + 6 * once + attention
    return flops


def peak_flops(device: torch.device) -> float | None:
    """The device's dense bfloat16 peak in FLOP/s, where it is known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in PEAK_FLOPS.items() if key in name), None)


def activation_bytes(model: nn.Module, image_size: int) -> tuple[int, int]:
    """What a forward pass keeps for the backward pass: once, however many images there are, and for each image.

    Measured on the model's device, and in the precision of the autocast around the call: that keeps the weights as
    bfloat16 once more, bfloat16 for linear layers and float32 for norms.
    """
    one, two = (_kept_bytes(model, torch.Size((images, 3, image_size, image_size))) for images in (1, 2))
    return max(0, 2 * one - two), two - one


def _kept_bytes(model: nn.Module, shape: torch.Size) -> int:
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes: dict[int, int] = {}
    kept = []  # kept alive: the address of a freed tensor is given to the next, which would count as the same

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    pixels = torch.zeros(shape, device=next(model.parameters()).device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(pixels)
    return sum(sizes.values())


def largest_fitting(batch_size: int, step: Callable[[int], None]) -> int | None:
    """The largest of batch_size / 2, / 4, ... whose forward and backward pass fit; None where not even 1 does.

    Args:
        step: runs both passes on so many images, and raises torch.OutOfMemoryError where they do not fit.
    """
    while batch_size := batch_size // 2:
        with contextlib.suppress(torch.OutOfMemoryError):
            step(batch_size)
            return batch_size
        torch.cuda.empty_cache()  # outside: the error holds the tensors of the step that raised it
    return None
