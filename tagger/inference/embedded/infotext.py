"""The text that A1111's web UI and its descendants write: prompt, negative prompt, and a line of settings.

    python -m pytest tests/inference/embedded/test_infotext.py

Its form is that of modules/infotext_utils.py of stable-diffusion-webui and Forge.
"""

import re

from tagger.inference.embedded.fields import COMMENTS, Fields
from tagger.inference.embedded.prompt import Prompt

NEGATIVE = "Negative prompt:"
# `key: value`; a value with commas in it is a JSON string.
SETTING = re.compile(r'\s*(\w[\w /-]{0,60}):\s*("(?:\\.|[^\\"])*+"|[^,"]*+)(?:,|$)')
MIN_SETTINGS = 3  # a last line with fewer of them belongs to the prompt
MAX_ADDED = 50  # lines below the settings


def read_infotext(fields: Fields) -> Prompt | None:
    """The prompt of an infotext, or None where there is none.

    Only `parameters` is known to be one by its name; any other comment must have settings or a negative prompt. One
    that says nothing gives an empty prompt, so that another text of the file can say more.
    """
    empty = None
    for key in COMMENTS:
        text = fields.text(key)
        if not text or text.lstrip().startswith("{"):
            continue
        prompt, negative, has_settings = split_infotext(text)
        if key != "parameters" and not has_settings and not negative:
            continue
        if prompt == "unknown":  # as a saver of ComfyUI writes, whose graph knows more
            prompt = ""
        found = Prompt("a1111", "sd", key, prompt, negative)
        if prompt:
            return found
        empty = empty or found
    return empty


def split_infotext(text: str) -> tuple[str, str, bool]:
    """The positive and the negative prompt, and whether settings stand below them."""
    lines = text.strip().splitlines()
    settings = _settings_line(lines)
    has_settings = settings < len(lines)
    del lines[settings:]
    positive: list[str] = []
    negative: list[str] = []
    part = positive
    for line in lines:
        if line.strip().startswith(NEGATIVE):
            part, line = negative, line.strip()[len(NEGATIVE) :]
        part.append(line.strip())
    return "\n".join(positive).strip(), "\n".join(negative).strip(), has_settings


def _settings_line(lines: list[str]) -> int:
    """Where the settings stand: the last line, or above what an extension has added (Template: ...)."""
    for at in range(len(lines) - 1, max(len(lines) - 1 - MAX_ADDED, -1), -1):
        if (at == len(lines) - 1 or lines[at].startswith("Steps:")) and _is_settings(lines[at]):
            return at
    return len(lines)


def _is_settings(line: str) -> bool:
    at = count = 0
    while count < MIN_SETTINGS and (match := SETTING.match(line, at)):
        at, count = match.end(), count + 1
    return count >= MIN_SETTINGS
