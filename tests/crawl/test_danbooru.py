"""danbooru.py: what a row of Danbooru's lists says, its logins, and the hints of its refusals.

python -m pytest tests/crawl/test_danbooru.py
"""

from typing import Any

import pytest

from tagger.crawl import danbooru
from tagger.crawl.client import Connection, SettingNames
from tagger.crawl.danbooru import Danbooru, Tag
from tagger.crawl.posts import PassedOver, Selection
from tagger.files import UserError

MD5 = "0123456789abcdef" * 2
ROW = {
    "id": 7,
    "rating": "s",
    "md5": MD5,
    "file_ext": "png",
    "file_url": "https://cdn/original.png",
    "image_width": 1000,
    "image_height": 2000,
    "score": 5,
    "tag_string_general": "solo smile",
    "tag_string_character": "saber",
    "tag_string_artist": "ke-ta",
    "media_asset": {"variants": [{"type": "sample", "url": "https://cdn/sample.jpg", "file_ext": "jpg"}]},
}
FLAGS = SettingNames(login="--login", api_key="--api-key", query="--tags", base_url="--base-url", rate="--rate")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Danbooru:
    return connect(monkeypatch)


def connect(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Danbooru:
    for name in (danbooru.LOGIN_VARIABLE, danbooru.API_KEY_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    return Danbooru(Connection(**{"base_url": danbooru.HOME, **settings}))


# --- connections ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rate": 11.0}, "--rate 11: Danbooru allows 10 a second"),
        ({"login": "alice"}, "--api-key: missing"),
        ({"api_key": "secret"}, "--login: missing"),
        ({"login": "älice", "api_key": "secret"}, "--login: only ASCII"),
    ],
)
def test_unusable_settings_are_named_as_the_caller_calls_them(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        connect(monkeypatch, names=FLAGS, **settings)
    assert "secret" not in str(caught.value)


def test_another_site_may_be_asked_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connect(monkeypatch, base_url="http://127.0.0.1:8000", rate=1000.0).client.throttle.rate == 1000


def test_hints_name_what_can_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    hint = connect(monkeypatch, names=FLAGS)._hint
    assert "--login and --api-key (DANBOORU_LOGIN, DANBOORU_API_KEY)" in hint(401)
    assert "--base-url" in hint(404) and "--tags" in hint(410)
    assert "fewer tags in --tags" in hint(422)
    assert hint(418) == "check --tags and --base-url"


def test_without_names_hints_are_plain_words(site: Danbooru) -> None:
    assert all("--" not in site._hint(status) for status in (401, 403, 404, 410, 422, 418))


# --- posts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "min_score", "query"),
    [("1girl", None, "1girl"), ("", None, ""), ("", 5, "score:>=5"), ("1girl", -1, "1girl score:>=-1")],
)
def test_a_query(site: Danbooru, tags: str, min_score: int | None, query: str) -> None:
    assert site.query(tags, min_score) == query


def test_a_row_becomes_a_post(site: Danbooru) -> None:
    post = site.read_post(ROW, Selection("original", ("rating", "general", "character", "artist")))
    assert (post.id, post.md5, post.url, post.suffix) == (7, MD5, "https://cdn/original.png", "png")
    assert post.is_original
    assert post.names == ["sensitive", "solo", "smile", "saber", "ke-ta"]
    assert post.categories == {"saber": 4, "ke-ta": 1}


def test_a_smaller_file_where_there_is_one(site: Danbooru) -> None:
    sample = site.read_post(ROW, Selection("sample"))
    assert (sample.url, sample.suffix, sample.is_original) == ("https://cdn/sample.jpg", "jpg", False)
    assert site.read_post(ROW, Selection("720x720")).is_original


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"md5": None}, "hidden"),
        ({"file_url": 7}, "hidden"),
        ({"md5": "../../../evil"}, "MD5"),
        ({"md5": MD5.upper()}, "MD5"),
        ({"md5": MD5 + "\n"}, "MD5"),
        ({"file_ext": "zip"}, "zip file"),
        ({"image_width": 30_000, "image_height": 30_000}, "too large"),
        ({"rating": 7, "tag_string_general": None}, "no tags"),
        ({"score": None}, "score"),
    ],
)
def test_what_is_passed_over(site: Danbooru, damage: dict[str, Any], reason: str) -> None:
    with pytest.raises(PassedOver, match=reason):
        site.read_post({**ROW, **damage}, Selection(min_score=5))


@pytest.mark.parametrize(
    "assets", [None, 7, [], {}, {"variants": None}, {"variants": [7]}, {"variants": [{"type": "sample", "url": None}]}]
)
def test_damaged_variants_leave_the_original(site: Danbooru, assets: Any) -> None:
    assert site.read_post({**ROW, "media_asset": assets}, Selection("sample")).is_original


def test_a_name_that_would_split_or_break_a_list_is_no_tag(site: Danbooru) -> None:
    post = site.read_post({**ROW, "tag_string_general": "solo a,b solo \x1b[31m smile"}, Selection())
    assert post.names == ["sensitive", "solo", "smile"]


# --- tags -----------------------------------------------------------------------------------------------------------


def test_tags_page_by_page_with_the_place_behind_each(site: Danbooru, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 10 - n, "name": f"t{n}", "category": n % 2, "post_count": n, "is_deprecated": n == 4} for n in range(6)
    ]
    asked: list[dict[str, Any]] = []

    def answer(path: str, check: Any, **params: Any) -> list[dict[str, Any]]:
        asked.append(params)
        below = int(params.get("page", "b99")[1:])
        return [row for row in rows if row["id"] < below][:4]

    monkeypatch.setattr(site.client, "json", answer)
    pages = list(site.tags([0], min_posts=1))
    assert pages == [([Tag(8, "t2", 0, 2)], "b7"), ([], "b5")]
    assert [params.get("page") for params in asked] == [None, "b7", "b5"]
    assert asked[0]["search[category]"] == "0" and asked[0]["search[post_count]"] == ">=1"
    assert list(site.tags([0], min_posts=1, position="b7")) == pages[1:]
