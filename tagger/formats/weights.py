"""State dicts with timm's names: .pth and .safetensors, read without running what a stranger put into them.

    python -c "from tagger.formats.weights import load_weights; print(len(load_weights('eva02_tiny_best.pth')))"

What is written here carries checksums: a .pth is a zip archive with a CRC-32 of every tensor, and in a .safetensors the
CRC-32 of all tensors stands in the metadata. `check_sums` compares them, which takes a second a gigabyte: training
does so with what it starts from, goes on from or exports. Inference does not, for it maps the file instead of reading
it, and answers sooner than the sums would be done.
"""

import pickle
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from tagger.files import UserError, check_pointer, replacing, replacing_path

CHECKSUM_KEY = "crc32"  # of a .safetensors' metadata
# Where training scripts keep the weights among other things, and what wrappers put before each name.
NESTED = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "model.")


def load_weights(path: Path | str, hint: str = "check the path") -> dict[str, Tensor]:
    """A state dict from a .safetensors file or one that torch.save wrote, memory-mapped; no code in it can run.

    Of a checkpoint with more in it, the weights; names without what DistributedDataParallel (`module.`), torch.compile
    (`_orig_mod.`) and Lightning (`model.`) put before them. Files from before torch 1.6 are read whole.

    Args:
        hint: ends the error for a missing file.

    Raises:
        UserError: missing or damaged file, or a pickle that holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; {hint}")
    check_pointer(path)
    if path.suffix == ".onnx":
        raise UserError(f"{path}: an ONNX graph, no weights for torch; name a .safetensors or .pth")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: a pickle that holds more than tensors was refused; use .safetensors or a .pth of tensors alone"
        ) from None
    except Exception as error:  # in damaged bytes, torch's readers stumble over whatever they meet
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise UserError(f"{path}: not a readable checkpoint ({reason}); copy or train it again") from None
    weights = _state_dict(saved)
    if weights is None:
        raise UserError(f"{path}: no state dict in it; use .safetensors or a .pth that holds tensors by name")
    return weights


def load_sound_weights(path: Path | str) -> dict[str, Tensor]:
    """The same for what is trained on or handed on: its checksums are right, and all of it are numbers.

    Raises:
        UserError: see `load_weights`, `check_sums` and `check_finite`.
    """
    check_sums(path)
    weights = load_weights(path)
    check_finite(weights, path)
    return weights


def _state_dict(saved: Any) -> dict[str, Tensor] | None:
    """The weights in what torch.load gave, by timm's names."""
    for found in (saved, *(saved.get(key) for key in NESTED if isinstance(saved, dict))):
        if isinstance(found, dict) and found and all(isinstance(tensor, Tensor) for tensor in found.values()):
            break
    else:
        return None
    weights = {str(name): tensor for name, tensor in found.items()}
    while prefix := next((each for each in PREFIXES if all(name.startswith(each) for name in weights)), None):
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def save_weights(path: Path | str, model: nn.Module) -> None:
    """Write the state dict, whole or not at all, so that `torch.load(weights_only=True)` takes it."""
    with replacing(path, "wb") as file:
        torch.save({name: tensor.cpu() for name, tensor in model.state_dict().items()}, file)


def save_safetensors(path: Path | str, weights: Mapping[str, Tensor]) -> None:
    """Write a .safetensors with its checksum, whole or not at all."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    metadata = {"format": "pt", CHECKSUM_KEY: f"{_crc32(contiguous.items()):08x}"}
    with replacing_path(path) as part:
        safetensors.torch.save_file(contiguous, part, metadata=metadata)


# --- damage ---------------------------------------------------------------------------------------------------------


def check_sums(path: Path | str) -> None:
    """Compare a file with the checksums in it, where it has any.

    Others' .safetensors have none, nor has a .pth from before torch 1.6, or one that was written faster without (after
    `torch.serialization.set_crc32_options(False)`, which leaves zeros in their place).

    Raises:
        UserError: it is damaged, or a Git LFS pointer.
    """
    path = Path(path)
    check_pointer(path)
    damaged = f"{path}: damaged, its checksum is another; copy it again, or take an earlier one"
    if path.suffix == ".safetensors":
        try:
            with safetensors.safe_open(path, "pt") as file:
                wanted = (file.metadata() or {}).get(CHECKSUM_KEY)
                names = sorted(file.keys())
                if wanted and f"{_crc32((name, file.get_tensor(name)) for name in names):08x}" != wanted:
                    raise UserError(damaged)
        except (safetensors.SafetensorError, OSError) as error:
            raise UserError(f"{path}: not a readable checkpoint ({error}); copy it again") from None
    elif zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                written = any(entry.CRC for entry in archive.infolist())
                bad = archive.testzip() if written else None
        except Exception:  # zipfile stumbles over damaged names and fields in ways of its own
            bad = ""
        if bad is not None:
            raise UserError(damaged)


def _crc32(tensors: Iterable[tuple[str, Tensor]]) -> int:
    """Of all tensors in the order of their names: of name, type and shape, for the header may be damaged, and bytes."""
    total = 0
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        total = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, total)
    return total


def first_not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """The name of a tensor that holds NaN or infinity, or None."""
    if not weights:
        return None
    finite = torch.stack([torch.isfinite(tensor).all() for tensor in weights.values()]).tolist()  # the host waits once
    return next((name for name, good in zip(weights, finite, strict=True) if not good), None)


def check_finite(weights: Mapping[str, Tensor], path: Path | str) -> None:
    """Refuse weights that hold NaN or infinity: nothing can be learnt from them, and no answer is a number.

    Raises:
        UserError: the message names file and tensor.
    """
    if name := first_not_finite(weights):
        raise UserError(f"{path}: {name} holds NaN or infinity, so nothing can be made of it; name another checkpoint")
