"""EXIF: the texts of its directories (TIFF 6.0, CIPA DC-008), and how generators encode them.

python -c "from tagger.inference.embedded.exif import user_comment as u; print(u(b'ASCII\\0\\0\\0hat', 'big'))"
"""

from typing import Literal

ByteOrder = Literal["big", "little"]

# What generators write to. The owner's tags (Artist, Copyright, XPAuthor) are none of them: a photographer is no style.
NAMES = {
    0x010D: "DocumentName",
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x927C: "MakerNote",
    0x9286: "UserComment",
}
COUNTED_DOWN = range(0x0100, 0x010F)  # ComfyUI writes `key:value` to Model, Make, and the tags below
SUBDIRECTORY = 0x8769  # the Exif directory, with UserComment
MAX_DIRECTORIES, MAX_ENTRIES = 8, 1000
ASCII, BYTE, UNDEFINED = 2, 1, 7  # types of text; their unit is a byte
MARK = 8  # bytes before a UserComment that name its encoding
LOOKED_AT = 400  # bytes of a UserComment that show its byte order


def read_exif(data: bytes) -> tuple[dict[str, str], str | None]:
    """The texts of a TIFF structure by the names of their tags, and what was wrong with it, or None.

    A directory that was already read is not read again, so one that points at itself ends.
    """
    order: ByteOrder
    if data[:4] == b"MM\0*":
        order = "big"
    elif data[:4] == b"II*\0":
        order = "little"
    else:
        return {}, "the EXIF data is damaged"
    texts: dict[str, str] = {}
    problem = None
    unread = len(data)  # texts do not overlap, but hostile ones may all be the same megabyte
    waiting, seen = [int.from_bytes(data[4:8], order)], set[int]()
    while waiting and len(seen) < MAX_DIRECTORIES:
        at = waiting.pop(0)
        if not at or at in seen:
            continue
        seen.add(at)
        count = int.from_bytes(data[at : at + 2], order)
        for entry in range(at + 2, at + 2 + 12 * min(count, MAX_ENTRIES), 12):
            if entry + 12 > len(data):
                problem = "the EXIF data is cut off"
                break
            tag, kind = (int.from_bytes(data[entry + i : entry + i + 2], order) for i in (0, 2))
            length, value = (int.from_bytes(data[entry + i : entry + i + 4], order) for i in (4, 8))
            if tag == SUBDIRECTORY:
                waiting.append(value)
            elif (tag in NAMES or tag in COUNTED_DOWN) and kind in (ASCII, BYTE, UNDEFINED):
                begin = value if length > 4 else entry + 8
                unread -= length
                if begin + length > len(data) or unread < 0:
                    problem = "the EXIF data is cut off"
                    continue
                raw = data[begin : begin + length]
                text = user_comment(raw, order) if NAMES.get(tag) == "UserComment" else decode(raw).strip("\0")
                if text:
                    texts[NAMES.get(tag, f"0x{tag:04x}")] = text
    return texts, problem


def decode(data: bytes) -> str:
    """UTF-8 where the bytes are that, else Latin-1, as which every byte is a letter."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def user_comment(data: bytes, order: ByteOrder) -> str:
    """The text of a UserComment.

    Its first eight bytes name an encoding, and many writers do not keep to it: UTF-8 under ASCII (NovelAI) and UNICODE
    (Exif 3.0), and UTF-16 in either order, whatever the order of the file (Civitai, SwarmUI).

    Args:
        data: with the mark, or without one.
        order: of the file, which decides where the text shows nothing.
    """
    mark, text = data[:MARK], data[MARK:]
    if mark == b"UNICODE\0":
        return _unicode(text, order).strip("\0")
    if mark == b"JIS\0\0\0\0\0":
        return text.decode("shift_jis", "replace").strip("\0")
    return decode(text if mark in (b"ASCII\0\0\0", bytes(MARK)) else data).strip("\0")


def _unicode(text: bytes, order: ByteOrder) -> str:
    if text[:2] in (b"\xfe\xff", b"\xff\xfe"):
        return text.decode("utf-16", "replace")
    # Most prompts are English: of each letter's two bytes one is zero, and which one shows the order.
    even, odd = (text[i:LOOKED_AT:2].count(0) for i in (0, 1))
    if even == odd == 0 or not text.rstrip(b"\0").count(0):
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError:
            pass
    if even != odd:
        order = "big" if even > odd else "little"
    return text.decode("utf-16-be" if order == "big" else "utf-16-le", "replace")
