"""Parameter groups, rates and Muon against what they should be, and the bytes that an optimizer keeps.

python -m pytest tests/training/test_optimizer.py
"""

import copy
import itertools
from typing import Any

import pytest
import timm
import torch
from timm.optim import Muon
from timm.utils import ModelEmaV3

import models
from models import make_config
from tagger.training import muon
from tagger.training.optimizer import (
    OPTIMIZERS,
    make_optimizer,
    parameter_groups,
    state_bytes,
    static_bytes,
    warmup_and_cosine,
)
from tagger.training.settings import RecipeSettings


@pytest.fixture(scope="module")
def model() -> Any:
    return models.build(make_config("eva02_tiny", 28, 7))


def test_groups_have_the_decay_and_the_rate_they_should(model: Any) -> None:
    groups = parameter_groups(model, weight_decay=0.05, layer_decay=0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    group_of = {names[id(parameter)]: group for group in groups for parameter in group["params"]}
    assert group_of.keys() == set(names.values())
    for name, group in group_of.items():
        undecayed = name.endswith("bias") or "norm" in name or name in ("cls_token", "pos_embed")
        assert group["weight_decay"] == (0.0 if undecayed else 0.05), name
    # 12 blocks below the head, and the patch embedding below them.
    assert group_of["head.weight"]["lr_scale"] == 1.0
    scales = [group_of[f"blocks.{number}.mlp.fc2.weight"]["lr_scale"] for number in range(12)]
    assert [above / below for below, above in itertools.pairwise(scales)] == [2.0] * 11
    assert scales[11] == 0.5
    assert group_of["patch_embed.proj.weight"]["lr_scale"] == scales[0] / 2

    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    schedule = warmup_and_cosine(optimizer, total_steps=100, warmup=0.1)
    rates = []
    for step in range(100):
        schedule.step_update(step)
        rates.append({group["lr_scale"]: group["lr"] for group in optimizer.param_groups})
    assert rates[0][1.0] == pytest.approx(1e-3 / 11)
    assert rates[5][1.0] == pytest.approx(1e-3 * 6 / 11)
    assert rates[10][1.0] == pytest.approx(1e-3) == max(rate[1.0] for rate in rates)
    assert rates[55][1.0] == pytest.approx(5e-4)
    assert rates[99][1.0] < 1e-6
    assert all(rate[scale] == pytest.approx(rate[1.0] * scale) for rate in rates for scale in rate)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_head_remembers_longer_and_has_a_rate_of_its_own(model: Any, name: str) -> None:
    recipe = RecipeSettings(optimizer=name, layer_decay=0.5, head_lr=4.0)
    groups = make_optimizer(model, recipe).param_groups
    head = {id(parameter) for parameter in model.head.parameters()}
    own: list[Any] = []
    others: list[Any] = []
    for group in groups:
        (own if any(id(parameter) in head for parameter in group["params"]) else others).append(group)
    assert {id(parameter) for group in own for parameter in group["params"]} == head
    assert {(group["betas"], group["lr_scale"]) for group in own} == {((0.9, 0.999), 4.0)}
    assert {group["betas"] for group in others} == {(0.9, 0.95)}
    assert max(group["lr_scale"] for group in others) == 1.0  # the last norm's, which lies above all blocks


def test_muon_is_for_the_matrices_inside(model: Any) -> None:
    optimizer = make_optimizer(model, RecipeSettings(optimizer="muon", lr=1e-3))
    by_muon = {id(p) for group in optimizer.param_groups if not group["use_fallback"] for p in group["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in by_muon}
    assert {"blocks.0.attn.qkv.weight", "blocks.11.mlp.fc2.weight"} <= names
    assert all(name.startswith("blocks.") for name in names)
    everything = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(everything) == len(set(map(id, everything))) == len(list(model.parameters()))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model(torch.randn(2, 3, 28, 28)).square().sum().backward()
    optimizer.step()
    moved = (model.blocks[0].attn.qkv.weight - before["blocks.0.attn.qkv.weight"]).detach() / 1e-3
    values = torch.linalg.svdvals(moved)
    # Orthogonal, but for the directions that ten tokens have no gradient in; of the size that AdamW's would have.
    assert values[4] > values[0] / 2
    assert values[0].item() == pytest.approx(0.2 * 576**0.5, rel=0.4)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    ("architecture", "arguments", "size"),
    [
        ("eva02_tiny_patch14_336", {"img_size": 28, "depth": 2}, 28),
        ("convnext_atto", {"depths": (1, 1, 1, 1)}, 64),  # convolutions, and no position embedding
    ],
)
def test_static_bytes_are_those_that_a_step_leaves(
    architecture: str, arguments: dict[str, Any], size: int, name: str, ema_decay: float
) -> None:
    model: Any = timm.create_model(architecture, num_classes=7, **arguments)
    recipe = RecipeSettings(optimizer=name, ema_decay=ema_decay)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    estimate = static_bytes(model, recipe)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())

    optimizer = make_optimizer(model, recipe)
    model(torch.randn(2, 3, size, size)).sum().backward()
    optimizer.step()
    weights = sum(parameter.nbytes for parameter in model.parameters())
    gradients = sum(parameter.grad.nbytes for parameter in model.parameters())
    averaged = sum(parameter.nbytes for parameter in ModelEmaV3(model).module.parameters()) if ema_decay else 0
    assert estimate == weights + gradients + state_bytes(optimizer) + averaged


def test_adamw_keeps_two_moments_and_muon_one_of_most(model: Any) -> None:
    weights = sum(parameter.nbytes for parameter in model.parameters())
    kept = {name: static_bytes(model, RecipeSettings(optimizer=name)) / weights - 2 for name in ("adamw", "muon")}
    assert kept == pytest.approx({"adamw": 2, "muon": 1}, abs=0.03)


# --- Muon in batches ------------------------------------------------------------------------------------------------


def small_model() -> Any:
    """Every kind of shape that EVA-02 Large has: square, and with an unaligned side in both directions."""
    torch.manual_seed(0)
    config = make_config("eva02_base", 28, 7)
    config["model_args"] |= {"embed_dim": 64, "depth": 2, "num_heads": 2}
    return models.build(config)


def train(model: Any, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> None:
    """Steps on random images and tags, the same ones for the same numbers, at rates that change."""
    schedule = warmup_and_cosine(optimizer, 20, 0.2)
    for step in range(first, first + steps):
        schedule.step_update(step)
        random = torch.Generator().manual_seed(step)
        images, targets = torch.randn(4, 3, 28, 28, generator=random), torch.rand(4, 7, generator=random).round()
        torch.nn.functional.binary_cross_entropy_with_logits(model(images), targets).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def timms_muon(model: Any, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    """One matrix at a time, with the groups of another optimizer."""
    kept = ("params", "use_fallback", "weight_decay", "lr_scale", "betas")
    optimizer: torch.optim.Optimizer = Muon([{key: group[key] for key in kept} for group in groups], lr)
    return optimizer


RECIPE = RecipeSettings(optimizer="muon", lr=1e-2, layer_decay=0.7)


@pytest.mark.parametrize("batch_numbers", [2**26, 30_000])
def test_muon_in_batches_is_timms(batch_numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "BATCH_NUMBERS", batch_numbers)  # at 30,000 a batch is one or two matrices
    ours, theirs = small_model(), small_model()
    optimizer = make_optimizer(ours, RECIPE)
    train(ours, optimizer, 20)
    train(theirs, timms_muon(theirs, make_optimizer(theirs, RECIPE).param_groups, RECIPE.lr), 20)
    started = dict(small_model().named_parameters())
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other), name
        assert name.endswith("bias") or not torch.equal(mine, started[name]), name  # it did learn


def test_a_state_of_timms_muon_goes_on_with_its_own_division() -> None:
    """Of version 0.2 before: its patch embedding belongs to Muon, and stays there."""
    ours, theirs = small_model(), small_model()
    groups = make_optimizer(theirs, RECIPE).param_groups
    for group in groups:
        if any(parameter is theirs.patch_embed.proj.weight for parameter in group["params"]):
            assert group["use_fallback"]
            group["use_fallback"] = False
    old = timms_muon(theirs, groups, RECIPE.lr)
    train(theirs, old, 10)
    ours.load_state_dict(theirs.state_dict())
    optimizer = make_optimizer(ours, RECIPE)
    optimizer.load_state_dict(copy.deepcopy(old.state_dict()))
    train(theirs, old, 10, first=10)
    train(ours, optimizer, 10, first=10)
    assert all(torch.equal(*pair) for pair in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("shape", [(64, 170), (170, 64), (64, 64)])
def test_zeros_up_to_an_aligned_side_change_no_orthogonal_matrix(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrices = [torch.randn(shape) for _ in range(3)]
    plain, padded = (muon.orthogonal(matrices, 5, [(3.4445, -4.775, 2.0315)], 1e-7, each) for each in (1, 8))
    for matrix, other in zip(plain, padded, strict=True):
        assert matrix.shape == shape
        # Sums in bfloat16, in another order.
        torch.testing.assert_close(matrix, other, rtol=0, atol=2e-2)
    assert torch.linalg.svdvals(plain[0].float()).median().item() == pytest.approx(1, abs=0.4)
