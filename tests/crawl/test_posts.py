"""posts.py: which posts are wanted, and whether a file is what it should be.

python -m pytest tests/crawl/test_posts.py
"""

import hashlib
import io
from typing import Any

import pytest
from PIL import Image

from tagger import images
from tagger.crawl.posts import PassedOver, Post, Selection, check_file, check_listing, to_jpeg

LISTED: dict[str, Any] = {"md5": "0" * 32, "suffix": "jpg", "score": 3, "pixels": 100}


def encoded(kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(out, kind, **options)
    return out.getvalue()


def post_of(data: bytes, is_original: bool = True, suffix: str = "jpg") -> Post:
    return Post(1, hashlib.md5(data).hexdigest(), "https://cdn/x", is_original, suffix, {"general": ["solo"]})


def test_a_plain_listing_passes() -> None:
    check_listing(Selection(min_score=3), **LISTED)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"md5": "0" * 31}, "MD5"),
        ({"md5": "../" + "0" * 29}, "MD5"),
        ({"suffix": "mp4"}, "mp4 file"),
        ({"score": 2}, "score"),
        ({"pixels": images.MAX_PIXELS + 1}, "too large"),
    ],
)
def test_what_is_not_wanted_says_why(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(PassedOver, match=reason):
        check_listing(Selection(min_score=3), **{**LISTED, **change})


def test_an_original_is_known_by_its_md5() -> None:
    data = encoded("JPEG")
    check_file(data, post_of(data))
    for wrong in (data[:-1], b"", b"x" * len(data)):
        with pytest.raises(ValueError, match=f"{len(wrong)} bytes with another MD5"):
            check_file(wrong, post_of(data))
    with pytest.raises(ValueError, match="HTML with another MD5"):
        check_file(b"\n <html>", post_of(data))


def test_a_smaller_file_has_no_md5_and_must_be_decodable() -> None:
    data = encoded("WEBP")
    check_file(data, post_of(b"", is_original=False))
    with pytest.raises(ValueError, match="image"):
        check_file(data[:30], post_of(b"", is_original=False))


def test_only_a_jpeg_stays_as_it_came() -> None:
    data = encoded("JPEG")
    assert to_jpeg(data, "jpg") is data and to_jpeg(data, "jpeg") is data
    with Image.open(io.BytesIO(to_jpeg(encoded("PNG"), "png"))) as image:
        assert (image.format, image.size) == ("JPEG", (20, 10))


def test_an_animation_is_passed_over() -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("blue", "green")]
    with pytest.raises(PassedOver, match="animation"):
        to_jpeg(encoded("GIF", save_all=True, append_images=frames), "gif")


def test_a_damaged_file_is_told_from_an_animation() -> None:
    with pytest.raises(images.UnreadableImage):
        to_jpeg(encoded("PNG")[:40], "png")
