"""Parameter groups, rates and Muon against what they should be, and the bytes that an optimizer keeps.

python -m pytest tests/training/test_optimizer.py
"""

import itertools
from typing import Any

import pytest
import timm
import torch
from timm.utils import ModelEmaV3

import models
from models import make_config
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
    assert {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.11.mlp.fc2.weight"} <= names
    assert all(name.startswith("blocks.") or name == "patch_embed.proj.weight" for name in names)
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
    assert kept == pytest.approx({"adamw": 2, "muon": 1}, abs=0.02)
