"""selection.py: what passes a threshold, and thresholds that are found or are each tag's own.

python -m pytest tests/inference/test_selection.py
"""

import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger.formats.thresholds import GROUPS, default_thresholds
from tagger.formats.vocabulary import Vocabulary
from tagger.inference.selection import SelectionRule, Tagging, mcut, select, sigmoid

VOCABULARY = Vocabulary(("general", "1girl", "solo", "hat", "miku", "wlop"), (9, 0, 0, 0, 4, 1))
PROBABILITY = st.floats(0, 1)


def tagging_of(said: dict[str, tuple[int, float]], **thresholds: float) -> Tagging:
    """What is selected of tags with the given categories and probabilities."""
    vocabulary = Vocabulary(tuple(said), tuple(category for category, _ in said.values()))
    levels = default_thresholds() | {f"{name}_threshold": level for name, level in thresholds.items()}
    return select(Path("a.png"), dict(enumerate(p for _, p in said.values())), vocabulary, SelectionRule(levels))


@pytest.mark.parametrize(("group", "category"), [("general", 0), ("character", 4), ("artist", 1)])
def test_a_tag_passes_above_its_threshold_and_not_at_it(group: str, category: int) -> None:
    said = {"at": (category, 0.5), "above": (category, 0.5000001), "below": (category, 0.4999999)}
    tagging = tagging_of(said, **{group: 0.5})
    assert list(tagging.groups[group]) == ["above"]


@pytest.mark.parametrize("line", ["caption", "tags"])
def test_the_caption_and_the_tags_have_thresholds_of_their_own(line: str) -> None:
    said = {"at": (0, 0.5), "above": (0, 0.6), "character_at": (4, 0.5), "character_above": (4, 0.6)}
    tagging = tagging_of(said, general=0.1, character=0.1, **{line: 0.5})
    assert getattr(tagging, line) == ["above", "character_above"]
    assert list(tagging.groups["general"]) == ["above", "at"]


@given(st.lists(st.tuples(st.sampled_from([0, 1, 4, 9]), PROBABILITY), max_size=12), st.tuples(*[PROBABILITY] * 5))
def test_the_definitions(said: list[tuple[int, float]], levels: tuple[float, ...]) -> None:
    names = {f"tag{number}": given for number, given in enumerate(said)}
    general, character, artist, caption, listed = levels
    tagging = tagging_of(names, general=general, character=character, artist=artist, caption=caption, tags=listed)

    def passing(category: int, *levels: float) -> list[str]:
        found = [name for name, (number, p) in names.items() if number == category and p > max(levels)]
        return sorted(found, key=lambda name: -names[name][1])

    assert tuple(list(tagging.groups[name]) for name in GROUPS) == (
        passing(0, general),
        passing(4, character),
        passing(1, artist),
    )
    shared = [(0, general), (4, character)]
    assert tagging.caption == [name for number, p in [*shared, (1, artist)] for name in passing(number, p, caption)]
    assert tagging.tags == [name for number, p in shared for name in passing(number, p, listed)]
    assert list(tagging.ratings) == passing(9, -1)


# --- thresholds of other kinds --------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_mcut_is_the_middle_of_the_largest_gap(values: list[float]) -> None:
    """As the wd-tagger Space has it: t = difs.argmax(); (sorted[t] + sorted[t + 1]) / 2."""
    ordered = sorted(values, reverse=True)
    gaps = [upper - lower for upper, lower in pairwise(ordered)]
    place = gaps.index(max(gaps))
    assert mcut(values) == pytest.approx((ordered[place] + ordered[place + 1]) / 2)


def test_mcut_finds_each_groups_threshold_and_characters_have_a_floor() -> None:
    rule = SelectionRule(default_thresholds(), by_mcut=True)
    tagging = select("a", dict(enumerate([0.9, 0.5, 0.45, 0.1, 0.04, 0.9])), VOCABULARY, rule)
    assert tagging.thresholds == {"general": pytest.approx(0.275), "character": 0.15, "artist": 0.15}
    assert tagging.tags == ["1girl", "solo"] and tagging.caption == ["1girl", "solo", "wlop"]


def test_thresholds_per_tag() -> None:
    rule = SelectionRule(default_thresholds(), per_tag=(0, 0.9, 0.1, 0.5, 0.2, 0.3))
    tagging = select("a", dict(enumerate([0.9, 0.8, 0.2, 0.5, 0.3, 0.3])), VOCABULARY, rule)
    assert tagging.caption == ["solo", "miku"] and tagging.thresholds["general"] is None


@given(st.floats(-2000, 2000))
def test_sigmoid(x: float) -> None:
    (p,) = sigmoid([x])
    assert 0 <= p <= 1
    assert p == pytest.approx(math.exp(min(x, 0)) / (math.exp(min(x, 0)) + math.exp(min(-x, 0))), abs=1e-12)
