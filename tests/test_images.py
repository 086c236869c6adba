"""Every image that a dataset may hold comes out upright, on white, in 8-bit RGB, or is refused as unreadable.

python -m pytest tests/test_images.py
"""

import io
import struct
import zlib
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageFilter, JpegImagePlugin

from tagger import images
from tagger.images import UnreadableImage

RED, GREEN, BLUE, YELLOW, WHITE = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 0), (255, 255, 255)
SIZES = st.integers(1, 40)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def photo(width: int, height: int) -> Image.Image:
    """A picture with gradients and edges, the same every time."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 / width, y * 255 / height, (x // 40 + y // 40) % 2 * 255], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8)).filter(ImageFilter.GaussianBlur(2))


def difference(a: Image.Image, b: Image.Image) -> np.ndarray:
    assert a.size == b.size
    return np.asarray(ImageChops.difference(a, b), dtype=np.float64)


def corners(image: Image.Image) -> Any:
    """The colours in the middle of the four quarters, row by row."""
    across, down = (image.width // 4, image.width * 3 // 4), (image.height // 4, image.height * 3 // 4)
    return [image.getpixel((x, y)) for y in down for x in across]


# --- orientation ----------------------------------------------------------------------------------------------------

# What turns an upright image into the stored one that EXIF orientation N describes.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    upright = Image.new("RGB", (64, 32), RED)
    for colour, box in ((GREEN, (32, 0)), (BLUE, (0, 16)), (YELLOW, (32, 16))):
        upright.paste(colour, (*box, box[0] + 32, box[1] + 16))
    method = STORED[orientation]
    stored = upright if method is None else upright.transpose(method)
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = images.open_image(encoded(stored, kind, exif=exif))
    assert opened.size == (64, 32)
    assert np.abs(np.subtract(corners(opened), [RED, GREEN, BLUE, YELLOW])).max() <= 3


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\xff" * 40])
def test_broken_exif_says_nothing_about_the_pixels(exif: bytes) -> None:
    data = encoded(Image.new("RGB", (8, 8), BLUE), "JPEG", quality=95, exif=exif)
    assert np.abs(np.subtract(corners(images.open_image(data)), BLUE)).max() <= 3


# --- modes: the left half is opaque, the right one transparent ------------------------------------------------------


def with_transparent_half(mode: str) -> bytes:
    image = Image.new("RGBA", (8, 4), (*RED, 255) if mode != "LA" else (90, 90, 90, 255))
    image.paste((*GREEN, 0), (4, 0, 8, 4))
    match mode:
        case "palette with one transparent index":
            palette = Image.new("P", image.size, 0)
            palette.putpalette([*RED, *GREEN])
            palette.paste(1, (4, 0, 8, 4))
            return encoded(palette, transparency=1)
        case "palette with alpha values":
            palette = Image.new("P", image.size, 0)
            palette.putpalette([*RED, *GREEN])
            palette.paste(1, (4, 0, 8, 4))
            return encoded(palette, transparency=b"\xff\x00")
        case "RGB with tRNS":
            return encoded(image.convert("RGB"), transparency=GREEN)
        case "L with tRNS":
            grey = Image.new("L", image.size, 90)
            grey.paste(7, (4, 0, 8, 4))
            return encoded(grey, transparency=7)
        case "webp":
            return encoded(image, "WEBP", lossless=True, exact=True)
        case "gif":
            return encoded(image, "GIF")
    return encoded(image.convert(mode))


@pytest.mark.parametrize(
    ("mode", "opaque"),
    [
        ("RGBA", RED),
        ("LA", (90, 90, 90)),
        ("palette with one transparent index", RED),
        ("palette with alpha values", RED),
        ("RGB with tRNS", RED),
        ("L with tRNS", (90, 90, 90)),
        ("webp", RED),
        ("gif", RED),
    ],
)
def test_what_is_transparent_becomes_white(mode: str, opaque: tuple[int, int, int]) -> None:
    image = images.open_image(with_transparent_half(mode))
    assert image.mode == "RGB"
    assert (image.getpixel((1, 1)), image.getpixel((6, 1))) == (opaque, WHITE)


def test_half_transparent_black_becomes_mid_grey() -> None:
    data = encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128)))
    assert images.open_image(data).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize(
    ("mode", "kind", "value", "grey"),
    [
        ("I;16", "PNG", 0x8000, 128),
        ("I;16", "PNG", 0xFFFF, 255),
        ("I;16", "PNG", 300, 1),
        ("I;16", "TIFF", 0x8000, 128),
        ("I;16B", "TIFF", 0x8000, 128),
        ("I", "TIFF", 0x8000, 128),
        ("F", "TIFF", 128.0, 128),
        ("F", "TIFF", 0.5, 128),
        ("F", "TIFF", 1.0, 255),
        ("F", "TIFF", 32768.0, 128),
        ("F", "TIFF", float("nan"), 0),
        ("L", "PNG", 128, 128),
        ("1", "PNG", 1, 255),
        ("1", "PNG", 0, 0),
    ],
)
def test_grey_of_any_depth_keeps_its_shade(mode: str, kind: str, value: float, grey: int) -> None:
    opened = images.open_image(encoded(Image.new(mode, (4, 4), value), kind))
    assert (opened.mode, opened.getpixel((2, 2))) == ("RGB", (grey, grey, grey))


def test_cmyk_becomes_rgb() -> None:
    opened = images.open_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert opened.mode == "RGB"
    assert np.abs(np.subtract(opened.getpixel((4, 4)), RED)).max() <= 3  # type: ignore[arg-type]


# --- metadata says nothing about the pixels -------------------------------------------------------------------------


def png_chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def with_chunk(png: bytes, chunk: bytes) -> bytes:
    """A PNG with one more chunk, behind its header."""
    header = 8 + 25
    return png[:header] + chunk + png[header:]


MANY = b"x" * (2 << 20)
METADATA = {
    "endless text": png_chunk(b"tEXt", b"parameters\0" + MANY),
    "endless compressed text": png_chunk(b"zTXt", b"parameters\0\0" + zlib.compress(MANY)),
    "endless international text": png_chunk(b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(MANY)),
    "endless profile": png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(MANY)),
    "damaged profile": png_chunk(b"iCCP", b"icc\0\0no zlib at all"),
    "wrong checksum of a text": png_chunk(b"tEXt", b"parameters\0a", crc=1),
    "wrong checksum of an orientation": png_chunk(b"eXIf", b"MM\0*", crc=1),
    "unknown chunk with a wrong checksum": png_chunk(b"prIv", b"abc", crc=1),
}


@pytest.mark.parametrize("what", METADATA)
def test_odd_metadata_of_a_png_is_dropped_and_its_pixels_are_read(what: str, tmp_path: Path) -> None:
    picture = photo(60, 40)
    data = with_chunk(encoded(picture), METADATA[what])
    assert not difference(images.open_image(data), picture).any()
    (tmp_path / "a.png").write_bytes(data)
    assert not difference(images.open_image(tmp_path / "a.png"), picture).any()


def test_orientation_and_transparency_survive_odd_metadata() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("RGBA", (20, 10), (255, 0, 0, 0)), exif=exif)
    opened = images.open_image(with_chunk(data, METADATA["wrong checksum of a text"]))
    assert opened.size == (10, 20) and opened.getpixel((0, 0)) == WHITE


def test_damaged_pixels_are_damaged_whatever_the_metadata() -> None:
    data = with_chunk(encoded(photo(60, 40)), METADATA["wrong checksum of a text"])
    at = data.index(b"IDAT") + 20
    with pytest.raises(UnreadableImage, match="damaged"):
        images.open_image(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
    with pytest.raises(UnreadableImage):
        images.open_image(data[:at])


# --- animations -----------------------------------------------------------------------------------------------------


def animation(kind: str) -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    return encoded(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame(kind: str) -> None:
    assert images.is_animated(animation(kind))
    assert images.open_image(animation(kind)).getpixel((4, 4)) == RED


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "JPEG"])
def test_a_single_frame_is_no_animation(kind: str) -> None:
    assert not images.is_animated(encoded(Image.new("RGB", (8, 8), RED), kind))


# --- to the model's input -------------------------------------------------------------------------------------------


@given(SIZES, SIZES)
def test_padding_is_white_and_the_image_in_the_middle(width: int, height: int) -> None:
    side, square = max(width, height), np.asarray(images.pad_to_square(Image.new("RGB", (width, height), BLUE)))
    left, top = (side - width) // 2, (side - height) // 2
    expected = np.full((side, side, 3), 255, dtype=np.uint8)
    expected[top : top + height, left : left + width] = BLUE
    assert np.array_equal(square, expected)


@pytest.mark.parametrize("size", [(301, 200), (90, 333), (64, 64), (7, 1)])
def test_the_pixels_are_those_of_the_public_reference(size: tuple[int, int], tmp_path: Path) -> None:
    image, target = photo(*size), 112
    image.save(tmp_path / "a.png")
    # neggles/wdv3-timm, wdv3_timm.py: pil_pad_square, then timm's bicubic resize with Pillow.
    side = max(image.size)
    canvas = Image.new("RGB", (side, side), WHITE)
    canvas.paste(image, ((side - image.size[0]) // 2, (side - image.size[1]) // 2))
    expected = canvas.resize((target, target), Image.Resampling.BICUBIC)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), encoded(image)):
        assert np.array_equal(np.asarray(images.prepare(source, target)), np.asarray(expected))


def test_channel_order() -> None:
    image = Image.new("RGB", (3, 2), (10, 20, 30))
    assert images.to_array(image).shape == (2, 3, 3) and images.to_array(image).dtype == np.uint8
    assert images.to_array(image)[0, 0].tolist() == [10, 20, 30]
    assert images.to_array(image, "BGR")[0, 0].tolist() == [30, 20, 10]


def test_stored_jpegs_are_close_to_what_they_store() -> None:
    image = photo(56, 56)
    with Image.open(io.BytesIO(images.encode_jpeg(image))) as stored:
        assert stored.format == "JPEG" and JpegImagePlugin.get_sampling(stored) == 0  # 4:4:4
        assert difference(stored.convert("RGB"), image).mean() < 2


# --- decoding at reduced scale --------------------------------------------------------------------------------------

PHOTO = encoded(photo(900, 1300), "JPEG", quality=95)
DRAFT = JpegImagePlugin.JpegImageFile.draft


@given(st.integers(1, 1500))
def test_reduced_decoding_keeps_at_least_what_was_asked_for(at_least: int) -> None:
    width, height = images.open_image(PHOTO, at_least).size
    assert max(width, height) >= min(at_least, 1300)
    assert abs(width / height - 900 / 1300) < 0.01


def test_reduced_decoding_saves_pixels_where_it_can() -> None:
    assert [max(images.open_image(PHOTO, at_least).size) for at_least in (160, 320, 640, 700)] == [163, 325, 650, 1300]


@pytest.mark.parametrize("stretch", [False, True])
@given(st.integers(1, 700))
def test_reduced_decoding_keeps_half_as_much_again_as_the_target(stretch: bool, target: int) -> None:
    with mock.patch.object(JpegImagePlugin.JpegImageFile, "draft", autospec=True, side_effect=DRAFT) as draft:
        images.prepare(PHOTO, target, reduced_decoding=True, stretch=stretch)
        decoded = draft.call_args.args[0].size
        images.prepare(PHOTO, target)
    assert draft.call_count == 1
    assert (min(decoded) if stretch else max(decoded)) >= min(1.5 * target, 900 if stretch else 1300)


@pytest.mark.parametrize("target", [28, 56, 112, 224])
@pytest.mark.parametrize("orientation", [1, 6])
def test_reduced_decoding_is_close_to_full_decoding(target: int, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(896, 1280), "JPEG", quality=95, exif=exif)
    off = difference(images.prepare(data, target), images.prepare(data, target, reduced_decoding=True))
    assert off.mean() < 1 and off.max() < 24


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("stretch", [False, True])
@pytest.mark.parametrize(
    "size", [(1201, 1703), (1703, 1201), (1700, 1699), (337, 1351), (1349, 1349), (3000, 41), (60, 80)]
)
def test_reduced_decoding_moves_nothing(size: tuple[int, int], stretch: bool, orientation: int) -> None:
    """Also where a quarter of a side is no whole number, and where the picture ends amid a pixel of the square."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(*size), "JPEG", quality=95, exif=exif)
    full, reduced = (images.prepare(data, 112, stretch=stretch, reduced_decoding=flag) for flag in (False, True))
    off = difference(full, reduced)
    assert off.mean() < 0.6 and off.max() < 40


def test_stretching_fills_the_square() -> None:
    tall = Image.new("RGB", (10, 40), BLUE)
    assert images.prepare(encoded(tall), 28, stretch=True).getcolors() == [(28 * 28, BLUE)]
    assert images.prepare(encoded(tall), 28).getpixel((0, 14)) == WHITE


# --- what cannot be read --------------------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has next to no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))


def cut(kind: str, share: float) -> bytes:
    data = encoded(photo(120, 90), kind)
    return data[: int(len(data) * share)]


def overwritten() -> bytes:
    data = bytearray(encoded(photo(120, 90)))
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not an image"),
        (b"<!doctype html><title>404</title>", "not an image"),
        (b"\xff\xd8\xff", "not an image"),
        (cut("JPEG", 0.5), "damaged"),
        (cut("PNG", 0.5), "damaged"),
        (cut("WEBP", 0.5), ""),
        (cut("GIF", 0.5), "damaged"),
        (overwritten(), "damaged"),
        (png_header(8, 8), "damaged"),
        (png_header(50_000, 50_000), "too large"),
    ],
    ids=["empty", "html", "head", "jpeg", "png", "webp", "gif", "overwritten", "no pixels", "bomb"],
)
def test_unreadable_files_are_named_in_one_line(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    for read in (lambda: images.open_image(path), lambda: images.prepare(path, 28, reduced_decoding=True)):
        with pytest.raises(UnreadableImage) as caught:
            read()
        assert str(caught.value).startswith(f"{path}: ") and words in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "gone.png", "no such file"), (tmp_path, "folder")):
        with pytest.raises(UnreadableImage, match=words):
            images.open_image(path)


def test_the_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(Image.new("RGB", (4, 4), RED)))
    assert images.open_image(tmp_path / "a.jpg").getpixel((0, 0)) == RED


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pytest's filters replace the module's
def test_the_limit_on_pixels_is_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert images.open_image(encoded(Image.new("RGB", (10, 10)))).size == (10, 10)
    with pytest.raises(UnreadableImage, match="too large"):
        images.open_image(encoded(Image.new("RGB", (101, 1))))
    with pytest.raises(UnreadableImage, match="too large"):
        images.open_image(encoded(Image.new("RGB", (1000, 1))))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert images.open_image(encoded(Image.new("RGB", (101, 1)))).size == (101, 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@given(damage=st.data())
def test_whatever_the_damage_the_image_is_read_or_refused(kind: str, damage: st.DataObject) -> None:
    data = bytearray(encoded(photo(24, 16), kind))
    for position in damage.draw(st.lists(st.integers(0, len(data) - 1), max_size=4)):
        data[position] = damage.draw(st.integers(0, 255))
    kept = damage.draw(st.integers(0, len(data)))
    try:
        assert images.open_image(bytes(data[:kept]), at_least=4).mode == "RGB"
    except UnreadableImage as error:
        assert len(str(error).splitlines()) == 1
