"""Picture files with texts in them, as generators write them: small writers for the tests.

python -c "from tests.inference.embedded.files import *; saved(Path('.'), png(('tEXt', 'parameters', 'hat')))"
"""

import gzip
import io
import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SETTINGS = "Steps: 24, Sampler: Euler a, CFG scale: 5, Seed: 42, Size: 144x120, Model: some"
INFOTEXT = f"1girl, (artist:aoi kumo:1.2)\nNegative prompt: lowres, artist:never wanted\n{SETTINGS}"


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 60)) -> Image.Image:
    """A gradient."""
    channels = len(mode)
    values = np.arange(size[0] * size[1] * channels, dtype=np.uint32).reshape(size[1], size[0], channels) % 251
    pixels = values.astype(np.uint8)
    if mode == "RGBA":
        pixels[..., 3] = 255
    return Image.fromarray(pixels, mode).copy()


def encoded(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    """A picture as Pillow writes it."""
    out = io.BytesIO()
    (image or picture()).save(out, kind, **options)
    return out.getvalue()


# --- PNG ------------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def text_chunk(kind: str, key: str, text: str | bytes) -> bytes:
    """A chunk with a text; that of zTXt is packed, and that of iTXt too where the kind is `iTXt packed`."""
    data = text.encode() if isinstance(text, str) else text
    name = key.encode() + b"\0"
    if kind == "zTXt":
        return chunk(b"zTXt", name + b"\0" + zlib.compress(data))
    if kind == "iTXt":
        return chunk(b"iTXt", name + b"\0\0\0\0" + data)
    if kind == "iTXt packed":
        return chunk(b"iTXt", name + b"\1\0\0\0" + zlib.compress(data))
    return chunk(kind.encode(), name + data)


def png(*texts: tuple[str, str, str | bytes], at_the_end: bool = False, image: Image.Image | None = None) -> bytes:
    """A PNG with (kind of chunk, key, text), before its pixels or behind them."""
    return with_chunks(encoded("PNG", image), *(text_chunk(*text) for text in texts), at_the_end=at_the_end)


def with_chunks(data: bytes, *chunks: bytes, at_the_end: bool = False) -> bytes:
    place = len(data) - 12 if at_the_end else 33  # before IEND, or behind IHDR
    return data[:place] + b"".join(chunks) + data[place:]


# --- EXIF -----------------------------------------------------------------------------------------------------------


def exif(tags: dict[int, bytes], order: str = ">", subdirectory: dict[int, bytes] | None = None) -> bytes:
    """A TIFF structure with texts by tag (type UNDEFINED), in IFD0 and in the Exif directory."""

    def directory(entries: dict[int, bytes], at: int, link: int | None) -> bytes:
        count = len(entries) + (link is not None)
        values_at = at + 2 + 12 * count + 4
        rows, values = [], b""
        for tag, value in sorted(entries.items()):
            where = struct.pack(order + "I", values_at + len(values)) if len(value) > 4 else value.ljust(4, b"\0")
            rows.append((tag, struct.pack(order + "HHI", tag, 7, len(value)) + where))
            values += value if len(value) > 4 else b""
        if link is not None:
            rows.append((0x8769, struct.pack(order + "HHII", 0x8769, 4, 1, link)))
        body = b"".join(row for _, row in sorted(rows))
        return struct.pack(order + "H", count) + body + struct.pack(order + "I", 0) + values

    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(order + "I", 8)
    if subdirectory is None:
        return head + directory(tags, 8, None)
    length = len(directory(tags, 8, 0))
    return head + directory(tags, 8, 8 + length) + directory(subdirectory, 8 + length, None)


USER_COMMENT = 0x9286


def user_comment(text: str, encoding: str = "utf-16-be", mark: bytes = b"UNICODE\0", order: str = ">") -> bytes:
    """EXIF with a UserComment."""
    return exif({0x0131: b"some program"}, order, {USER_COMMENT: mark + text.encode(encoding)})


def jpeg(exif_data: bytes | None = None, xmp: bytes | None = None, comment: bytes | None = None) -> bytes:
    segments = b""
    for marker, head, body in (
        (0xE1, b"Exif\0\0", exif_data),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0", xmp),
        (0xFE, b"", comment),
    ):
        if body is not None:
            segments += bytes((0xFF, marker)) + struct.pack(">H", len(head + body) + 2) + head + body
    data = encoded("JPEG")
    return data[:2] + segments + data[2:]


# --- hidden texts ---------------------------------------------------------------------------------------------------


def hidden(
    text: str | bytes, signature: str = "stealth_pngcomp", length: int | None = None, mode: str = "RGBA"
) -> Image.Image:
    """A picture with a text in its lowest bits, by a plain loop over the format's description.

    Args:
        length: bits that the header claims, where they are not those of the text.
    """
    data = text.encode() if isinstance(text, str) else text
    payload = gzip.compress(data) if signature.endswith("comp") and isinstance(text, str) else data
    claimed = 8 * len(payload) if length is None else length
    bits = [
        byte >> shift & 1
        for byte in signature.encode() + struct.pack(">I", claimed) + payload
        for shift in range(7, -1, -1)
    ]
    image = picture(mode, (60, 80))
    pixels = image.load()
    assert pixels is not None
    channels = range(3) if "rgb" in signature else (3,)
    places = ((x, y, channel) for x in range(image.width) for y in range(image.height) for channel in channels)
    for bit, (x, y, channel) in zip(bits, places, strict=False):
        values = list(pixels[x, y])  # type: ignore[arg-type]
        values[channel] = values[channel] & 254 | bit
        pixels[x, y] = tuple(values)
    return image


# --- what generators write ------------------------------------------------------------------------------------------


def novelai_chunks(
    prompt: str | None, characters: Sequence[str] = (), description: str | None = None, version: int = 4
) -> dict[str, str]:
    """The chunks of a NovelAI PNG, by key."""
    comment: dict[str, Any] = {"steps": 28, "sampler": "k_euler", "seed": 1, "uc": "lowres, artist:never wanted"}
    if version >= 3:
        comment["prompt"] = prompt
    if version >= 4:
        captions = [{"char_caption": text, "centers": [{"x": 0.5, "y": 0.5}]} for text in characters]
        comment["v4_prompt"] = {"caption": {"base_caption": prompt, "char_captions": captions}, "use_coords": False}
        comment["v4_negative_prompt"] = {"caption": {"base_caption": comment["uc"], "char_captions": []}}
    return {
        "Title": "NovelAI generated image",
        "Description": description or prompt or "",
        "Software": "NovelAI",
        "Source": "NovelAI Diffusion V4.5 4BDE2A90",
        "Generation time": "2.9",
        "Comment": json.dumps(comment),
    }


def novelai_png(prompt: str | None, characters: Sequence[str] = (), **options: Any) -> bytes:
    return png(*(("tEXt", key, text) for key, text in novelai_chunks(prompt, characters, **options).items()))


def graph(positive: Any, negative: Any = "bad, artist:never wanted", **nodes: Any) -> dict[str, Any]:
    """A ComfyUI graph: a KSampler with two CLIPTextEncode, and further nodes by number."""
    return {
        "3": node("KSampler", positive=["6", 0], negative=["7", 0], seed=1),
        "6": node("CLIPTextEncode", text=positive, clip=["4", 1]),
        "7": node("CLIPTextEncode", text=negative, clip=["4", 1]),
        "4": node("CheckpointLoaderSimple", ckpt_name="x"),
        **{number.removeprefix("n"): content for number, content in nodes.items()},
    }


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def comfy_png(content: Any) -> bytes:
    return png(("tEXt", "prompt", json.dumps(content)), ("tEXt", "workflow", "{}"))


def saved(folder: Path, data: bytes, name: str = "a.png") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path
