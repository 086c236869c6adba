"""wdv3_pytorch.py with public taggers: artists from a second model, thresholds of theirs, what is assumed and refused.

python -m pytest tests/test_public_taggers.py
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import train_pytorch
import wdv3_pytorch as script
from tagger.files import UserError
from tagger.formats.families.registry import REFUSED, open_folder
from tagger.inference.engines import onnx_engine
from tagger.preparation import from_stages
from tagger.training import pretrained
from tests.families import CL2_THRESHOLDS, MINIATURES, PREPROCESS, Graph, timm_logits, wd_pixels, write_wd_csv
from tests.helpers import ROOT, error_line, run_script, write_pair

JSON = ["--output_format", "jsonl", "--device", "cpu"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a picture and a threshold.json, and an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    small = np.random.default_rng(5).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    Image.fromarray(small).resize((150, 210)).save(tmp_path / "a.png")
    (tmp_path / "threshold.json").write_text((ROOT / "threshold.json").read_text())
    return tmp_path


def make(name: str, folder: Path) -> Path:
    folder.mkdir()
    MINIATURES[name].make(folder)
    return folder


def run_in(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, encoding="utf-8")


def answer(capsys: Any, *flags: object, code: int = 0) -> dict[str, Any]:
    assert script.main(["--image_file", "a.png", *map(str, flags), *JSON]) == code
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


# --- artists --------------------------------------------------------------------------------------------------------


def test_artists_from_a_model_of_artists_alone_without_torch(place: Path) -> None:
    make("Kaloscope ONNX", place / "kaloscope")
    code = (
        "import sys, wdv3_pytorch; code = wdv3_pytorch.main(sys.argv[1:]); "
        "print(code, sorted({'torch', 'timm', 'torchvision', 'safetensors'} & sys.modules.keys()), file=sys.stderr)"
    )
    flags = ["--image_file", "a.png", "--artist_model", "kaloscope", "--artist_string", "nai"]
    done = run_in([sys.executable, "-c", code, *flags, "--artist_threshold", "0"], place)
    assert done.stderr.splitlines()[-1] == "0 []", done.stderr
    assert "Artist string: " in done.stdout and "::artist:" in done.stdout
    assert "Character tags" not in done.stdout and "General tags" not in done.stdout


def test_the_artists_of_another_model_take_the_place_of_the_models_own(place: Path, capsys: Any) -> None:
    main, artists = make("animetimm ONNX", place / "main"), make("Kaloscope ONNX", place / "artists")
    zero = {f"{name}_threshold": 0 for name in ("general", "character", "artist", "caption", "tags")}
    (place / "threshold.json").write_text(json.dumps(zero))
    alone = answer(capsys, "--model_path", main)
    both = answer(capsys, "--model_path", main, "--artist_model", artists, "--artist_string", "booru")
    theirs = answer(capsys, "--artist_model", artists, "--artist_string", "booru")
    for group in ("ratings", "general", "character"):
        assert both[group] == alone[group]
    assert list(alone["artist"]) == ["null_(artist)"]
    assert both["artist"] == theirs["artist"] and len(theirs["artist"]) == 5
    assert sum(theirs["artist"].values()) == pytest.approx(1, abs=1e-5)  # softmax
    assert both["artist_string"] == theirs["artist_string"]
    # Both are cached, and each by itself.
    flags = ["--image_file", "a.png", "--model_path", str(main), "--artist_model", str(artists), "--device", "cpu"]
    assert script.main(flags) == 0
    assert capsys.readouterr().err.count("1 image from the cache") == 2


def test_pooled_artists(place: Path, capsys: Any) -> None:
    artists = make("Kaloscope ONNX", place / "artists")
    Image.open("a.png").rotate(180).save("b.png")
    flags = ["--artist_model", artists, "--artist_threshold", 0, "--artist_string", "booru"]
    one = answer(capsys, *flags)["artist"]
    assert script.main(["--image_file", "a.png", "b.png", *map(str, flags), "--pool", *JSON]) == 0
    pooled = json.loads(capsys.readouterr().out)["artist"]
    assert pooled != one and sum(pooled.values()) == pytest.approx(1, abs=1e-5)


def test_a_model_without_artists_is_no_artist_model(place: Path, capsys: Any) -> None:
    make("WD v3 ONNX", place / "wd")
    assert script.main(["--image_file", "a.png", "--artist_model", "wd", "--artist_string", "nai"]) == 2
    line = error_line(capsys.readouterr().err)
    assert "no artists in it; name another folder or repository with --artist_model" in line
    for flags in (["--artist_model", "wd"], ["--artist_string", "nai"]):
        with pytest.raises(SystemExit):
            script.main(["--image_file", "a.png", *flags])


# --- thresholds -----------------------------------------------------------------------------------------------------


def test_published_thresholds_of_every_tag(place: Path, capsys: Any) -> None:
    folder = make("cl_tagger v2", place / "cl")
    described = open_folder(folder)
    assert described.per_tag is not None and list(described.per_tag()) == CL2_THRESHOLDS
    zero = ["--gen_threshold", 0, "--char_threshold", 0, "--copyright_threshold", 0]
    everything = answer(capsys, "--model_path", folder, *zero)
    said = answer(capsys, "--model_path", folder, "--thresholds", "published")
    for group, place_in_csv in (("general", 2), ("character", 3), ("copyright", 4)):
        passed = {n: p for n, p in everything[group].items() if p >= CL2_THRESHOLDS[place_in_csv]}
        assert said[group] == passed


def test_published_thresholds_of_categories(place: Path, capsys: Any) -> None:
    folder = make("PixAI v1.0 ONNX, CSV", place / "pixai")
    assert script.main(["--image_file", "a.png", "--model_path", str(folder), "--thresholds", "published"]) == 0
    said = capsys.readouterr().out
    for category, level in (("Character", "0.27"), ("Artist", "0.15"), ("Copyright", "0.24")):
        assert f"{category} tags (threshold={level}):" in said
    make("WD v3 ONNX", place / "wd")
    assert script.main(["--image_file", "a.png", "--model_path", "wd", "--thresholds", "published"]) == 2
    assert "its authors publish no thresholds" in error_line(capsys.readouterr().err)


def test_a_missing_threshold_of_a_category_is_generals(place: Path, capsys: Any) -> None:
    folder = make("Camie v2", place / "camie")
    (place / "threshold.json").write_text('{"general_threshold": 0.31, "year_threshold": 0.12}')
    assert script.main(["--image_file", "a.png", "--model_path", str(folder), "--meta_threshold", "0.2"]) == 0
    captured = capsys.readouterr()
    found = re.findall(r"^(\w+) tags \(threshold=([\d.]+)\):", captured.out, re.MULTILINE)
    assert dict(found)["Copyright"] == "0.31" and dict(found)["Year"] == "0.12" and dict(found)["Meta"] == "0.20"
    assert [name for name, _ in found] == ["Character", "General", "Artist", "Copyright", "Meta", "Year"]
    assert "warning" not in captured.err


# --- what is assumed, and what is refused ---------------------------------------------------------------------------


def test_a_form_that_no_rule_covers_is_told_of(place: Path, capsys: Any) -> None:
    folder = make("any timm repository with tags", place / "timm")
    said = answer(capsys, "--model_path", folder)
    assert script.main(["--image_file", "a.png", "--model_path", str(folder)]) == 0
    errors = capsys.readouterr().err
    assert "assumed: channels in the order RGB" in errors and "--channel_order bgr" in errors
    other = answer(capsys, "--model_path", folder, "--channel_order", "bgr")
    assert other["ratings"] != said["ratings"]
    assert script.main(["--image_file", "a.png", "--model_path", str(folder), "--channel_order", "rgb"]) == 0
    assert "assumed" not in capsys.readouterr().err


def test_channel_order_wins_over_the_files(place: Path, capsys: Any) -> None:
    folder = make("WD v3", place / "wd")
    said = answer(capsys, "--model_path", folder, "--channel_order", "rgb")
    rgb = torch.sigmoid(timm_logits(folder, wd_pixels(Path("a.png"), 64).flip(0)))
    assert said["ratings"]["general"] == pytest.approx(rgb[0].item(), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("tags_v0.9_13k.json", "deepghs/pixai-tagger-v0.9-onnx"),
        ("tagger_pipeline.py", "Mexes/pixai-tagger-v1.0-onnx-fp32-fp16-int8"),
        ("class_mapping.csv", "DraconicDragon/Kaloscope-onnx"),
    ],
)
def test_what_would_have_to_run_code_names_its_conversion(place: Path, capsys: Any, name: str, instead: str) -> None:
    (place / "model").mkdir()
    (place / "model" / name).write_text("{}")
    (place / "model" / "a.pth").write_bytes(b"")
    (place / "model" / "b.pth").write_bytes(b"")
    assert name in REFUSED
    assert script.main(["--image_file", "a.png", "--model_path", "model"]) == 2
    assert instead in error_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: write_wd_csv(folder, ["a", "b"], [9, 0]), "answers have 8 numbers, its list of tags has 2"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"graph"), "onnxruntime cannot read it"),
        (lambda folder: Graph(64, 8, channels=4).write(folder / "model.onnx"), "where a batch of pictures with 3"),
    ],
)
def test_files_that_do_not_belong_together(place: Path, capsys: Any, change: Any, words: str) -> None:
    folder = make("WD v3 ONNX", place / "wd")
    change(folder)
    assert script.main(["--image_file", "a.png", "--model_path", str(folder)]) == 2
    assert words in error_line(capsys.readouterr().err)


def test_an_external_file_that_is_missing_is_named(place: Path, capsys: Any) -> None:
    folder = make("cl_tagger v2", place / "cl")
    (folder / "model.onnx.data").unlink()
    assert script.main(["--image_file", "a.png", "--model_path", str(folder)]) == 2
    assert "model.onnx.data" in error_line(capsys.readouterr().err)


def test_a_provider_that_is_not_there_is_an_error(place: Path, capsys: Any) -> None:
    folder = make("WD v3 ONNX", place / "wd")
    for device in ("cuda", "directml", "coreml", "mps"):
        if onnx_engine.PROVIDERS.get(device) in onnxruntime.get_available_providers():
            continue
        flags = ["--image_file", "a.png", "--model_path", str(folder), "--device", device, "--no_cache"]
        assert script.main(flags) == 2
        line = error_line(capsys.readouterr().err)
        assert f"device {device}: " in line and "pass --device cpu" in line
    assert script.main(["--image_file", "a.png", "--model_path", str(folder), "--device", "cpu", "--no_cache"]) == 0
    assert "onnxruntime, CPUExecutionProvider: 1 image" in capsys.readouterr().err


def test_half_precision_graphs_and_fixed_batches(place: Path, capsys: Any) -> None:
    for name in ("b.png", "c.png"):
        Image.open("a.png").rotate(90).save(name)
    results = []
    variants: list[dict[str, Any]] = [{}, {"batch": 2}, {"half": True}]
    for number, options in enumerate(variants):
        folder = place / str(number)
        folder.mkdir()
        Graph(64, 8, **options).write(folder / "model.onnx")
        write_wd_csv(folder)
        assert script.main(["--image_file", "a.png", "b.png", "c.png", "--model_path", str(folder), *JSON]) == 0
        lines = map(json.loads, capsys.readouterr().out.splitlines())
        results.append([list(line["ratings"].values()) for line in lines])
    np.testing.assert_allclose(results[1], results[0], atol=1e-6)
    np.testing.assert_allclose(results[2], results[0], atol=2e-3)


# --- captions, report, cache ----------------------------------------------------------------------------------------


def test_captions_and_report_have_further_categories(place: Path, capsys: Any) -> None:
    folder = make("PixAI v1.0 ONNX, CSV", place / "pixai")
    zero = {f"{name}_threshold": 0 for name in ("general", "character", "artist", "caption", "tags")}
    (place / "threshold.json").write_text(json.dumps(zero))
    command = ["--image_file", "a.png", "--model_path", str(folder), "--device", "cpu"]
    assert script.main([*command, "--write_captions", "--report", "r.html"]) == 0
    caption = (place / "a.txt").read_text().split(", ")
    assert set(caption) == {"1girl", "solo", "hatsune_miku", "wlop", "vocaloid", "highres"}
    assert caption[-2:] == ["vocaloid", "highres"]
    page = (place / "r.html").read_text()
    assert '"copyright_threshold":0' in page and '"inclusive":false' in page and '"copyright":[["vocaloid"' in page
    said = answer(capsys, *command[2:])
    assert said["copyright"].keys() == {"vocaloid"} and said["meta"].keys() == {"highres"}
    assert script.main([*command, "--output_format", "csv"]) == 0
    assert capsys.readouterr().out.startswith(
        "image,rating,caption,tags,general,character,artist,copyright,meta,artist_string\n"
    )


def test_another_preparation_is_another_entry_of_the_cache(place: Path, capsys: Any) -> None:
    folder = make("animetimm ONNX", place / "model")
    first = answer(capsys, "--model_path", folder)
    stages = [{**PREPROCESS[0], "background_color": "black"}, *PREPROCESS[1:]]
    (folder / "preprocess.json").write_text(json.dumps({"test": stages}))
    assert answer(capsys, "--model_path", folder)["ratings"] != first["ratings"]


@pytest.mark.parametrize("name", MINIATURES)
def test_a_second_answer_imports_nothing_heavy(name: str, place: Path) -> None:
    folder = make(name, place / "model")
    code = (
        "import sys, wdv3_pytorch; wdv3_pytorch.main(sys.argv[1:]); "
        "print(sorted({'torch', 'onnxruntime', 'numpy', 'PIL', 'huggingface_hub', 'timm'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code, "--image_file", "a.png", "--model_path", str(folder), "--output", "o.txt"]
    for _ in range(2):
        done = run_in(command, place)
    assert done.stdout == "[]\n" and "1 image from the cache" in done.stderr


# --- training from one ----------------------------------------------------------------------------------------------


def test_training_from_animetimm_keeps_its_preparation(place: Path, capsys: Any) -> None:
    folder = make("animetimm", place / "public")
    for number in range(8):
        write_pair(place / "dataset", f"{number}.png", ["general", "1girl", f"new_{number % 2}"], grey=30 * number)
    flags = ["--dataset-folder", "dataset", "--img-size", 96, "--workers", 1]
    (place / "tags.csv").write_text("name,category\ngeneral,9\n1girl,0\n")
    done = run_script("create_tfrecord.py", *flags, "--tags-csv", "tags.csv", cwd=place)
    assert done.returncode == 0, done.stderr
    training = ["--dataset_root", "output-datasets", "--output_dir", "out", "--pretrained", str(folder), "--image_size"]
    more = ["--epochs", "1", "--batch_size", "4", "--device", "cpu", "--export_dir", "exported"]
    assert train_pytorch.main([*training, "64", *more]) == 0
    config = json.loads((place / "out" / "config.json").read_text())
    expected = from_stages(PREPROCESS, "")
    described = open_folder(place / "out")
    assert described.preparation == expected and config["tagger"]["channel_order"] == "RGB"
    assert open_folder(place / "exported").preparation == expected
    capsys.readouterr()
    assert answer(capsys, "--model_path", "out")["ratings"] == pytest.approx(
        answer(capsys, "--model_path", "exported")["ratings"], abs=1e-6
    )
    # At another size all lengths are in proportion.
    assert train_pytorch.main([*training, "32", *more, "--overwrite"]) == 0
    assert open_folder(place / "out").preparation == expected.with_side(32)


def test_an_export_to_onnx_keeps_the_preparation(place: Path, capsys: Any) -> None:
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    for name in ("animetimm", "WD v3"):
        folder = make(name, place / name[:2])
        out = place / f"{name[:2]}_onnx"
        out.mkdir()
        command = ["--model_path", str(folder), "--device", "cpu"]
        assert script.main([*command, "--export_onnx", str(out / "model.onnx")]) == 0
        (out / "selected_tags.csv").write_text((folder / "selected_tags.csv").read_text())
        torchs, onnxs = answer(capsys, *command), answer(capsys, "--model_path", out)
        assert onnxs["ratings"] == pytest.approx(torchs["ratings"], abs=1e-5)
        assert script.main(["--model_path", str(out), "--export_onnx", str(place / "x.onnx")]) == 2
        assert "an ONNX graph already" in error_line(capsys.readouterr().err)


def test_an_onnx_graph_cannot_be_trained(place: Path, capsys: Any) -> None:
    make("WD v3 ONNX", place / "wd")
    with pytest.raises(UserError, match="an ONNX graph cannot be trained"):
        pretrained.read(str(place / "wd"))
