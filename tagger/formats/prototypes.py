"""Prototypes of taught artists: where the pictures of each lie among what a model sees, and how to compare with them.

    python train_pytorch.py --pretrained ./checkpoints --teach ./examples-of-artists --output_dir ./taught

A .safetensors beside the weights that they belong to. Its metadata has the artists' names and says which weights those
are, so that prototypes of another head or another model are noticed and never used.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagger.files import UserError, replacing_path

if TYPE_CHECKING:  # who only wants the names, as for an answer from the cache, needs no arrays
    import numpy as np

KEY = "prototypes"  # of the metadata: one, for safetensors writes several in an order that changes
NAMES, WEIGHTS, SUM = "names", "weights", "sha256"  # in the JSON object there


@dataclass(frozen=True)
class Prototypes:
    """K artists in a model's features of D dimensions.

    Attributes:
        names: of the artists, (K,).
        middle: of their means, (D,) float32.
        whitening: makes the artists' common covariance the identity, (D, D) float32.
        directions: of their whitened means from the middle, (K, D) float32 of length 1.
    """

    names: tuple[str, ...]
    middle: "np.ndarray[Any, Any]"
    whitening: "np.ndarray[Any, Any]"
    directions: "np.ndarray[Any, Any]"

    def similarities(self, features: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        """Cosines in -1..1 between whitened pictures and artists, float32 (N, K), of float features (N, D).

        A picture in the very middle is equally close to all: 0.
        """
        import numpy as np

        whitened = (features.astype(np.float32) - self.middle) @ self.whitening
        length = np.linalg.norm(whitened, axis=1, keepdims=True)
        cosines: np.ndarray[Any, Any] = (whitened / np.maximum(length, np.finfo(np.float32).tiny)) @ self.directions.T
        np.clip(cosines, -1, 1, out=cosines)
        return cosines


@dataclass(frozen=True)
class Header:
    """What is known of a file of prototypes without reading its arrays.

    Attributes:
        names: of the artists.
        weights: which these belong to, see `identity`.
        sum: SHA-256 of the names and the arrays.
        digest: changes when anything in the file does.
    """

    names: tuple[str, ...]
    weights: str
    sum: str
    digest: bytes


def _sum(names: Sequence[str], arrays: "Mapping[str, np.ndarray[Any, Any]]") -> str:
    parts = [json.dumps(names).encode(), *(arrays[name].tobytes() for name in sorted(arrays))]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def identity(weights: Path) -> str:
    """Which weights a .pth holds: SHA-256 over the sizes and checksums of its tensors, which the zip archive lists.

    The tensors themselves are not read, for they may be gigabytes. Empty where the file is no such archive.
    """
    import zipfile  # late: reading the names alone needs it not

    try:
        with zipfile.ZipFile(weights) as archive:
            parts = [(each.filename.partition("/")[2], each.file_size, each.CRC) for each in archive.infolist()]
    except (OSError, zipfile.BadZipFile):
        return ""
    return hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()


def write_prototypes(path: Path, prototypes: Prototypes, weights: Path) -> None:
    """Write them, whole or not at all, as those of a .pth that is there already."""
    from safetensors.numpy import save_file

    arrays = {name: value for name, value in vars(prototypes).items() if name != NAMES}
    told = {NAMES: prototypes.names, WEIGHTS: identity(weights), SUM: _sum(prototypes.names, arrays)}
    with replacing_path(path) as part:
        save_file(arrays, part, {KEY: json.dumps(told)})


def read_header(path: Path, hint: str) -> Header:
    """What a file of prototypes says of itself.

    Args:
        hint: ends the errors.

    Raises:
        UserError: missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {hint}")
    try:
        with open(path, "rb") as file:  # not through safetensors, which imports numpy
            size = int.from_bytes(file.read(8), "little")
            text = json.loads(file.read(min(size, path.stat().st_size)))["__metadata__"][KEY]
        told = json.loads(text)
        names, weights, wanted = told[NAMES], told[WEIGHTS], told[SUM]
        sound = isinstance(names, list) and all(isinstance(value, str) for value in (*names, weights, wanted))
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        sound = False
    if not sound or not names:
        raise _damaged(path, hint)
    return Header(tuple(names), weights, wanted, hashlib.sha256(text.encode()).digest())


def read_prototypes(path: Path, weights: Path, hint: str) -> Prototypes:
    """Read prototypes for use with weights.

    Args:
        hint: ends the errors.

    Raises:
        UserError: missing or damaged, or they belong to other weights.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    header = read_header(path, hint)
    if not header.weights or header.weights != identity(weights):
        raise UserError(f"{path}: belongs to other weights than {weights.name}; {hint}")
    try:
        arrays = load_file(path)
        found = Prototypes(header.names, arrays["middle"], arrays["whitening"], arrays["directions"])
    except (SafetensorError, OSError, KeyError, ValueError):
        raise _damaged(path, hint) from None
    count, size = len(found.names), found.middle.size
    shapes = [(size,), (size, size), (count, size)]
    parts = (found.middle, found.whitening, found.directions)
    sound = [part.shape for part in parts] == shapes and all(part.dtype == np.float32 for part in parts)
    if not sound or not all(np.isfinite(part).all() for part in parts) or _sum(header.names, arrays) != header.sum:
        raise _damaged(path, hint)
    return found


def _damaged(path: Path, hint: str) -> UserError:
    return UserError(f"{path}: damaged; {hint}")
