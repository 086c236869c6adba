"""From a row of /posts.json to a post, and from its file to the JPEG of a pair. Nothing that a server says is trusted.

python simple_dan_crawl.py --tags "1girl solo" --target-count 100
"""

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tagger import images
from tagger.formats.vocabulary import CATEGORY_NUMBERS, RATINGS

FIELDS = (
    "id,rating,md5,file_ext,file_url,image_width,image_height,score,media_asset,"
    "tag_string_general,tag_string_character,tag_string_artist"
)

STATIC = {"jpg", "jpeg", "png", "webp", "gif", "avif"}  # webp, gif, avif and png may turn out to be animated
SIZES = ("original", "sample", "720x720")

MD5 = re.compile(r"[0-9a-f]{32}")


class PassedOver(Exception):
    """This post is none of those that were asked for; the message is the reason."""


@dataclass(frozen=True)
class Post:
    """What is kept of a post.

    Attributes:
        url: of the file to download.
        is_original: whether that is the file whose MD5 is `md5`.
        tags: what goes into the txt, by category.
    """

    id: int
    md5: str
    url: str
    is_original: bool
    suffix: str
    tags: dict[str, list[str]]

    @property
    def names(self) -> list[str]:
        """The tags of the txt, in its order."""
        return [name for names in self.tags.values() for name in names]

    @property
    def categories(self) -> dict[str, int]:
        """What tag_categories.csv should know."""
        return {
            name: CATEGORY_NUMBERS[category]
            for category in ("character", "artist")
            for name in self.tags.get(category, ())
        }


def read_post(row: dict[str, Any], size: str, categories: Iterable[str], min_score: int | None) -> Post:
    """A post from one row of /posts.json. Nothing in a row is trusted: the MD5 becomes a file name.

    Raises:
        PassedOver: hidden, no static image, too large, or without tags of these categories.
    """
    md5, url, suffix = row.get("md5"), row.get("file_url"), row.get("file_ext")
    if not isinstance(md5, str) or not isinstance(url, str) or not isinstance(suffix, str):
        raise PassedOver("hidden")  # banned, restricted or taken down: the keys are absent
    if not MD5.fullmatch(md5):
        raise PassedOver("MD5 that is none")
    if suffix not in STATIC:
        raise PassedOver(f"{suffix} file")
    if min_score is not None and _number(row.get("score")) < min_score:
        raise PassedOver("score")
    if _number(row.get("image_width")) * _number(row.get("image_height")) > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise PassedOver("too large")
    names = {category: _tags(row, category) for category in categories}
    if not any(names.values()):
        raise PassedOver("no tags")
    variant = _variant(row, size)
    if variant is None:
        return Post(row["id"], md5, url, True, suffix, names)
    return Post(row["id"], md5, variant["url"], False, variant["file_ext"], names)


def _tags(row: dict[str, Any], category: str) -> list[str]:
    if category == "rating":
        rating = RATINGS.get(str(row.get("rating")))
        return [rating] if rating else []
    listed = str(row.get(f"tag_string_{category}") or "").split()
    return [name for name in dict.fromkeys(listed) if "," not in name and name.isprintable()]


def _variant(row: dict[str, Any], size: str) -> dict[str, str] | None:
    """The variant of this size, or None where the original is meant or the post has no such variant."""
    try:
        variants = row["media_asset"]["variants"] if size != "original" else []
        return next((v for v in variants if v["type"] == size and v["url"] and v["file_ext"] in STATIC), None)
    except (KeyError, TypeError):
        return None


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def check_file(data: bytes, post: Post) -> None:
    """Raise ValueError, with the reason, where these bytes are not the post's file."""
    if post.is_original:
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != post.md5:
            kind = "HTML" if data.lstrip()[:1] == b"<" else f"{len(data)} bytes"
            raise ValueError(f"{kind} with another MD5")
        return
    try:
        images.open_image(data)
    except images.UnreadableImage as error:
        raise ValueError(str(error)) from None


def to_jpeg(data: bytes, suffix: str) -> bytes:
    """A JPEG as it came; any other static image as a JPEG on white.

    Raises:
        PassedOver: an animation.
        images.UnreadableImage: damaged, or too large to decode safely.
    """
    if suffix in ("jpg", "jpeg"):
        return data
    picture = images.open_image(data)
    if images.is_animated(data):
        raise PassedOver("animation")
    return images.encode_jpeg(picture)
