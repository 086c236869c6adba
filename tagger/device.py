"""What to compute on, and pixels as a model there wants them. torch is imported late: a cached answer needs none.

python -c "from tagger.device import pick_device; print(pick_device('auto', hint=''))"
"""

import functools
import os
from typing import TYPE_CHECKING

from tagger.files import UserError
from tagger.preparation import Preparation

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DEVICES = ("auto", "cuda", "cpu", "mps")  # torch's
GRAPH_DEVICES = ("directml", "coreml")  # onnxruntime's, beside cuda and cpu


def pick_device(name: str, hint: str) -> "torch.device":
    """The device of a name; of several GPUs each process of torchrun has its own.

    Args:
        name: one of DEVICES or GRAPH_DEVICES; "auto" is CUDA, then Apple's MPS, then the CPU.
        hint: ends the error for a device that is not there, as in "pass --device cpu".

    Raises:
        UserError: a device was asked for that is not there; nothing falls back to the CPU silently.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    available |= dict.fromkeys(GRAPH_DEVICES, False)
    if name == "auto":
        name = next(device for device in available if available[device])
    if not available[name]:
        raise UserError(
            f"device {name}: torch {torch.__version__} sees no such device; {hint}, or install a driver and a build of "
            "torch that match"
        )
    if name != "cuda":
        return torch.device(name)
    rank = int(os.environ.get("LOCAL_RANK", 0))
    if rank >= torch.cuda.device_count():
        raise UserError(
            f"torchrun: process {rank} has no GPU of its own among {torch.cuda.device_count()}; start as many "
            "processes as there are GPUs"
        )
    return torch.device("cuda", rank) if "LOCAL_RANK" in os.environ else torch.device("cuda")


def normalise(pixels: "Tensor", preparation: Preparation) -> "Tensor":
    """Pixels (N, H, W, 3) of 0..255 in the model's channel order -> float32 (N, 3, H, W), scaled.

    `images.to_input` does the same without torch.
    """
    mean, std = (_per_channel(values, pixels.device) for values in (preparation.mean, preparation.std))
    return ((pixels.float() / preparation.divisor - mean) / std).permute(0, 3, 1, 2).contiguous()


@functools.cache
def _per_channel(values: tuple[float, ...], device: "torch.device") -> "Tensor":
    """Made once: copying it to a GPU at every step would wait for all that the GPU has still to do."""
    import torch

    return torch.tensor(values, device=device)
