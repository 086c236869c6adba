"""Categories that are asked for later: older pairs get their tags, and no file is downloaded again.

python -m pytest tests/crawl/test_later_categories.py
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import simple_dan_crawl as script
from examples.sample_booru.booru import SampleBooru
from examples.sample_booru.server import start
from tagger.crawl import danbooru
from tagger.crawl.dataset_folder import PAIRS_FILE
from tagger.formats.vocabulary import read_categories
from tests.helpers import ROOT

ALL = "rating,general,character,artist"


@pytest.fixture
def booru(monkeypatch: pytest.MonkeyPatch) -> Iterator[SampleBooru]:
    monkeypatch.setattr(danbooru, "IDS_PER_SEARCH", 5)
    server, booru = start(posts=30)
    yield booru
    server.shutdown()


def flags(booru: SampleBooru, folder: Path, *more: object) -> list[str]:
    shared = ["--base-url", booru.base_url, "--rate", "10000", "--output-dir", str(folder)]
    return [*shared, "--target-count", "12", *map(str, more)]


def captions(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.txt")}


@pytest.fixture
def complete(booru: SampleBooru, tmp_path: Path) -> dict[str, str]:
    """What the captions are where all categories are asked for from the beginning."""
    assert script.main(flags(booru, tmp_path / "complete", "--categories", ALL)) == 0
    booru.log.clear()
    return captions(tmp_path / "complete")


@pytest.mark.parametrize("version", ["now", "0.1"])
def test_older_pairs_get_the_tags_of_later_categories(
    booru: SampleBooru, tmp_path: Path, complete: dict[str, str], capsys: pytest.CaptureFixture[str], version: str
) -> None:
    folder = tmp_path / "dataset"
    assert script.main(flags(booru, folder)) == 0
    if version == "0.1":
        (folder / PAIRS_FILE).unlink()
    booru.log.clear()
    assert script.main(flags(booru, folder, "--categories", ALL)) == 0
    assert captions(folder) == complete
    assert not [path for _, path, _, _ in booru.log if "/original/" in path]
    assert set(read_categories(folder / "tag_categories.csv").values()) == {1, 4}
    told = capsys.readouterr()
    assert "12 older pairs were made without asking for all of" in told.err
    assert "tags added to 12 older pairs" in told.out
    booru.log.clear()
    assert script.main(flags(booru, folder, "--categories", ALL)) == 0
    assert not booru.log  # nothing is left to ask


def test_what_was_edited_by_hand_stays(booru: SampleBooru, tmp_path: Path, complete: dict[str, str]) -> None:
    folder = tmp_path / "dataset"
    assert script.main(flags(booru, folder)) == 0
    edited = folder / min(complete)
    edited.write_text("explicit,my_tag")
    assert script.main(flags(booru, folder, "--categories", ALL)) == 0
    text = edited.read_text()
    assert text.startswith("explicit,my_tag,") and complete[edited.name].endswith(text.removeprefix("explicit,my_tag"))


def test_a_pair_whose_post_is_gone_keeps_its_tags_and_is_asked_for_once(
    booru: SampleBooru, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "dataset"
    assert script.main(flags(booru, folder)) == 0
    md5 = min(captions(folder)).removesuffix(".txt")
    before = captions(folder)[f"{md5}.txt"]
    booru.posts[:] = [row for row in booru.posts if row.get("md5") != md5]
    assert script.main(flags(booru, folder, "--categories", ALL)) == 0
    assert f"1 older pair keep their tags, for their posts are gone, as {md5}" in capsys.readouterr().err
    assert captions(folder)[f"{md5}.txt"] == before
    booru.log.clear()
    assert script.main(flags(booru, folder, "--categories", ALL)) == 0
    assert not booru.log


@pytest.mark.parametrize("answers", [2, 7])
def test_killed_in_between_it_ends_as_if_undisturbed(
    booru: SampleBooru, tmp_path: Path, complete: dict[str, str], answers: int
) -> None:
    folder = tmp_path / "dataset"
    assert script.main(flags(booru, folder)) == 0
    (folder / PAIRS_FILE).unlink()  # so that every pair is asked for by itself
    booru.log.clear()
    command = [sys.executable, str(ROOT / "simple_dan_crawl.py"), *flags(booru, folder, "--categories", ALL)]
    process: Any = None

    def kill(handler: Any, path: str, params: dict[str, str]) -> bool:
        if len(booru.log) > answers:
            process.send_signal(signal.SIGKILL)
        return False

    booru.intercept = kill  # type: ignore[method-assign]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert process.wait() == -signal.SIGKILL
    booru.__dict__.pop("intercept")
    with open(folder / PAIRS_FILE, "a") as file:
        file.write("0123456789abcdef")  # a line that a kill broke off
    assert script.main(flags(booru, folder, "--categories", ALL)) == 0
    assert captions(folder) == complete
