"""Answers of other sites and of bad days: rows that are none, addresses without a host, file after file that fails.

python -m pytest tests/crawl/test_odd_answers.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import simple_dan_crawl as script
from examples.sample_booru.booru import SampleBooru
from examples.sample_booru.server import start
from tagger.crawl import client, crawler
from tests.helpers import error_line


@pytest.fixture
def booru(monkeypatch: pytest.MonkeyPatch) -> Iterator[SampleBooru]:
    monkeypatch.setattr(client, "BACKOFF", 0.001)
    server, booru = start(posts=40)
    yield booru
    server.shutdown()


def crawl(booru: SampleBooru, folder: Path, *flags: object) -> int:
    shared = ["--base-url", booru.base_url, "--rate", "10000", "--output-dir", str(folder)]
    return script.main([*shared, *map(str, flags)])


def pairs(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.txt")}


@pytest.mark.parametrize("kind", ["path", "host", "full"])
def test_addresses_of_files_are_joined_to_the_sites(booru: SampleBooru, tmp_path: Path, kind: str) -> None:
    for row in booru.posts:
        if "file_url" in row:
            path = row["file_url"].removeprefix(booru.base_url)
            row["file_url"] = {"path": path, "host": row["file_url"].removeprefix("http:"), "full": row["file_url"]}[
                kind
            ]
    assert crawl(booru, tmp_path, "--target-count", 5) == 0
    assert len(pairs(tmp_path)) == 5


@pytest.mark.parametrize("size", ["720x720"])
def test_addresses_of_variants_too(booru: SampleBooru, tmp_path: Path, size: str) -> None:
    for row in booru.posts:
        for variant in row["media_asset"].get("variants", ()):
            variant["url"] = variant["url"].removeprefix(booru.base_url)
    assert crawl(booru, tmp_path, "--target-count", 3, "--size", size) == 0


def test_rows_that_are_no_posts_end_no_listing(booru: SampleBooru, tmp_path: Path) -> None:
    def answer(handler: Any, path: str, params: dict[str, str]) -> bool:
        if path != "/posts.json":
            return False
        rows = booru.answer(path, params, None)
        handler.send_json(200, [None, *rows[:3], {"id": "12"}, {"md5": "x"}, "text", *rows[3:], []] if rows else [])
        return True

    booru.intercept = answer  # type: ignore[method-assign]
    assert crawl(booru, tmp_path, "--target-count", 8) == 0
    assert len(pairs(tmp_path)) == 8


def test_a_page_of_no_posts_at_all_is_no_danbooru(
    booru: SampleBooru, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    booru.intercept = lambda handler, path, params: handler.send_json(200, [None, {}]) or True  # type: ignore
    assert crawl(booru, tmp_path) == 2
    assert "no list of rows with ids" in error_line(capsys.readouterr().err)


def refuse_files(booru: SampleBooru, status: int = 500) -> None:
    def answer(handler: Any, path: str, params: dict[str, str]) -> bool:
        if "/original/" in path:
            handler.send_json(status, {"error": "Oops", "message": f"no {path}"})
            return True
        return False

    booru.intercept = answer  # type: ignore[method-assign]


def test_failures_in_a_row_stop_the_crawl_and_say_what_they_have_in_common(
    booru: SampleBooru, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crawler, "ALIKE", 6)
    refuse_files(booru)
    assert crawl(booru, tmp_path, "--target-count", 30, "--jobs", 1) == 2
    message = error_line(capsys.readouterr().err)
    assert (
        "6 files in a row could not be had, all for this reason: HTTP 500" in message and "--retry-failures" in message
    )
    # What was under way is noted too: at most as many as were wanted at once, and not all posts of the site.
    assert 6 <= len((tmp_path / "failures.csv").read_text().splitlines()) - 1 <= 30
    booru.__dict__.pop("intercept")
    assert crawl(booru, tmp_path, "--target-count", 12, "--retry-failures") == 0


def test_failures_among_successes_do_not(booru: SampleBooru, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crawler, "ALIKE", 3)

    def answer(handler: Any, path: str, params: dict[str, str]) -> bool:
        if "/original/" in path and int(path.split("/")[-1][:2], 16) % 2:
            handler.send_json(404, {})
            return True
        return False

    monkeypatch.setattr(crawler, "ALIKE", 40)
    booru.intercept = answer  # type: ignore[method-assign]
    assert crawl(booru, tmp_path, "--target-count", 30, "--jobs", 1) == 1
    assert len(pairs(tmp_path)) > 5


# --- words ----------------------------------------------------------------------------------------------------------


def test_a_search_without_hits_says_how_danbooru_spells(
    booru: SampleBooru, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert crawl(booru, tmp_path, "--tags", "1girl, solo") == 1
    message = capsys.readouterr().err
    assert "nothing was found for '1girl, solo'; separate tags by blanks, not by commas" in message
    assert "underscores (long_hair)" in message and "/tags" in message


def test_a_value_with_a_dash_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.main(["--tags", "-solo"])
    assert "is written --tags=-solo" in capsys.readouterr().err


def test_what_the_folder_holds_is_told(booru: SampleBooru, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crawl(booru, tmp_path, "--target-count", 9, "--categories", "rating,general,character,artist") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{tmp_path}: 9 pairs, 9 of them new")
    assert [line.split(":")[0].split()[-1].rstrip("s") for line in lines[1:]] == [
        "rating",
        "tag",
        "character",
        "artist",
    ]


def test_a_rate_that_is_felt_is_told(booru: SampleBooru, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(script, "FELT_SECONDS", 0.1)
    shared = ["--base-url", booru.base_url, "--output-dir", str(tmp_path), "--target-count", "16"]
    assert script.main([*shared, "--rate", "20"]) == 0
    assert "--rate 20 decided how long this took: 17 requests, files included" in capsys.readouterr().err
