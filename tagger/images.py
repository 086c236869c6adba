"""Open any image safely and make it what the model sees, by default: upright, on white, padded to a square, resized.

create_tfrecord.py and wdv3_pytorch.py share this, so that training and inference see the same pixels:

    python -c "from tagger import images; print(images.prepare('test.png', 448).size)"

`prepare` is the toolkit's own way; `pixels` carries out any other that a model's files describe (tagger.preparation).
"""

import functools
import io
import math
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, _imaging

from tagger.files import UserError
from tagger.preparation import (
    BLACK,
    WHITE,
    CenterCrop,
    Colour,
    Fit,
    Pad,
    PadToSquare,
    Preparation,
    Resize,
    ResizeShorter,
    Size,
    Stage,
)

# What is decoded, whatever a file calls itself. Pillow knows more, but EPS would start Ghostscript on a stranger's file
# (and MPO, a JPEG with more pictures behind it, counts as JPEG).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXEL_CHUNKS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"))

MAX_PIXELS: int = Image.MAX_IMAGE_PIXELS or 0  # Pillow's limit against decompression bombs, about 89 million
JPEG_QUALITY = 95

# A large JPEG is decoded at a fraction of its size that keeps so many pixels for one of the target. On drawings of
# 1200x1700 -> 224, 1.5 decodes at 1/4 and is 51 dB from the full decode (mean difference 0.3 grey levels), 2 at 1/2 and
# 56 dB in 1.6 times the time; storing the result as JPEG costs more than either (43 dB).
DECODED_PER_TARGET = 1.5
BICUBIC_REACH = 2  # target pixels to which a source pixel can spread when it is scaled down


@functools.cache
def set_up_pillow() -> None:
    """Settings that Pillow keeps for a process, made before its first image is decoded."""
    # Pillow warns above MAX_IMAGE_PIXELS and refuses above twice that; open_image refuses above the first, and wants no
    # warnings (`catch_warnings` is not thread-safe). Metadata out of order (EXIF, ICC) says nothing about the pixels.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    # Keep up to 64 MB of freed memory for the next image instead of asking the system for every one: 4 % of the time.
    _imaging.set_blocks_max(4)


class UnreadableImage(UserError):
    """The file is no image that can be decoded in full, or one too large to be decoded safely."""


def limit_pixels(count: int) -> None:
    """Refuse images of more than `count` pixels, in this process."""
    Image.MAX_IMAGE_PIXELS = count


def open_image(
    source: Path | str | bytes, at_least: float | None = None, background: Colour | None = WHITE
) -> Image.Image:
    """Decode an image as upright RGB on white.

    EXIF orientation is applied; alpha (also of palettes and of tRNS chunks) is composited on white; 16-bit, grayscale
    and CMYK images become 8-bit RGB. Of an animation, the first frame.

    Args:
        source: a path, or the bytes of a file.
        at_least: an upright JPEG may be decoded at 1/2, 1/4 or 1/8 as long as its longer side keeps this many pixels,
            which takes a fraction of the time (`Image.draft`). None decodes in full.
        background: another colour under transparent pixels; None drops the alpha, so that their own colour shows.

    Raises:
        UnreadableImage: missing, no image, truncated, damaged, or beyond the limit against decompression bombs.
    """
    return _decode(source, at_least, background=background)[0]


def _decode(
    source: Path | str | bytes,
    at_least: float | None,
    side: Callable[[Iterable[int]], int] = max,
    background: Colour | None = WHITE,
) -> tuple[Image.Image, tuple[int, int], int]:
    """An image as `open_image` gives it, and what of it reduced decoding hides.

    Args:
        side: picks the side that keeps `at_least` pixels.

    Returns:
        The image, its width and height in full, and how much smaller it is (1, 2, 4 or 8): 1,201 pixels fill 300.25
        of 301 at 1/4.
    """
    set_up_pillow()
    name = "image" if isinstance(source, bytes) else str(source)
    try:
        try:
            return _decode_as_it_is(source, at_least, side, background)
        except (OSError, ValueError, SyntaxError):
            # Pillow refuses a PNG for endless or damaged metadata, too; the pixels decide.
            if (pixels := _png_pixels(source)) is None:
                raise
            return _decode_as_it_is(pixels, at_least, side, background)
    except FileNotFoundError:
        raise UnreadableImage(f"{name}: no such file; check the path") from None
    except IsADirectoryError:
        raise UnreadableImage(f"{name}: a folder, not an image; name the images in it") from None
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"{name}: too large to decode safely ({error}); scale it down") from None
    except UnidentifiedImageError:
        raise UnreadableImage(
            f"{name}: not an image in a format that is read here ({', '.join(FORMATS)}); convert, replace or remove it"
        ) from None
    except Exception as error:  # a decoder fed with damaged data may raise anything (struct.error, IndexError, zlib…)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(f"{name}: damaged image ({reason}); replace or remove it") from error


def _decode_as_it_is(
    source: Path | str | bytes, at_least: float | None, side: Callable[[Iterable[int]], int], background: Colour | None
) -> tuple[Image.Image, tuple[int, int], int]:
    """See `_decode`; raises whatever Pillow raises."""
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
        if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
        full, shrink = image.size, 1
        if at_least is not None and image.format == "JPEG" and _orientation(image) == 1:
            scale = at_least / side(image.size)
            drafted = image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
            shrink = round(full[0] / drafted[1][2]) if drafted else 1
        image.load()
        upright = to_rgb(_upright(image), background)
        return upright, full if shrink > 1 else upright.size, shrink


def _png_pixels(source: Path | str | bytes) -> bytes | None:
    """A PNG without its metadata: the chunks that decide about the pixels, and orientation. None for other files.

    A chunk is: length (uint32), type, data, CRC of type and data; big-endian.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    if not data.startswith(PNG_SIGNATURE):
        return None
    kept, at = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        chunk = data[at : at + 12 + length]
        at += len(chunk)
        sound = kind != b"eXIf" or chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))
        if kind in PIXEL_CHUNKS and sound:
            kept.append(chunk)
    return b"".join(kept)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # see _upright
        return 1


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF that cannot be parsed raises anything, and says nothing about the pixels
        return image


def is_animated(data: bytes) -> bool:
    """Whether the bytes of an image hold more than one frame (gif, webp, png)."""
    with Image.open(io.BytesIO(data)) as image:
        return getattr(image, "is_animated", False)


def to_rgb(image: Image.Image, background: Colour | None = WHITE) -> Image.Image:
    """8-bit RGB on white or another colour, from an image of any mode; None drops the alpha."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_eight_bits(image)
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
        if background is not None:
            canvas = Image.new("RGBA", image.size, background)
            canvas.alpha_composite(image)
            image = canvas
    return image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Pillow clips 16-bit and float grey values at 255 instead of scaling them, which turns them white or black."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    full_scale = 65535.0
    if image.mode == "F":  # floats are in 0..1 by convention; some programs write 0..255 or 0..65535
        full_scale = next((scale for scale in (1.0, 255.0) if values.max() <= scale), 65535.0)
    return Image.fromarray(np.clip(values * (255 / full_scale) + 0.5, 0, 255).astype(np.uint8))


def pad_to_square(image: Image.Image) -> Image.Image:
    """The image in the middle of a white square as large as its longer side."""
    side = max(image.size)
    canvas = Image.new("RGB", (side, side), WHITE)
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


def prepare(
    source: Path | str | bytes, size: int, *, stretch: bool = False, reduced_decoding: bool = False
) -> Image.Image:
    """Open an image and make it the model's RGB input, `size` × `size` pixels, as SmilingWolf's WD taggers do.

    Args:
        source: a path, or the bytes of a file.
        size: the side of the square in pixels.
        stretch: distort the image to the square instead of padding it with white.
        reduced_decoding: decode large JPEGs at a fraction of their size (DECODED_PER_TARGET). Fast enough for a
            million files; the pixels differ by a grey level or two from a full decode.

    Raises:
        UnreadableImage: see `open_image`.
    """
    at_least = DECODED_PER_TARGET * size if reduced_decoding else None
    if stretch:
        image, (width, height), shrink = _decode(source, at_least, side=min)
        return image.resize((size, size), Image.Resampling.BICUBIC, box=(0, 0, width / shrink, height / shrink))
    if not reduced_decoding:
        return pad_to_square(open_image(source)).resize((size, size), Image.Resampling.BICUBIC)
    return _resize_on_white(*_decode(source, at_least), size)


def _resize_on_white(image: Image.Image, full: tuple[int, int], shrink: int, size: int) -> Image.Image:
    """What padding to a square and resizing make, without touching the white that stays white.

    The picture lies to the fraction of a pixel where a full decode would lie: half a pixel aside, its lines would
    differ by 40 grey levels. See `_decode` for the arguments.
    """
    side = max(full)
    step = side / shrink / size  # of the image's pixels, for one of the target's
    reach = math.ceil(step * (2 * BICUBIC_REACH + 2))  # more white than this is not seen from the picture's edge
    first, last, before, canvas_size, start = [], [], [], [], []  # each of (width, height)
    for length in full:
        offset = (side - length) // 2
        first.append(max(0, math.floor(offset / shrink / step) - BICUBIC_REACH))
        last.append(min(size, math.ceil((offset + length) / shrink / step) + BICUBIC_REACH))
        before.append(min(reach, math.ceil(offset / shrink)))
        beyond = min(math.ceil((side - offset) / shrink), math.ceil(length / shrink) + reach)
        canvas_size.append(before[-1] + beyond)
        start.append(first[-1] * step - offset / shrink + before[-1])
    if full[0] != full[1]:
        canvas = Image.new("RGB", (canvas_size[0], canvas_size[1]), WHITE)
        canvas.paste(image, (before[0], before[1]))
        # A pixel at the picture's end of which it fills only a part (see _decode) is white for the rest.
        right, lower = before[0] + image.width, before[1] + image.height
        edges = ((right - 1, 0, right, canvas.height), (0, lower - 1, canvas.width, lower))
        for edge, length in zip(edges, full, strict=True):
            if length < side and (rest := -length % shrink):
                mask = Image.new("L", (edge[2] - edge[0], edge[3] - edge[1]), round(255 * rest / shrink))
                canvas.paste(WHITE, edge, mask)
        image = canvas
    width, height = last[0] - first[0], last[1] - first[1]
    end = min(start[0] + width * step, image.width), min(start[1] + height * step, image.height)
    resized = image.resize((width, height), Image.Resampling.BICUBIC, box=(start[0], start[1], *end))
    if resized.size == (size, size):
        return resized
    square = Image.new("RGB", (size, size), WHITE)
    square.paste(resized, (first[0], first[1]))
    return square


def encode_jpeg(image: Image.Image, quality: int = JPEG_QUALITY) -> bytes:
    """An RGB image as baseline JPEG bytes; chroma is kept at full resolution, for line art bleeds without it."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()


def to_array(image: Image.Image, channel_order: str = "RGB") -> np.ndarray:
    """Pixels as uint8 (H, W, 3), the channels in the order "RGB" or "BGR" (what WD v3 models were trained on)."""
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[..., ::-1] if channel_order == "BGR" else pixels


# --- any preparation ------------------------------------------------------------------------------------------------

Array = np.ndarray[Any, Any]
MAX_SCALED_PIXELS = 2 * MAX_PIXELS  # of a strip whose shorter side is scaled to a model's; 1 x 600 for 512 pixels


def pixels(source: Path | str | bytes, preparation: Preparation) -> Array:
    """Open an image and make it a model's pixels, but for scale and layout, which `to_input` gives to a whole batch.

    Args:
        source: a path, or the bytes of a file.

    Returns:
        (H, W, 3) in 0..255, the channels in the model's order: uint8, or float32 where the geometry has floats.

    Raises:
        UnreadableImage: see `open_image`; or a picture so long and thin that it would fill the memory when scaled.
    """
    image = open_image(source, background=preparation.background)
    try:
        return to_pixels(image, preparation)
    except UnreadableImage as error:
        raise UnreadableImage(f"{'image' if isinstance(source, bytes) else source}: {error}") from None


def to_pixels(image: Image.Image, preparation: Preparation) -> Array:
    """An RGB image as `pixels` gives it: the geometry, and the order of the channels."""
    planes = [image]
    if preparation.floats:  # Pillow scales floats of one channel alone
        values = np.asarray(image, dtype=np.float32)
        planes = [Image.fromarray(np.ascontiguousarray(values[..., channel])) for channel in range(3)]
    planes = _carry_out(planes, preparation.stages)
    array = np.stack([np.asarray(plane) for plane in planes], axis=-1) if preparation.floats else np.asarray(planes[0])
    return array[..., ::-1] if preparation.channel_order == "BGR" else array


def to_input(batch: Sequence[Array], preparation: Preparation) -> Array:
    """N images' pixels as the model's input: float32, scaled, (N, 3, H, W) or (N, H, W, 3).

    `device.normalise` does the same on a GPU.
    """
    values = np.stack(batch).astype(np.float32)
    mean, std = (np.asarray(each, dtype=np.float32) for each in (preparation.mean, preparation.std))
    values = (values / np.float32(preparation.divisor) - mean) / std
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2) if preparation.layout == "NCHW" else values)


def _carry_out(planes: list[Image.Image], stages: Sequence[Stage]) -> list[Image.Image]:
    """Geometry; `planes` is one image of all channels, or one of each."""
    for stage in stages:
        size = planes[0].size
        if isinstance(stage, PadToSquare):
            planes = _on_canvas(planes, (max(size), max(size)), stage.colour)
        elif isinstance(stage, Pad):
            planes = _on_canvas(planes, stage.size, stage.colour)
        elif isinstance(stage, CenterCrop):
            planes = _crop(planes, stage.size)
        else:
            planes = _resize(planes, _scaled_size(size, stage), stage.filter)
    return planes


def _scaled_size(size: Size, stage: Fit | Resize | ResizeShorter) -> Size:
    """What a stage makes of a width and height."""
    width, height = size
    if isinstance(stage, Resize):
        return stage.size
    if isinstance(stage, Fit):
        ratio = min(stage.size[0] / width, stage.size[1] / height)
        rounded = round if stage.rounding == "nearest" else int
        return max(1, rounded(width * ratio)), max(1, rounded(height * ratio))
    shorter, longer = stage.side, int(stage.side * max(size) / min(size))
    if stage.longest and longer > stage.longest:
        shorter, longer = max(1, int(stage.longest * shorter / longer)), stage.longest
    return (shorter, longer) if width <= height else (longer, shorter)


def _resize(planes: list[Image.Image], size: Size, filter_name: str) -> list[Image.Image]:
    # All of it, although what follows may take its middle alone: Pillow computes a part (`box`) in another order of
    # passes, and the grey levels of some pixels differ.
    old = planes[0].size
    if size[0] * size[1] > max(MAX_SCALED_PIXELS, old[0] * old[1]):
        raise UnreadableImage(f"its {old[0]} x {old[1]} pixels would become {size[0]} x {size[1]}; cut it into parts")
    return [plane.resize(size, Image.Resampling[filter_name.upper()]) for plane in planes]


def _on_canvas(planes: list[Image.Image], size: Size, colour: Colour) -> list[Image.Image]:
    """The planes in the middle of a canvas."""
    old = planes[0].size
    if len(planes) == 1:
        canvases = [Image.new("RGB", size, colour)]
    else:
        canvases = [Image.new("F", size, value) for value in colour]
    for canvas, plane in zip(canvases, planes, strict=True):
        canvas.paste(plane, ((size[0] - old[0]) // 2, (size[1] - old[1]) // 2))
    return canvases


def _crop(planes: list[Image.Image], wanted: Size) -> list[Image.Image]:
    """What lies in the middle; as torchvision, a smaller picture is padded with black first."""
    size = planes[0].size
    if size[0] < wanted[0] or size[1] < wanted[1]:
        size = (max(size[0], wanted[0]), max(size[1], wanted[1]))
        planes = _on_canvas(planes, size, BLACK)
    left, upper = (round((have - want) / 2) for have, want in zip(size, wanted, strict=True))
    return [plane.crop((left, upper, left + wanted[0], upper + wanted[1])) for plane in planes]
