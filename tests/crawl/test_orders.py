"""Searches with an order of their own, through the command line: the true first ones, and resumable.

python -m pytest tests/crawl/test_orders.py
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import simple_dan_crawl as script
from examples.sample_booru.booru import SampleBooru
from examples.sample_booru.server import start
from tagger.crawl import danbooru
from tests.helpers import error_line

POSTS = 60


@pytest.fixture
def booru(monkeypatch: pytest.MonkeyPatch) -> Iterator[SampleBooru]:
    """Posts whose scores follow no order of their ids, in pages of seven."""
    monkeypatch.setattr(danbooru, "POSTS_PER_PAGE", 7)
    server, booru = start(posts=POSTS)
    scores = random.Random(5).sample(range(1000), len(booru.posts))
    for row, score in zip(booru.posts, scores, strict=True):
        row["score"] = score
    yield booru
    server.shutdown()


def crawl(booru: SampleBooru, folder: Path, *flags: object) -> int:
    shared = ["--base-url", booru.base_url, "--rate", "10000", "--output-dir", str(folder)]
    return script.main([*shared, *map(str, flags)])


def by_score(booru: SampleBooru, descending: bool = True) -> list[str]:
    """MD5s of the posts that can be had, by score."""
    rows = sorted(booru.posts, key=lambda row: (row["score"], row["id"]), reverse=descending)
    return [row["md5"] for row in rows if "md5" in row and booru.files[row["md5"]].is_static]


def pairs(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.txt")}


@pytest.mark.parametrize(("order", "descending"), [("order:score", True), ("order:score_asc", False)])
def test_the_true_first_ten_are_fetched(booru: SampleBooru, tmp_path: Path, order: str, descending: bool) -> None:
    assert crawl(booru, tmp_path, "--tags", order, "--target-count", 10) == 0
    assert pairs(tmp_path) == set(by_score(booru, descending)[:10])


def test_it_goes_on_in_that_order_and_downloads_nothing_twice(booru: SampleBooru, tmp_path: Path) -> None:
    for target in (3, 11, 20):
        assert crawl(booru, tmp_path, "--tags", "order:score", "--target-count", target) == 0
        assert pairs(tmp_path) == set(by_score(booru)[:target])
    files = [path for _, path, _, _ in booru.log if "/original/" in path]
    assert len(files) == len(set(files))
    pages = [params.get("page") for _, path, params, _ in booru.log if path == "/posts.json"]
    assert pages[0] == "1" and all(page and page.isdecimal() for page in pages)
    (cursor,) = json.loads((tmp_path / "crawl_state.json").read_text())["cursors"]
    assert cursor["page"] >= 3 and cursor["oldest"] is None


def test_everything_of_a_search_with_an_order(booru: SampleBooru, tmp_path: Path, capsys: Any) -> None:
    assert crawl(booru, tmp_path, "--tags", "order:score", "--target-count", 500) == 1
    assert pairs(tmp_path) >= set(by_score(booru))
    assert "the search has no more posts" in capsys.readouterr().err


@pytest.mark.parametrize("tags", ["order:random", "1girl order:random", "random:50"])
def test_an_order_that_cannot_be_resumed_is_refused(
    booru: SampleBooru, tmp_path: Path, capsys: pytest.CaptureFixture[str], tags: str
) -> None:
    assert crawl(booru, tmp_path / "new", "--tags", tags) == 2
    assert "gives another order every time" in error_line(capsys.readouterr().err)
    assert not booru.log


def test_an_update_goes_by_time(booru: SampleBooru, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crawl(booru, tmp_path, "--tags", "order:score", "--update") == 2
    assert "run it without --update" in error_line(capsys.readouterr().err)


@pytest.mark.parametrize("tags", ["order:id_desc", "border:score", "1girl"])
def test_other_searches_keep_to_the_cursor_of_ids(booru: SampleBooru, tmp_path: Path, tags: str) -> None:
    crawl(booru, tmp_path, "--tags", tags, "--target-count", 3)
    assert "page" not in next(params for _, path, params, _ in booru.log if path == "/posts.json")
