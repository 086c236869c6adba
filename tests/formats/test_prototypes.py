"""prototypes.py: what is written is read, damage is noticed, and other weights are refused.

python -m pytest tests/formats/test_prototypes.py
"""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tagger.files import UserError
from tagger.formats.prototypes import Prototypes, _sum, identity, read_header, read_prototypes, write_prototypes
from tests.helpers import flip_byte

NAMES = ("aoi", "初音ミク", 'don\'t_say_"lazy"')


def some(seed: int = 0) -> Prototypes:
    random = np.random.default_rng(seed)
    units = random.normal(size=(3, 5)).astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    return Prototypes(NAMES, random.normal(size=5).astype(np.float32), np.eye(5, dtype=np.float32) * 2, units)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save({"head.weight": torch.arange(6.0)}, tmp_path / "x_best.pth")
    return tmp_path / "x_best.pth"


def test_what_is_written_is_read(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    write_prototypes(path, some(), weights)
    found = read_prototypes(path, weights, "")
    assert found.names == NAMES == read_header(path, "").names
    for name in ("middle", "whitening", "directions"):
        assert np.array_equal(getattr(found, name), getattr(some(), name))
    first = read_header(path, "").digest
    write_prototypes(path, some(1), weights)
    assert read_header(path, "").digest != first


def test_similarities_are_cosines() -> None:
    prototypes = some()
    features = np.stack([prototypes.middle + direction / 2 for direction in prototypes.directions])
    found = prototypes.similarities(np.concatenate([features * 1.0, [prototypes.middle]]))
    assert np.allclose(found[:3], prototypes.directions @ prototypes.directions.T, atol=1e-6)
    assert np.array_equal(found[3], [0, 0, 0])
    assert np.allclose(np.diag(found[:3]), 1) and np.abs(found).max() <= 1


def test_other_weights_are_refused(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    write_prototypes(path, some(), weights)
    before = identity(weights)
    torch.save({"head.weight": torch.arange(6.0)}, tmp_path / "copy.pth")
    assert identity(tmp_path / "copy.pth") == before
    torch.save({"head.weight": torch.arange(6.0).flip(0)}, weights)  # of the same size
    assert identity(weights) != before
    with pytest.raises(UserError, match=r"p\.safetensors: belongs to other weights than x_best\.pth; teach again"):
        read_prototypes(path, weights, "teach again")
    weights.write_bytes(b"no archive")
    with pytest.raises(UserError, match="belongs to other weights"):
        read_prototypes(path, weights, "")
    write_prototypes(path, some(), weights)  # whose identity nobody knows
    with pytest.raises(UserError, match="belongs to other weights"):
        read_prototypes(path, weights, "")


def test_damage_is_one_line(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    with pytest.raises(UserError, match=r"p\.safetensors: no such file; teach again"):
        read_header(path, "teach again")
    write_prototypes(path, some(), weights)
    whole = path.read_bytes()
    for position in range(len(whole)):
        flip_byte(path, position, mask=1 if position % 2 else 0xFF)
        with pytest.raises(UserError):
            read_prototypes(path, weights, "")
        path.write_bytes(whole)
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match="damaged"):
        read_prototypes(path, weights, "")
    for content in (b"", b"abc", whole[:40], struct.pack("<Q", 2**60) + b"{}"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged; teach again"):
            read_header(path, "teach again")


@pytest.mark.parametrize("names", ["[]", "[1]", "{}", "no json", "[" * 100_000])
def test_odd_names_are_damage(names: str, weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    save_file({"middle": np.zeros(5)}, path, {"prototypes": f'{{"names": {names}, "weights": "", "sha256": ""}}'})
    with pytest.raises(UserError, match="damaged"):
        read_header(path, "")


@pytest.mark.parametrize("field", ["middle", "whitening", "directions"])
@pytest.mark.parametrize("spoil", ["shape", "type", "nan", "missing"])
def test_arrays_that_do_not_fit_are_damage(field: str, spoil: str, weights: Path, tmp_path: Path) -> None:
    arrays = {name: value for name, value in vars(some()).items() if name != "names"}
    good = arrays[field]
    bad = {"shape": good[:-1].copy(), "type": good.astype(np.float64), "nan": good * np.float32("nan")}
    arrays |= {field: bad[spoil]} if spoil in bad else {}
    if spoil == "missing":
        del arrays[field]
    path = tmp_path / "p.safetensors"
    told = {"names": NAMES, "weights": identity(weights), "sha256": _sum(NAMES, arrays)}
    save_file(arrays, path, {"prototypes": json.dumps(told)})
    with pytest.raises(UserError, match="damaged"):
        read_prototypes(path, weights, "")
