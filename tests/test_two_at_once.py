"""Two of each script at once on the same files: both end right, or the second is refused in a sentence.

TIMES=10 python -m pytest tests/test_two_at_once.py     # more often than in the whole suite, where starting costs most
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from examples.sample_booru.booru import SampleBooru
from examples.sample_booru.server import start
from tagger.formats.vocabulary import read_vocabulary
from tests.helpers import ROOT, error_line, run_script, write_csv, write_pair

TIMES = int(os.environ.get("TIMES", "2"))
AGAIN = pytest.mark.parametrize("time", range(TIMES))


def both(*commands: Sequence[object], cwd: Path) -> list[subprocess.CompletedProcess[str]]:
    """Run commands at the same time; what became of each."""
    running = [
        subprocess.Popen(
            [sys.executable, str(ROOT / str(script)), *map(str, flags)],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        for script, *flags in commands
    ]
    done = []
    for process in running:
        out, err = process.communicate(timeout=300)
        done.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    return done


def check(done: Sequence[subprocess.CompletedProcess[str]]) -> list[subprocess.CompletedProcess[str]]:
    """Those that did their work; the others must have been refused in a sentence that names the other run."""
    finished = []
    for process in done:
        assert "Traceback" not in process.stderr and "nobody foresaw" not in process.stderr, process.stderr
        if process.returncode == 2:
            assert "is at work here; " in error_line(process.stderr), process.stderr
        else:
            assert process.returncode == 0, process.stderr
            finished.append(process)
    assert finished
    return finished


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Forty pairs with a new tag each."""
    for number in range(40):
        write_pair(tmp_path / "dataset", f"{number:02}.png", ["general", "long hair", f"tag{number}"], grey=number)
    return tmp_path / "dataset"


@AGAIN
def test_replace_blanks(pairs: Path, time: int) -> None:
    command = ("replace_blanks.py",)
    check(both(command, command, cwd=pairs.parent))
    assert run_script("replace_blanks.py", "--undo", cwd=pairs.parent).returncode == 0
    assert all("long hair" in path.read_text() for path in pairs.glob("*.txt"))


@AGAIN
def test_generate_selected_tags(pairs: Path, time: int) -> None:
    csv_path = write_csv(pairs.parent / "tags.csv", ["general,9", "1girl,0"])
    command = ("generate_selected_tags.py", "--append-to", "tags.csv")
    check(both(command, command, cwd=pairs.parent))
    vocabulary = read_vocabulary(csv_path)  # refuses names that stand twice
    assert vocabulary.names[:2] == ("general", "1girl")
    assert {f"tag{number}" for number in range(40)} <= set(vocabulary.names)


@AGAIN
def test_create_tfrecord_with_one_vocabulary(pairs: Path, time: int) -> None:
    csv_path = write_csv(pairs.parent / "tags.csv", ["general,9", "1girl,0"])
    shared = ("create_tfrecord.py", "--tags-csv", "tags.csv", "--workers", 1)
    commands = [(*shared, "--img-size", size, "--output-path", f"records{size}") for size in (28, 56)]
    assert len(check(both(*commands, cwd=pairs.parent))) == 2
    vocabulary = read_vocabulary(csv_path)
    assert len(vocabulary) == 2 + 1 + 40
    for size in (28, 56):
        assert read_vocabulary(pairs.parent / f"records{size}" / "selected_tags.csv").names == vocabulary.names
        done = run_script(*map(str, commands[size == 56]), cwd=pairs.parent)
        assert done.returncode == 0, done.stderr


@AGAIN
def test_create_tfrecord_into_one_folder(pairs: Path, time: int) -> None:
    write_csv(pairs.parent / "tags.csv", ["general,9"])
    command = ("create_tfrecord.py", "--tags-csv", "tags.csv", "--workers", 1, "--img-size", 28)
    check(both(command, command, cwd=pairs.parent))
    done = run_script(*map(str, command), cwd=pairs.parent)
    assert done.returncode == 0 and "28 train + 12 val images" in done.stdout, done.stderr


@pytest.fixture(scope="module")
def booru() -> Iterator[SampleBooru]:
    server, booru = start(posts=40)
    yield booru
    server.shutdown()


@AGAIN
def test_simple_dan_crawl(booru: SampleBooru, tmp_path: Path, time: int) -> None:
    shared = ("--base-url", booru.base_url, "--rate", 1000, "--categories", "rating,general,character,artist")
    command = ("simple_dan_crawl.py", *shared, "--target-count", 24)
    check(both(command, command, cwd=tmp_path))
    done = run_script(*map(str, command), cwd=tmp_path)
    assert done.returncode == 0 and "24 pairs" in done.stdout, done.stderr
    categories = read_vocabulary(tmp_path / "dataset" / "tag_categories.csv")
    assert set(categories.categories) == {1, 4}


@AGAIN
def test_train_pytorch(records: Path, tmp_path: Path, time: int) -> None:
    shape = ("--model", "eva02_tiny", "--image_size", 28, "--epochs", 1, "--batch_size", 8, "--device", "cpu")
    command = ("train_pytorch.py", "--dataset_root", records, "--output_dir", "checkpoints", *shape)
    finished = check(both(command, command, cwd=tmp_path))
    assert len(finished) == 1 and "best: epoch 1" in finished[0].stdout


@AGAIN
@pytest.mark.parametrize("existing", ["overwrite", "append", "skip"])
def test_captions(checkpoint: Path, pairs: Path, time: int, existing: str) -> None:
    if existing == "skip":
        for path in pairs.glob("*.txt"):
            path.unlink()
    model = ("--model_path", checkpoint, "--device", "cpu", "--gen_threshold", 0.1)
    command = ("wdv3_pytorch.py", "--image_file", pairs, *model, "--write_captions", "--existing", existing)
    check(both(command, command, cwd=pairs.parent))
    captions = {path.stem: path.read_text() for path in pairs.glob("*.txt")}
    assert len(captions) == 40 and all(captions.values())
    if existing == "append":
        assert all(text.startswith("general,long hair,tag") for text in captions.values())


@AGAIN
@pytest.mark.parametrize("other", ["overwrite", "replace_blanks"])
def test_captions_beside_another_script_that_changes_them(checkpoint: Path, pairs: Path, time: int, other: str) -> None:
    model = ("--model_path", checkpoint, "--device", "cpu", "--gen_threshold", 0.1)
    command = ("wdv3_pytorch.py", "--image_file", pairs, *model, "--write_captions", "--existing")
    others = {"overwrite": (*command, "overwrite"), "replace_blanks": ("replace_blanks.py", "--dataset-folder", pairs)}
    check(both((*command, "append"), others[other], cwd=pairs.parent))
    captions = [path.read_text() for path in pairs.glob("*.txt")]
    assert len(captions) == 40 and all(captions)
    if other == "replace_blanks":
        assert all(text.startswith(("general,long_hair,tag", "general,long hair,tag")) for text in captions)
