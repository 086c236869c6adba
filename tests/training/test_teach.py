"""Artists from a few pictures: old tags stay, the rows do not depend on the order of teaching, kills cost nothing.

python -m pytest tests/training/test_teach.py
"""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train_pytorch
import wdv3_pytorch
from tagger.files import UserError, locked_folder
from tagger.formats.checkpoint import PROTOTYPES_FILE
from tagger.formats.prototypes import read_prototypes
from tagger.formats.vocabulary import ARTIST, read_vocabulary
from tagger.formats.weights import load_weights
from tagger.training.teach import Examples, find_pictures
from tests.helpers import ROOT, error_line, lines_of, paint, tree

BEST = "eva02_tiny_best.pth"
ARTISTS = ("aoi", "mori_(artist)", "grau")


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lessons")
    for number, name in enumerate(ARTISTS):
        paint(folder / name.replace("_", " "), number)
    return folder


def divide(lessons: Path, folder: Path) -> None:
    """The lessons in two folders: first, without one of the artists, and second, with that one."""
    names = [name.replace("_", " ") for name in ARTISTS]
    for part, chosen in (("first", names[1:]), ("second", names[:1])):
        (folder / part).mkdir()
        for name in chosen:
            (folder / part / name).symlink_to(lessons / name)


def teach(base: Path | None, output: Path, *more: object) -> int:
    start = ["--pretrained", str(base)] if base else []
    return train_pytorch.main([*start, "--output_dir", str(output), "--device", "cpu", *map(str, more)])


@pytest.fixture(scope="module")
def taught(checkpoint: Path, lessons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taught") / "out"
    assert teach(checkpoint, folder, "--teach", lessons) == 0
    return folder


def same_weights(first: Path, second: Path) -> bool:
    ours, theirs = load_weights(first / BEST), load_weights(second / BEST)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_the_model_knew_stays_bit_for_bit(checkpoint: Path, taught: Path) -> None:
    before, after = load_weights(checkpoint / BEST), load_weights(taught / BEST)
    old = len(before["head.bias"])
    for name, tensor in before.items():
        assert torch.equal(after[name][:old] if name.startswith("head.") else after[name], tensor), name
    vocabulary = read_vocabulary(taught / "selected_tags.csv")
    assert vocabulary.names[old:] == tuple(sorted(ARTISTS)) and set(vocabulary.categories[old:]) == {ARTIST}


def test_taught_artists_are_told_apart_by_the_tagger(taught: Path, lessons: Path, tmp_path: Path, capsys: Any) -> None:
    for number, name in enumerate(ARTISTS):
        paint(tmp_path / "unseen", number, count=6)  # the fifth and sixth are unseen
        flags = ["--model_path", str(taught), "--artist_threshold", "0", "--output_format", "jsonl", "--device", "cpu"]
        image = str(tmp_path / "unseen" / "5.png")
        assert wdv3_pytorch.main(["--image_file", image, *flags, "--no_cache"]) == 0
        assert next(iter(json.loads(capsys.readouterr().out)["artist"])) == name


def test_prototypes_lie_where_the_pictures_do(taught: Path, lessons: Path) -> None:
    found = read_prototypes(taught / PROTOTYPES_FILE, taught / BEST, "")
    assert found.names == tuple(sorted(ARTISTS))
    assert np.allclose(np.linalg.norm(found.directions, axis=1), 1, atol=1e-6)
    with np.load(taught / "taught.npz") as examples:
        names, views = examples["names"], examples["views"].astype(np.float32)
    means = np.stack([views[names == name].mean((0, 1)) for name in found.names])
    assert np.allclose(found.middle, means.mean(0), atol=1e-5)
    assert np.allclose(np.diag(found.similarities(means)), 1, atol=1e-5)  # each mean lies in its own direction


def test_the_report(taught: Path) -> None:
    with open(taught / "taught.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == sorted(ARTISTS)
    assert all(row["pictures"] == "4" and 0 <= float(row["first"]) <= 1 for row in rows)
    assert all((float(row["first"]) == 1) == (row["confused_with"] == "") for row in rows)


def test_more_artists_later_and_all_at_once_are_the_same(
    checkpoint: Path, taught: Path, lessons: Path, tmp_path: Path
) -> None:
    divide(lessons, tmp_path)
    assert teach(checkpoint, tmp_path / "out", "--teach", tmp_path / "first") == 0
    assert not same_weights(tmp_path / "out", taught)
    assert (
        teach(None, tmp_path / "out", "--teach", tmp_path / "second") == 0
    )  # without the base, and without the others
    assert same_weights(tmp_path / "out", taught)
    assert teach(None, tmp_path / "out", "--unteach", "aoi") == 0
    assert read_vocabulary(tmp_path / "out" / "selected_tags.csv").names[-2:] == ("grau", "mori_(artist)")
    assert read_prototypes(tmp_path / "out" / PROTOTYPES_FILE, tmp_path / "out" / BEST, "").names == (
        "grau",
        "mori_(artist)",
    )
    assert teach(None, tmp_path / "out", "--unteach", "grau,mori (artist)") == 0
    assert same_weights(tmp_path / "out", checkpoint)
    assert not (tmp_path / "out" / PROTOTYPES_FILE).exists()


KILLED = """
import os, signal, sys
from pathlib import Path
import train_pytorch
from tagger import files
from tagger.training import teach
teach.SAVE_EVERY = 1
left, inner = int(sys.argv[1]), os.replace
def counted(*arguments):
    global left
    inner(*arguments)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = counted
sys.exit(train_pytorch.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("after", [1, 7, 13, 14, 15, 16, 17, 18])
def test_killed_at_any_file_and_run_again(
    after: int, checkpoint: Path, taught: Path, lessons: Path, tmp_path: Path
) -> None:
    command = ["--pretrained", str(checkpoint), "--teach", str(lessons), "--output_dir", str(tmp_path / "out")]
    command += ["--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    code = [sys.executable, "-c", KILLED, str(after), *command]
    done = subprocess.run(code, cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert train_pytorch.main(command) == 0
    assert same_weights(tmp_path / "out", taught)
    assert (tmp_path / "out" / PROTOTYPES_FILE).read_bytes() == (taught / PROTOTYPES_FILE).read_bytes()


@pytest.mark.parametrize("after", [1, 4, 5, 6, 7, 8, 9, 10])
def test_killed_while_artists_are_added_without_the_base(
    after: int, checkpoint: Path, taught: Path, lessons: Path, tmp_path: Path
) -> None:
    divide(lessons, tmp_path)
    output = tmp_path / "out"
    assert teach(checkpoint, output, "--teach", tmp_path / "first") == 0
    command = ["--teach", str(tmp_path / "second"), "--output_dir", str(output), "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    code = [sys.executable, "-c", KILLED, str(after), *command]
    done = subprocess.run(code, cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert train_pytorch.main(command) == 0
    assert same_weights(output, taught)
    assert (output / PROTOTYPES_FILE).read_bytes() == (taught / PROTOTYPES_FILE).read_bytes()
    assert read_vocabulary(output / "selected_tags.csv").names == read_vocabulary(taught / "selected_tags.csv").names


def test_bad_pictures_and_names_are_left_out(checkpoint: Path, lessons: Path, tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "lessons"
    for number, name in enumerate(("one", "two", "smile", "\u200b")):
        paint(folder / name, number, count=2)
    (folder / "empty").mkdir()
    (folder / "one" / "bad.jpg").write_bytes(b"no picture")
    (folder / "note.txt").write_text("hello")
    paint(folder / "tmp", 9, count=1)
    (folder / "tmp" / "0.png").rename(folder / "alone.png")
    (folder / "tmp").rmdir()
    assert teach(checkpoint, tmp_path / "out", "--teach", folder) == 1
    captured = capsys.readouterr()
    told = [
        line.removeprefix("train_pytorch.py: left out: ") for line in lines_of(captured.err) if "left out: " in line
    ]
    for words in ("bad.jpg: not an image", "empty: no pictures", "smile: the model knows it", "alone.png: no artist"):
        assert any(words in line for line in told), (words, told)
    assert read_vocabulary(tmp_path / "out" / "selected_tags.csv").names[-2:] == ("one", "two")
    assert "one: 2 pictures; ten or more make it surer" in captured.err
    assert "Traceback" not in captured.err


def test_pairs_name_their_artists(lessons: Path, tmp_path: Path) -> None:
    paint(tmp_path, 1, count=3)
    for number, text in enumerate(("1girl, mori_(artist)", "1girl", "aoi, mori \\(artist\\)")):
        (tmp_path / f"{number}.txt").write_text(text)
    found = find_pictures(tmp_path, {"mori_(artist)": ARTIST, "aoi": ARTIST, "1girl": 0}, "")
    assert found.pictures == {"mori_(artist)": [tmp_path / "0.png"]}
    assert [line.partition(": ")[2] for line in found.problems] == [
        "no artist in a txt beside it",
        "several artists in a txt beside it",
    ]


def test_what_is_refused(checkpoint: Path, taught: Path, lessons: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "none").mkdir()
    paint(tmp_path / "single" / "aoi", 1)
    paint(tmp_path / "known" / "smile", 1)
    other = tmp_path / "other"
    other.mkdir()
    (other / "selected_tags.csv").write_text("mine")
    before = {name: (checkpoint / name).read_bytes() for name in tree(checkpoint) if (checkpoint / name).is_file()}
    for base, output, folder, words in (
        (checkpoint, tmp_path / "a", tmp_path / "nowhere", "nowhere: no such folder; name one with --teach"),
        (checkpoint, tmp_path / "a", tmp_path / "none", "neither folders of pictures, one for each artist, nor pairs"),
        (checkpoint, tmp_path / "a", tmp_path / "single", "at least two artists are needed"),
        (checkpoint, other, lessons, "selected_tags.csv: stands there and does not look like this script's output"),
        (checkpoint, checkpoint, lessons, "would be replaced by itself with more tags; name another --output_dir"),
        (checkpoint, ROOT, lessons, "selected_tags.csv: a file of the toolkit; name another --output_dir"),
        (checkpoint, tmp_path / "a", tmp_path / "known", "checkpoints knows all artists in it already; add others"),
        (None, tmp_path / "a", lessons, "a: no taught model there yet; name a tagger with --pretrained"),
    ):
        assert teach(base, output, "--teach", folder) == 2
        assert words in error_line(capsys.readouterr().err)
    assert teach(checkpoint, tmp_path / "b", "--unteach", "aoi") == 2
    assert "no artist was taught there; name the folder of the teaching" in error_line(capsys.readouterr().err)
    with locked_folder(taught):
        assert teach(None, taught, "--teach", lessons) == 2
    assert "is at work here; wait for it" in error_line(capsys.readouterr().err)
    assert (other / "selected_tags.csv").read_text() == "mine"
    assert {name: (checkpoint / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_damaged_examples_are_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "taught.npz").write_bytes(content)
    with pytest.raises(UserError, match="damaged; remove it, and teach again"):
        Examples.read(tmp_path / "taught.npz", "x", "")
    Examples("x", [], [], []).write(tmp_path / "taught.npz")
    with pytest.raises(UserError, match="from another model than the one to be taught; name another"):
        Examples.read(tmp_path / "taught.npz", "y", "name another")
