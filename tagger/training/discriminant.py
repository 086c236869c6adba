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
from torch import Tensor, nn

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
    """What discriminants are made of.

    Attributes:
        means: of each label, (K, D).
        members: the examples of each label, (K,).
        share: of an example's residuals in the covariance; the rest of it is a multiple of the identity.
        inverse: of the covariance, (D, D).
    """

    means: Tensor
    members: Tensor
    share: float
    inverse: Tensor

    @property
    def middle(self) -> Tensor:
        """The mean of the labels' means, (D,): a label with many examples is no nearer to it."""
        return self.means.mean(0)


def statistics(views: Tensor, labels: Tensor, count: int) -> Statistics:
    """The means of `count` labels, each of which has an example, and their common covariance.

    Args:
        views: (V, N, D).
        labels: (N,) in 0..count-1.
    """
    members = torch.bincount(labels, minlength=count).to(views.dtype)
    centres = views.mean(0)
    means = torch.zeros(count, centres.shape[1], dtype=views.dtype).index_add_(0, labels, centres)
    means /= members.unsqueeze(1)
    centred = (views - means[labels]).flatten(0, 1)
    covariance = centred.T @ centred / len(centred)
    shrinkage, mean = oracle_shrinkage(covariance, len(centred))
    shrunk = (1 - shrinkage) * covariance + shrinkage * mean * torch.eye(len(covariance), dtype=views.dtype)
    inverse = torch.linalg.pinv(shrunk, hermitian=True)
    return Statistics(means, members, (1 - shrinkage) / len(centred), inverse)


def oracle_shrinkage(covariance: Tensor, rows: int) -> tuple[float, float]:
    """How far a covariance (D, D) of centred rows is drawn towards which multiple of the identity."""
    mean = covariance.diagonal().mean()
    squares = (covariance**2).mean()
    denominator = (rows + 1) * (squares - mean**2 / len(covariance))
    return 1.0 if denominator <= 0 else min(1.0, ((squares + mean**2) / denominator).item()), mean.item()


def fit(views: Tensor, labels: Tensor, count: int) -> Rows:
    """A row for each label, against the middle of all; see `statistics` for the arguments."""
    found = statistics(views, labels, count)
    weight = (found.means - found.middle) @ found.inverse
    return Rows(weight, -0.5 * ((found.means + found.middle) * weight).sum(1))


@dataclass(frozen=True)
class Directions:
    """Where each label lies, seen from the middle of all, with the labels' common covariance made the identity.

    Attributes:
        middle: (D,).
        whitening: the inverse covariance's square root, (D, D).
        unit: of each label, (K, D) of length 1.
    """

    middle: Tensor
    whitening: Tensor
    unit: Tensor


def directions(views: Tensor, labels: Tensor, count: int) -> Directions:
    """What cosines between an example and each label are made with; see `statistics` for the arguments."""
    found = statistics(views, labels, count)
    values, vectors = torch.linalg.eigh(found.inverse)
    whitening = vectors * values.clamp(min=0).sqrt() @ vectors.T
    unit = nn.functional.normalize((found.means - found.middle) @ whitening, dim=1)
    return Directions(found.middle, whitening, unit)


def leave_one_out(views: Tensor, labels: Tensor, count: int) -> Tensor:
    """The logits of each example by rows that were made without it, (N, K).

    Without it in its label's mean, in the middle and in the covariance, which where there are fewer examples than
    dimensions tells all that were in it apart without an error. How far that is shrunk stays as with all examples. The
    mean of a label with no other example is the middle of all.
    """
    found = statistics(views, labels, count)
    number_of_views = len(views)
    projected = (found.means - found.middle) @ found.inverse  # (K, D)
    centres, logits = views.mean(0), torch.zeros(views.shape[1], count, dtype=views.dtype)
    for row, label in enumerate(labels.tolist()):
        members, residual = found.members[label], centres[row] - found.means[label]
        if members > 1:
            moved = -residual / (members - 1)
        else:  # to where the middle then is
            moved = (found.middle - found.means[label]) * (count / (count - 1))
        means = found.means.clone()
        means[label] += moved
        middle = found.middle + moved / count
        # What leaves the scatter: the views' about their centre, and the centre's about the mean.
        spread = [views[view, row] - centres[row] for view in range(number_of_views)]
        spread += [residual * (members * number_of_views / (members - 1)).sqrt()] if members > 1 else []
        taken = torch.stack(spread, 1) * found.share**0.5  # (D, r)
        through = found.inverse @ taken
        gain = torch.linalg.pinv(torch.eye(taken.shape[1], dtype=views.dtype) - taken.T @ through, hermitian=True)
        # (means - middle) @ inverse, first with the means moved and then with the covariance (Woodbury's identity).
        weight = projected - (moved / count) @ found.inverse
        weight[label] += moved @ found.inverse
        weight = weight + (means - middle) @ through @ gain @ through.T
        logits[row] = ((views[0, row] - 0.5 * (means + middle)) * weight).sum(1)
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
