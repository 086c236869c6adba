"""State dicts with timm's names: .pth and .safetensors, read without running what a stranger put into them.

python -c "from tagger.formats.weights import load_weights; print(len(load_weights('eva02_tiny_best.pth')))"
"""

import pickle
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from tagger.files import UserError, replacing


def load_weights(path: Path | str, hint: str = "check the path") -> dict[str, Tensor]:
    """A state dict from a .safetensors or .pth file, memory-mapped; no code in it can run.

    Args:
        hint: ends the error for a missing file.

    Raises:
        UserError: missing or damaged file, or a pickle that holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; {hint}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: a pickle that holds more than tensors was refused; use .safetensors or a .pth of tensors alone"
        ) from None
    except (safetensors.SafetensorError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: not a readable checkpoint ({reason}); copy or train it again") from None
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise UserError(f"{path}: not a plain state dict; use .safetensors or a .pth that holds tensors alone")
    return weights


def save_weights(path: Path | str, model: nn.Module) -> None:
    """Write the state dict, whole or not at all, so that `torch.load(weights_only=True)` takes it."""
    with replacing(path, "wb") as file:
        torch.save({name: tensor.cpu() for name, tensor in model.state_dict().items()}, file)
