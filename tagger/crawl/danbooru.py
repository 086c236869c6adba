"""Danbooru, and sites that run its software: what its API is called, how its posts read, and what its refusals mean.

    python simple_dan_crawl.py --tags "1girl solo" --target-count 100

Facts about the server are from Danbooru's source and its help pages.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import urljoin

from tagger.crawl.client import Client, Connection, FileFailed, Refused, is_within
from tagger.crawl.posts import ORIGINAL, STATIC, PassedOver, Post, Row, Selection, check_listing
from tagger.files import UserError
from tagger.formats.vocabulary import RATINGS

DOMAIN = "donmai.us"
HOME = f"https://danbooru.{DOMAIN}"
MAX_RATE = 10.0  # requests a second at the most, says its help page; about 1 for long runs
LOGIN_VARIABLE, API_KEY_VARIABLE = "DANBOORU_LOGIN", "DANBOORU_API_KEY"  # an account, from the environment

POSTS_PER_PAGE = 200  # the most that Danbooru lists at once
POST_FIELDS = (
    "id,rating,md5,file_ext,file_url,image_width,image_height,score,media_asset,"
    "tag_string_general,tag_string_character,tag_string_artist,tag_string_copyright,tag_string_meta"
)
TAGS_PER_PAGE = 1000  # the most that Danbooru lists at once
TAG_FIELDS = "id,name,category,post_count,is_deprecated"
RELATION_FIELDS = (
    "id,antecedent_name,consequent_name,status,antecedent_tag[is_deprecated],consequent_tag[is_deprecated]"
)
RELATION_QUERY = {"search[status]": "active"}  # of implications and aliases

# Searches whose order is not that of ids, by which a listing is otherwise read from a cursor on.
ORDERED = re.compile(r"(?<!\S)(order|ordfav|ordfavgroup|ordpool):(?!id\b|id_desc\b)\S+", re.IGNORECASE)
AT_RANDOM = re.compile(r"(?<!\S)(order:random|random:)\S*", re.IGNORECASE)
LAST_PAGE = 1000  # of those with numbers, for everybody without a paid account
IDS_PER_SEARCH = 100  # of `id:1,2,3`, so that an address stays below 2,000 characters


class Tag(NamedTuple):
    """A tag of Danbooru's list; `category` is its number there, which is also the vocabulary's."""

    id: int
    name: str
    category: int
    posts: int


class Danbooru:
    """See `tagger.crawl.sites.Booru`; beside the posts, the list of all tags.

    Raises:
        UserError: a rate that Danbooru does not allow, or half of a login.
    """

    def __init__(self, connection: Connection) -> None:
        self._names = names = connection.names
        if connection.rate > MAX_RATE and is_within(connection.base_url, DOMAIN):
            raise UserError(f"{names.rate} {connection.rate:g}: Danbooru allows {MAX_RATE:.0f} a second; pass less")
        login = connection.login or os.environ.get(LOGIN_VARIABLE)
        api_key = connection.api_key or os.environ.get(API_KEY_VARIABLE)
        if bool(login) != bool(api_key):
            raise UserError(f"{names.api_key if login else names.login}: missing; a login is both, a name and a key")
        if login and not (login + (api_key or "")).isascii():
            raise UserError(f"{names.login}: only ASCII can be sent; copy name and key from your Danbooru profile")
        self.client = Client(replace(connection, login=login, api_key=api_key), self._hint)

    def _hint(self, status: int) -> str:
        """What somebody can do whom Danbooru refuses."""
        names = self._names
        return {
            401: f"check {names.login} and {names.api_key} ({LOGIN_VARIABLE}, {API_KEY_VARIABLE})",
            403: "the site refuses this client or your network: try without a VPN or later, or log in with "
            f"{names.login}",
            404: f"check {names.base_url}",
            410: f"check {names.query}",
            422: f"use fewer tags in {names.query} (two without a paid account), or log in with {names.login}",
        }.get(status, f"check {names.query} and {names.base_url}")

    # -- listings ----------------------------------------------------------------------------------------------------

    def _page(self, path: str, position: str | int, params: Mapping[str, str | int]) -> list[Row]:
        """One page of a listing, empty where it ends. What is no row is left out: null, or without an id."""
        answer = self.client.json(path, _check_rows, **params, **({"page": position} if position else {}))
        return [row for row in answer if _is_row(row)]

    def _pages(self, path: str, position: str, params: Mapping[str, str | int]) -> Iterator[list[Row]]:
        """The pages of a listing, from `position` on: "" or "b<id>" newest first, "a<id>" towards the newest.

        Pages with numbers end at 1000. These have no end but an empty page: a short one may be followed by more. Within
        every page rows are newest first.
        """
        ascending = position.startswith("a")
        while page := self._page(path, position, params):
            yield page
            ids = [row["id"] for row in page]
            position = f"a{max(ids)}" if ascending else f"b{min(ids)}"

    # -- posts -------------------------------------------------------------------------------------------------------

    def query(self, tags: str, min_score: int | None) -> str:
        """The search for these tags, and for posts with at least this score."""
        score = f"score:>={min_score}" if min_score is not None else ""
        return f"{tags} {score}".strip()

    def pages(self, query: str, *, older_than: int | None = None, newer_than: int | None = None) -> Iterator[list[Row]]:
        """See `tagger.crawl.sites.Booru`."""
        position = f"a{newer_than}" if newer_than is not None else f"b{older_than}" if older_than is not None else ""
        params: dict[str, str | int] = {"tags": query, "limit": POSTS_PER_PAGE, "only": POST_FIELDS}
        for page in self._pages("/posts.json", position, params):
            yield sorted(page, key=lambda row: row["id"], reverse=newer_than is None)

    def is_ordered(self, query: str) -> bool:
        """See `tagger.crawl.sites.Booru`."""
        if found := AT_RANDOM.search(query):
            raise UserError(
                f"{self._names.query}: {found[0]} gives another order every time, and no run could go on; leave it out"
            )
        return ORDERED.search(query) is not None

    def numbered_pages(self, query: str, first: int) -> Iterator[tuple[int, list[Row]]]:
        """See `tagger.crawl.sites.Booru`."""
        params: dict[str, str | int] = {"tags": query, "limit": POSTS_PER_PAGE, "only": POST_FIELDS}
        for number in range(first, LAST_PAGE + 1):
            if not (page := self._page("/posts.json", number, params)):
                return
            yield number, page

    def find_many(self, post_ids: Sequence[int]) -> Iterator[Row]:
        """See `tagger.crawl.sites.Booru`."""
        for start in range(0, len(post_ids), IDS_PER_SEARCH):
            some = ",".join(map(str, post_ids[start : start + IDS_PER_SEARCH]))
            params: dict[str, str | int] = {"tags": f"id:{some}", "limit": IDS_PER_SEARCH, "only": POST_FIELDS}
            yield from self._page("/posts.json", 0, params)

    def find_file(self, md5: str) -> Row | None:
        """See `tagger.crawl.sites.Booru`."""
        page = self._page("/posts.json", 0, {"tags": f"md5:{md5}", "limit": 1, "only": POST_FIELDS})
        return next((row for row in page if row.get("md5") == md5), None)

    def spelling_hint(self, tags: str) -> str:
        """See `tagger.crawl.sites.Booru`."""
        commas = "separate tags by blanks, not by commas; " if "," in tags else ""
        return f"{commas}Danbooru writes a tag with underscores (long_hair); look it up at {self.client.base_url}/tags"

    def find(self, post_id: int) -> Row:
        """See `tagger.crawl.sites.Booru`."""
        try:
            row = self.client.json(f"/posts/{post_id}.json", lambda answer: None, only=POST_FIELDS)
        except Refused as error:
            if error.status != 404:
                raise
            raise FileFailed("the post is gone") from None
        if not isinstance(row, dict) or row.get("id") != post_id:
            raise FileFailed("the server answers with another post")
        return row

    def read_post(self, row: Row, selection: Selection) -> Post:
        """See `tagger.crawl.sites.Booru`."""
        md5, url, suffix = row.get("md5"), row.get("file_url"), row.get("file_ext")
        if not isinstance(md5, str) or not isinstance(url, str) or not isinstance(suffix, str):
            raise PassedOver("hidden")  # banned, restricted or taken down: the keys are absent
        pixels = _number(row.get("image_width")) * _number(row.get("image_height"))
        check_listing(selection, md5=md5, suffix=suffix, score=_number(row.get("score")), pixels=pixels)
        tags = {category: _tags(row, category) for category in selection.categories}
        if not any(tags.values()):
            raise PassedOver("no tags")
        variant = _variant(row, selection.size)
        base = f"{self.client.base_url}/"  # a site of one's own may give addresses without its name
        if variant is None:
            return Post(row["id"], md5, urljoin(base, url), True, suffix, tags)
        return Post(row["id"], md5, urljoin(base, variant["url"]), False, variant["file_ext"], tags)

    # -- tags --------------------------------------------------------------------------------------------------------

    @staticmethod
    def tag_query(categories: Sequence[int], min_posts: int) -> dict[str, str]:
        """The search for the tags of these categories that at least so many posts have."""
        return {
            "search[category]": ",".join(map(str, sorted(categories))),
            "search[post_count]": f">={min_posts}",
            "search[hide_empty]": "yes",
        }

    def tags(self, categories: Sequence[int], min_posts: int, position: str = "") -> Iterator[tuple[list[Tag], str]]:
        """The tags of these categories that at least so many posts have, page by page, newest first.

        Args:
            position: where to go on, from an earlier page; "" begins.

        Yields:
            The tags of a page, and the position behind it.

        Raises:
            Refused, Unreachable: see `Client.json`.
        """
        params: dict[str, str | int] = {"limit": TAGS_PER_PAGE, "only": TAG_FIELDS}
        params.update(self.tag_query(categories, min_posts))
        for page in self._pages("/tags.json", position, params):
            # The server is not trusted to have heeded the search.
            found = (_read_tag(row, categories, min_posts) for row in page)
            yield [tag for tag in found if tag], f"b{min(row['id'] for row in page)}"

    def implications(self, position: str = "") -> Iterator[tuple[list[tuple[str, str]], str]]:
        """The implications in force among tags that are not deprecated, page by page, newest first.

        Args:
            position: as for `tags`.

        Yields:
            (antecedent, consequent) of a page, and the position behind it.

        Raises:
            Refused, Unreachable: see `Client.json`.
        """
        return self._relations("/tag_implications.json", position, ("antecedent_tag", "consequent_tag"))

    def aliases(self, position: str = "") -> Iterator[tuple[list[tuple[str, str]], str]]:
        """The aliases in force, page by page, newest first: an old name, and today's, which is not deprecated.

        Args and all else: see `implications`.
        """
        return self._relations("/tag_aliases.json", position, ("consequent_tag",))

    def _relations(
        self, path: str, position: str, not_deprecated: Sequence[str]
    ) -> Iterator[tuple[list[tuple[str, str]], str]]:
        params: dict[str, str | int] = {"limit": TAGS_PER_PAGE, "only": RELATION_FIELDS, **RELATION_QUERY}
        for page in self._pages(path, position, params):
            found = (_read_relation(row, not_deprecated) for row in page)
            yield [pair for pair in found if pair], f"b{min(row['id'] for row in page)}"


def _check_rows(answer: object) -> None:
    """For `Client.json`: a list of objects with ids, without which no next page can be asked for."""
    if not isinstance(answer, list) or (answer and not any(map(_is_row, answer))):
        raise ValueError("no list of rows with ids, as Danbooru's would be")


def _is_row(row: object) -> bool:
    return isinstance(row, dict) and type(row.get("id")) is int


def _read_tag(row: Row, categories: Sequence[int], min_posts: int) -> Tag | None:
    """The tag of a row of /tags.json, or None where it is no tag that was asked for."""
    name, category, posts = row.get("name"), row.get("category"), row.get("post_count")
    if not isinstance(name, str) or not isinstance(category, int) or not isinstance(posts, int):
        return None
    if not name or not name.isprintable() or set(name) & set(", "):  # a comma or a blank would split it in a txt
        return None
    if category not in categories or posts < min_posts or row.get("is_deprecated"):
        return None
    return Tag(row["id"], name, category, posts)


def _read_relation(row: Row, not_deprecated: Sequence[str]) -> tuple[str, str] | None:
    """(antecedent, consequent) of a row of implications or aliases, or None where it is not in force.

    Args:
        not_deprecated: the keys of the tags that must not be deprecated.
    """
    pair = row.get("antecedent_name"), row.get("consequent_name")
    if row.get("status") != "active":
        return None
    for name in pair:
        if not isinstance(name, str) or not name or not name.isprintable() or set(name) & set(", "):
            return None
    for key in not_deprecated:
        tag = row.get(key)
        if isinstance(tag, dict) and tag.get("is_deprecated"):
            return None
    antecedent, consequent = map(str, pair)
    return (antecedent, consequent) if antecedent != consequent else None


def _tags(row: Row, category: str) -> list[str]:
    if category == "rating":
        rating = RATINGS.get(str(row.get("rating")))
        return [rating] if rating else []
    listed = str(row.get(f"tag_string_{category}") or "").split()
    return [name for name in dict.fromkeys(listed) if "," not in name and name.isprintable()]


def _variant(row: Row, size: str) -> dict[str, str] | None:
    """The variant of this size, or None where the original is meant or the post has no such variant."""
    try:
        variants = row["media_asset"]["variants"] if size != ORIGINAL else []
        found = (v for v in variants if v["type"] == size and v["file_ext"] in STATIC)
        return next((v for v in found if v["url"] and isinstance(v["url"], str)), None)
    except (KeyError, TypeError):
        return None


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
