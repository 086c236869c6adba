"""One view of a file's texts, whatever the container: a generator's own keys, with where each was found.

    python -c "from tagger.inference.embedded.fields import make_fields as f; print(f('gif', {'comment': '{}'}))"

PNG has a chunk for each key. The other containers have one comment, into which generators put a JSON object with all
keys, `key:value`, or the one text that PNG would have under `parameters`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Texts that have no key of their own, in the order in which they are asked.
COMMENTS = ("parameters", "UserComment", "ImageDescription", "comment", "payload")
# ComfyUI's way in EXIF: `prompt:{...}`; extensions write `Workflow: {...}`.
KEYED = re.compile(r"([A-Za-z_]{1,40}):\s{0,8}(?=[{\[])")


@dataclass(frozen=True)
class Fields:
    """The texts of one container.

    Attributes:
        container: "png", "exif", "xmp", "gif", or the signature of a hidden text.
        values: a text by each key; from a JSON object also other values.
        origins: for keys that stood within another text, the key of that text.
    """

    container: str
    values: Mapping[str, Any]
    origins: Mapping[str, str] = field(default_factory=dict)

    def text(self, key: str) -> str:
        """A text, empty where there is none or another kind of value."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""

    def object(self, key: str) -> dict[str, Any]:
        """A JSON object, empty where there is none."""
        value = self.values.get(key)
        return value if isinstance(value, dict) else json_object(self.text(key))

    def source(self, key: str) -> str:
        """Where a key was found: `png:Comment`, `exif:UserComment`, `stealth_pngcomp`."""
        origin = self.origins.get(key, key)
        return self.container if origin == "payload" else f"{self.container}:{origin}"


def make_fields(container: str, texts: Mapping[str, str]) -> Fields:
    """Texts as the container has them, and what stands within them."""
    values: dict[str, Any] = dict(texts)
    origins: dict[str, str] = {}

    def put(key: str, value: Any, origin: str) -> None:
        if key not in values:
            values[key] = value
            origins[key] = origin

    for key, text in texts.items():
        if container == "exif" and (match := KEYED.match(text)):
            put(match[1].lower(), text[match.end() :], key)
    for key in COMMENTS:
        if key == "parameters" or key not in texts:
            continue
        content = json_object(texts[key])
        if "Comment" in content or "workflow" in content or isinstance(content.get("prompt"), dict):
            for name, value in content.items():
                # The whole of a NovelAI file's chunks, which a WebP repeats beside it, is the truer copy.
                values.pop(name, None)
                put(name, value, key)
    return Fields(container, values, origins)


def json_object(text: str) -> dict[str, Any]:
    """The JSON object in a text; empty where it is none. NaN, which ComfyUI writes, is taken."""
    text = text.strip().strip("\0")
    if not text.startswith("{"):
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
