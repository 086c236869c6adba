"""The texts of a picture file, found without decoding a pixel: PNG, JPEG, WebP, AVIF (and HEIC), GIF.

    python -c "from tagger.inference.embedded.containers import read_containers as r; print(r('picture.png'))"

A file is walked over by its own lengths, and only what may hold a text is read: at most MAX_TEXT bytes each, packed or
unpacked, and MAX_TEXTS in all. What is larger, cut off or damaged is passed over and noted.
"""

import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tagger.files import UserError
from tagger.inference.embedded.exif import decode, read_exif

MAX_TEXT = 1 << 20  # bytes; the longest real prompts, ComfyUI's graphs, have some hundred thousand
MAX_TEXTS = 8 << 20  # bytes of all texts of a file
MAX_KEY = 79  # letters, by the standard of PNG
MAX_PARTS = 200_000  # chunks, segments or boxes of a file; a PNG of 1 GB has 130,000 of the usual 8 KB

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_KEY = "XML:com.adobe.xmp"
XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
EXIF_SEGMENT = b"Exif\0\0"


class Damaged(Exception):
    """The file is not read beyond this place; the text says why."""


@dataclass
class Texts:
    """What a file holds.

    Attributes:
        format: "png", "jpeg", "webp", "avif" or "gif"; None for what is none of them.
        fields: for each container ("png", "exif", "xmp", "gif") its texts by key; of a key that stands twice the last.
        problems: what was passed over, as the second half of a sentence.
    """

    format: str | None = None
    fields: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    _spent: int = 0

    def spend(self, size: int) -> None:
        """Count bytes that are read or unpacked.

        Raises:
            Damaged: there are too many.
        """
        self._spent += size
        if self._spent > MAX_TEXTS:
            raise Damaged(f"more than {MAX_TEXTS >> 20} MB of texts; the rest is not read")

    def add(self, container: str, key: str, text: str) -> None:
        if text and len(key) <= MAX_KEY:
            self.fields.setdefault(container, {})[key] = text

    def add_exif(self, data: bytes) -> None:
        texts, problem = read_exif(data)
        for key, text in texts.items():
            self.add("exif", key, text)
        if problem:
            self.problem(problem)

    def add_xmp(self, data: bytes) -> None:
        if comment := _user_comment(data.decode("utf-8", "replace")):
            self.add("xmp", "UserComment", comment)

    def problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)


def read_containers(path: Path | str) -> Texts:
    """All texts of a file.

    Raises:
        UserError: the file is missing or cannot be read.
    """
    texts = Texts()
    try:
        with open(path, "rb") as file:
            head = file.read(16)
            texts.format = _format(head)
            if texts.format:
                size = os.fstat(file.fileno()).st_size
                try:
                    WALKERS[texts.format](_Reader(file, size), texts)
                except Damaged as damage:
                    texts.problem(str(damage))
            else:
                texts.problem("no PNG, JPEG, WebP, AVIF or GIF, so no prompt is looked for")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder, not an image; name the images in it") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; make it readable") from None
    return texts


class _Reader:
    """Reads a file at any place, never beyond its end and never more than MAX_TEXT at once."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self.parts = 0

    def read(self, at: int, length: int) -> bytes:
        """`length` bytes at a place.

        Raises:
            Damaged: the file is shorter.
        """
        if at + length > self.size:
            raise Damaged("the file is cut off")
        self.file.seek(at)
        data = self.file.read(length)
        if len(data) < length:
            raise Damaged("the file is cut off")
        return data

    def text(self, at: int, length: int, texts: Texts) -> bytes | None:
        """The bytes of a text; None, noted, where it is too long."""
        if at + length > self.size:
            raise Damaged("the file is cut off")
        if length > MAX_TEXT:
            texts.problem(f"a text of {length:,} bytes is not read; the limit is {MAX_TEXT:,}")
            return None
        texts.spend(length)
        return self.read(at, length)

    def count(self) -> None:
        """Count a part of the file; hostile ones have millions.

        Raises:
            Damaged: there are too many.
        """
        self.parts += 1
        if self.parts > MAX_PARTS:
            raise Damaged(f"more than {MAX_PARTS:,} parts; the rest is not read")


# --- PNG ------------------------------------------------------------------------------------------------------------


def _walk_png(reader: _Reader, texts: Texts) -> None:
    at = len(PNG_SIGNATURE)
    while at < reader.size:
        reader.count()
        header = reader.read(at, 8)
        length, kind = int.from_bytes(header[:4], "big"), header[4:]
        if kind in PNG_TEXTS:
            if (data := reader.text(at + 8, length, texts)) is not None:
                PNG_TEXTS[kind](data, texts)
        elif kind == b"eXIf":
            if (data := reader.text(at + 8, length, texts)) is not None:
                texts.add_exif(data)
        elif kind == b"IEND":
            return
        at += 12 + length  # the check sum is no concern: a text with a wrong one is still what the file says


def _png_text(data: bytes, texts: Texts) -> None:
    """tEXt, and ComfyUI's `comf` of animated PNGs: Latin-1 by the standard, UTF-8 in many files."""
    key, _, text = data.partition(b"\0")
    texts.add("png", decode(key), decode(text))


def _png_packed_text(data: bytes, texts: Texts) -> None:
    key, _, rest = data.partition(b"\0")
    if (text := inflate(rest[1:], texts)) is not None:
        texts.add("png", decode(key), decode(text))


def _png_international_text(data: bytes, texts: Texts) -> None:
    key, _, rest = data.partition(b"\0")
    packed, rest = rest[:1] == b"\1", rest[2:]
    text: bytes | None = rest.partition(b"\0")[2].partition(b"\0")[2]  # behind a language and a translated key
    if packed:
        text = inflate(text or b"", texts)
    if text is None:
        return
    if decode(key) == XMP_KEY:
        texts.add_xmp(text)
    else:
        texts.add("png", decode(key), decode(text))


PNG_TEXTS = {b"tEXt": _png_text, b"comf": _png_text, b"zTXt": _png_packed_text, b"iTXt": _png_international_text}


def inflate(data: bytes, texts: Texts, wbits: int = zlib.MAX_WBITS) -> bytes | None:
    """Unpack a zlib stream (or another, by `wbits`); None, noted, where it is damaged or too long."""
    unpacker = zlib.decompressobj(wbits)
    try:
        text = unpacker.decompress(data, MAX_TEXT + 1)
    except zlib.error:
        texts.problem("a packed text is damaged")
        return None
    texts.spend(len(text))
    if len(text) > MAX_TEXT:
        texts.problem(f"a packed text has more than {MAX_TEXT:,} bytes and is not read")
        return None
    if not unpacker.eof:
        texts.problem("a packed text is cut off")
        return None
    return text


# --- JPEG -----------------------------------------------------------------------------------------------------------

START_OF_SCAN, END_OF_IMAGE, APP1 = 0xDA, 0xD9, 0xE1
BARE_MARKERS = frozenset((0x01, *range(0xD0, 0xD9)))  # without a length


def _walk_jpeg(reader: _Reader, texts: Texts) -> None:
    at = 2
    while at < reader.size:
        reader.count()
        mark, marker = reader.read(at, 2)
        if mark != 0xFF:
            raise Damaged("a JPEG segment is damaged")
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker in (START_OF_SCAN, END_OF_IMAGE):
            return
        at += 2
        if marker in BARE_MARKERS:
            continue
        length = int.from_bytes(reader.read(at, 2), "big")
        if length < 2:
            raise Damaged("a JPEG segment is damaged")
        if marker == APP1:
            texts.spend(length)
            data = reader.read(at + 2, length - 2)
            if data.startswith(EXIF_SEGMENT):
                texts.add_exif(data[len(EXIF_SEGMENT) :])
            elif data.startswith(XMP_SEGMENT):
                texts.add_xmp(data[len(XMP_SEGMENT) :])
        at += length


# --- WebP -----------------------------------------------------------------------------------------------------------


def _walk_webp(reader: _Reader, texts: Texts) -> None:
    at = 12
    while at + 8 <= reader.size:
        reader.count()
        header = reader.read(at, 8)
        kind, length = header[:4], int.from_bytes(header[4:], "little")
        if kind in (b"EXIF", b"XMP ") and (data := reader.text(at + 8, length, texts)) is not None:
            if kind == b"EXIF":
                texts.add_exif(data.removeprefix(EXIF_SEGMENT))
            else:
                texts.add_xmp(data)
        at += 8 + length + length % 2


# --- AVIF: boxes of ISO/IEC 14496-12; metadata are items of the box `meta` ------------------------------------------


def _boxes(reader: _Reader, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, begin of the content, its end) of the boxes between two places."""
    while at + 8 <= end:
        reader.count()
        header = reader.read(at, 8)
        length, kind, begin = int.from_bytes(header[:4], "big"), header[4:], at + 8
        if length == 1:
            length, begin = int.from_bytes(reader.read(begin, 8), "big"), begin + 8
        elif length == 0:
            length = end - at
        if length < begin - at or at + length > end:
            raise Damaged("an AVIF box is damaged")
        yield kind, begin, at + length
        at += length


def _walk_avif(reader: _Reader, texts: Texts) -> None:
    for kind, begin, end in _boxes(reader, 0, reader.size):
        if kind == b"meta":
            inside = {name: (first, last) for name, first, last in _boxes(reader, begin + 4, end)}
            if b"iinf" not in inside or b"iloc" not in inside:
                return
            kinds = _item_kinds(reader, *inside[b"iinf"])
            places = _item_places(reader, *inside[b"iloc"], data=inside.get(b"idat", (0, 0))[0])
            for item, what in kinds.items():
                if item in places and (content := _item(reader, places[item], texts)):
                    if what == b"Exif":
                        skip = 4 + int.from_bytes(content[:4], "big")  # to the TIFF header
                        texts.add_exif(content[skip:].removeprefix(EXIF_SEGMENT))
                    else:
                        texts.add_xmp(content)
            return


def _item_kinds(reader: _Reader, begin: int, end: int) -> dict[int, bytes]:
    """The numbers of the items that may hold a text, and their kinds: `Exif`, or `mime` for XMP."""
    wide = reader.read(begin, 1) != b"\0"
    found: dict[int, bytes] = {}
    for kind, first, _ in _boxes(reader, begin + (8 if wide else 6), end):
        if kind == b"infe":
            version = reader.read(first, 1)[0]
            width = 4 if version >= 3 else 2
            number = int.from_bytes(reader.read(first + 4, width), "big")
            what = reader.read(first + 6 + width, 4)  # behind two bytes of protection
            if version >= 2 and what in (b"Exif", b"mime"):
                found[number] = what
    return found


def _item_places(reader: _Reader, begin: int, end: int, data: int) -> dict[int, list[tuple[int, int]]]:
    """For each item the (place, length) of its extents.

    Args:
        data: where the content of the box `idat` begins, to which some items refer.
    """
    content = reader.read(begin, min(end - begin, MAX_TEXT))
    at = 0

    def number(width: int) -> int:
        nonlocal at
        if at + width > len(content):
            raise Damaged("an AVIF box is damaged")
        at += width
        return int.from_bytes(content[at - width : at], "big")

    version = number(1)
    number(3)
    sizes = number(2)
    offset_size, length_size, base_size, index_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15, sizes & 15
    wide = 4 if version == 2 else 2
    places: dict[int, list[tuple[int, int]]] = {}
    for _ in range(number(wide)):
        reader.count()
        item = number(wide)
        method = number(2) & 15 if version else 0
        number(2)  # the file that holds the data: this one
        start = number(base_size) + (data if method == 1 else 0)
        extents = places.setdefault(item, [])
        for _ in range(number(2)):
            reader.count()
            if version:
                number(index_size)
            offset = number(offset_size)
            extents.append((start + offset, number(length_size)))
    return places


def _item(reader: _Reader, extents: list[tuple[int, int]], texts: Texts) -> bytes:
    """The content of an item; empty, noted, where it is too long."""
    length = sum(size for _, size in extents)
    if length > MAX_TEXT:
        texts.problem(f"a text of {length:,} bytes is not read; the limit is {MAX_TEXT:,}")
        return b""
    texts.spend(length)
    return b"".join(reader.read(at, size) for at, size in extents)


# --- GIF ------------------------------------------------------------------------------------------------------------

EXTENSION, IMAGE, COMMENT = 0x21, 0x2C, 0xFE


def _walk_gif(reader: _Reader, texts: Texts) -> None:
    def palette(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    at = 13 + palette(reader.read(10, 1)[0])
    comment = bytearray()
    while at < reader.size:
        reader.count()
        kind = reader.read(at, 1)[0]
        if kind == EXTENSION:
            label = reader.read(at + 1, 1)[0]
            at += 2
        elif kind == IMAGE:
            label = 0
            at += 11 + palette(reader.read(at + 9, 1)[0])  # the descriptor, its palette, the size of a code
        else:
            break  # the end, or what is no GIF
        while size := reader.read(at, 1)[0]:
            reader.count()
            if label == COMMENT:
                comment += reader.read(at + 1, size)
                if len(comment) > MAX_TEXT:
                    raise Damaged(f"a text of more than {MAX_TEXT:,} bytes is not read")
            at += 1 + size
        at += 1
        if comment:
            texts.add("gif", "comment", decode(bytes(comment)))
            return


# --- all ------------------------------------------------------------------------------------------------------------


WALKERS: dict[str, Callable[[_Reader, Texts], None]] = {
    "png": _walk_png,
    "jpeg": _walk_jpeg,
    "webp": _walk_webp,
    "avif": _walk_avif,
    "gif": _walk_gif,
}


def _format(head: bytes) -> str | None:
    """The format of a file that begins so, whatever its name says."""
    if head.startswith(PNG_SIGNATURE):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        return "avif"
    return "gif" if head.startswith((b"GIF87a", b"GIF89a")) else None


def _user_comment(xmp: str) -> str:
    """The text of exif:UserComment, which stands as an attribute or within `rdf:li`.

    No XML parser is asked: its entities may refer to each other until the memory is full.
    """
    from html import unescape  # late: few files have XMP

    at = xmp.find("exif:UserComment")
    if at < 0:
        return ""
    rest = xmp[at + len("exif:UserComment") :]
    if rest.lstrip().startswith("="):
        quote = rest.lstrip()[1:].lstrip()[:1]
        return unescape(rest.partition(quote)[2].partition(quote)[0]) if quote in ('"', "'") and quote else ""
    inner = rest.partition(">")[2].partition("</exif:UserComment")[0]
    if "<rdf:li" in inner:
        inner = inner.partition("<rdf:li")[2].partition(">")[2].partition("</rdf:li")[0]
    return unescape(inner).strip()
