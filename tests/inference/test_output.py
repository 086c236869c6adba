"""output.py: what each format says of an image.

python -m pytest tests/inference/test_output.py
"""

import csv
import dataclasses
import io
import json
from collections.abc import Mapping

from tagger.formats.thresholds import default_thresholds, read_thresholds
from tagger.formats.vocabulary import Vocabulary
from tagger.inference.artist_strings import ArtistSettings
from tagger.inference.captions import Style
from tagger.inference.output import CSV_COLUMNS, FORMATS, Answer, csv_columns, make_answer
from tagger.inference.selection import SelectionRule, select
from tests.helpers import EXAMPLE, EXAMPLE_TEXT, ROOT


def answer_of(
    said: dict[str, tuple[int, float]], thresholds: Mapping[str, float] = {}, syntax: str | None = None
) -> Answer:
    """The answer of tags with the given categories and probabilities."""
    vocabulary = Vocabulary(tuple(said), tuple(category for category, _ in said.values()))
    rule = SelectionRule({**default_thresholds(), **thresholds})
    tagging = select("a.png", dict(enumerate(p for _, p in said.values())), vocabulary, rule)
    return make_answer(tagging, vocabulary.index, Style(), ArtistSettings(syntax))


def written(output_format: str, *answers: Answer, titles: bool = False) -> str:
    """All that a format makes of answers."""
    file = io.StringIO()
    writer = FORMATS[output_format](file, titles, csv_columns((), with_prompts=False))
    for answer in answers:
        writer.add(answer)
    writer.end()
    return file.getvalue()


def test_the_example_of_the_readme() -> None:
    answer = answer_of(EXAMPLE, read_thresholds(ROOT / "threshold.json", print))
    assert written("text", answer) == EXAMPLE_TEXT
    assert written("text", answer, answer, titles=True) == f"== a.png ==\n{EXAMPLE_TEXT}" * 2


def test_an_artist_string_is_a_line() -> None:
    some, none = (answer_of(EXAMPLE, {"artist_threshold": level}, "nai") for level in (0.5, 0.9))
    assert written("text", some).splitlines()[-1] == "Artist string: 1.35::artist:artist name 1 ::"
    assert written("text", none).splitlines()[-1] == "Artist string: no artist above the threshold"
    assert some.record()["artist_string"] == "1.35::artist:artist name 1 ::" and none.record()["artist_string"] == ""


def test_json_of_any_number_of_answers() -> None:
    answer = answer_of(EXAMPLE)
    for count in range(3):
        answers, records = [answer] * count, [answer.record()] * count
        assert json.loads(written("json", *answers)) == records
        assert list(map(json.loads, written("jsonl", *answers).splitlines())) == records


def test_only_the_likeliest_rating_is_printed_however_unlikely() -> None:
    said = {"general": (9, 0.02), "sensitive": (9, 0.03), "questionable": (9, 0.01), "explicit": (9, 0.0)}
    assert written("text", answer_of(said)).splitlines() == [
        "Caption: ",
        "Tags: ",
        "Ratings:",
        "  sensitive: 0.030",
        "Character tags (threshold=0.75):",
        "General tags (threshold=0.35):",
        "Artist tags (threshold=0.75):",
    ]


def test_json_has_every_rating_and_unrounded_probabilities() -> None:
    assert answer_of(EXAMPLE | {"初音ミク": (4, 1 - 1e-12)}).record() == {
        "image": "a.png",
        "caption": "1girl, 初音ミク, m16a1_(girls'_frontline), artist_name_1",
        "tags": "1girl, 初音ミク, m16a1_(girls'_frontline)",
        "ratings": {"general": 0.95, "sensitive": 0.04, "questionable": 0.007, "explicit": 0.003},
        "general": {"1girl": 0.92},
        "character": {"初音ミク": 1 - 1e-12, "m16a1_(girls'_frontline)": 0.88},
        "artist": {"artist_name_1": 0.85},
    }


def test_csv_survives_odd_names() -> None:
    said = {'don\'t_say_"lazy"': (0, 0.9), "<o>_<o>": (0, 0.8), "a:b": (0, 0.7), "初音ミク": (4, 0.95)}
    answer = answer_of(said)
    answer = dataclasses.replace(answer, tagging=dataclasses.replace(answer.tagging, image="dir, a/a.png"))
    (row,) = csv.DictReader(io.StringIO(written("csv", answer), newline=""))
    assert tuple(row) == (*CSV_COLUMNS, "artist_string")
    assert row["image"] == "dir, a/a.png"
    assert row["general"] == 'don\'t_say_"lazy":0.9000 <o>_<o>:0.8000 a:b:0.7000'
    assert row["character"] == "初音ミク:0.9500"
    assert row["caption"] == 'don\'t_say_"lazy", <o>_<o>, a:b, 初音ミク' and row["artist_string"] == ""
