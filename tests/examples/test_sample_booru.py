"""The sample booru keeps its promises: pictures that repeat, tags that can be learnt, an API that is Danbooru's."""

import base64
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from examples.sample_booru.__main__ import main
from examples.sample_booru.drawing import draw_post
from examples.sample_booru.portraits import ARTISTS, CHARACTERS, KINDS, RATINGS, STATIC_KINDS, Portrait
from examples.sample_booru.server import Handler, SampleBooru, start

POSTS = 30


@pytest.fixture(scope="module")
def booru() -> Iterator[SampleBooru]:
    server, booru = start(POSTS)
    yield booru
    server.shutdown()
    server.server_close()


def fetch(url: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of an answer, whichever it is."""
    try:
        with urlopen(Request(url, headers={"User-Agent": "a-test/1", **headers}), timeout=10) as response:
            return response.status, response.read(), dict(response.headers)
    except HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def api(booru: SampleBooru, path: str, **params: Any) -> Any:
    status, body, _ = fetch(f"{booru.base_url}{path}?{urlencode(params)}")
    assert status == 200, body
    return json.loads(body)


# --- pictures -------------------------------------------------------------------------------------------------------


def test_a_number_always_gives_the_same_post():
    assert draw_post(11) == draw_post(11)
    assert draw_post(11).data != draw_post(12).data


def test_forced_fields_show_in_the_tags():
    post = draw_post(11, kind="jpg", hair="green", glasses=True, rating="e")
    assert {"green_hair", "glasses"} <= set(post.general)
    assert post.rating == "e"


def test_tags_are_neither_rare_nor_everywhere():
    portraits = [Portrait.of(number) for number in range(1000)]
    counts = Counter(tag for portrait in portraits for tag in portrait.general)
    assert counts.pop("solo") == 1000
    assert 25 <= len(counts) <= 40
    assert {tag: count for tag, count in counts.items() if not 50 <= count <= 600} == {}

    artists = Counter(portrait.artist for portrait in portraits)
    assert set(artists) == set(ARTISTS)
    assert min(artists.values()) > 150

    characters = Counter(portrait.character for portrait in portraits)
    assert set(characters) == {"", *CHARACTERS}
    assert min(characters.values()) > 40

    ratings = Counter(portrait.rating for portrait in portraits)
    assert all(abs(ratings[rating] - 10 * share) < 50 for rating, share in RATINGS.items())


def test_a_mark_belongs_to_one_character():
    portraits = [Portrait.of(number) for number in range(1000)]
    wearers = {(portrait.mark, portrait.character) for portrait in portraits if portrait.mark}
    assert wearers == {(looks["mark"], name) for name, looks in CHARACTERS.items()}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("mp4", "zip")])
def test_files_are_what_they_are_declared_to_be(kind: str):
    post = draw_post(5, kind=kind)
    image = Image.open(io.BytesIO(post.data))
    image.load()
    assert image.format == {"jpg": "JPEG"}.get(post.file_ext, post.file_ext.upper())
    assert image.size == (post.width, post.height)
    assert getattr(image, "is_animated", False) == (kind not in STATIC_KINDS)
    assert ("transparent_background" in post.general) == (kind == "transparent png")
    if kind == "transparent png":
        assert image.getchannel("A").getpixel((post.width - 1, 0)) == 0


# --- server ---------------------------------------------------------------------------------------------------------


def test_listing_has_every_file(booru: SampleBooru):
    for row in api(booru, "/posts.json", limit=200):
        if row["is_banned"]:
            assert not {"md5", "file_url", "large_file_url"} & row.keys()
            continue
        status, body, _ = fetch(row["file_url"])
        assert status == 200
        assert hashlib.md5(body).hexdigest() == row["md5"]
        assert len(body) == row["file_size"]


def test_pages_by_number_and_by_id(booru: SampleBooru):
    ids = [1000 + 3 * number for number in reversed(range(POSTS))]

    def page(**params: Any) -> list[int]:
        return [row["id"] for row in api(booru, "/posts.json", only="id", **params)]

    assert page() == ids[:20]
    assert page(page=2) == ids[20:]
    assert page(limit=5, page=f"b{ids[9]}") == ids[10:15]
    assert page(limit=5, page=f"a{ids[9]}") == ids[4:9]
    assert page(tags="order:id", limit=3) == ids[:-4:-1]
    assert page(tags=f"id:{ids[8]}..{ids[6]}") == ids[6:9]
    assert fetch(f"{booru.base_url}/posts.json?page=1001")[0] == 410


def test_searches_combine(booru: SampleBooru):
    rows = api(booru, "/posts.json", tags="1girl -glasses rating:g,s")
    expected = [p for p in map(Portrait.of, range(POSTS)) if p.girl and not p.glasses and p.rating in "gs"]
    assert [row["id"] for row in rows] == [1000 + 3 * portrait.number for portrait in reversed(expected)]
    assert api(booru, "/counts/posts.json", tags="1girl -glasses rating:g,s") == {"counts": {"posts": len(rows)}}


def test_accounts_may_search_more_than_two_tags(booru: SampleBooru):
    url = f"{booru.base_url}/posts.json?tags=1girl+glasses+smile"
    status, body, _ = fetch(url)
    assert (status, json.loads(body)["error"]) == (422, "PostQuery::TagLimitError")
    for key, expected in (("key-of-alice", 200), ("wrong", 401)):
        credentials = base64.b64encode(f"alice:{key}".encode()).decode()
        assert fetch(url, Authorization=f"Basic {credentials}")[0] == expected


def test_tags_by_count(booru: SampleBooru):
    search = {"search[category]": 0, "search[order]": "count", "search[post_count]": ">=2", "limit": 1000}
    rows = api(booru, "/tags.json", **search)
    counts = Counter(tag for number in range(POSTS) for tag in Portrait.of(number).general)
    assert {row["name"]: row["post_count"] for row in rows} == {tag: n for tag, n in counts.items() if n >= 2}
    assert rows[0]["name"] == "solo"
    named = api(booru, "/tags.json", **{"search[name_comma]": "solo,inkwell_mori"})
    assert {row["name"]: row["category"] for row in named} == {"solo": 0, "inkwell_mori": 1}


@pytest.mark.parametrize("agent", ["", "python-requests/2", "Mozilla/5.0", "curl/8"])
def test_libraries_and_browsers_are_turned_away(booru: SampleBooru, agent: str):
    status, body, headers = fetch(f"{booru.base_url}/posts.json", **{"User-Agent": agent})
    assert (status, headers["cf-mitigated"]) == (403, "challenge")
    assert b"Just a moment" in body


def test_files_can_be_resumed_and_come_as_thumbnails(booru: SampleBooru):
    row = next(row for row in booru.posts if row.get("file_ext") == "jpg" and not row["is_banned"])
    whole = fetch(row["file_url"])[1]
    status, rest, headers = fetch(row["file_url"], Range="bytes=100-")
    assert (status, rest) == (206, whole[100:])
    assert headers["Content-Range"] == f"bytes 100-{len(whole) - 1}/{len(whole)}"
    assert fetch(row["file_url"], Range=f"bytes={len(whole)}-")[0] == 416
    for variant in row["media_asset"]["variants"]:
        assert Image.open(io.BytesIO(fetch(variant["url"])[1])).size == (variant["width"], variant["height"])


def test_a_subclass_can_misbehave():
    class Broken(SampleBooru):
        def intercept(self, handler: Handler, path: str, params: dict[str, str]) -> bool:
            handler.send_json(503, {"path": path})
            return True

    server, booru = start(1, booru_class=Broken)
    assert fetch(f"{booru.base_url}/posts.json?page=2")[0] == 503
    assert booru.log[0][1:3] == ("/posts.json", {"page": "2"})
    server.shutdown()
    server.server_close()


def test_drawing_pairs(tmp_path, capsys):
    assert main(["draw", "--output-dir", str(tmp_path), "--posts", "4", "--categories", "artist,rating"]) == 0
    texts = sorted(path.read_text(encoding="utf-8") for path in tmp_path.glob("*.txt"))
    words = {"g": "general", "s": "sensitive", "q": "questionable", "e": "explicit"}
    portraits = [portrait for portrait in map(Portrait.of, range(4)) if portrait.kind in STATIC_KINDS]
    assert texts == sorted(f"{words[portrait.rating]},{portrait.artist}" for portrait in portraits)
    assert f"{len(portraits)} pairs" in capsys.readouterr().out
