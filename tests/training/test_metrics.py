"""metrics.py against scikit-learn: equal where scores sit on bin centres, close where they do not.

python -m pytest tests/training/test_metrics.py
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score
from torch import Tensor

from tagger.training import metrics
from tagger.training.metrics import BINS, LOGIT_RANGE, LabelHistograms, TopOne, threshold_of

SEEDS = st.integers(0, 2**32 - 1)


def scores(seed: int, images: int = 60, classes: int = 12) -> tuple[Tensor, Tensor]:
    """Logits that know something of their targets; the last label never occurs, the one before it always."""
    random = np.random.default_rng(seed)
    targets = random.random((images, classes)) < random.random(classes)
    targets[:, -2:] = True, False
    logits = random.normal(-1, 2, (images, classes)) + 2 * targets
    return torch.from_numpy(logits), torch.from_numpy(targets).float()


def on_bin_centres(logits: Tensor) -> Tensor:
    width = 2 * LOGIT_RANGE / BINS
    return (torch.floor(logits / width) + 0.5) * width


def histograms(logits: Tensor, targets: Tensor, batch: int = 1000) -> LabelHistograms:
    counted = LabelHistograms(logits.shape[1])
    for start in range(0, len(logits), batch):
        counted.update(logits[start : start + batch], targets[start : start + batch])
    return counted


def positive(counted: LabelHistograms) -> Tensor:
    return torch.cat([positive for _, _, positive in counted.chunks()])


def exact_average_precision(logits: Tensor, targets: Tensor) -> list[float]:
    return [
        average_precision_score(targets[:, label], logits[:, label]) if targets[:, label].any() else math.nan
        for label in range(targets.shape[1])
    ]


@given(SEEDS)
def test_average_precision_is_exact_for_scores_on_bin_centres(seed: int) -> None:
    logits, targets = scores(seed)
    logits = on_bin_centres(logits)
    ours = histograms(logits, targets).average_precision().numpy()
    np.testing.assert_allclose(ours, exact_average_precision(logits, targets), rtol=0, atol=1e-9)


def test_average_precision_is_close_for_any_scores() -> None:
    logits, targets = scores(seed=1, images=2000)
    ours = histograms(logits, targets).average_precision().numpy()
    # Scores within a bin count as ties, which costs the rarest labels most.
    np.testing.assert_allclose(ours, exact_average_precision(logits, targets), rtol=0, atol=4e-3)


def test_average_precision_of_a_label_that_never_occurs_is_nan() -> None:
    precision = histograms(*scores(seed=0)).average_precision()
    assert precision.isnan().tolist() == [False] * 11 + [True]


@given(SEEDS, st.integers(0, BINS - 1), st.lists(st.integers(0, 11), unique=True, min_size=1))
def test_f1_is_scikit_learns_at_the_same_threshold(seed: int, bin_number: int, labels: list[int]) -> None:
    logits, targets = scores(seed)
    logits = on_bin_centres(logits)
    predicted = (logits > (bin_number / BINS - 0.5) * 2 * LOGIT_RANGE).int()
    macro, micro = histograms(logits, targets).f1(bin_number, torch.tensor(labels))
    assert micro == pytest.approx(
        f1_score(targets[:, labels].ravel(), predicted[:, labels].ravel(), zero_division=0), abs=1e-9
    )
    present = [label for label in labels if targets[:, label].any()]
    if present:
        each = [f1_score(targets[:, label], predicted[:, label], zero_division=0) for label in present]
        assert macro == pytest.approx(np.mean(each), abs=1e-9)
    else:
        assert math.isnan(macro)


def test_f1_is_over_all_labels_by_default() -> None:
    counted = histograms(*scores(seed=3))
    assert counted.f1(260) == counted.f1(260, torch.arange(12)) != counted.f1(260, torch.arange(6))


@given(SEEDS)
def test_the_balanced_bin_has_about_as_many_predictions_as_positives(seed: int) -> None:
    logits, targets = scores(seed)
    logits = on_bin_centres(logits)
    edges = (torch.arange(BINS) / BINS - 0.5) * 2 * LOGIT_RANGE
    surplus = ((logits[None] > edges[:, None, None]).sum((1, 2)) - targets.sum()).abs()
    assert surplus[histograms(logits, targets).balanced_bin()] == surplus.min()


@pytest.mark.parametrize("bin_number", [0, 100, BINS // 2, BINS - 1])
def test_the_threshold_is_the_lower_edge_of_its_bin(bin_number: int) -> None:
    edge = math.log(threshold_of(bin_number) / (1 - threshold_of(bin_number)))
    inside, below = (histograms(torch.tensor([[edge + step]]), torch.ones(1, 1)) for step in (1e-3, -1e-3))
    assert inside.all[0].nonzero().item() == bin_number
    assert below.all[0].nonzero().item() == max(0, bin_number - 1)


@given(SEEDS, st.integers(1, 70))
def test_batches_add_up(seed: int, batch: int) -> None:
    logits, targets = scores(seed)
    whole, parts = histograms(logits, targets), histograms(logits, targets, batch)
    assert torch.equal(whole.all, parts.all) and torch.equal(positive(whole), positive(parts))
    assert whole.all.sum() == logits.numel() and torch.equal(whole.positives(), targets.sum(0).long())


def test_positives_that_are_counted_together_now_and_then_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = scores(seed=7, images=200)
    whole = histograms(logits, targets)
    monkeypatch.setattr(metrics, "LOOSE_CELLS", 10)
    monkeypatch.setattr(metrics, "SCORES", 30)
    monkeypatch.setattr(metrics, "ROWS", 5)
    parts = histograms(logits, targets, 7)
    assert torch.equal(whole.all, parts.all) and torch.equal(positive(whole), positive(parts))
    torch.testing.assert_close(whole.average_precision(), parts.average_precision(), equal_nan=True)


def test_histograms_of_several_processes_add_up() -> None:
    """Two processes, played by one: what is reduced is the sum of what both hand over in the same order."""
    logits, targets = scores(seed=8, images=90)
    whole = histograms(logits, targets)
    handed: list[Tensor] = []
    first, second = histograms(logits[:40], targets[:40]), histograms(logits[40:], targets[40:])
    second.sum_over(lambda tensor: handed.append(tensor.clone()))
    given = iter(handed)
    first.sum_over(lambda tensor: tensor.add_(next(given)))
    assert torch.equal(whole.all, first.all) and torch.equal(positive(whole), positive(first))
    assert next(given, None) is None


def test_an_empty_half_counts_nothing() -> None:
    empty = histograms(torch.zeros(0, 3), torch.zeros(0, 3))
    assert empty.average_precision().isnan().all() and empty.positives().tolist() == [0, 0, 0]


def test_the_state_is_two_kilobytes_a_label() -> None:
    counted = LabelHistograms(3000)
    targets = torch.zeros(64, 3000)
    targets[:, :30] = 1
    counted.update(torch.randn(64, 3000), targets)
    assert counted.nbytes < 1.01 * 3000 * BINS * 4


def test_scores_beyond_the_range_count_in_the_outer_bins() -> None:
    counted = histograms(torch.tensor([[-100.0], [-12.1], [12.1], [100.0]]), torch.tensor([[0.0], [0], [1], [1]]))
    assert (counted.all[0, 0], counted.all[0, -1]) == (2, 2)
    assert counted.average_precision().item() == 1


def test_half_precision_logits_count_as_well() -> None:
    logits, targets = scores(seed=5)
    half = logits.bfloat16()
    assert torch.equal(histograms(half, targets).all, histograms(half.double(), targets).all)


# --- top one --------------------------------------------------------------------------------------------------------


def test_top_one_looks_at_one_category_and_at_images_that_have_it() -> None:
    logits = torch.tensor([[9.0, 1, 0], [9, 0, 1], [9, 2, 1], [9, 2, 1]])
    targets = torch.tensor([[0.0, 1, 0], [1, 1, 0], [1, 0, 0], [0, 1, 1]])
    counter = TopOne(torch.tensor([1, 2]))
    counter.update(logits, targets)
    assert (counter.right.item(), counter.total.item()) == (2, 3)  # right, wrong, no such label, one of two
    assert counter.accuracy() == pytest.approx(2 / 3)


@given(SEEDS, st.integers(1, 70))
def test_top_one_adds_up_over_batches(seed: int, batch: int) -> None:
    logits, targets = scores(seed)
    labels = torch.tensor([1, 4, 7])
    counter = TopOne(labels)
    for start in range(0, len(logits), batch):
        counter.update(logits[start : start + batch], targets[start : start + batch])
    rows = [(targets[i, labels], logits[i, labels].argmax()) for i in range(len(logits)) if targets[i, labels].any()]
    assert counter.accuracy() == pytest.approx(np.mean([bool(truth[best]) for truth, best in rows]))


def test_top_one_of_nothing_is_nan() -> None:
    empty, unseen = TopOne(torch.tensor([], dtype=torch.int64)), TopOne(torch.tensor([11]))
    for counter in (empty, unseen):
        counter.update(*scores(seed=0))
        assert math.isnan(counter.accuracy())
