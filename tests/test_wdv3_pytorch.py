"""wdv3_pytorch.py: from probabilities to text, thresholds and where they come from, and the model behind them.

python -m pytest tests/test_wdv3_pytorch.py
"""

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import models
import wdv3_pytorch as script
from models import make_config
from tagger.files import UserError
from tagger.formats.checkpoint import read_config
from tagger.formats.vocabulary import Vocabulary, read_vocabulary
from tagger.inference import output
from tests.helpers import ROOT, error_line, lines_of, run_script, write_csv

# The README's example. whiskey passes no threshold.
EXAMPLE = {
    "general": (9, 0.95),
    "sensitive": (9, 0.04),
    "questionable": (9, 0.007),
    "explicit": (9, 0.003),
    "whiskey": (0, 0.12),
    "1girl": (0, 0.92),
    "m16a1_(girls'_frontline)": (4, 0.88),
    "artist_name_1": (1, 0.85),
}
EXAMPLE_TEXT = """\
Caption: 1girl, m16a1_(girls'_frontline), artist_name_1
Tags: 1girl, m16a1_(girls'_frontline)
Ratings:
  general: 0.950
Character tags (threshold=0.80):
  m16a1_(girls'_frontline): 0.880
General tags (threshold=0.40):
  1girl: 0.920
Artist tags (threshold=0.70):
  artist_name_1: 0.850
"""
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
PROBABILITY = st.floats(0, 1)


def tagging_of(said: dict[str, tuple[int, float]], **thresholds: float) -> tuple[script.Tagging, dict[str, float]]:
    vocabulary = Vocabulary(tuple(said), tuple(category for category, _ in said.values()))
    levels = DEFAULTS | {f"{name}_threshold": level for name, level in thresholds.items()}
    return script.select(Path("a.png"), [p for _, p in said.values()], vocabulary, levels), levels


def record_of(tagging: script.Tagging) -> dict[str, Any]:
    return script.to_record(tagging, ", ".join(tagging.caption), ", ".join(tagging.tags), None)


# --- from probabilities to text -------------------------------------------------------------------------------------


def test_the_example_of_the_readme() -> None:
    levels = script.read_thresholds(ROOT / "threshold.json")
    tagging, _ = tagging_of(EXAMPLE, **{key[:-10]: level for key, level in levels.items()})
    assert output.format_text(record_of(tagging), tagging.thresholds) == EXAMPLE_TEXT.rstrip("\n")


@pytest.mark.parametrize(("group", "category"), [("general", 0), ("character", 4), ("artist", 1)])
def test_a_tag_passes_above_its_threshold_and_not_at_it(group: str, category: int) -> None:
    said = {"at": (category, 0.5), "above": (category, 0.5000001), "below": (category, 0.4999999)}
    tagging, _ = tagging_of(said, **{group: 0.5})
    assert list(getattr(tagging, group)) == ["above"]


@pytest.mark.parametrize("line", ["caption", "tags"])
def test_the_caption_and_the_tags_have_thresholds_of_their_own(line: str) -> None:
    said = {"at": (0, 0.5), "above": (0, 0.6), "character_at": (4, 0.5), "character_above": (4, 0.6)}
    tagging, _ = tagging_of(said, general=0.1, character=0.1, **{line: 0.5})
    assert getattr(tagging, line) == ["above", "character_above"]
    assert list(tagging.general) == ["above", "at"]


@given(st.lists(st.tuples(st.sampled_from([0, 1, 4, 9]), PROBABILITY), max_size=12), st.tuples(*[PROBABILITY] * 5))
def test_the_definitions(said: list[tuple[int, float]], levels: tuple[float, ...]) -> None:
    names = {f"tag{number}": given for number, given in enumerate(said)}
    general, character, artist, caption, listed = levels
    tagging, _ = tagging_of(names, general=general, character=character, artist=artist, caption=caption, tags=listed)

    def passing(category: int, *levels: float) -> list[str]:
        found = [name for name, (number, p) in names.items() if number == category and p > max(levels)]
        return sorted(found, key=lambda name: -names[name][1])

    assert (list(tagging.general), list(tagging.character), list(tagging.artist)) == (
        passing(0, general),
        passing(4, character),
        passing(1, artist),
    )
    shared = [(0, general), (4, character)]
    assert tagging.caption == [name for number, p in [*shared, (1, artist)] for name in passing(number, p, caption)]
    assert tagging.tags == [name for number, p in shared for name in passing(number, p, listed)]
    assert list(tagging.ratings) == passing(9, -1)


def test_only_the_likeliest_rating_is_printed_however_unlikely() -> None:
    said = {"general": (9, 0.02), "sensitive": (9, 0.03), "questionable": (9, 0.01), "explicit": (9, 0.0)}
    tagging, _ = tagging_of(said)
    assert output.format_text(record_of(tagging), tagging.thresholds).splitlines() == [
        "Caption: ",
        "Tags: ",
        "Ratings:",
        "  sensitive: 0.030",
        "Character tags (threshold=0.75):",
        "General tags (threshold=0.35):",
        "Artist tags (threshold=0.75):",
    ]


def test_json_has_every_rating_and_unrounded_probabilities() -> None:
    tagging, _ = tagging_of(EXAMPLE | {"初音ミク": (4, 1 - 1e-12)})
    assert record_of(tagging) == {
        "image": "a.png",
        "caption": "1girl, 初音ミク, m16a1_(girls'_frontline), artist_name_1",
        "tags": "1girl, 初音ミク, m16a1_(girls'_frontline)",
        "ratings": {"general": 0.95, "sensitive": 0.04, "questionable": 0.007, "explicit": 0.003},
        "general": {"1girl": 0.92},
        "character": {"初音ミク": 1 - 1e-12, "m16a1_(girls'_frontline)": 0.88},
        "artist": {"artist_name_1": 0.85},
    }


# --- threshold.json -------------------------------------------------------------------------------------------------


def thresholds_from(tmp_path: Path, text: str) -> dict[str, float]:
    (tmp_path / "threshold.json").write_text(text)
    return script.read_thresholds(tmp_path / "threshold.json")


def test_the_shipped_thresholds_are_the_readmes() -> None:
    assert script.read_thresholds(ROOT / "threshold.json") == {
        "general_threshold": 0.40,
        "character_threshold": 0.80,
        "artist_threshold": 0.70,
        "caption_threshold": 0.40,
        "tags_threshold": 0.45,
    }


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert script.read_thresholds(tmp_path / "gone.json") == DEFAULTS


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
    (line,) = lines_of(capsys.readouterr().err)
    assert "warning" in line and "threshold.json" in line and "gen_threshold" in line


@pytest.mark.parametrize("value", ["1.5", "-0.1", '"0.4"', "true", "null", "[0.4]", "NaN", "Infinity"])
def test_what_is_no_number_between_0_and_1_is_refused_by_its_key(tmp_path: Path, value: str) -> None:
    with pytest.raises(UserError, match=r"threshold\.json: artist_threshold is "):
        thresholds_from(tmp_path, f'{{"general_threshold": 0.4, "artist_threshold": {value}}}')


@pytest.mark.parametrize("text", ["", "{", "[0.4]", '{"general_threshold": 0.4,}', "general_threshold: 0.4"])
def test_what_is_not_json_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"threshold\.json: "):
        thresholds_from(tmp_path, text)


# --- the command line, with probabilities made by hand --------------------------------------------------------------


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint whose model says EXAMPLE of every image but of those called corrupt."""

    logits = [math.log(p / (1 - p)) for _, p in EXAMPLE.values()]

    def predict(paths: Sequence[Path], *_: object) -> Iterator[tuple[Path, list[float] | UserError]]:
        for path in paths:
            yield path, UserError(f"{path}: damaged") if path.stem == "corrupt" else logits

    monkeypatch.setattr(script, "predictions", predict)
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
    assert captured.out == EXAMPLE_TEXT and lines_of(captured.err) == ["wdv3_pytorch.py: 1 images from the cache"]


@pytest.mark.parametrize(("flag", "key"), FLAGS.items())
def test_a_flag_wins_over_the_file(example: Path, monkeypatch: pytest.MonkeyPatch, flag: str, key: str) -> None:
    used: list[dict[str, float]] = []
    original = script.select

    def spy(*arguments: Any, **options: Any) -> script.Tagging:
        used.append(arguments[3])
        return original(*arguments, **options)

    monkeypatch.setattr(script, "select", spy)
    (example / "threshold.json").write_text(json.dumps(dict.fromkeys(DEFAULTS, 0.6)))
    assert tag(flag, 0.1) == tag(flag.replace("_", "-"), 0) == tag() == 0
    others = dict.fromkeys(DEFAULTS, 0.6)
    assert used == [others | {key: 0.1}, others | {key: 0}, others]


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


def test_in_a_process_of_its_own(checkpoint: Path, dataset: Path, tmp_path: Path) -> None:
    done = run_script("wdv3_pytorch.py", "--no_cache", *arguments_for(checkpoint, dataset / "03.jpg"), cwd=tmp_path)
    assert done.returncode == 0
    assert re.fullmatch(r"wdv3_pytorch\.py: (cpu|cuda), float32: 1 images, [0-9.]+ images/s\n", done.stderr)
    first, second, third = done.stdout.splitlines()[:3]
    assert first.startswith("Caption: ") and second.startswith("Tags: ") and third == "Ratings:"
