"""What the sample booru has and what each endpoint of its API answers; server.py puts it on the network.

    python -c "from examples.sample_booru.booru import in_range; print(in_range(7, '5..9'))"

Rows, searches and pages look to a client as Danbooru's do.
"""

import hashlib
import io
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from PIL import Image

from examples.sample_booru.drawing import Post

if TYPE_CHECKING:
    from examples.sample_booru.server import Handler

Row = dict[str, Any]  # a post or a tag, as the API lists it

CATEGORIES = {"general": 0, "artist": 1, "copyright": 3, "character": 4, "meta": 5}
FREE_METATAGS = {"rating", "id", "md5", "order", "limit"}  # these do not count towards a search's two tags
ORDERS = {"score": "score", "favcount": "fav_count", "filesize": "file_size", "mpixels": "image_width"}
RANGED_FIELDS = {"score": "score", "id": "id", "width": "image_width", "height": "image_height"}
DEEPEST_PAGE = 1000
# Longer side and file type. Danbooru lists a "sample" only for pictures above 850 pixels, which these never are.
THUMBNAILS = {"180x180": (180, "jpg"), "360x360": (360, "jpg"), "720x720": (720, "webp"), "sample": (850, "jpg")}
CONTENT_TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "mp4": "video/mp4",
    "zip": "application/zip",
}
EASTERN = timezone(timedelta(hours=-5))


class ApiError(Exception):
    """An answer other than 200, with the body that Danbooru gives it."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"success": False, "error": error, "message": message, "backtrace": []}


class SampleBooru:
    """The posts and what each endpoint answers. Subclass and override `intercept` to misbehave on purpose."""

    def __init__(self, posts: Iterable[Post], base_url: str) -> None:
        self.base_url = base_url
        self.users = {"alice": "key-of-alice"}
        self.log: list[tuple[float, str, dict[str, str], dict[str, str]]] = []  # monotonic time, path, params, headers
        self.lock = threading.Lock()
        self.files: dict[str, Post] = {}
        self.posts: list[Row] = []  # newest first
        for post in sorted(posts, key=lambda post: -post.number):
            row = self.row(post)
            self.posts.append(row)
            if "md5" in row:
                self.files[row["md5"]] = post
        self.by_id = {row["id"]: row for row in self.posts}
        self.tags = self.count_tags()

    def row(self, post: Post) -> Row:
        """A post as /posts.json lists it. Of a hidden one md5 and addresses are absent, not null."""
        # Ids have gaps, like those of any real search, so that nothing may count on their being contiguous.
        number, date = 1000 + 3 * post.number, datetime(2024, 1, 1, tzinfo=EASTERN) + timedelta(minutes=post.number)
        tags = {name: getattr(post, name) for name in CATEGORIES}
        dates = dict.fromkeys(("created_at", "updated_at"), date.isoformat(timespec="milliseconds"))
        asset: Row = {
            "id": number + 7,
            **dates,
            "file_ext": post.file_ext,
            "file_size": len(post.data),
            "image_width": post.width,
            "image_height": post.height,
            "status": "active",
            "is_public": not post.hidden,
        }
        row: Row = {
            "id": number,
            **dates,
            "rating": post.rating,
            "uploader_id": 1,
            "score": 0,
            "up_score": 0,
            "down_score": 0,
            "fav_count": 0,
            "source": "",
            "parent_id": None,
            "pixiv_id": None,
            "has_children": False,
            "has_large": False,  # a "sample" is for images above 850 pixels
            "is_pending": False,
            "is_flagged": False,
            "is_deleted": False,
            "is_banned": post.hidden,
            "bit_flags": 0,
            "image_width": post.width,
            "image_height": post.height,
            "file_ext": post.file_ext,
            "file_size": len(post.data),
            "tag_string": " ".join(sorted(tag for names in tags.values() for tag in names)),
            "tag_count": sum(map(len, tags.values())),
            **{f"tag_string_{name}": " ".join(names) for name, names in tags.items()},
            **{f"tag_count_{name}": len(names) for name, names in tags.items()},
            "media_asset": asset,
        }
        if not post.hidden:
            md5 = hashlib.md5(post.data, usedforsecurity=False).hexdigest()
            variants = self.variants(post, md5)
            asset |= {"md5": md5, "file_key": md5[:9], "variants": variants}
            original = variants[-1]["url"]
            row |= {
                "md5": md5,
                "file_url": original,
                "large_file_url": original,
                "preview_file_url": variants[0]["url"],
            }
        return row

    def variants(self, post: Post, md5: str) -> list[Row]:
        """The sizes in which a file is to be had, the original last."""
        sizes = [("original", max(post.width, post.height), post.file_ext)]
        if is_image(post):
            sizes[:0] = [(name, *THUMBNAILS[name]) for name in ("180x180", "360x360", "720x720")]
        variants = []
        for name, side, extension in sizes:
            width, height = fitted(post.width, post.height, side)
            variants.append(
                {
                    "type": name,
                    "url": f"{self.base_url}/{name}/{md5[:2]}/{md5[2:4]}/{md5}.{extension}",
                    "width": width,
                    "height": height,
                    "file_ext": extension,
                }
            )
        return variants

    def count_tags(self) -> list[Row]:
        """Every tag in use, as /tags.json lists it."""
        counts = Counter(
            (name, category)
            for row in self.posts
            for group, category in CATEGORIES.items()
            for name in row[f"tag_string_{group}"].split()
        )
        return [
            {"id": number, "name": name, "post_count": count, "category": category, "is_deprecated": False}
            for number, ((name, category), count) in enumerate(sorted(counts.items()), start=1)
        ]

    def intercept(self, handler: "Handler", path: str, params: dict[str, str], /) -> bool:
        """Whether the request was answered here, wrongly. The honest server never does that."""
        return False

    # -- endpoints ---------------------------------------------------------------------------------------------------

    def answer(self, path: str, params: dict[str, str], user: str | None) -> Any:
        """The JSON value of an API request.

        Raises:
            ApiError: the request is refused.
        """
        query = params.get("tags", "")
        if path == "/counts/posts.json":
            return {"counts": {"posts": len(self.search(query, user))}}
        if match := re.fullmatch(r"/posts/(\d+)\.json", path):
            if int(match[1]) not in self.by_id:
                raise ApiError(404, "ActiveRecord::RecordNotFound", "That record was not found.")
            return only(self.by_id[int(match[1])], params)
        if path == "/posts.json":
            rows = paginate(self.search(query, user), params, most=200)
        elif path == "/tags.json":
            rows = paginate(self.search_tags(params), params, most=1000)
        else:
            raise ApiError(404, "ActionController::RoutingError", "That page does not exist.")
        return [only(row, params) for row in rows]

    def search(self, query: str, user: str | None) -> list[Row]:
        """The posts that fulfil every term, newest first unless the query has an order."""
        terms = query.split()
        if user is None and sum(term.lstrip("-").split(":")[0] not in FREE_METATAGS for term in terms) > 2:
            message = "You cannot search for more than 2 tags at a time."
            raise ApiError(422, "PostQuery::TagLimitError", message)
        found = self.posts
        for term in terms:
            key, _, value = term.lstrip("-").partition(":")
            if key not in ("order", "limit"):
                fulfils = predicate(key, value, term.lstrip("-"))
                found = [row for row in found if fulfils(row) != term.startswith("-")]
        for term in terms:
            key, _, value = term.partition(":")
            if key == "order" and value in ("id", "id_asc"):
                return found[::-1]
            field, ascending = ORDERS.get(value.removesuffix("_asc")), value.endswith("_asc")
            if key == "order" and field:
                return sorted(found, key=lambda row: (row[field], row["id"]), reverse=not ascending)
        return found

    def search_tags(self, params: Mapping[str, str]) -> list[Row]:
        """The tags that fulfil every search[...], newest first unless search[order] says otherwise."""
        search = {key[len("search[") : -1]: value for key, value in params.items() if key.startswith("search[")}
        rows = self.tags  # none of them is empty, so hide_empty has nothing to hide
        if "category" in search:
            rows = [row for row in rows if str(row["category"]) in search["category"].split(",")]
        if "name_comma" in search:
            rows = [row for row in rows if row["name"] in search["name_comma"].split(",")]
        if "post_count" in search:
            rows = [row for row in rows if in_range(row["post_count"], search["post_count"])]
        orders: dict[str, Callable[[Row], Any]] = {
            "count": lambda row: (-row["post_count"], row["id"]),
            "name": lambda row: row["name"],
        }
        return sorted(rows, key=orders.get(search.get("order", ""), lambda row: -row["id"]))

    def file(self, path: str) -> tuple[bytes, str]:
        """Bytes and content type of a file on the CDN.

        Raises:
            ApiError: 404.
        """
        match = re.fullmatch(r"/(\w+)/\w\w/\w\w/(?:sample-)?([0-9a-f]{32})\.(\w+)", path)
        if match and (post := self.files.get(match[2])):
            kind, extension = match[1], match[3]
            if kind == "original" and extension == post.file_ext:
                return post.data, CONTENT_TYPES[extension]
            side, made_as = THUMBNAILS.get(kind, (0, None))
            if extension == made_as and is_image(post):
                return thumbnail(post, side, extension), CONTENT_TYPES[extension]
        raise ApiError(404, "", "not found")


def is_image(post: Post) -> bool:
    return CONTENT_TYPES[post.file_ext].startswith("image/")


def only(row: Row, params: Mapping[str, str]) -> Row:
    """The row, or those of its keys that `only=` names; `media_asset[variants]` gives all of media_asset."""
    if not params.get("only"):
        return row
    keys = {key.split("[")[0] for key in re.split(r",(?![^\[]*\])", params["only"])}
    return {key: value for key, value in row.items() if key in keys}


def predicate(key: str, value: str, term: str) -> Callable[[Row], bool]:
    """Whether a post fulfils `key:value`, or has the tag `term`."""
    if key == "rating":
        letters = {word[:1] for word in value.split(",")}
        return lambda row: row["rating"] in letters
    if key == "md5":
        return lambda row: row.get("md5") == value
    if key in RANGED_FIELDS:
        return lambda row: in_range(row[RANGED_FIELDS[key]], value)
    return lambda row: term in row["tag_string"].split()


def in_range(number: int, spec: str) -> bool:
    """Danbooru's ranges: 5, 5,7, >5, >=5, <5, <=5, 5.., ..9, 5..9."""
    if match := re.fullmatch(r"(\d*)\.\.(\d*)", spec):
        return (not match[1] or number >= int(match[1])) and (not match[2] or number <= int(match[2]))
    if match := re.fullmatch(r"([<>])(=?)(\d+)", spec):
        limit = int(match[3])
        return (number < limit if match[1] == "<" else number > limit) or (match[2] == "=" and number == limit)
    return str(number) in spec.split(",")


def paginate(rows: Sequence[Row], params: Mapping[str, str], most: int) -> Sequence[Row]:
    """One page: by number, or newest first the rows next before (b<id>) or after (a<id>) an id.

    Raises:
        ApiError: 410 beyond the deepest page.
    """
    limit = min(int(params.get("limit", 20)), most)
    page = params.get("page") or "1"
    if match := re.fullmatch(r"([ab])(\d+)", page):
        pivot = int(match[2])
        newest_first = sorted(rows, key=lambda row: -row["id"])
        if match[1] == "b":
            return [row for row in newest_first if row["id"] < pivot][:limit]
        newer = [row for row in newest_first if row["id"] > pivot]
        return newer[max(0, len(newer) - limit) :]
    if int(page) > DEEPEST_PAGE:
        raise ApiError(410, "PaginationExtension::PaginationError", f"You cannot go beyond page {DEEPEST_PAGE}.")
    start = (max(int(page), 1) - 1) * limit
    return rows[start : start + limit]


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """The size of a picture scaled down to a longer side of so many pixels."""
    scale = min(1, side / max(width, height))
    return round(width * scale), round(height * scale)


def thumbnail(post: Post, side: int, extension: str) -> bytes:
    """The picture on white, scaled down to a longer side of so many pixels."""
    picture = Image.open(io.BytesIO(post.data)).convert("RGBA")
    canvas = Image.new("RGBA", picture.size, "white")
    canvas.alpha_composite(picture)
    out = io.BytesIO()
    resized = canvas.convert("RGB").resize(fitted(post.width, post.height, side))
    resized.save(out, "WEBP" if extension == "webp" else "JPEG", quality=90)
    return out.getvalue()
