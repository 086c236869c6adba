"""similar.py: the closest taught artists in every format, from the cache and from several processes.

python -m pytest tests/inference/test_similar.py
"""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train_pytorch
import wdv3_pytorch
from tagger.formats.checkpoint import PROTOTYPES_FILE
from tagger.formats.prototypes import read_prototypes
from tests.helpers import ROOT, error_line, make_predictor, paint, run_script

ARTISTS = ("aoi", "grau", "mori_(artist)")
BEST = "eva02_tiny_best.pth"


@pytest.fixture(scope="module")
def taught(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taught")
    for number, name in enumerate(ARTISTS):
        paint(folder / "lessons" / name, number)
    flags = ["--pretrained", checkpoint, "--teach", folder / "lessons", "--output_dir", folder / "out"]
    assert train_pytorch.main([*map(str, flags), "--device", "cpu"]) == 0
    return folder / "out"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two by an artist that was taught, and two by one that was not."""
    for number in (0, 1):
        paint(tmp_path / "pictures", 7 * number, count=6)
        for kept in (4, 5):
            (tmp_path / "pictures" / f"{kept}.png").rename(tmp_path / "pictures" / f"by{number}_{kept}.png")
    for left in (tmp_path / "pictures").glob("?.png"):
        left.unlink()
    return tmp_path / "pictures"


def run(pictures: Path, model: Path, *more: object) -> int:
    flags = ["--image_file", pictures, "--model_path", model, "--device", "cpu", *more]
    return wdv3_pytorch.main([*map(str, flags)])


def expected(pictures: Path, taught: Path) -> dict[str, dict[str, float]]:
    """The cosines, from the model itself."""
    predictor = make_predictor(taught)
    prototypes = read_prototypes(taught / PROTOTYPES_FILE, taught / BEST, "")
    module = predictor.engine._module  # type: ignore[attr-defined]
    found = {}
    for path in sorted(pictures.iterdir()):
        pixels = torch.from_numpy(predictor.prepare(path.read_bytes()).copy()).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.inference_mode():
            features = module.forward_head(module.forward_features(pixels), pre_logits=True)
        cosines = prototypes.similarities(features.numpy())[0]
        found[str(path)] = dict(zip(prototypes.names, map(float, cosines), strict=True))
    return found


def test_json_has_the_cosines_by_falling_similarity(taught: Path, pictures: Path, capsys: Any) -> None:
    assert run(pictures, taught, "--similar", 2, "--artist_threshold", 1, "--output_format", "json", "--no_cache") == 0
    truth = expected(pictures, taught)
    for record in json.loads(capsys.readouterr().out):
        cosines = truth[record["image"]]
        best = sorted(cosines, key=lambda name: -cosines[name])[:2]
        assert list(record["similar_artists"]) == best
        assert record["similar_artists"] == pytest.approx({name: cosines[name] for name in best}, abs=1e-5)
        if "by0" in record["image"]:
            assert best[0] == ARTISTS[0]


def test_text_says_that_it_is_no_probability(taught: Path, pictures: Path, capsys: Any) -> None:
    picture = pictures / "by0_4.png"
    assert run(picture, taught, "--artist_threshold", 1, "--no_cache") == 0
    without = capsys.readouterr().out
    assert run(picture, taught, "--artist_threshold", 1, "--no_cache", "--similar") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:-4] == without.splitlines()
    assert lines[-4] == "Closest taught artists, none above the threshold (similarity from -1 to 1, no probability):"
    assert lines[-3].startswith("  aoi: 0.")


def test_nothing_is_said_where_an_artist_passes(taught: Path, pictures: Path, capsys: Any) -> None:
    flags = ("--artist_threshold", 0, "--no_cache", "--similar")
    assert run(pictures / "by0_4.png", taught, *flags) == 0
    assert "Closest" not in capsys.readouterr().out
    assert run(pictures / "by0_4.png", taught, *flags, "--output_format", "jsonl") == 0
    assert json.loads(capsys.readouterr().out)["similar_artists"] == {}


def test_csv_has_a_column(taught: Path, pictures: Path, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "answers.csv"
    flags = ("--output_format", "csv", "--output", output, "--artist_threshold", 1, "--similar", 1)
    assert run(pictures, taught, *flags) == 0
    assert run(pictures, taught, *flags) == 0  # it knows its own output again
    rows = list(csv.DictReader(io.StringIO(output.read_text(encoding="utf-8"))))
    truth = expected(pictures, taught)
    for row in rows:
        name, _, cosine = row["similar_artists"].rpartition(":")
        assert float(cosine) == pytest.approx(max(truth[row["image"]].values()), abs=1e-4)
        assert truth[row["image"]][name] == max(truth[row["image"]].values())


def test_pooled_pictures_have_the_mean(taught: Path, pictures: Path, capsys: Any) -> None:
    flags = ("--pool", "--similar", 3, "--artist_threshold", 1, "--output_format", "jsonl")
    assert run(pictures, taught, *flags) == 0
    said = json.loads(capsys.readouterr().out)["similar_artists"]
    truth = expected(pictures, taught).values()
    assert said == pytest.approx({name: np.mean([each[name] for each in truth]) for name in ARTISTS}, abs=1e-5)


def test_the_report_has_them(taught: Path, pictures: Path, tmp_path: Path) -> None:
    assert run(pictures, taught, "--report", tmp_path / "r.html", "--similar") == 0
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    data = json.loads(page.partition('<script type="application/json" id="data">')[2].partition("</script>")[0])
    truth = expected(pictures, taught)
    for image in data["images"]:
        assert dict(image["similar"]) == pytest.approx(truth[str(pictures / image["name"])], abs=1e-5)


IMPORTED = """
import sys
import wdv3_pytorch
code = wdv3_pytorch.main(sys.argv[1:])
print("imported:", *sorted({name.split(".")[0] for name in sys.modules}), file=sys.stderr)
sys.exit(code)
"""


def test_the_cache_has_them_without_the_model(
    taught: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def ask(*more: object) -> tuple[str, str]:
        flags = ["--image_file", pictures, "--model_path", taught, "--output_format", "jsonl", "--artist_threshold", 1]
        command = [sys.executable, "-c", IMPORTED, *map(str, (*flags, *more))]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    ask()  # the logits alone: not enough for what follows
    first, told = ask("--similar")
    assert "torch" in told and "4 images from the cache" not in told
    second, told = ask("--similar")
    assert second == first and "4 images from the cache" in told
    assert not {"torch", "numpy", "PIL", "timm"} & set(told.rpartition("imported:")[2].split())


def test_prototypes_of_later_lessons_are_not_answered_from_the_cache(
    checkpoint: Path, taught: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copy = tmp_path / "copy"
    shutil.copytree(taught, copy)
    flags = ("--similar", "--artist_threshold", 1, "--output_format", "jsonl")
    assert run(pictures / "by0_4.png", copy, *flags) == 0
    assert len(json.loads(capsys.readouterr().out)["similar_artists"]) == 3
    assert train_pytorch.main(["--output_dir", str(copy), "--unteach", "grau", "--device", "cpu"]) == 0
    capsys.readouterr()
    assert run(pictures / "by0_4.png", copy, *flags) == 0
    assert set(json.loads(capsys.readouterr().out)["similar_artists"]) == {"aoi", "mori_(artist)"}


def test_two_processes_say_the_same(taught: Path, pictures: Path) -> None:
    flags = ["--image_file", pictures, "--model_path", taught, "--device", "cpu", "--output_format", "jsonl"]
    flags += ["--no_cache", "--similar", "--artist_threshold", 1]
    alone = run_script("wdv3_pytorch.py", *flags, cwd=pictures)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", ROOT / "wdv3_pytorch.py"]
    done = subprocess.run([*map(str, (*command, *flags))], cwd=pictures, capture_output=True, text=True)
    ours, theirs = ([json.loads(line) for line in each.stdout.splitlines()] for each in (done, alone))
    assert [each["image"] for each in ours] == [each["image"] for each in theirs] and len(ours) == 4, done.stderr
    for one, two in zip(ours, theirs, strict=True):
        assert one["similar_artists"] == pytest.approx(two["similar_artists"], abs=1e-5)


def test_logits_do_not_depend_on_who_looks_on(taught: Path, pictures: Path, capsys: Any) -> None:
    flags = ("--gen_threshold", 0, "--artist_threshold", 1, "--output_format", "jsonl", "--no_cache")
    records = []
    for more in ((), ("--similar",)):
        assert run(pictures, taught, *flags, *more) == 0
        records.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    for record in records[1]:
        del record["similar_artists"]
    assert records[0] == records[1]


def test_the_model_for_artists_is_the_one_that_was_taught(
    checkpoint: Path, taught: Path, pictures: Path, capsys: Any
) -> None:
    flags = ("--artist_model", taught, "--similar", "--artist_threshold", 1, "--output_format", "jsonl", "--no_cache")
    assert run(pictures / "by0_4.png", checkpoint, *flags) == 0
    said = json.loads(capsys.readouterr().out)["similar_artists"]
    assert said == pytest.approx(expected(pictures, taught)[str(pictures / "by0_4.png")], abs=1e-5)


def test_what_cannot_say_so_says_that(
    checkpoint: Path, taught: Path, pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    picture = pictures / "by0_4.png"
    graph = tmp_path / "graph"
    graph.mkdir()
    shutil.copy(taught / "selected_tags.csv", graph)
    export = ("--model_path", taught, "--export_onnx", graph / "model.onnx")
    assert wdv3_pytorch.main([*map(str, export)]) == 0
    copy = tmp_path / "copy"
    shutil.copytree(taught, copy)
    shutil.copy(checkpoint / BEST, copy / BEST)  # other weights; a vocabulary of that many tags belongs to them
    shutil.copy(checkpoint / "selected_tags.csv", copy)
    shutil.copy(checkpoint / "config.json", copy)
    stale = tmp_path / "stale"
    shutil.copytree(taught, stale)
    weights = torch.load(stale / BEST, weights_only=True)
    torch.save({name: tensor * 1.5 for name, tensor in weights.items()}, stale / BEST)
    wants = "--similar wants weights that train_pytorch.py --teach has written, and the prototypes beside them"
    for model, words in (
        (checkpoint, f"{PROTOTYPES_FILE}: no such file; {wants}"),
        (graph, f"model.onnx: an ONNX graph answers with logits alone, without features; {wants}"),
        (copy, f"{PROTOTYPES_FILE}: aoi is no tag in selected_tags.csv; {wants}"),
        (stale, f"{PROTOTYPES_FILE}: belongs to other weights than {BEST}; {wants}"),
    ):
        capsys.readouterr()
        assert run(picture, model, "--similar", "--no_cache") == 2
        assert error_line(capsys.readouterr().err).endswith(words)
    with pytest.raises(SystemExit):
        wdv3_pytorch.main(["--image_file", str(picture), "--embedded_prompt", "only", "--similar"])
    assert "--similar is what a model sees" in error_line(capsys.readouterr().err)
