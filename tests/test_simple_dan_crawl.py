"""simple_dan_crawl.py against a booru that misbehaves in every way that a server can.

python -m pytest tests/test_simple_dan_crawl.py
"""

import csv
import errno
import hashlib
import io
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import simple_dan_crawl
from examples.sample_booru.server import SampleBooru, start
from tagger import files
from tagger.crawl import client, dataset_folder

Intercept = Callable[[Any, str, dict[str, str]], bool]
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_server() -> Iterator[tuple[Any, SampleBooru]]:
    server, booru = start(posts=40)
    yield server, booru
    server.shutdown()


@pytest.fixture
def booru(shared_server: tuple[Any, SampleBooru], monkeypatch: pytest.MonkeyPatch) -> Iterator[SampleBooru]:
    """The honest server; tests make it misbehave by setting `booru.intercept`."""
    _, booru = shared_server
    booru.log.clear()
    monkeypatch.setattr(client, "BACKOFF", 0.02)
    for name in ("DANBOORU_LOGIN", "DANBOORU_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    listing = list(booru.posts)
    yield booru
    booru.__dict__.pop("intercept", None)
    booru.posts[:] = listing


def crawl(booru: SampleBooru, folder: Path, *options: str, rate: str = "1000") -> int:
    return simple_dan_crawl.main(["--base-url", booru.base_url, "--output-dir", str(folder), "--rate", rate, *options])


def answer(handler: BaseHTTPRequestHandler, code: int, body: bytes = b"", **headers: str) -> bool:
    """Send a whole response from an interceptor."""
    handler.send_response(code)
    for name, value in {
        "Content-Length": str(len(body)),
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
    return True


def error_json(name: str, message: str) -> bytes:
    return json.dumps({"success": False, "error": name, "message": message, "backtrace": []}).encode()


def is_file(path: str) -> bool:
    return not path.endswith(".json")


def times(limit: int, then: Intercept, wanted: Callable[[str], bool]) -> Intercept:
    """An interceptor that acts on the first `limit` requests whose path is wanted."""
    lock, count = threading.Lock(), [0]

    def intercept(handler: Any, path: str, params: dict[str, str]) -> bool:
        with lock:
            act = wanted(path) and count[0] < limit
            count[0] += act
        return act and then(handler, path, params)

    return intercept


def is_listing(path: str) -> bool:
    return path == "/posts.json"


def pairs(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.txt") if path.with_suffix(".jpg").exists()}


def savable(booru: SampleBooru) -> list[dict[str, Any]]:
    """The posts that a crawl should save, newest first."""

    def is_static(post: dict[str, Any]) -> bool:
        if "md5" not in post or post["file_ext"] not in ("jpg", "png", "webp", "gif"):
            return False
        data, _ = booru.file(f"/original/{post['md5'][:2]}/{post['md5'][2:4]}/{post['md5']}.{post['file_ext']}")
        with Image.open(io.BytesIO(data)) as image:
            return not getattr(image, "is_animated", False)

    return [post for post in sorted(booru.posts, key=lambda post: -post["id"]) if is_static(post)]


def requests(
    booru: SampleBooru, wanted: Callable[[str], bool]
) -> list[tuple[float, str, dict[str, str], dict[str, str]]]:
    return [entry for entry in booru.log if wanted(entry[1])]


def one_error_line(capsys: pytest.CaptureFixture[str]) -> str:
    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1, errors
    return errors[0]


# --- what it is for -------------------------------------------------------------------------------------------------


def test_ten_newest_pairs_by_default(booru: SampleBooru, tmp_path: Path) -> None:
    assert crawl(booru, tmp_path / "dataset") == 0
    newest = savable(booru)[:10]
    assert pairs(tmp_path / "dataset") == {post["md5"] for post in newest}
    for post in newest:
        rating = {"g": "general", "s": "sensitive", "q": "questionable", "e": "explicit"}[post["rating"]]
        text = (tmp_path / "dataset" / f"{post['md5']}.txt").read_text(encoding="utf-8")
        assert text.split(",") == [rating, *post["tag_string_general"].split()]
    assert not (tmp_path / "dataset" / "tag_categories.csv").exists()


def test_jpeg_originals_are_kept_byte_for_byte_and_others_become_jpeg(booru: SampleBooru, tmp_path: Path) -> None:
    assert crawl(booru, tmp_path, "--target-count", "25") == 0
    for post in savable(booru)[:25]:
        data = (tmp_path / f"{post['md5']}.jpg").read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert image.size == (post["image_width"], post["image_height"])
        assert (hashlib.md5(data).hexdigest() == post["md5"]) == (post["file_ext"] == "jpg")


def test_categories_are_written_in_order_and_carried_on(booru: SampleBooru, tmp_path: Path) -> None:
    assert crawl(booru, tmp_path, "--target-count", "12", "--categories", "artist,rating,general,character") == 0
    with open(tmp_path / "tag_categories.csv", encoding="utf-8", newline="") as file:
        rows = {row["name"]: int(row["category"]) for row in csv.DictReader(file)}
    expected: dict[str, int] = {}
    for post in savable(booru)[:12]:
        listed = (tmp_path / f"{post['md5']}.txt").read_text(encoding="utf-8").split(",")
        general, character, artist = (post[f"tag_string_{c}"].split() for c in ("general", "character", "artist"))
        assert listed[1:] == [*general, *character, *artist]
        expected |= dict.fromkeys(character, 4) | dict.fromkeys(artist, 1)
    assert rows == expected
    assert list(rows) == sorted(rows)


def test_categories_edited_by_hand_stay(booru: SampleBooru, tmp_path: Path) -> None:
    artist = savable(booru)[0]["tag_string_artist"]
    (tmp_path / "tag_categories.csv").write_text(f"name,category\n{artist},4\n", encoding="utf-8")
    assert crawl(booru, tmp_path, "--target-count", "5", "--categories", "general,artist") == 0
    assert f"{artist},4" in (tmp_path / "tag_categories.csv").read_text(encoding="utf-8")


def test_search_and_score(booru: SampleBooru, tmp_path: Path) -> None:
    for number, post in enumerate(savable(booru)):
        post["score"] = number % 3
    assert crawl(booru, tmp_path, "--tags", "rating:g", "--min-score", "2", "--target-count", "3") == 0
    by_md5 = {post["md5"]: post for post in savable(booru)}
    assert all(by_md5[md5]["rating"] == "g" and by_md5[md5]["score"] == 2 for md5 in pairs(tmp_path))
    (_, _, params, _) = requests(booru, is_listing)[0]
    assert params["tags"] == "rating:g score:>=2"


@pytest.mark.parametrize("size", ["sample", "720x720"])
def test_smaller_sizes(booru: SampleBooru, tmp_path: Path, size: str) -> None:
    assert crawl(booru, tmp_path, "--size", size, "--target-count", "4") == 0
    assert len(pairs(tmp_path)) == 4
    kinds = {path.split("/")[1] for _, path, _, _ in requests(booru, is_file)}
    assert size in kinds or kinds == {"original"}  # posts under 850 pixels have no sample: the original does
    assert size != "720x720" or kinds == {"720x720"}


def test_fewer_posts_than_asked_for_is_told(
    booru: SampleBooru, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert crawl(booru, tmp_path, "--target-count", "1000") == 1
    assert pairs(tmp_path) == {post["md5"] for post in savable(booru)}
    assert "no more posts" in capsys.readouterr().err


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        simple_dan_crawl.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for flag in (
        "--tags",
        "--target-count",
        "--output-dir",
        "--base-url",
        "--categories",
        "--size",
        "--rate",
        "--jobs",
        "--min-score",
        "--login",
        "--api-key",
        "--update",
        "--retry-failures",
        "--timeout",
    ):
        assert flag in text


@pytest.mark.parametrize(
    "options",
    [
        ["--categories", "rating,colour"],
        ["--size", "huge"],
        ["--target-count", "0"],
        ["--rate", "0"],
        ["--jobs", "0"],
        ["--base-url", "file:///etc"],
        ["--rate", "11", "--base-url", "https://danbooru.donmai.us"],
        ["--login", "alice"],
    ],
)
def test_wrong_arguments_end_at_once(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DANBOORU_API_KEY", raising=False)
    try:
        code = simple_dan_crawl.main(["--output-dir", str(tmp_path / "d"), *options])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    one_error_line(capsys)


# --- 1-5: refusals stop at once, and credentials stay where they belong ---------------------------------------------


def test_names_itself_on_api_and_cdn(booru: SampleBooru, tmp_path: Path) -> None:
    assert crawl(booru, tmp_path, "--target-count", "2") == 0  # the server refuses HTTP libraries' names
    assert len(requests(booru, is_file)) >= 2
    assert all(headers["User-Agent"].startswith("eva02-tagger-toolkit/") for *_, headers in booru.log)


@pytest.mark.parametrize("where", [is_listing, is_file])
def test_challenge_of_cloudflare_stops_at_once(
    booru: SampleBooru, tmp_path: Path, where: Callable[[str], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    page = b"<html><title>Just a moment...</title></html>"
    booru.intercept = times(10**6, lambda h, *_: answer(h, 403, page, cf_mitigated="challenge"), where)  # type: ignore[method-assign]
    assert crawl(booru, tmp_path, "--jobs", "1") == 2
    line = one_error_line(capsys)
    assert "403" in line and "Cloudflare" in line
    assert len(requests(booru, where)) == 1


def test_wrong_key_stops_at_once(booru: SampleBooru, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crawl(booru, tmp_path, "--login", "alice", "--api-key", "wrong") == 2
    line = one_error_line(capsys)
    assert "401" in line and "--api-key" in line and "wrong" not in line
    assert len(booru.log) == 1


@pytest.mark.parametrize("by_environment", [True, False])
def test_credentials_reach_the_api_alone(
    booru: SampleBooru,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    by_environment: bool,
) -> None:
    login, key = next(iter(booru.users.items()))
    options = ["--login", login, "--api-key", key]
    if by_environment:
        monkeypatch.setenv("DANBOORU_LOGIN", login)
        monkeypatch.setenv("DANBOORU_API_KEY", key)
        options = []
    assert crawl(booru, tmp_path, "--target-count", "3", *options) == 0
    assert all("Authorization" in headers for *_, headers in requests(booru, is_listing))
    assert all(login in headers["User-Agent"] for *_, headers in requests(booru, is_listing))
    files = requests(booru, is_file)
    assert files and not any("Authorization" in headers for *_, headers in files)
    told = capsys.readouterr()
    assert key not in told.out + told.err
    assert not any(key in path + str(params) for _, path, params, _ in booru.log)


def test_too_many_tags_stop_at_once_with_the_servers_words(
    booru: SampleBooru, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert crawl(booru, tmp_path, "--tags", "solo smile hat") == 2
    line = one_error_line(capsys)
    assert "TagLimitError" in line and "--tags" in line
    assert len(booru.log) == 1


# --- 6, 10, 11, 13: listings ----------------------------------------------------------------------------------------


def small_pages(booru: SampleBooru, size: int) -> Intercept:
    """Short pages whatever is asked for, and no numbered pages beyond the first."""

    def intercept(handler: Any, path: str, params: dict[str, str]) -> bool:
        if not is_listing(path):
            return False
        if params.get("page", "1").isdigit() and params.get("page", "1") != "1":
            return answer(
                handler, 410, error_json("PaginationExtension::PaginationError", "You cannot go beyond page 1.")
            )
        rows = booru.answer(path, params, None)
        if params.get("page", "").startswith("a"):
            return answer(handler, 200, json.dumps(rows[-size:]).encode())
        return answer(handler, 200, json.dumps(rows[:size]).encode())

    return intercept


def test_goes_deeper_than_numbered_pages_over_short_ones(booru: SampleBooru, tmp_path: Path) -> None:
    booru.intercept = small_pages(booru, 3)  # type: ignore[method-assign]
    assert crawl(booru, tmp_path, "--target-count", "1000") == 1
    assert pairs(tmp_path) == {post["md5"] for post in savable(booru)}


def test_a_page_of_hidden_posts_is_not_the_end(
    booru: SampleBooru, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    booru.intercept = small_pages(booru, 5)  # type: ignore[method-assign]
    hidden = sorted(booru.posts, key=lambda post: -post["id"])[5:10]
    booru.posts[:] = [hide(post) if post in hidden else post for post in booru.posts]
    assert crawl(booru, tmp_path, "--target-count", "1000") == 1
    assert pairs(tmp_path) == {post["md5"] for post in savable(booru)}
    assert "hidden" in capsys.readouterr().out


def hide(post: dict[str, Any]) -> dict[str, Any]:
    """As Danbooru lists a banned post: the keys are absent."""
    return {key: value for key, value in post.items() if key not in ("md5", "file_url", "large_file_url")}


@pytest.mark.parametrize(
    "damage",
    [
        {"md5": None},
        {"file_url": None},
        {"md5": "../../../evil"},
        {"md5": "A" * 32},
        {"file_ext": None},
        {"rating": 7},
        {"media_asset": None},
        {"tag_string_general": None},
        {"image_width": None},
    ],
)
def test_a_damaged_row_stops_no_others(booru: SampleBooru, tmp_path: Path, damage: dict[str, Any]) -> None:
    first = savable(booru)[0]
    booru.posts[booru.posts.index(first)] = {**first, **damage}
    assert crawl(booru, tmp_path / "dataset", "--target-count", "5", "--size", "720x720") == 0
    assert len(pairs(tmp_path / "dataset")) == 5
    assert {path.name for path in tmp_path.iterdir()} == {"dataset"}


def test_uploads_during_the_run_shift_nothing_and_update_fetches_them(booru: SampleBooru, tmp_path: Path) -> None:
    newest, *older = sorted(booru.posts, key=lambda post: -post["id"])
    late = [newest, *older[:7]]
    booru.posts[:] = older[7:]
    honest = small_pages(booru, 4)

    def intercept(handler: Any, path: str, params: dict[str, str]) -> bool:
        if is_listing(path) and params.get("page") and late[0] not in booru.posts:
            booru.posts[:0] = late
        return honest(handler, path, params)

    booru.intercept = intercept  # type: ignore[method-assign]
    assert crawl(booru, tmp_path, "--target-count", "1000") == 1
    arrived = {post.get("md5") for post in late}
    everything = {post["md5"] for post in savable(booru)}
    assert pairs(tmp_path) == everything - arrived
    booru.log.clear()
    assert crawl(booru, tmp_path, "--update") == 0
    assert pairs(tmp_path) == everything
    assert len(requests(booru, is_listing)) == 3  # two pages of four, and the empty one
    count = len(requests(booru, is_file))
    assert crawl(booru, tmp_path, "--update") == 0
    assert len(requests(booru, is_file)) == count


def test_update_wants_a_first_crawl(booru: SampleBooru, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crawl(booru, tmp_path, "--update") == 2
    assert "without --update" in one_error_line(capsys)


# --- 7-9: throttling and errors of the API --------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["seconds", "date", "absent"])
def test_all_workers_wait_when_throttled(
    booru: SampleBooru, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "BACKOFF", 0.7)
    told: list[float] = []

    def throttle(handler: Any, path: str, params: dict[str, str]) -> bool:
        now = time.time()
        told.append(time.monotonic())
        header = {"seconds": "1", "date": formatdate(int(now) + 2, usegmt=True), "absent": None}[form]
        return answer(handler, 429, b"Too many requests", **({"Retry_After": header} if header else {}))

    throttle_once = times(1, throttle, is_file)

    def intercept(handler: Any, path: str, params: dict[str, str]) -> bool:
        if is_file(path):
            time.sleep(0.1)  # so slow that the others would still be at it during the pause
        return throttle_once(handler, path, params)

    booru.intercept = intercept  # type: ignore[method-assign]
    assert crawl(booru, tmp_path, "--target-count", "20", "--jobs", "4") == 0
    assert len(pairs(tmp_path)) == 20
    pause = {"seconds": 1.0, "date": 1.0, "absent": 0.7}[form]
    # Those that were on their way when the answer came may still arrive.
    assert not [at for at, *_ in booru.log if told[0] + 0.1 < at < told[0] + pause - 0.05]


def test_throttled_without_end_is_an_error(
    booru: SampleBooru, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "BACKOFF", 0.001)
    booru.intercept = times(10**6, lambda h, *_: answer(h, 429), is_listing)  # type: ignore[method-assign]
    assert crawl(booru, tmp_path) == 2
    assert "429" in one_error_line(capsys)
    assert len(booru.log) == client.THROTTLE_TRIES


def test_a_very_long_wait_is_told_not_waited_for(
    booru: SampleBooru, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    booru.intercept = times(1, lambda h, *_: answer(h, 429, Retry_After="86400"), is_listing)  # type: ignore[method-assign]
    assert crawl(booru, tmp_path) == 2
    assert "86400" in one_error_line(capsys)


def test_the_rate_is_never_exceeded(booru: SampleBooru, tmp_path: Path) -> None:
    rate, burst = 25, client.BURST
    assert crawl(booru, tmp_path, "--target-count", "30", "--jobs", "8", rate=str(rate)) == 0
    at = [entry[0] for entry in booru.log]
    assert len(at) >= 31
    for first in range(len(at)):
        for last in range(first, len(at)):
            # 20 ms: what a request may take from the client's clock to the server's
            assert last - first + 1 <= burst + rate * (at[last] - at[first] + 0.02) + 1


def canceled(handler: Any, *_: Any) -> bool:
    return answer(handler, 500, error_json("ActiveRecord::QueryCanceled", "The database timed out running your query."))


AILMENTS: dict[str, Intercept] = {
    "query time-out": canceled,
    "502": lambda h, *_: answer(h, 502, b"<html>Bad Gateway</html>"),
    "503": lambda h, *_: answer(h, 503, b"<html>Down for maintenance</html>", Retry_After="0"),
    "HTML with 200": lambda h, *_: answer(h, 200, b"<html>Down for maintenance</html>"),
    "truncated JSON": lambda h, *_: answer(h, 200, b'[{"id": 1, "md5":'),
    "an object": lambda h, *_: answer(h, 200, b'{"success": true}'),
    "rows without ids": lambda h, *_: answer(h, 200, b'[{"md5": "x"}]'),
    "a list of numbers": lambda h, *_: answer(h, 200, b"[1, 2]"),
}


@pytest.mark.parametrize("ailment", AILMENTS)
def test_a_passing_ailment_of_the_api_is_waited_out(booru: SampleBooru, tmp_path: Path, ailment: str) -> None:
    booru.intercept = times(2, AILMENTS[ailment], is_listing)  # type: ignore[method-assign]
    assert crawl(booru, tmp_path, "--target-count", "3") == 0
    assert len(pairs(tmp_path)) == 3


@pytest.mark.parametrize("ailment", AILMENTS)
def test_a_lasting_ailment_of_the_api_is_an_error(
    booru: SampleBooru, tmp_path: Path, ailment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    booru.intercept = times(10**6, AILMENTS[ailment], is_listing)  # type: ignore[method-assign]
    assert crawl(booru, tmp_path) == 2
    line = one_error_line(capsys)
    assert ailment != "query time-out" or "QueryCanceled" in line
    assert len(booru.log) <= client.TRIES**2


# --- 14-18: files ---------------------------------------------------------------------------------------------------


def whole_file(booru: SampleBooru, path: str) -> bytes:
    data, _ = booru.file(path)
    return data


def cut(booru: SampleBooru) -> Intercept:
    """Announce the whole body, send half of it, hang up."""

    def intercept(handler: Any, path: str, params: dict[str, str]) -> bool:
        data = whole_file(booru, path)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2])
        handler.wfile.flush()
        handler.close_connection = True
        return True

    return intercept


@pytest.mark.parametrize("then", ["206", "200", "416", "206 from elsewhere"])
def test_a_cut_connection_is_resumed(booru: SampleBooru, tmp_path: Path, then: str) -> None:
    asked: list[str] = []
    cut_once = times(1, cut(booru), is_file)

    def intercept(handler: Any, path: str, params: dict[str, str]) -> bool:
        if cut_once(handler, path, params):
            return True
        if is_file(path) and (wanted := handler.headers.get("Range")):
            asked.append(wanted)
            data = whole_file(booru, path)
            if then == "200":
                return answer(handler, 200, data)
            if then == "416":
                return answer(handler, 416, Content_Range=f"bytes */{len(data)}")
            if then == "206 from elsewhere":
                return answer(handler, 206, data, Content_Range=f"bytes 0-{len(data) - 1}/{len(data)}")
        return False

    booru.intercept = intercept  # type: ignore[method-assign]
    assert crawl(booru, tmp_path, "--target-count", "1", "--jobs", "1") == 0
    assert pairs(tmp_path) == {savable(booru)[0]["md5"]}
    assert len(asked) == 1 and asked[0].startswith("bytes=") and asked[0] != "bytes=0-"
    assert len(requests(booru, is_file)) == (2 if then in ("206", "200") else 3)


def wrong_bytes(booru: SampleBooru) -> Intercept:
    return lambda handler, path, _: answer(handler, 200, bytes(len(whole_file(booru, path))))


def fate_of_one_file(booru: SampleBooru, behave: Intercept) -> str:
    """Let the newest savable file misbehave for ever; its MD5."""
    md5 = savable(booru)[0]["md5"]
    booru.intercept = times(10**6, behave, lambda path: is_file(path) and md5 in path)  # type: ignore[method-assign]
    return md5


BAD_FILES = ["wrong bytes", "HTML", "nothing", "cut", "500", "403", "redirected in circles"]


def bad_file(booru: SampleBooru, how: str) -> Intercept:
    return {
        "wrong bytes": wrong_bytes(booru),
        "HTML": lambda h, *_: answer(h, 200, b"<html>hot-linking is not allowed</html>"),
        "nothing": lambda h, *_: answer(h, 200),
        "cut": cut(booru),
        "500": lambda h, *_: answer(h, 500),
        "403": lambda h, *_: answer(h, 403, b"forbidden"),
        "redirected in circles": lambda h, path, _: answer(h, 302, Location=path),
    }[how]


@pytest.mark.parametrize("how", BAD_FILES)
def test_a_bad_file_fails_three_times_and_stops_no_others(booru: SampleBooru, tmp_path: Path, how: str) -> None:
    md5 = fate_of_one_file(booru, bad_file(booru, how))
    assert crawl(booru, tmp_path, "--target-count", "6") == 1
    assert pairs(tmp_path) == {post["md5"] for post in savable(booru)[1:7]}
    failures = (tmp_path / "failures.csv").read_text(encoding="utf-8").splitlines()
    assert failures[0] == "post_id,reason" and len(failures) == 2
    assert failures[1].startswith(f"{savable(booru)[0]['id']},") and len(failures[1].split(",", 1)[1]) > 3
    if how != "redirected in circles":
        assert len(requests(booru, lambda path: md5 in path)) == client.FILE_TRIES
    # It is not asked for again until it is wanted …
    asked = len(requests(booru, lambda path: md5 in path))
    assert crawl(booru, tmp_path, "--target-count", "7") == 1
    assert len(requests(booru, lambda path: md5 in path)) == asked
    # … and then, the server being well again, it is there.
    booru.__dict__.pop("intercept")
    assert crawl(booru, tmp_path, "--target-count", "7", "--retry-failures") == 0
    assert md5 in pairs(tmp_path)
    assert (tmp_path / "failures.csv").read_text(encoding="utf-8") == "post_id,reason\n"


def test_wrong_bytes_once_are_fetched_again_from_the_start(booru: SampleBooru, tmp_path: Path) -> None:
    booru.intercept = times(1, wrong_bytes(booru), is_file)  # type: ignore[method-assign]
    assert crawl(booru, tmp_path, "--target-count", "1", "--jobs", "1") == 0
    assert not any("Range" in headers for *_, headers in requests(booru, is_file))


def test_a_file_that_was_replaced_is_found_by_asking_for_the_post_again(booru: SampleBooru, tmp_path: Path) -> None:
    post, other = savable(booru)[0], savable(booru)[-1]
    stale = {**post, "md5": "0" * 32, "file_url": post["file_url"].replace(post["md5"], "0" * 32)}
    booru.posts[booru.posts.index(post)] = stale
    fresh = json.dumps(post).encode()
    booru.intercept = lambda h, path, _: path == f"/posts/{post['id']}.json" and answer(h, 200, fresh)  # type: ignore[method-assign]
    assert crawl(booru, tmp_path, "--target-count", "3") == 0
    assert post["md5"] in pairs(tmp_path) and "0" * 32 not in pairs(tmp_path)
    assert other["md5"] not in pairs(tmp_path)


@pytest.mark.parametrize("gone", ["file", "post"])
def test_a_file_that_is_gone_is_a_failure(booru: SampleBooru, tmp_path: Path, gone: str) -> None:
    post = savable(booru)[0]
    lost = [post["md5"], f"/posts/{post['id']}.json"] if gone == "post" else [post["md5"]]
    booru.intercept = lambda h, path, _: any(part in path for part in lost) and answer(h, 404)  # type: ignore[method-assign]
    md5 = post["md5"]
    assert crawl(booru, tmp_path, "--target-count", "3") == 1
    assert len(pairs(tmp_path)) == 3 and md5 not in pairs(tmp_path)
    assert "gone" in (tmp_path / "failures.csv").read_text() or "404" in (tmp_path / "failures.csv").read_text()


def test_a_trickle_has_a_deadline(booru: SampleBooru, tmp_path: Path) -> None:
    def trickle(handler: Any, path: str, params: dict[str, str]) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        for _ in range(40):
            handler.wfile.write(b"x" * 50)
            handler.wfile.flush()
            time.sleep(0.05)
        handler.close_connection = True
        return True

    md5 = fate_of_one_file(booru, trickle)
    assert crawl(booru, tmp_path, "--target-count", "5", "--timeout", "0.2") == 1
    assert len(pairs(tmp_path)) == 5 and md5 not in pairs(tmp_path)
    assert "slow" in (tmp_path / "failures.csv").read_text()


# --- 20: what files may be ------------------------------------------------------------------------------------------


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def give_file(booru: SampleBooru, data: bytes, suffix: str, **fields: Any) -> dict[str, Any]:
    """Make these bytes the file of the newest post."""
    post = savable(booru)[0]
    md5 = hashlib.md5(data).hexdigest()
    url = f"{booru.base_url}/original/{md5[:2]}/{md5[2:4]}/{md5}.{suffix}"
    changed = {**post, "md5": md5, "file_ext": suffix, "file_url": url, **fields}
    booru.posts[booru.posts.index(post)] = changed
    booru.intercept = lambda h, path, _: md5 in path and answer(h, 200, data)  # type: ignore[method-assign]
    return changed


STILLS = {
    "RGBA png": (encoded(Image.new("RGBA", (60, 40), (255, 0, 0, 0)), "PNG"), "png", (255, 255, 255)),
    "palette png": (encoded(Image.new("P", (60, 40), 0), "PNG", transparency=0), "png", (255, 255, 255)),
    "16-bit png": (encoded(Image.new("I;16", (60, 40), 32768), "PNG"), "png", (128, 128, 128)),
    "static gif": (encoded(Image.new("RGB", (60, 40), (255, 255, 255)), "GIF"), "gif", (255, 255, 255)),
    "webp": (encoded(Image.new("RGB", (60, 40), (255, 255, 255)), "WEBP"), "webp", (255, 255, 255)),
}


@pytest.mark.parametrize("kind", STILLS)
def test_stills_become_jpeg_on_white(booru: SampleBooru, tmp_path: Path, kind: str) -> None:
    data, suffix, colour = STILLS[kind]
    post = give_file(booru, data, suffix)
    assert crawl(booru, tmp_path, "--target-count", "2") == 0
    with Image.open(tmp_path / f"{post['md5']}.jpg") as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (60, 40))
        assert all(abs(a - b) <= 2 for a, b in zip(image.getpixel((30, 20)), colour, strict=True))  # type: ignore[arg-type]


def test_a_cmyk_jpeg_is_kept_as_it_is(booru: SampleBooru, tmp_path: Path) -> None:
    data = encoded(Image.new("CMYK", (60, 40), (0, 90, 0, 0)), "JPEG")
    post = give_file(booru, data, "jpg")
    assert crawl(booru, tmp_path, "--target-count", "2") == 0
    assert (tmp_path / f"{post['md5']}.jpg").read_bytes() == data


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_are_passed_over_and_not_asked_for_again(
    booru: SampleBooru, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "green")]
    post = give_file(booru, encoded(frames[0], kind, save_all=True, append_images=frames[1:]), kind.lower())
    assert crawl(booru, tmp_path, "--target-count", "3") == 0
    assert len(pairs(tmp_path)) == 3 and post["md5"] not in pairs(tmp_path)
    assert "1 animation" in capsys.readouterr().out
    (tmp_path / "crawl_state.json").unlink()
    assert crawl(booru, tmp_path, "--target-count", "4") == 0
    assert len(requests(booru, lambda path: post["md5"] in path)) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"file_ext": "zip"},
        {"file_ext": "mp4"},
        {"file_ext": "swf"},
        {"image_width": 30_000, "image_height": 30_000},
        {"tag_string_general": "", "rating": "?"},
    ],
)
def test_what_is_no_image_for_training_is_not_downloaded(
    booru: SampleBooru, tmp_path: Path, fields: dict[str, Any]
) -> None:
    post = savable(booru)[0]
    booru.posts[booru.posts.index(post)] = {**post, **fields}
    assert crawl(booru, tmp_path, "--target-count", "3") == 0
    assert not requests(booru, lambda path: post["md5"] in path)


def test_a_bomb_that_hides_its_size_is_a_failure(booru: SampleBooru, tmp_path: Path) -> None:
    bomb = encoded(Image.new("1", (30_000, 30_000)), "PNG")
    post = give_file(booru, bomb, "png", image_width=10, image_height=10)
    assert crawl(booru, tmp_path, "--target-count", "3") == 1
    assert post["md5"] not in pairs(tmp_path) and len(pairs(tmp_path)) == 3
    assert "too large" in (tmp_path / "failures.csv").read_text()


def test_tag_names_are_text_never_paths(booru: SampleBooru, tmp_path: Path) -> None:
    post = savable(booru)[0]
    wild = '../../etc/passwd fate/stay_night .. a,b \\m/ don\'t_say_"lazy"'
    booru.posts[booru.posts.index(post)] = {**post, "tag_string_general": wild, "tag_string_artist": "../x,y ../z"}
    folder = tmp_path / "deep" / "dataset"
    assert crawl(booru, folder, "--target-count", "1", "--categories", "general,artist") == 0
    text = (folder / f"{post['md5']}.txt").read_text(encoding="utf-8")
    assert text == '../../etc/passwd,fate/stay_night,..,\\m/,don\'t_say_"lazy",../z'  # a comma would split a tag
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"dataset"}


# --- 12, 19: state, kills and resuming ------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, bytes]:
    """What lies in a dataset folder, but for the cursor, which tells how far and not what."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "crawl_state.json"}


def test_the_same_command_goes_on_and_downloads_nothing_twice(booru: SampleBooru, tmp_path: Path) -> None:
    for target in ("4", "9", "9", "15"):
        assert crawl(booru, tmp_path / "steps", "--target-count", target) == 0
    paths = [path for _, path, _, _ in requests(booru, is_file)]
    assert len(paths) == len(set(paths))
    assert crawl(booru, tmp_path / "once", "--target-count", "15") == 0
    assert content(tmp_path / "steps") == content(tmp_path / "once")


def test_pairs_that_a_person_removed_do_not_come_back(booru: SampleBooru, tmp_path: Path) -> None:
    assert crawl(booru, tmp_path, "--target-count", "5") == 0
    removed = sorted(pairs(tmp_path))[0]
    for suffix in (".jpg", ".txt"):
        (tmp_path / f"{removed}{suffix}").unlink()
    assert crawl(booru, tmp_path, "--target-count", "5") == 0
    assert len(pairs(tmp_path)) == 5 and removed not in pairs(tmp_path)


def test_another_query_has_a_cursor_of_its_own(booru: SampleBooru, tmp_path: Path) -> None:
    assert crawl(booru, tmp_path, "--tags", "rating:g", "--target-count", "4") == 0
    assert crawl(booru, tmp_path, "--tags", "rating:s", "--target-count", "6") == 0
    cursors = json.loads((tmp_path / "crawl_state.json").read_text())["cursors"]
    assert [cursor["query"] for cursor in cursors] == ["rating:g", "rating:s"]
    ratings = [path.read_text().split(",")[0] for path in tmp_path.glob("*.txt")]
    assert sorted(ratings) == ["general"] * 4 + ["sensitive"] * 2


def test_edited_tags_are_never_overwritten(booru: SampleBooru, tmp_path: Path) -> None:
    assert crawl(booru, tmp_path, "--target-count", "3") == 0
    edited = sorted(tmp_path.glob("*.txt"))[0]
    edited.write_text("my,own,tags")
    (tmp_path / "crawl_state.json").unlink()
    assert crawl(booru, tmp_path, "--target-count", "5") == 0
    assert edited.read_text() == "my,own,tags"


def test_a_full_disk_stops_and_the_next_run_goes_on(
    booru: SampleBooru, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, left = files.write_bytes, iter(range(3))

    def write_until_full(path: Path, data: bytes) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(dataset_folder, "write_bytes", write_until_full)
        assert crawl(booru, tmp_path / "a", "--target-count", "8") == 2
    assert "No space left" in one_error_line(capsys)
    assert 0 < len(pairs(tmp_path / "a")) <= 3
    assert {path.stem for path in (tmp_path / "a").glob("*.txt")} == pairs(tmp_path / "a")  # a txt completes a pair
    assert crawl(booru, tmp_path / "a", "--target-count", "8") == 0
    assert crawl(booru, tmp_path / "b", "--target-count", "8") == 0
    assert content(tmp_path / "a") == content(tmp_path / "b")


@pytest.mark.parametrize("damaged", ["crawl_state.json", "failures.csv", "passed_over.csv", "tag_categories.csv"])
def test_a_damaged_file_of_state_is_named(
    booru: SampleBooru, tmp_path: Path, damaged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / damaged).write_text("post_id,reason\nthree,no number\n")
    assert crawl(booru, tmp_path, "--categories", "general,artist") == 2
    assert damaged in one_error_line(capsys)


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_it_ends_as_if_undisturbed(booru: SampleBooru, tmp_path: Path, seed: int) -> None:
    options = ["--target-count", "24", "--categories", "rating,general,artist,character"]
    assert crawl(booru, tmp_path / "calm", *options) == 0
    booru.log.clear()
    chance = random.Random(seed)
    folder = tmp_path / "killed"
    command = [
        sys.executable,
        str(ROOT / "simple_dan_crawl.py"),
        "--base-url",
        booru.base_url,
        "--output-dir",
        str(folder),
        "--rate",
        "1000",
        "--jobs",
        "3",
        *options,
    ]
    process = SimpleNamespace(pid=None)
    in_flight_at_kills = 0
    for _ in range(4):
        victim = chance.randrange(1, 12)
        kill_at = len(booru.log) + victim

        def kill(handler: Any, path: str, params: dict[str, str], kill_at: int = kill_at) -> bool:
            if len(booru.log) >= kill_at and process.pid:
                process.pid.send_signal(signal.SIGKILL)
            return False

        booru.intercept = kill  # type: ignore[method-assign]
        process.pid = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        process.pid.wait()
        in_flight_at_kills += 3
    booru.__dict__.pop("intercept")
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    assert content(folder) == content(tmp_path / "calm")
    paths = [path for _, path, _, _ in requests(booru, is_file)]
    assert len(paths) - len(set(paths)) <= in_flight_at_kills


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_interrupted_by_the_keyboard_it_says_how_to_go_on(booru: SampleBooru, tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "simple_dan_crawl.py"),
        "--base-url",
        booru.base_url,
        "--output-dir",
        str(tmp_path),
        "--rate",
        "5",
        "--target-count",
        "30",
    ]
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background job of a shell ignores it
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed
    ) as process:
        while len(booru.log) < 8:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "goes on" in err and "Traceback" not in err
    count = len(pairs(tmp_path))
    assert f"{count} pair{'s' if count != 1 else ''}," in out
