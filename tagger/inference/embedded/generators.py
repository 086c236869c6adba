"""Who may have written a file's prompt: the registry of generators, in the order in which they are asked.

    python -c "from tagger.inference.embedded.generators import GENERATORS; print(*GENERATORS)"

A new generator is a reader (fields of a container -> Prompt, or None where another wrote it) and an entry here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tagger.inference.embedded import json_prompts
from tagger.inference.embedded.comfyui import read_comfyui
from tagger.inference.embedded.fields import Fields
from tagger.inference.embedded.infotext import read_infotext
from tagger.inference.embedded.novelai import read_novelai
from tagger.inference.embedded.prompt import Prompt

Reader = Callable[[Fields], Prompt | None]


@dataclass(frozen=True)
class Generator:
    """A program, or a family of programs that write the same.

    Attributes:
        title: its name.
        read: see Reader.
    """

    title: str
    read: Reader


# Those with keys of their own come first: many write an infotext or a graph as well, which say less.
GENERATORS: dict[str, Generator] = {
    "novelai": Generator("NovelAI", read_novelai),
    "swarmui": Generator("SwarmUI", json_prompts.read_swarmui),
    "civitai": Generator("Civitai", json_prompts.read_civitai),
    "fooocus": Generator("Fooocus", json_prompts.read_fooocus),
    "tensorart": Generator("TensorArt", json_prompts.read_tensorart),
    "invokeai": Generator("InvokeAI", json_prompts.read_invokeai),
    "drawthings": Generator("Draw Things", json_prompts.read_drawthings),
    "easydiffusion": Generator("Easy Diffusion", json_prompts.read_easydiffusion),
    "a1111": Generator("A1111 or Forge", read_infotext),
    "comfyui": Generator("ComfyUI", read_comfyui),
}
UNNAMED = Generator("a program that it does not name", json_prompts.read_unnamed)


def title_of(generator: str | None) -> str:
    """A generator's name in a sentence."""
    return (GENERATORS[generator] if generator else UNNAMED).title


def find_prompt(fields: Fields) -> Prompt | None:
    """The prompt of a container by the first generator that knows it; one without text only where no other has more."""
    empty = None
    for generator in (*GENERATORS.values(), UNNAMED):
        if prompt := generator.read(fields):
            if prompt.text or prompt.characters:
                return prompt
            empty = empty or prompt
    return empty
