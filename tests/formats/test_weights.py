"""Weights in the shapes that others save them in, damage that is found, and files that are no weights.

python -m pytest tests/formats/test_weights.py
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tagger.files import UserError, read_json
from tagger.formats.families.registry import open_folder
from tagger.formats.weights import check_finite, check_sums, load_weights, save_safetensors, save_weights
from tests.families import MINIATURES

STATE = {
    "blocks.0.weight": torch.arange(1.0, 7.0).reshape(2, 3),
    "head.bias": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
}


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[name], tensor) for name, tensor in STATE.items())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".bin"])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "best": 0.5},
        lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        lambda state: {"module." + name: tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {"model._orig_mod." + name: tensor for name, tensor in state.items()}},
    ],
)
def test_whatever_shape_they_were_saved_in(wrap: Any, legacy: bool, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    torch.save(wrap(STATE), path, _use_new_zipfile_serialization=not legacy)
    assert same(load_weights(path))


def test_a_prefix_of_some_names_alone_belongs_to_them(tmp_path: Path) -> None:
    torch.save({"model.a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "a.pth")
    assert load_weights(tmp_path / "a.pth").keys() == {"model.a", "b"}


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth", "model.onnx", "config.json"])
def test_a_git_lfs_pointer_is_called_what_it_is(name: str, tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1260435456\n"
    (tmp_path / name).write_text(pointer)
    with pytest.raises(UserError, match=r"a Git LFS pointer, not the file itself; run git lfs pull"):
        read_json(tmp_path / name, "") if name.endswith(".json") else load_weights(tmp_path / name)


def test_a_graph_is_called_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07")
    with pytest.raises(UserError, match=r"an ONNX graph, no weights for torch; name a \.safetensors or \.pth"):
        load_weights(tmp_path / "model.onnx")


@pytest.mark.parametrize("suffix", [".pt", ".ckpt"])
def test_they_are_found_in_a_folder_but_not_the_states_of_a_run(suffix: str, tmp_path: Path) -> None:
    MINIATURES["WD v3"].make(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / f"mine{suffix}")
    (tmp_path / "resume_00000010.pt").touch()
    assert open_folder(tmp_path).weights.name == f"mine{suffix}"
    (tmp_path / "other.pth").touch()  # the usual suffix is meant, and the rarer one is an optimizer's state, say
    assert open_folder(tmp_path).weights.name == "other.pth"


# --- damage ---------------------------------------------------------------------------------------------------------


class Model(nn.Module):
    """STATE as a module."""

    def state_dict(self, *_: Any, **__: Any) -> Any:
        return STATE


def write_safetensors(path: Path) -> None:
    save_safetensors(path, STATE)


def write_pth(path: Path) -> None:
    save_weights(path, Model())


@pytest.mark.parametrize(("write", "suffix"), [(write_safetensors, ".safetensors"), (write_pth, ".pth")])
def test_a_flipped_bit_of_a_tensor_is_found(write: Callable[[Path], None], suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    write(path)
    check_sums(path)
    assert same(load_weights(path))
    data = path.read_bytes()
    for name, tensor in STATE.items():
        place = data.index(tensor.view(torch.uint8).numpy().tobytes())
        for bit in (0, 7):
            flipped = bytearray(data)
            flipped[place + 3] ^= 1 << bit
            path.write_bytes(flipped)
            with pytest.raises(UserError, match=f"model{suffix}: damaged, its checksum is another"):
                check_sums(path)
            assert not same(load_weights(path)), name  # nothing else would have told


@settings(max_examples=60, deadline=None)
@example(place=1431, bit=5, cut=False)  # in a name within the archive
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7), cut=st.booleans())
@pytest.mark.parametrize(("write", "suffix"), [(write_safetensors, ".safetensors"), (write_pth, ".pth")])
def test_any_damage_is_an_error_of_one_line_or_none(
    tmp_path_factory: pytest.TempPathFactory,
    write: Callable[[Path], None],
    suffix: str,
    place: int,
    bit: int,
    cut: bool,
) -> None:
    path = tmp_path_factory.mktemp("damaged") / f"model{suffix}"
    write(path)
    data = bytearray(path.read_bytes())
    place %= len(data)
    data[place] ^= 1 << bit
    path.write_bytes(data[:place] if cut else data)
    for check in (check_sums, load_weights):
        try:
            check(path)
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and "\x00" not in str(error)


def test_files_without_checksums_pass(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "a.safetensors")
    torch.save(STATE, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    before = torch.serialization.get_crc32_options()
    try:
        torch.serialization.set_crc32_options(False)
        torch.save(STATE, tmp_path / "b.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    for name in ("a.safetensors", "a.pth", "b.pth"):
        check_sums(tmp_path / name)
        assert same(load_weights(tmp_path / name))


def test_a_damaged_header_is_found_too(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path)
    data = path.read_bytes()
    assert data.count(b'"F32"') == 1
    path.write_bytes(data.replace(b'"F32"', b'"I32"', 1))  # as long, so that nothing else would have told
    assert len(load_weights(path)) == len(STATE)
    with pytest.raises(UserError, match="damaged, its checksum is another"):
        check_sums(path)


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_a_pointer_has_no_checksum(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    with pytest.raises(UserError, match="a Git LFS pointer, not the file itself; run git lfs pull"):
        check_sums(tmp_path / name)


def test_weights_that_are_no_numbers_are_named() -> None:
    check_finite(STATE, "a.pth")
    for bad in (float("nan"), float("inf"), float("-inf")):
        with pytest.raises(UserError, match=r"a\.pth: head\.bias holds NaN or infinity"):
            check_finite(STATE | {"head.bias": torch.tensor([0.0, bad])}, "a.pth")
