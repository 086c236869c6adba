"""thresholds.py: threshold.json, and the thresholds of a tag_metrics.csv.

python -m pytest tests/formats/test_thresholds.py
"""

import json
from pathlib import Path

import pytest

from tagger.files import UserError
from tagger.formats.thresholds import default_thresholds, read_tag_thresholds, read_thresholds
from tagger.formats.vocabulary import Vocabulary
from tests.helpers import ROOT, lines_of

VOCABULARY = Vocabulary(("general", "1girl", "solo", "hat", "miku", "wlop"), (9, 0, 0, 0, 4, 1))

DEFAULTS = {
    "general_threshold": 0.35,
    "character_threshold": 0.75,
    "artist_threshold": 0.75,
    "caption_threshold": 0.35,
    "tags_threshold": 0.35,
}


def thresholds_from(tmp_path: Path, text: str) -> dict[str, float]:
    (tmp_path / "threshold.json").write_text(text)
    return read_thresholds(tmp_path / "threshold.json", print)


def test_the_shipped_thresholds_are_the_readmes() -> None:
    assert read_thresholds(ROOT / "threshold.json", print) == {
        "general_threshold": 0.40,
        "character_threshold": 0.80,
        "artist_threshold": 0.70,
        "caption_threshold": 0.40,
        "tags_threshold": 0.45,
    }


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.json: no such file; name another"):
        read_thresholds(tmp_path / "gone.json", print, "name another")
    assert default_thresholds() == DEFAULTS


@pytest.mark.parametrize("key", DEFAULTS)
def test_a_missing_key_leaves_its_default(tmp_path: Path, key: str) -> None:
    given = {other: 0.5 for other in DEFAULTS if other != key}
    assert thresholds_from(tmp_path, json.dumps(given)) == given | {key: DEFAULTS[key]}


@pytest.mark.parametrize("value", [0, 1, 0.5])
def test_the_bounds_are_thresholds_too(tmp_path: Path, value: float) -> None:
    assert thresholds_from(tmp_path, json.dumps({"general_threshold": value}))["general_threshold"] == value


def test_an_unknown_key_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert thresholds_from(tmp_path, '{"gen_threshold": 0.9, "tags_threshold": 0.2}') == DEFAULTS | {
        "tags_threshold": 0.2
    }
    (line,) = lines_of(capsys.readouterr().out)
    assert "warning" in line and "threshold.json" in line and "gen_threshold" in line


@pytest.mark.parametrize("value", ["1.5", "-0.1", '"0.4"', "true", "null", "[0.4]", "NaN", "Infinity"])
def test_what_is_no_number_between_0_and_1_is_refused_by_its_key(tmp_path: Path, value: str) -> None:
    with pytest.raises(UserError, match=r"threshold\.json: artist_threshold is "):
        thresholds_from(tmp_path, f'{{"general_threshold": 0.4, "artist_threshold": {value}}}')


@pytest.mark.parametrize("text", ["", "{", "[0.4]", '{"general_threshold": 0.4,}', "general_threshold: 0.4"])
def test_what_is_not_json_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"threshold\.json: "):
        thresholds_from(tmp_path, text)


# --- tag_metrics.csv ------------------------------------------------------------------------------------------------


def test_each_tag_has_its_threshold(tmp_path: Path) -> None:
    levels = (0, 0.9, 0.1, 0.5, 0.2, 1)
    rows = [f"{name},0,1,,{level}," for name, level in zip(VOCABULARY.names, levels, strict=True)]
    rows.reverse()  # they are found by name
    (tmp_path / "m.csv").write_text("\n".join(["name,category,count,AP,threshold,F1", *rows, ""]))
    assert read_tag_thresholds(tmp_path / "m.csv", VOCABULARY) == list(levels)


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
