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
    plain = cost.activation_bytes(model, 56)
    model.set_grad_checkpointing()  # type: ignore[operator]
    assert 0 < cost.activation_bytes(model, 56) < plain / 4
