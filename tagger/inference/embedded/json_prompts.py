"""Generators whose metadata is a JSON object: Fooocus, SwarmUI, InvokeAI, Civitai, TensorArt, Draw Things and others.

    python -m pytest tests/inference/embedded/test_json_prompts.py

Each reader takes a container's fields and gives a prompt, or None where another wrote the file.
"""

import re
from typing import Any

from tagger.inference.embedded.fields import COMMENTS, Fields, json_object
from tagger.inference.embedded.prompt import Prompt


def read_swarmui(fields: Fields) -> Prompt | None:
    """`sui_image_params`; old versions wrote it into EXIF's Model."""
    for key in (*COMMENTS, "Model"):
        parameters = fields.object(key).get("sui_image_params")
        if isinstance(parameters, dict):
            return _prompt("swarmui", "comfy", key, parameters, "prompt", "negativeprompt")
    return None


def read_civitai(fields: Fields) -> Prompt | None:
    """A graph with the prompt as JSON text in `extraMetadata`."""
    for key in (*COMMENTS, "prompt"):
        if extra := json_object(_text(fields.object(key).get("extraMetadata"))):
            return _prompt("civitai", "sd", key, extra, "prompt", "negativePrompt")
    return None


def read_fooocus(fields: Fields) -> Prompt | None:
    """Its own scheme; with the scheme `a1111` it writes an infotext. RuinedFooocus has capitals."""
    scheme = fields.text("fooocus_scheme") or fields.text("MakerNote")
    for key in COMMENTS:
        content = fields.object(key)
        if (content and "fooocus" in (scheme, content.get("metadata_scheme"))) or "full_prompt" in content:
            return _prompt("fooocus", "sd", key, content, "prompt", "negative_prompt")
        if _text(content.get("software")) == "RuinedFooocus":
            return _prompt("fooocus", "sd", key, content, "Prompt", "Negative")
    return None


def read_tensorart(fields: Fields) -> Prompt | None:
    """`generation_data`, beside a graph that says less."""
    return _prompt("tensorart", "sd", "generation_data", fields.object("generation_data"), "prompt", "negativePrompt")


def read_invokeai(fields: Fields) -> Prompt | None:
    """Three forms: `invokeai_metadata` of version 3 and later, `sd-metadata` of version 2, and `Dream` before it."""
    if content := fields.object("invokeai_metadata"):
        return _prompt("invokeai", "compel", "invokeai_metadata", content, "positive_prompt", "negative_prompt")
    image = fields.object("sd-metadata").get("image")
    if isinstance(image, dict):
        prompts = image.get("prompt")
        if isinstance(prompts, list):  # [{prompt, weight}]
            prompts = ", ".join(_text(each.get("prompt")) for each in prompts if isinstance(each, dict))
        return _bracketed("sd-metadata", _text(prompts))
    if match := re.match(r'\s*+"((?:\\.|[^\\"])*+)"', fields.text("Dream")):
        return _bracketed("Dream", match[1].replace('\\"', '"'))
    return None


def _bracketed(key: str, text: str) -> Prompt | None:
    """InvokeAI 2 has the negative prompt in square brackets, within the positive one."""
    if not text:
        return None
    negative = re.findall(r"\[([^\[\]]*)\]", text)
    return Prompt("invokeai", "compel", key, re.sub(r"\[[^\[\]]*\]", "", text).strip(), ", ".join(negative))


def read_drawthings(fields: Fields) -> Prompt | None:
    """XMP's UserComment, with `c` for the prompt and `uc` for the negative one."""
    if fields.container != "xmp":
        return None
    return _prompt("drawthings", "sd", "UserComment", fields.object("UserComment"), "c", "uc")


def read_easydiffusion(fields: Fields) -> Prompt | None:
    """Its own chunks `prompt` and `negative_prompt`, or a JSON object with its settings."""
    if "use_stable_diffusion_model" in fields.values and (text := fields.text("prompt")):
        return Prompt("easydiffusion", "sd", "prompt", text, fields.text("negative_prompt"))
    for key in COMMENTS:
        content = fields.object(key)
        if "use_stable_diffusion_model" in content:
            return _prompt("easydiffusion", "sd", key, content, "prompt", "negative_prompt")
    return None


def read_unnamed(fields: Fields) -> Prompt | None:
    """`parameters` with a JSON object that has a prompt and names no program: many demos of Hugging Face."""
    return _prompt(None, "sd", "parameters", fields.object("parameters"), "prompt", "negative_prompt")


def _prompt(
    generator: str | None, dialect: str, key: str, content: dict[str, Any], positive: str, negative: str
) -> Prompt | None:
    text = _text(content.get(positive))
    return Prompt(generator, dialect, key, text, _text(content.get(negative))) if text else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
