"""Texts in the lowest bits of a picture's pixels ("stealth PNG info"), in lossless PNG and WebP.

    python -c "from tagger.inference.embedded.hidden import read_hidden as r; print(r('picture.png'))"

NovelAI hides its metadata so, and Forge can. Fifteen bytes of a signature, 32 bits with the number of the payload's
bits, and the payload lie in the lowest bit of each value, column by column: of alpha, or of red, green and blue in
turn. The format is the one of ashen-sensored/sd_webui_stealth_pnginfo. Pillow decodes the picture, so this takes some
20 ms a megapixel; it is for files whose containers hold nothing.
"""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagger.inference.embedded.containers import MAX_TEXT, PNG_SIGNATURE, Texts, inflate
from tagger.inference.embedded.exif import decode

if TYPE_CHECKING:
    import numpy as np

SIGNATURE_BYTES, LENGTH_BITS = 15, 32
HEADER_BITS = 8 * SIGNATURE_BYTES + LENGTH_BITS
# Signature -> whether the payload is packed with gzip.
ALPHA = {b"stealth_pnginfo": False, b"stealth_pngcomp": True}
COLOURS = {b"stealth_rgbinfo": False, b"stealth_rgbcomp": True}
GZIP = 31  # zlib's wbits
PIXEL_CHUNKS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
PILLOW_FORMATS = ("PNG", "WEBP")


def read_hidden(path: Path | str) -> tuple[str, str, list[str]]:
    """The hidden text of a picture.

    Returns:
        The signature, such as "stealth_pngcomp", the text (both empty where there is none), and what was passed over.
    """
    if (values := _pixels(path)) is None:
        return "", "", []
    texts = Texts()
    for signatures, plane in ((ALPHA, values[..., 3:]), (COLOURS, values[..., :3])):
        if not plane.shape[2]:
            continue
        if (payload := _payload(plane, signatures, texts)) is not None:
            signature, text = payload
            return signature, text, texts.problems
    return "", "", texts.problems


def _pixels(path: Path | str) -> "np.ndarray[Any, Any] | None":
    """Height x width x (3 or 4) bytes as they are stored; None for what cannot hold or show a hidden text."""
    import numpy as np
    from PIL import Image

    from tagger import images

    images.set_up_pillow()
    try:
        with Image.open(_without_texts(path) or path, formats=PILLOW_FORMATS) as picture:
            if picture.mode not in ("RGB", "RGBA") or picture.width * picture.height > images.MAX_PIXELS:
                return None
            return np.asarray(picture)
    except Exception:  # a decoder fed with damaged data may raise anything, and what it cannot read hides nothing
        return None


def _without_texts(path: Path | str) -> io.BytesIO | None:
    """A PNG's pixels alone, for Pillow would read all texts, however long they are; None for another file."""
    with open(path, "rb") as file:
        if file.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
            return None
        kept = io.BytesIO(PNG_SIGNATURE)
        kept.seek(0, io.SEEK_END)
        while len(header := file.read(8)) == 8:
            length, kind = int.from_bytes(header[:4], "big"), header[4:]
            if kind in PIXEL_CHUNKS:
                kept.write(header + file.read(length + 4))
            else:
                file.seek(length + 4, os.SEEK_CUR)
    kept.seek(0)
    return kept


def _payload(plane: "np.ndarray[Any, Any]", signatures: dict[bytes, bool], texts: Texts) -> tuple[str, str] | None:
    """The (signature, text) in the lowest bits of height x width x channels values."""
    if (header := _bits(plane, 0, HEADER_BITS)) is None:
        return None
    signature = header[:SIGNATURE_BYTES]
    if signature not in signatures:
        return None
    length = int.from_bytes(header[SIGNATURE_BYTES:], "big")
    if not length or length % 8:
        texts.problem("a hidden text has an impossible length")
        return None
    if length > 8 * MAX_TEXT:
        texts.problem(f"a hidden text of {length // 8:,} bytes is not read; the limit is {MAX_TEXT:,}")
        return None
    if (data := _bits(plane, HEADER_BITS, length)) is None:
        texts.problem("a hidden text is longer than its picture")
        return None
    if signatures[signature]:
        unpacked = inflate(data, texts, GZIP)
        return None if unpacked is None else (signature.decode(), decode(unpacked))
    return signature.decode(), decode(data)


def _bits(plane: "np.ndarray[Any, Any]", start: int, count: int) -> bytes | None:
    """`count` bits from the lowest ones, column by column; None where the picture has fewer."""
    import numpy as np

    height, width, channels = plane.shape
    if start + count > height * width * channels:
        return None
    column = height * channels  # bits
    first, last = start // column, -(-(start + count) // column)
    columns = plane[:, first:last].transpose(1, 0, 2).reshape(-1)  # only what is needed is put in order
    skipped = start - first * column
    return bytes(np.packbits(columns[skipped : skipped + count] & 1))
