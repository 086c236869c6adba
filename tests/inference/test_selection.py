"""selection.py: automatic thresholds, thresholds per tag, and what is printed; the plain ones are in test_wdv3_pytorch.

python -m pytest tests/inference/test_selection.py
"""

import csv
import io
import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger.files import UserError
from tagger.formats.thresholds import default_thresholds, read_tag_thresholds
from tagger.formats.vocabulary import Vocabulary
from tagger.inference.output import CSV_COLUMNS, csv_row, to_record
from tagger.inference.selection import mcut, select, sigmoid

VOCABULARY = Vocabulary(("general", "1girl", "solo", "hat", "miku", "wlop"), (9, 0, 0, 0, 4, 1))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_mcut_is_the_middle_of_the_largest_gap(values: list[float]) -> None:
    """As the wd-tagger Space has it: t = difs.argmax(); (sorted[t] + sorted[t + 1]) / 2."""
    ordered = sorted(values, reverse=True)
    gaps = [upper - lower for upper, lower in pairwise(ordered)]
    place = gaps.index(max(gaps))
    assert mcut(values) == pytest.approx((ordered[place] + ordered[place + 1]) / 2)


def test_mcut_finds_each_groups_threshold_and_characters_have_a_floor() -> None:
    tagging = select("a", [0.9, 0.5, 0.45, 0.1, 0.04, 0.9], VOCABULARY, default_thresholds(), by_mcut=True)
    assert tagging.thresholds == {"general": pytest.approx(0.275), "character": 0.15, "artist": 0.15}
    assert tagging.tags == ["1girl", "solo"] and tagging.caption == ["1girl", "solo", "wlop"]


def test_thresholds_per_tag(tmp_path: Path) -> None:
    path = tmp_path / "tag_metrics.csv"
    path.write_text(
        "name,category,count,AP,threshold,F1\n"
        + "".join(
            f"{name},0,1,,{level},\n"
            for name, level in zip(VOCABULARY.names, (0, 0.9, 0.1, 0.5, 0.2, 0.3), strict=True)
        )
    )
    levels = read_tag_thresholds(path, VOCABULARY)
    tagging = select("a", [0.9, 0.8, 0.2, 0.5, 0.3, 0.3], VOCABULARY, default_thresholds(), per_tag=levels)
    assert tagging.caption == ["solo", "miku"] and tagging.thresholds["general"] is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,AP\n", "no column threshold"),
        ("name,threshold\n1girl,0.5\n", "no row for general"),
        ("name,threshold\ngeneral,high\n", "row 2: the threshold is 'high'"),
        ("name,threshold\ngeneral,nan\n", "row 2: the threshold is not between 0 and 1"),
        ("name,threshold\ngeneral\n", "row 2"),
        ('name,threshold\n"general,0.5\n', "not CSV"),
    ],
)
def test_unusable_thresholds_per_tag(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(UserError, match=rf"m\.csv: .*{words}"):
        read_tag_thresholds(tmp_path / "m.csv", VOCABULARY)


@given(st.floats(-2000, 2000))
def test_sigmoid(x: float) -> None:
    (p,) = sigmoid([x])
    assert 0 <= p <= 1
    assert p == pytest.approx(math.exp(min(x, 0)) / (math.exp(min(x, 0)) + math.exp(min(-x, 0))), abs=1e-12)


def test_a_csv_row_survives_odd_names() -> None:
    vocabulary = Vocabulary(('don\'t_say_"lazy"', "<o>_<o>", "a:b", "初音ミク"), (0, 0, 0, 4))
    tagging = select("dir, with comma/a.png", [0.9, 0.8, 0.7, 0.95], vocabulary, default_thresholds())
    record = to_record(tagging, ", ".join(tagging.caption), ", ".join(tagging.tags), "")
    out = io.StringIO()
    csv.writer(out).writerow(csv_row(record))
    (row,) = csv.reader(io.StringIO(out.getvalue()))
    said = dict(zip(CSV_COLUMNS, row, strict=True))
    assert said["image"] == "dir, with comma/a.png"
    assert said["general"] == 'don\'t_say_"lazy":0.9000 <o>_<o>:0.8000 a:b:0.7000'
    assert said["character"] == "初音ミク:0.9500"
