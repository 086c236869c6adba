"""Open any image safely and make it what the model sees: upright, on white, padded to a square, resized.

create_tfrecord.py and wdv3_pytorch.py share this, so that training and inference see the same pixels:

    python -c "import images; print(images.prepare('test.png', 448).size)"
"""

import io
import math
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from files import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")  # what may stand beside a txt; the first of them wins

JPEG_QUALITY = 95
WHITE = (255, 255, 255)

# Pillow warns above MAX_IMAGE_PIXELS and refuses above twice that; open_image refuses above the first, and asks for no
# warnings (`catch_warnings` is not thread-safe). Metadata out of order (EXIF, ICC) says nothing about the pixels.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class UnreadableImage(UserError):
    """The file is no image that can be decoded in full, or one too large to be decoded safely."""


def open_image(source: Path | str | bytes, at_least: int | None = None) -> Image.Image:
    """Decode an image as upright RGB on white.

    EXIF orientation is applied; alpha (also of palettes and of tRNS chunks) is composited on white; 16-bit, grayscale
    and CMYK images become 8-bit RGB. Of an animation, the first frame.

    Args:
        source: a path, or the bytes of a file.
        at_least: a JPEG may be decoded at 1/2, 1/4 or 1/8 as long as its longer side keeps this many pixels, which
            takes a fraction of the time (`Image.draft`). None decodes in full.

    Raises:
        UnreadableImage: missing, no image, truncated, damaged, or beyond Pillow's limit against decompression bombs.
    """
    name = "image" if isinstance(source, bytes) else str(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
            if at_least is not None:
                scale = at_least / max(image.size)
                image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
            image.load()
            return to_rgb(_upright(image))
    except FileNotFoundError:
        raise UnreadableImage(f"{name}: no such file; check the path") from None
    except IsADirectoryError:
        raise UnreadableImage(f"{name}: a folder, not an image; name the images in it") from None
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"{name}: too large to decode safely ({error}); scale it down") from None
    except UnidentifiedImageError:
        raise UnreadableImage(f"{name}: not an image that Pillow knows; replace or remove it") from None
    except Exception as error:  # a decoder fed with damaged data may raise anything (struct.error, IndexError, zlib…)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(f"{name}: damaged image ({reason}); replace or remove it") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF that cannot be parsed raises anything, and says nothing about the pixels
        return image


def is_animated(data: bytes) -> bool:
    """Whether the bytes of an image hold more than one frame (gif, webp, png)."""
    with Image.open(io.BytesIO(data)) as image:
        return getattr(image, "is_animated", False)


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB on white, from an image of any mode."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_eight_bits(image)
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, WHITE)
        canvas.alpha_composite(image)
        image = canvas
    return image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Pillow clips 16-bit grey values at 255 instead of scaling them, which turns such pictures white."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    full_scale = 255 if image.mode == "F" else 65535
    return Image.fromarray(np.clip(values * (255 / full_scale) + 0.5, 0, 255).astype(np.uint8))


def pad_to_square(image: Image.Image) -> Image.Image:
    """The image in the middle of a white square as large as its longer side."""
    side = max(image.size)
    canvas = Image.new("RGB", (side, side), WHITE)
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


def prepare(source: Path | str | bytes, size: int, *, reduced_decoding: bool = False) -> Image.Image:
    """Open an image and make it the model's RGB input, `size` × `size` pixels, as SmilingWolf's WD taggers do.

    Args:
        source: a path, or the bytes of a file.
        size: the side of the square in pixels.
        reduced_decoding: decode large JPEGs at a fraction of their size, never below twice the target. Fast enough
            for a million files; the pixels differ by a grey level or two from a full decode.

    Raises:
        UnreadableImage: see `open_image`.
    """
    square = pad_to_square(open_image(source, at_least=2 * size if reduced_decoding else None))
    return square.resize((size, size), Image.Resampling.BICUBIC)


def encode_jpeg(image: Image.Image, quality: int = JPEG_QUALITY) -> bytes:
    """An RGB image as baseline JPEG bytes; chroma is kept at full resolution, for line art bleeds without it."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()


def to_array(image: Image.Image, channel_order: str = "RGB") -> np.ndarray:
    """Pixels as uint8 (H, W, 3), the channels in the order "RGB" or "BGR" (what WD v3 models were trained on)."""
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[..., ::-1] if channel_order == "BGR" else pixels
