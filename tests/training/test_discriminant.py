"""Discriminants are scikit-learn's, leave-one-out is what it says, and probabilities mean what they say.

python -m pytest tests/training/test_discriminant.py
"""

import pytest
import torch
from sklearn.covariance import OAS
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.distributions import MultivariateNormal

from tagger.training.discriminant import Rows, calibrate, fit, leave_one_out, oracle_shrinkage, statistics

LABELS = 6


def drawn(seed: int, examples: int = 60, dimensions: int = 20, apart: float = 2.0) -> tuple[Tensor, Tensor]:
    """Two views of examples around means of their own, (2, N, D) and (N,)."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(examples) % LABELS
    means = apart * torch.randn(LABELS, dimensions, generator=random, dtype=torch.float64)
    mixing = torch.randn(dimensions, dimensions, generator=random, dtype=torch.float64)
    centre = means[labels] + torch.randn(examples, dimensions, generator=random, dtype=torch.float64) @ mixing
    flips = torch.randn(2, examples, dimensions, generator=random, dtype=torch.float64)
    return centre + 0.1 * flips, labels


@pytest.mark.parametrize(("examples", "dimensions"), [(60, 20), (12, 40), (200, 5)])
def test_the_covariance_is_shrunk_as_scikit_learn_does_it(examples: int, dimensions: int) -> None:
    views, labels = drawn(1, examples, dimensions)
    found = statistics(views, labels, LABELS)
    centred = (views - found.means[labels]).flatten(0, 1)
    expected = OAS(assume_centered=True).fit(centred.numpy())
    assert torch.allclose(found.inverse, torch.from_numpy(expected.precision_), rtol=1e-6)
    assert found.share == pytest.approx((1 - expected.shrinkage_) / len(centred))


def test_rows_are_fishers() -> None:
    """The difference of two labels' logits is that of two Gaussians with one covariance."""
    views, labels = drawn(2)
    found = statistics(views, labels, LABELS)
    logits = fit(views, labels, LABELS).logits(views[0])
    gaussians = [MultivariateNormal(mean, precision_matrix=found.inverse) for mean in found.means]
    expected = torch.stack([each.log_prob(views[0]) for each in gaussians], 1)
    assert torch.allclose(logits - logits[:, :1], expected - expected[:, :1])


@pytest.mark.parametrize("dimensions", [8, 90])
def test_an_example_that_is_left_out_is_not_seen(dimensions: int) -> None:
    views, labels = drawn(4, dimensions=dimensions)
    left_out = leave_one_out(views, labels, LABELS)
    found = statistics(views, labels, LABELS)
    centred = (views - found.means[labels]).flatten(0, 1)
    shrinkage, mean = oracle_shrinkage(centred.T @ centred / len(centred), len(centred))
    for number in range(0, 60, 7):
        others = torch.arange(60) != number
        means = statistics(views[:, others], labels[others], LABELS).means
        rest = (views[:, others] - means[labels[others]]).flatten(0, 1)
        covariance = (1 - shrinkage) * rest.T @ rest / len(centred) + shrinkage * mean * torch.eye(dimensions).double()
        weight = (means - means.mean(0)) @ torch.linalg.inv(covariance)
        expected = ((views[0, number] - 0.5 * (means + means.mean(0))) * weight).sum(1)
        assert torch.allclose(left_out[number], expected, rtol=1e-6, atol=1e-8)


def test_noise_is_known_to_be_noise() -> None:
    views, labels = drawn(5, examples=60, dimensions=200, apart=0.0)
    seen = (fit(views, labels, LABELS).logits(views[0]).argmax(1) == labels).double().mean()
    left_out = (leave_one_out(views, labels, LABELS).argmax(1) == labels).double().mean()
    assert seen > 0.9 and left_out < 0.45


def test_a_label_with_one_example_has_no_opinion_of_it() -> None:
    views, labels = drawn(6, examples=7)
    assert leave_one_out(views, labels, LABELS)[1, 1].item() == pytest.approx(0.0, abs=1e-6)


def test_probabilities_are_logistic_regressions() -> None:
    views, labels = drawn(7, examples=300, apart=0.7)
    logits = leave_one_out(views, labels, LABELS)
    slope, offset = calibrate(logits, labels)
    truth = torch.nn.functional.one_hot(labels, LABELS).reshape(-1)
    other = LogisticRegression(C=1e9, tol=1e-9).fit(logits.reshape(-1, 1).numpy(), truth.numpy())
    assert slope == pytest.approx(other.coef_[0, 0], rel=0.02) and offset == pytest.approx(
        other.intercept_[0], rel=0.02
    )
    p = torch.sigmoid(slope * logits + offset).reshape(-1)
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 1.0)):
        chosen = (p > low) & (p <= high)
        assert truth[chosen].double().mean().item() == pytest.approx(p[chosen].mean().item(), abs=0.08)


def test_what_can_be_told_apart_without_an_error_stays_finite() -> None:
    logits = torch.tensor([[100.0, -100.0], [-100.0, 100.0]], dtype=torch.float64)
    slope, offset = calibrate(logits, torch.tensor([0, 1]))
    p = torch.sigmoid(slope * logits + offset)
    assert 0.5 < p[0, 0] < 1 and p[0, 1] < 0.5


def test_rows_are_scaled() -> None:
    rows = Rows(torch.ones(2, 3), torch.tensor([1.0, 2.0]))
    features = torch.tensor([[1.0, 2.0, 3.0]])
    assert torch.allclose(rows.scaled(2.0, -1.0).logits(features), 2 * rows.logits(features) - 1)
