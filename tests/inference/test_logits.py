"""logits.py: which labels are kept of many, an entry's form, and that no answer depends on what was left out.

python -m pytest tests/inference/test_logits.py
"""

import math
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger.formats.thresholds import default_thresholds, groups_of
from tagger.formats.vocabulary import Vocabulary
from tagger.inference.cache import PredictionCache
from tagger.inference.logits import ENTRY_BYTES, Logits, likeliest, packed, softmax_total, unpacked
from tagger.inference.predictor import predictions
from tagger.inference.selection import Demand, Request, SelectionRule, select
from tests.inference.test_predictor import Counted, grey_images

LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=30)


@given(LOGITS, st.integers(1, 30), st.sets(st.integers(0, 29)))
def test_what_is_left_out_is_below_the_floor(values: list[float], most: int, always: set[int]) -> None:
    kept = [label for label in sorted(always) if label < len(values)]
    found = likeliest(values, kept, most=most)
    assert found.count == len(values) and list(found.labels) == sorted(found.labels) and {*kept} <= {*found.labels}
    assert list(found.values) == [values[label] for label in found.labels]
    left_out = {*range(len(values))} - {*found.labels}
    assert all(values[label] < found.floor for label in left_out)
    if not found.is_complete:
        assert len(left_out) >= len(values) - most - len(kept)
        assert all(values[label] >= found.floor for label in {*found.labels} - {*kept})


@pytest.mark.parametrize(("count", "complete"), [(10_861, True), (14_900, True), (15_100, False), (200_000, False)])
def test_an_entry_is_small_whatever_the_vocabulary(count: int, complete: bool) -> None:
    values = [math.sin(number) for number in range(count)]
    found = likeliest(values, always=(0, 1, 2, 3))
    assert found.is_complete == complete
    assert (0 if complete else 0.99) * ENTRY_BYTES < len(packed(found)) <= ENTRY_BYTES


@given(LOGITS, st.integers(1, 30), st.booleans())
def test_an_entry_survives_the_round_trip(values: list[float], most: int, with_total: bool) -> None:
    found = likeliest(values, with_total=with_total, most=most)
    again = unpacked(packed(found), len(values))
    assert again is not None and list(again.labels) == list(found.labels)
    assert (again.count, again.values, again.floor, again.total) == (
        found.count,
        found.values,
        found.floor,
        found.total,
    )


@pytest.mark.parametrize("most", [40, 5])
def test_what_is_no_entry_or_a_damaged_one_is_none(most: int) -> None:
    data = packed(likeliest([math.sin(number) for number in range(40)], most=most))
    assert unpacked(data, 40) is not None and unpacked(data, 41) is None
    for end in range(len(data)):
        assert unpacked(data[:end], 40) is None
        assert unpacked(data[:end] + bytes([data[end] ^ 1]) + data[end + 1 :], 40) is None
    assert unpacked(data + b"\0", 40) is None
    assert unpacked(array("f", [0.5] * 40).tobytes(), 40) is None  # an entry of version 1


# --- answers --------------------------------------------------------------------------------------------------------

PROBABILITIES = st.sampled_from([0.0, 0.001, 0.05, 0.2, 0.35, 0.5, 0.75, 1.0])
RULES = st.one_of(
    st.builds(
        lambda levels, inclusive, candidates: SelectionRule(
            dict(zip(default_thresholds(), levels, strict=True)), inclusive=inclusive, candidates=candidates
        ),
        st.tuples(*[PROBABILITIES] * 5),
        st.booleans(),
        st.integers(0, 3),
    ),
    st.builds(
        lambda levels, inclusive: SelectionRule(default_thresholds(), per_tag=levels, inclusive=inclusive),
        st.lists(PROBABILITIES, min_size=12, max_size=12),
        st.booleans(),
    ),
    st.just(SelectionRule(default_thresholds(), by_mcut=True)),
)
# Equal ones and those that are just at a threshold are the hard ones.
LEVELS = st.sampled_from([-30.0, -6.0, math.log(0.35 / 0.65), math.log(0.05 / 0.95), 0.0, 1.0, math.log(3), 9.0])
IMAGES = st.lists(LEVELS, min_size=12, max_size=12)
KINDS = st.lists(st.sampled_from([9, 0, 0, 4, 1, 1]), min_size=12, max_size=12)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@given(values=IMAGES, kinds=KINDS, rule=RULES, most=st.integers(1, 11))
def test_an_answer_from_what_is_kept_is_the_same_to_the_digit(
    activation: str, values: list[float], kinds: list[int], rule: SelectionRule, most: int
) -> None:
    vocabulary = Vocabulary(tuple(f"tag{number}" if number != 5 else "" for number in range(12)), tuple(kinds))
    request = Request(rule.least(groups_of(vocabulary)), rule.candidates)
    demand = Demand(request, vocabulary, activation)
    everything = Demand(Request(), vocabulary, activation)
    whole = Logits.of(values)
    expected = select("a", everything.probabilities(whole), vocabulary, rule)
    assert select("a", demand.probabilities(whole), vocabulary, rule) == expected
    kept = likeliest(values, sorted(demand.ratings), with_total=activation == "softmax", most=most)
    again = unpacked(packed(kept), 12)
    assert again is not None
    if demand.is_met_by(again):
        assert select("a", demand.probabilities(again), vocabulary, rule) == expected
    else:
        assert not again.is_complete


def test_softmax_divides_by_the_sum_over_all_labels() -> None:
    values = [0.0, 5.0, 3.0, 4.0]
    kept = likeliest(values, with_total=True, most=2)
    found = Demand(Request(least=0.5), activation="softmax").probabilities(kept)
    assert found[1] == math.exp(0) / softmax_total(array("f", values)) and 3 not in found


@pytest.mark.parametrize(
    ("request_", "met"),
    [
        (Request(least=0.35), True),
        (Request(least=0.001), False),
        (Request(), False),
        (Request(least=0.35, artists=2), True),
        (Request(least=0.35, artists=3), False),
    ],
)
def test_what_is_asked_below_the_floor_is_not_met(request_: Request, met: bool) -> None:
    kinds = (9, 0, 0, 1, 1, 1)
    vocabulary = Vocabulary(("general", "1girl", "solo", "wlop", "as109", "rella"), kinds)
    demand = Demand(request_, vocabulary)
    kept = likeliest([-9.0, 3.0, -8.0, -4.0, -5.0, -6.0], always=[0], most=3)
    assert list(kept.labels) == [0, 1, 3, 4]
    assert demand.is_met_by(kept) == met
    assert not Demand(request_, Vocabulary(vocabulary.names, (9, 0, 9, 1, 1, 1))).is_met_by(kept)  # edited since


def test_the_model_is_asked_again_where_the_entry_does_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tagger.inference.logits.ENTRY_BYTES", 39)  # one of two labels
    paths = grey_images(tmp_path, 3)
    cache = PredictionCache(tmp_path / "c.sqlite")
    model = Counted(batch_size=4)
    few, everything = Demand(Request(least=0.8)), Demand()
    first = list(predictions(paths, model, cache, b"key", few))
    assert list(predictions(paths, model, cache, b"key", few)) == first and model.batches == [3]
    for _ in range(2):  # what is computed anew is no other entry
        whole = [logits for _, logits in predictions(paths, model, cache, b"key", everything)]
        assert all(isinstance(logits, Logits) and logits.is_complete for logits in whole)
        assert list(predictions(paths, model, cache, b"key", few)) == first
    assert model.batches == [3, 3, 3] and model.known == 9
    assert [logits for _, logits in predictions(paths, model, None, b"key", everything)] == whole
    cache.close()
