"""NovelAI, from version 1 to 4.5 and later: what its `Comment` and `Description` say.

    python -m pytest tests/inference/embedded/test_novelai.py

The forms are those of NovelAI/novelai-image-metadata and of files of each version: the Comment is JSON with `prompt`
(none before version 3) and `uc`, the negative prompt; from version 4 on `v4_prompt` has the prompts of the characters,
which stand nowhere else.
"""

from typing import Any

from tagger.inference.embedded.fields import Fields
from tagger.inference.embedded.prompt import Prompt


def read_novelai(fields: Fields) -> Prompt | None:
    """The prompt of a NovelAI picture, or None where it is none."""
    comment = fields.object("Comment")
    names = (fields.text("Software"), fields.text("Title"), fields.text("Source"))
    if not any("NovelAI" in name for name in names) and "v4_prompt" not in comment:
        return None
    base, characters = _captions(comment.get("v4_prompt"))
    text = base or _text(comment.get("prompt"))
    key = "Comment" if text else "Description"
    text = text or fields.text("Description").strip("\0")
    if not text and not characters:
        return None
    negative = _captions(comment.get("v4_negative_prompt"))[0] or _text(comment.get("uc"))
    problem = "NovelAI's Comment is damaged, so its Description is taken" if _is_damaged(fields, comment) else None
    return Prompt("novelai", "nai", key, text, negative, tuple(characters), problem)


def _is_damaged(fields: Fields, comment: dict[str, Any]) -> bool:
    return bool(fields.text("Comment")) and not comment


def _captions(prompt: Any) -> tuple[str, list[str]]:
    """The base caption and those of the characters of `v4_prompt` or `v4_negative_prompt`; of wrong types nothing."""
    caption = prompt.get("caption") if isinstance(prompt, dict) else None
    if not isinstance(caption, dict):
        return "", []
    characters = caption.get("char_captions")
    texts = [
        _text(each.get("char_caption"))
        for each in (characters if isinstance(characters, list) else [])
        if isinstance(each, dict)
    ]
    return _text(caption.get("base_caption")), [text for text in texts if text]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
