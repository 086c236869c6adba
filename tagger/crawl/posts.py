"""What a post of a booru is, which posts are wanted, and from a post's file to the JPEG of a pair.

    python -c "from tagger.crawl.posts import to_jpeg; print(len(to_jpeg(open('docs/result.png', 'rb').read(), 'png')))"

Nothing that a server says is trusted: an MD5 becomes a file name, and a picture may be a decompression bomb.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tagger import images
from tagger.formats.vocabulary import CATEGORY_NUMBERS

Row = Mapping[str, Any]  # a post as a server lists it; of its keys only `id`, an int, is sure to be there

STATIC = {"jpg", "jpeg", "png", "webp", "gif", "avif"}  # webp, gif, avif and png may turn out to be animated
ORIGINAL = "original"
SIZES = (ORIGINAL, "sample", "720x720")  # where a post has no file of a size, its original is taken

FIRST_CATEGORIES = frozenset(("rating", "general"))  # whose tags are asked for by default
MD5 = re.compile(r"[0-9a-f]{32}")


class PassedOver(Exception):
    """This post is none of those that were asked for; the message is the reason."""


@dataclass(frozen=True)
class Selection:
    """Which posts are wanted, and what of them.

    Attributes:
        size: one of SIZES.
        categories: names of categories, in the order in which their tags are written.
        min_score: posts below it are passed over.
    """

    size: str = ORIGINAL
    categories: tuple[str, ...] = ("rating", "general")
    min_score: int | None = None


@dataclass(frozen=True)
class Post:
    """What is kept of a post.

    Attributes:
        url: of the file to download.
        is_original: whether that is the file whose MD5 is `md5`.
        suffix: of that file, such as "jpg".
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
        """What tag_categories.csv should know: the tags that are not what a tag is without it."""
        return {
            name: CATEGORY_NUMBERS[category]
            for category, names in self.tags.items()
            if category not in FIRST_CATEGORIES
            for name in names
        }


def check_listing(selection: Selection, *, md5: str, suffix: str, score: int, pixels: int) -> None:
    """What a listing tells of a post, before anything is downloaded.

    Args:
        pixels: width times height of the original.

    Raises:
        PassedOver: the MD5 could not be a file name, no static image, below the score, or too large to decode safely.
    """
    if not MD5.fullmatch(md5):
        raise PassedOver("MD5 that is none")
    if suffix not in STATIC:
        raise PassedOver(f"{suffix} file")
    if selection.min_score is not None and score < selection.min_score:
        raise PassedOver("score")
    if pixels > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise PassedOver("too large")


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
