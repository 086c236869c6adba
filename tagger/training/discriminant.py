"""Rows of a head from a few examples of each label, without training: linear discriminants on frozen features.

    rows = fit(features, labels)                   # weight (K, D) and bias (K,) of K labels
    rows = rows.calibrated(*leave_one_out(features, labels))

All labels share one covariance within them (Fisher's discriminant), drawn towards a multiple of the identity, for there
are fewer examples than dimensions: oracle approximating shrinkage (Chen et al., arXiv:0907.4698, eq. 23).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

NEWTON_STEPS = 50
RIDGE = 1e-3  # on the calibration's slope, for examples that can be told apart without an error


@dataclass(frozen=True)
class Rows:
    """Rows of a linear head: logits are features @ weight.T + bias."""

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(N, D) to (N, K)."""
        return features @ self.weight.T + self.bias

    def scaled(self, slope: float, offset: float) -> "Rows":
        """Rows whose logits are slope * logits + offset."""
        return Rows(self.weight * slope, self.bias * slope + offset)


def class_means(features: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The mean of each label's features, (K, D), and how many there are, (K,)."""
    members = torch.bincount(labels, minlength=count).to(features.dtype)
    sums = torch.zeros(count, features.shape[1], dtype=features.dtype).index_add_(0, labels, features)
    return sums / members.clamp(min=1).unsqueeze(1), members


def shrunk_covariance(centred: Tensor) -> Tensor:
    """The covariance of N centred rows, (N, D) to (D, D), by oracle approximating shrinkage."""
    n, d = centred.shape
    covariance = centred.T @ centred / max(1, n)
    mean = covariance.diagonal().mean()
    squares = (covariance**2).mean()
    numerator = squares + mean**2
    denominator = (n + 1) * (squares - mean**2 / d)
    shrinkage = 1.0 if denominator <= 0 else min(1.0, (numerator / denominator).item())
    return (1 - shrinkage) * covariance + shrinkage * mean * torch.eye(d, dtype=centred.dtype)


def fit(features: Tensor, labels: Tensor, count: int) -> Rows:
    """A row for each label, against the mean of all labels; its log-odds are those of one label among all.

    Args:
        features: (N, D) float64.
        labels: (N,) in 0..K-1, each at least once.
        count: K.
    """
    means, _ = class_means(features, labels, count)
    inverse = torch.linalg.pinv(shrunk_covariance(features - means[labels]), hermitian=True)
    return _rows(means, inverse)


def _rows(means: Tensor, inverse: Tensor) -> Rows:
    middle = means.mean(0)
    weight = (means - middle) @ inverse
    bias = -0.5 * ((means + middle) * weight).sum(1)
    return Rows(weight, bias)


def leave_one_out(features: Tensor, labels: Tensor, count: int) -> Tensor:
    """The logits of each example by rows that were made without it, (N, K). The covariance stays that of all.

    An example's own label has its mean without it; a label with one example alone has the middle of all, and so 0.
    """
    means, members = class_means(features, labels, count)
    inverse = torch.linalg.pinv(shrunk_covariance(features - means[labels]), hermitian=True)
    middle = means.mean(0)
    rows = _rows(means, inverse)
    logits = rows.logits(features)
    own, others = means[labels], (members[labels] - 1).unsqueeze(1)
    without = torch.where(others > 0, (own * (others + 1) - features) / others.clamp(min=1), middle)
    weight = (without - middle) @ inverse
    logits[torch.arange(len(features)), labels] = ((features - 0.5 * (without + middle)) * weight).sum(1)
    return logits


def calibrate(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Slope and offset that make probabilities of logits: Platt's scaling over all (example, label) pairs.

    Platt, "Probabilistic outputs for support vector machines", 1999: logistic regression by Newton's method, with
    targets that are kept off 0 and 1 by one observation.

    Args:
        logits: (N, K) of examples that the rows had not seen.
        labels: (N,).
    """
    targets = torch.zeros_like(logits).scatter_(1, labels.unsqueeze(1), 1.0).reshape(-1)
    positives = targets.sum()
    high, low = (positives + 1) / (positives + 2), 1 / (len(targets) - positives + 2)
    targets = torch.where(targets > 0, high, low)
    x = torch.stack([logits.reshape(-1), torch.ones_like(targets)], 1)
    spread = x[:, 0].std().clamp(min=1e-12)
    x[:, 0] /= spread  # or a step of Newton's overshoots
    solution = torch.zeros(2, dtype=logits.dtype)
    ridge = torch.tensor([RIDGE, 0.0], dtype=logits.dtype)
    for _ in range(NEWTON_STEPS):
        p = torch.sigmoid(x @ solution)
        gradient = x.T @ (p - targets) + ridge * solution
        hessian = (x * (p * (1 - p)).unsqueeze(1)).T @ x + torch.diag(ridge) + 1e-9 * torch.eye(2, dtype=logits.dtype)
        step = torch.linalg.solve(hessian, gradient)
        solution = solution - step
        if step.abs().max() < 1e-10:
            break
    return (solution[0] / spread).item(), solution[1].item()
