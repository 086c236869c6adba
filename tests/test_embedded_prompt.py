"""wdv3_pytorch.py --embedded_prompt only: the run without a model, as it is called.

python -m pytest tests/test_embedded_prompt.py
"""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import wdv3_pytorch as script
from tests.helpers import ROOT, error_line, lines_of, write_csv
from tests.inference.embedded.files import INFOTEXT, SETTINGS, encoded, hidden, novelai_png, png, saved

NAI = "1girl, 1.2::artist:aoi kumo ::, mori, -1::artist:grau::, A girl stands under a tree all day."
EMPTY: dict[str, Any] = {
    "prompt": None,
    "negative_prompt": None,
    "character_prompts": [],
    "generator": None,
    "prompt_source": None,
    "artists_in_prompt": {},
    "artists_unwanted": {},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a vocabulary, a picture of NovelAI, one of A1111, and one without a prompt."""
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "selected_tags.csv", ["general,9", "1girl,0", "aoi_kumo,1", "mori,1"])
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    saved(pictures, novelai_png(NAI, ["girl, 0.8::artist:sabi::"]), "a.png")
    saved(
        pictures,
        png(("tEXt", "parameters", f"(artist:aoi kumo:1.1), 1girl\nNegative prompt: bad\n{SETTINGS}")),
        "b.png",
    )
    saved(pictures, encoded("PNG"), "c.png")
    return tmp_path


def only(*flags: object) -> int:
    return script.main(["--embedded_prompt", "only", *map(str, flags)])


def records(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return json.loads(capsys.readouterr().out)


def test_json_says_all_of_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert only("--image_file", "pictures", "--output_format", "json") == 0
    novelai, webui, none = records(capsys)
    assert novelai == {
        "image": str(Path("pictures/a.png")),
        "prompt": NAI,
        "negative_prompt": "lowres, artist:never wanted",
        "character_prompts": ["girl, 0.8::artist:sabi::"],
        "generator": "novelai",
        "prompt_source": "png:Comment",
        "artists_in_prompt": {"aoi_kumo": 1.2, "mori": 1.0, "sabi": 0.8},
        "artists_unwanted": {"grau": -1.0},
    }
    assert (webui["generator"], webui["artists_in_prompt"]) == ("a1111", {"aoi_kumo": 1.1})
    assert none == {"image": str(Path("pictures/c.png")), **EMPTY}


def test_text_and_csv(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert only("--image_file", "pictures/b.png", "pictures/c.png", "--artist_string", "nai") == 0
    assert capsys.readouterr().out == (
        f"== {Path('pictures/b.png')} ==\nPrompt: (artist:aoi kumo:1.1), 1girl\nNegative prompt: bad\n"
        "Artists in the prompt (A1111 or Forge, png:parameters):\n  aoi_kumo: 1.1\n"
        "Artist string of the prompt: 1.10::artist:aoi kumo::\n"
        f"== {Path('pictures/c.png')} ==\nPrompt: none in the file\n"
    )
    assert only("--image_file", "pictures", "--output_format", "csv", "--output", "out.csv") == 0
    rows = list(csv.DictReader(io.StringIO((folder / "out.csv").read_text(encoding="utf-8"))))
    assert rows[0]["artists_in_prompt"] == "aoi_kumo:1.2 mori:1 sabi:0.8" and rows[2]["prompt"] == ""


def test_a_prompt_of_many_lines_cannot_look_like_an_answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(folder, png(("tEXt", "parameters", "a\nCaption: b\n== c ==")), "d.png")
    assert only("--image_file", "d.png") == 0
    assert capsys.readouterr().out.startswith("Prompt: a\n  Caption: b\n  == c ==\nArtists in the prompt")


@pytest.mark.parametrize("format", ["text", "json", "jsonl", "csv"])
def test_an_output_is_known_again_and_somebodys_notes_are_not(format: str, folder: Path) -> None:
    for _ in range(2):
        assert only("--image_file", "pictures", "--output_format", format, "--output", "out") == 0
    (folder / "out").write_text("Prompt: what I used\nmore notes", encoding="utf-8")
    assert only("--image_file", "pictures", "--output_format", format, "--output", "out") == 2


def test_artists_in_another_syntax_and_of_several_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--image_file", "pictures", "--pool", "--artist_string", "sdxl")
    assert only(*flags, "--output_format", "json") == 0
    (record,) = records(capsys)
    assert record["image"] == "3 images together" and record["prompt"] is None
    assert record["artists_in_prompt"] == {"aoi_kumo": 1.15, "mori": 1.0, "sabi": 0.8}
    assert record["artists_share_of_files"] == {"aoi_kumo": 0.6667, "mori": 0.3333, "sabi": 0.3333}
    assert record["artists_unwanted"] == {"grau": -1.0}
    assert record["prompt_artist_string"] == "(aoi kumo:1.15), (mori:1.00), (sabi:0.80)"
    assert only(*flags) == 0
    assert "  aoi_kumo: 1.15 (in 2 of 3 files)\n" in capsys.readouterr().out


def test_captions_from_prompts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--image_file", "pictures", "--write_captions", "--underscores", "space", "--exclude_tags", "mori")
    assert only(*flags, "--dry_run", "--output_format", "json") == 0
    assert [record.get("caption") for record in records(capsys)] == [
        "1girl, aoi kumo, girl, sabi",
        "aoi kumo, 1girl",
        None,
    ]
    assert only(*flags) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and "1 piece of the prompt left out: sentences, no tags" in captured.err
    assert (folder / "pictures/a.txt").read_text() == "1girl, aoi kumo, girl, sabi"
    assert not (folder / "pictures/c.txt").exists()
    (folder / "pictures/b.txt").write_text("mine")
    assert only(*flags, "--existing", "append") == 0
    assert (folder / "pictures/b.txt").read_text() == "mine, aoi kumo, 1girl"


def test_a_report_without_a_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert only("--image_file", "pictures", "--report", "report.html", "--artist_string", "booru") == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert '"has_answers":false' in page and '"booru":"aoi_kumo, mori, sabi"' in page
    assert capsys.readouterr().out == ""


def test_the_vocabulary_tells_names_without_a_prefix_from_tags(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(folder / "other.csv", ["general,9", "1girl,1", "mori,0"])
    (folder / "tag_aliases.csv").write_text("alias,name\naoi_kumo,kumo\n")
    flags = ("--image_file", "pictures/a.png", "--output_format", "json")
    assert only(*flags, "--tags_csv", "other.csv") == 0
    assert records(capsys)[0]["artists_in_prompt"] == {"1girl": 1.0, "kumo": 1.2, "sabi": 0.8}
    (folder / "selected_tags.csv").unlink()
    assert only(*flags) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)[0]["artists_in_prompt"] == {"aoi_kumo": 1.2, "sabi": 0.8}
    assert "no ./selected_tags.csv: only artists with a prefix are known" in captured.err
    assert only(*flags, "--tags_csv", "missing.csv") == 2


def test_what_cannot_be_read_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(folder, png(("tEXt", "parameters", b"x" * 2_000_000)), "big.png")
    assert only("--image_file", "big.png", "--output_format", "json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)[0]["prompt"] is None
    assert lines_of(captured.err) == [
        "wdv3_pytorch.py: warning: big.png: a text of 2,000,011 bytes is not read; the limit is 1,048,576"
    ]
    (folder / "gone.png").symlink_to("nowhere")
    assert only("--image_file", "pictures", "gone.png") == 2


@pytest.mark.parametrize(
    "flags",
    [
        ("--model_repo", "a/b"),
        ("--export_onnx", "m.onnx"),
        ("--tag_order", "csv"),
        ("--pool", "--write_captions"),
        ("--dry_run",),
    ],
)
def test_flags_that_do_not_go_with_it(flags: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        only("--image_file", "pictures", *flags)
    assert "error" in error_line(capsys.readouterr().err)


def test_nothing_heavy_is_imported(folder: Path) -> None:
    """Pillow and numpy neither, as long as no pixels are looked at."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import wdv3_pytorch as s; "
        "s.main(['--embedded_prompt', 'only', '--image_file', sys.argv[1]]); "
        "print(*{n.partition('.')[0] for n in sys.modules} & {'torch', 'timm', 'numpy', 'PIL', 'pandas'})"
    )
    environment = {**os.environ, "PYTHONPATH": ""}
    for name, imported in (("a.png", ""), ("c.png", "PIL numpy")):
        command = [sys.executable, "-c", code, str(folder / "pictures" / name)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert " ".join(sorted(done.stdout.splitlines()[-1].split())) == imported


def test_hidden_prompts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(folder, encoded("PNG", hidden(INFOTEXT)), "h.png")
    assert only("--image_file", "h.png", "--output_format", "json") == 0
    assert records(capsys)[0]["prompt_source"] == "stealth_pngcomp"
