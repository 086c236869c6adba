"""Which encoding a small text file has: UTF-8, UTF-16, GBK or Shift-JIS, by evidence, or none that is certain.

    python -c "from tagger.formats.text_encoding import decode; print(decode('长发, 蓝眼睛'.encode('gbk')))"

Tag lists are short, and mostly ASCII, so statistics over languages have nothing to go by. What decides is which bytes
can be decoded at all, and whether that gives characters that people write.
"""

import codecs
import unicodedata
from collections.abc import Callable

BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, which it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
NUL_SHARE = 0.3  # of the bytes at odd or even places, from which a text without a BOM is UTF-16
MARGIN = 0.25  # by which the likelier of two readings must be ahead, as a share of the characters beyond ASCII


def decode(data: bytes) -> tuple[str, str]:
    """The text, without a byte order mark or several, and the name of its encoding.

    Raises:
        UnicodeError: none of the encodings fits, or two of them do; the message is the reason.
    """
    for bom, encoding in BOMS:
        if data.startswith(bom):
            return data.removeprefix(bom).decode(encoding).lstrip("\ufeff"), encoding
    if (utf16 := _utf16_without_bom(data)) is not None:
        return data.decode(utf16), utf16
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return _east_asian(data)


def _utf16_without_bom(data: bytes) -> str | None:
    """UTF-16 writes every ASCII character as its byte and a zero, which no text in another encoding has."""
    for first_zero, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(data) >= 4 and len(data) % 2 == 0 and data[first_zero::2].count(0) > NUL_SHARE * len(data) / 2:
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError:
                continue
            if "\0" not in text:
                return encoding
    return None


def _east_asian(data: bytes) -> tuple[str, str]:
    found: list[tuple[float, str, str]] = []
    for encoding, is_common in CHARACTERS.items():
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        beyond = [character for character in text if not character.isascii()]
        if all(unicodedata.category(character) not in ("Cn", "Co", "Cc") for character in beyond):
            found.append((sum(map(is_common, beyond)) / len(beyond), text, encoding))
    found.sort(reverse=True)
    if not found:
        raise UnicodeError("neither UTF-8, UTF-16, GBK nor Shift-JIS")
    if len(found) == 2 and found[0][0] - found[1][0] < MARGIN:
        raise UnicodeError(f"{found[0][2]} or {found[1][2]}, which cannot be told")
    return found[0][1], found[0][2]


def _is_common_chinese(character: str) -> bool:
    """The 3,755 commonest characters of GB 2312 (its level 1, sorted by sound), and punctuation."""
    first = character.encode("gb18030")[0]
    return 0xB0 <= first <= 0xD7 or 0xA1 <= first <= 0xA3


def _is_common_japanese(character: str) -> bool:
    """Kana, the 2,965 kanji of JIS level 1, and punctuation; half-width kana are what GBK looks like in Shift-JIS."""
    code = character.encode("cp932")
    return len(code) == 2 and (0x81 <= code[0] <= 0x83 or 0x88 <= code[0] <= 0x97)


CHARACTERS: dict[str, Callable[[str], bool]] = {"gb18030": _is_common_chinese, "cp932": _is_common_japanese}
