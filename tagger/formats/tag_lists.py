"""The tag list beside an image (<stem>.txt), and how a tag is spelt.

python -c "from tagger.formats.tag_lists import parse_tags; print(parse_tags('1girl, long_hair'))"
"""

import re
from collections.abc import Iterable
from pathlib import Path

from tagger.files import UserError, read_text


def parse_tags(text: str) -> list[str]:
    """Tags in their order, separated by commas or line ends: blanks stripped, empty ones and repetitions dropped."""
    return list(dict.fromkeys(tag for part in re.split(r"[,\r\n]", text) if (tag := part.strip())))


def format_tags(names: Iterable[str]) -> str:
    """The content of a txt file: `general,1girl,whiskey`, without a line end."""
    return ",".join(names)


def read_tags(path: Path | str) -> list[str]:
    """The tags of one txt file (UTF-8, a BOM and CRLF accepted).

    Raises:
        UserError: missing, unreadable or not UTF-8.
    """
    return parse_tags(read_text(path, "write its tags, separated by commas"))


def tag_files(folder: Path | str, hint: str = "name another folder") -> list[Path]:
    """The txt files of a dataset folder, by name.

    Args:
        hint: ends the error where there are none.

    Raises:
        UserError: there is no such folder, or no txt file in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {hint}")
    found = sorted(path for path in folder.glob("*.txt") if not path.name.startswith("."))
    if not found:
        raise UserError(f"{folder}: no .txt files; {hint}")
    return found


# Danbooru's emoticons, whose underscores are faces and no blanks (the list of the wd-tagger Space).
KAOMOJI = frozenset(
    (
        *("0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3", "6_9"),
        *(">_o", "@_@", "^_^", "o_o", "u_u", "x_x", "|_|", "||_||"),
    )
)


def danbooru_spelling(name: str) -> str:
    """`long hair` as Danbooru writes it."""
    return name.strip().replace(" ", "_")


def spell(name: str, *, spaces: bool = False, escape: bool = False) -> str:
    """A tag as it stands in a caption or a prompt."""
    if spaces and name not in KAOMOJI:
        name = name.replace("_", " ")
    if escape:
        name = name.replace("(", "\\(").replace(")", "\\)")
    return name
