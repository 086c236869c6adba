"""The losses against formulas written out here, the weights of rare tags, and where the head starts.

python -m pytest tests/training/test_loss.py
"""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 the field's habit

import models
from models import make_config
from tagger.training.loss import LOSSES, Labels, TaggingLoss, positive_weights, start_head_at_log_odds, tag_frequency


def test_bce_is_summed_over_labels_and_averaged_over_images() -> None:
    logits, targets = torch.randn(5, 7), torch.randint(2, (5, 7)).float()
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()
    torch.testing.assert_close(TaggingLoss("bce")(logits, targets), expected)


def test_asl_plays_down_easy_negatives() -> None:
    logits, targets = torch.randn(5, 7, dtype=torch.bfloat16), torch.randint(2, (5, 7)).float()
    p = torch.sigmoid(logits.float())
    expected = -(targets * p.log() + (1 - targets) * p**2 * (1 - p).log()).sum() / 5
    loss = TaggingLoss("asl")(logits, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)


def test_positives_of_rare_tags_weigh_more() -> None:
    frequency = torch.tensor([0.4, 0.1, 0.025, 1e-6], dtype=torch.float64)
    assert positive_weights(frequency, 0.0) is None
    weight = positive_weights(frequency, 0.5)
    assert weight is not None
    mean = frequency.mean().item()
    assert weight.tolist() == pytest.approx([1.0, math.sqrt(mean / 0.1), math.sqrt(mean / 0.025), 10.0])
    logits, targets = torch.zeros(1, 4), torch.ones(1, 4)
    for kind in LOSSES:
        plain, weighted = (TaggingLoss(kind, Labels(chosen))(logits, targets) for chosen in (None, weight))
        assert (weighted / plain).item() == pytest.approx(weight.mean().item())


def test_a_logit_adjusted_softmax_beside_binary_cross_entropy() -> None:
    logits, artists = torch.randn(4, 6), torch.tensor([1, 3, 5])
    frequency = torch.tensor([0.5, 0.1, 0.01], dtype=torch.float64)
    targets = torch.tensor([[1, 0, 1, 1, 0, 0], [0, 1, 0, 0, 0, 1], [1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0.4]])
    found = TaggingLoss("logit_adjusted", Labels(artists=artists, artist_frequency=frequency))(logits, targets)
    p = torch.softmax(logits[:, artists].double() + frequency.log(), dim=1)
    # One artist; two, each with half; none; and one whom mixup has blended in.
    softmax = -(p[0, 1].log() + p[1, 0].log() / 2 + p[1, 2].log() / 2 + 0.4 * p[3, 2].log()) / 4
    torch.testing.assert_close(found.double(), TaggingLoss("bce")(logits, targets).double() + softmax)


def test_the_head_starts_at_the_log_odds() -> None:
    model: Any = models.build(make_config("eva02_tiny", 28, 7))
    frequency = tag_frequency([0, 1, 2, 3, 10, 50, 100], 100)
    start_head_at_log_odds(model, frequency)
    expected = (torch.tensor([0, 1, 2, 3, 10, 50, 100]) + 0.5) / 101
    torch.testing.assert_close(torch.sigmoid(model.head.bias), expected)
