"""Rows of a head from a few examples of each label, without training: linear discriminants on frozen features.

    rows = fit(views, labels, count)                                     # of K labels
    rows = rows.scaled(*calibrate(leave_one_out(views, labels, count), labels))

All labels share one covariance within them (Fisher's discriminant), drawn towards a multiple of the identity, for there
are fewer examples than dimensions: oracle approximating shrinkage (Chen et al., arXiv:0907.4698, eq. 23).

Examples come in V views each, such as as they are and flipped: (V, N, D) float64. The first view is what is asked of a
head later, so the others only help to find the means and the covariance.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

NEWTON_STEPS = 50
RIDGE = 1e-3  # on the calibration's slope, for examples that can be told apart without an error


@dataclass(frozen=True)
class Rows:
    """Rows of a linear head: logits are features @ weight.T + bias, for weight (K, D) and bias (K,)."""

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(N, D) to (N, K)."""
        return features @ self.weight.T + self.bias

    def scaled(self, slope: float, offset: float) -> "Rows":
        """Rows whose logits are slope * logits + offset."""
        return Rows(self.weight * slope, self.bias * slope + offset)


@dataclass(frozen=True)
class Statistics:
    """What discriminants are made of: means (K, D), examples of each label (K,), the covariance's inverse (D, D)."""

    means: Tensor
    members: Tensor
    inverse: Tensor

    @property
    def middle(self) -> Tensor:
        """The mean of the labels' means, (D,): a label with many examples is no nearer to it."""
        return self.means.mean(0)


def statistics(views: Tensor, labels: Tensor, count: int) -> Statistics:
    """The means of `count` labels, each of which has an example, and the inverse of their common covariance."""
    members = torch.bincount(labels, minlength=count).to(views.dtype)
    centres = views.mean(0)
    means = torch.zeros(count, centres.shape[1], dtype=views.dtype).index_add_(0, labels, centres)
    means /= members.unsqueeze(1)
    centred = (views - means[labels]).flatten(0, 1)
    return Statistics(means, members, torch.linalg.pinv(shrunk_covariance(centred), hermitian=True))


def shrunk_covariance(centred: Tensor) -> Tensor:
    """The covariance of N centred rows, (N, D) to (D, D), by oracle approximating shrinkage."""
    n, d = centred.shape
    covariance = centred.T @ centred / n
    mean = covariance.diagonal().mean()
    squares = (covariance**2).mean()
    numerator = squares + mean**2
    denominator = (n + 1) * (squares - mean**2 / d)
    shrinkage = 1.0 if denominator <= 0 else min(1.0, (numerator / denominator).item())
    return (1 - shrinkage) * covariance + shrinkage * mean * torch.eye(d, dtype=centred.dtype)


def fit(views: Tensor, labels: Tensor, count: int) -> Rows:
    """A row for each label, against the middle of all.

    Args:
        views: (V, N, D).
        labels: (N,) in 0..count-1, each at least once.
    """
    found = statistics(views, labels, count)
    weight = (found.means - found.middle) @ found.inverse
    return Rows(weight, -0.5 * ((found.means + found.middle) * weight).sum(1))


def leave_one_out(views: Tensor, labels: Tensor, count: int) -> Tensor:
    """The logits of each example by rows that were made without it, (N, K).

    Its own label's mean is that of the label's other examples, or the middle of all where there are none. The
    covariance and the middle, which one example hardly moves, stay as they are.
    """
    found = statistics(views, labels, count)
    logits = fit(views, labels, count).logits(views[0])
    own, others = found.means[labels], (found.members[labels] - 1).unsqueeze(1)
    without = torch.where(others > 0, (own * (others + 1) - views.mean(0)) / others.clamp(min=1), found.middle)
    weight = (without - found.middle) @ found.inverse
    logits[torch.arange(len(labels)), labels] = ((views[0] - 0.5 * (without + found.middle)) * weight).sum(1)
    return logits


def calibrate(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Slope and offset that make probabilities of logits: Platt's scaling over all (example, label) pairs.

    Platt, "Probabilistic outputs for support vector machines", 1999: logistic regression by Newton's method, with
    targets that are kept off 0 and 1 by one observation.

    Args:
        logits: (N, K) of examples that the rows had not seen.
        labels: (N,).
    """
    truth = torch.zeros_like(logits).scatter_(1, labels.unsqueeze(1), 1.0).reshape(-1)
    positives = truth.sum()
    targets = torch.where(truth > 0, (positives + 1) / (positives + 2), 1 / (len(truth) - positives + 2))
    spread = logits.std().clamp(min=1e-12)  # or a step of Newton's overshoots
    x = torch.stack([logits.reshape(-1) / spread, torch.ones_like(targets)], 1)
    ridge = torch.tensor([RIDGE, 1e-9], dtype=logits.dtype)
    solution = torch.zeros(2, dtype=logits.dtype)
    for _ in range(NEWTON_STEPS):
        p = torch.sigmoid(x @ solution)
        gradient = x.T @ (p - targets) + ridge * solution
        hessian = (x * (p * (1 - p)).unsqueeze(1)).T @ x + torch.diag(ridge)
        step = torch.linalg.solve(hessian, gradient)
        solution -= step
        if step.abs().max() < 1e-10:
            break
    return (solution[0] / spread).item(), solution[1].item()
