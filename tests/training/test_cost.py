"""FLOPs and bytes of a step against what torch counts.

python -m pytest tests/training/test_cost.py
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import models
from models import make_config
from tagger.training import cost


def test_flops_are_those_that_torch_counts() -> None:

    model = models.build(make_config("eva02_tiny", 56, 10))
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 56, 56)).sum().backward()
    assert cost.training_flops(model, 56) == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_activations_are_measured_and_checkpointing_saves_them() -> None:
    model = models.build(make_config("eva02_tiny", 56, 10)).train()
    once, plain = cost.activation_bytes(model, 56)
    assert once < plain / 100  # the positions
    model.set_grad_checkpointing()  # type: ignore[operator]
    assert 0 < cost.activation_bytes(model, 56)[1] < plain / 4


def test_autocast_keeps_the_weights_once_more_and_less_of_each_image() -> None:
    model = models.build(make_config("eva02_tiny", 56, 10)).train()
    _, plain = cost.activation_bytes(model, 56)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        once, per_image = cost.activation_bytes(model, 56)
    linear = [layer for layer in model.blocks.modules() if isinstance(layer, torch.nn.Linear)]  # type: ignore[union-attr]
    assert once >= sum(2 * layer.weight.numel() for layer in linear)
    assert plain / 2 <= per_image < plain
