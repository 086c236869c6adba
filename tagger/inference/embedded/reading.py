"""The prompt of a picture file and its artists, in one call.

python -c "from tagger.inference.embedded.reading import *; print(read_embedded('picture.png', Lookup()))"
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tagger.inference.embedded.artists import Artist, Lookup, find_artists
from tagger.inference.embedded.containers import read_containers
from tagger.inference.embedded.fields import Fields, make_fields
from tagger.inference.embedded.generators import find_prompt
from tagger.inference.embedded.prompt import Prompt

CONTAINERS = ("png", "exif", "xmp", "gif")  # in the order in which they are asked
LOSSLESS = ("png", "webp")  # what can hold a text in its pixels
# Keys of PNG that only generators use.
GENERATORS_KEYS = frozenset(
    ("parameters", "prompt", "workflow", "generation_data", "invokeai_metadata", "sd-metadata", "Dream")
)
# Terminal escapes, and what turns the direction of a line: a prompt is printed.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


@dataclass(frozen=True)
class Embedded:
    """What a file says of how it was made; all empty where it says nothing.

    Attributes:
        generator: a key of generators.GENERATORS, or None.
        source: where the prompt was found, such as `png:Comment`, `exif:UserComment`, `stealth_pngcomp`; else None.
        prompt, negative_prompt, character_prompts: as they were typed, without control characters.
        dialect: of the prompts, a key of grammar.DIALECTS; else None.
        artists: of the positive prompts, in their order, those that are not wanted among them.
        problems: what could not be read, each the second half of a sentence.
    """

    generator: str | None = None
    source: str | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    character_prompts: tuple[str, ...] = ()
    dialect: str | None = None
    artists: tuple[Artist, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def wanted(self) -> dict[str, float]:
        """Weight by tag of the artists with a weight above 0."""
        return {artist.tag: artist.weight for artist in self.artists if artist.weight > 0}

    @property
    def unwanted(self) -> dict[str, float]:
        """Weight by tag of the others."""
        return {artist.tag: artist.weight for artist in self.artists if artist.weight <= 0}


def read_embedded(path: Path | str, lookup: Lookup) -> Embedded:
    """What a picture file says of how it was made.

    The containers are asked first, which takes a fraction of a millisecond; only if they hold no prompt the pixels are
    decoded, for a hidden text.

    Raises:
        UserError: the file is missing or cannot be read.
    """
    texts = read_containers(path)
    problems = texts.problems
    found, empty = _first_prompt(texts.fields)
    if found is None and texts.format in LOSSLESS:
        from tagger.inference.embedded.hidden import read_hidden  # late: it decodes with Pillow and numpy

        signature, text, hidden_problems = read_hidden(path)
        problems += hidden_problems
        if signature:
            found, hidden_empty = _first_prompt({signature: {"payload": text}})
            empty = empty or hidden_empty
    found = found or empty
    if found is None:
        return Embedded(problems=tuple(problems + _not_understood(texts.fields)))
    fields, prompt = found
    if prompt.problem:
        problems.append(prompt.problem)
        if not prompt.text:
            return Embedded(problems=tuple(problems))
    text, negative, *characters = map(printable, (prompt.text, prompt.negative, *prompt.characters))
    return Embedded(
        generator=prompt.generator,
        source=fields.source(prompt.key),
        prompt=text,
        negative_prompt=negative,
        character_prompts=tuple(characters),
        dialect=prompt.dialect,
        artists=tuple(find_artists([text, *characters], prompt.dialect, lookup)),
        problems=tuple(problems),
    )


def _first_prompt(
    texts: Mapping[str, Mapping[str, str]],
) -> tuple[tuple[Fields, Prompt] | None, tuple[Fields, Prompt] | None]:
    """The first prompt with a text, and the first without one."""
    empty = None
    for container in (*CONTAINERS, *(texts.keys() - set(CONTAINERS))):
        if container not in texts:
            continue
        fields = make_fields(container, texts[container])
        if prompt := find_prompt(fields):
            if prompt.text or prompt.characters:
                return (fields, prompt), empty
            empty = empty or (fields, prompt)
    return None, empty


def _not_understood(texts: Mapping[str, Mapping[str, str]]) -> list[str]:
    """What is said of texts that look like a generator's, and of which none could be read."""
    return [
        f"its text {container}:{key} is no prompt that is understood here"
        for container, by_key in texts.items()
        for key in by_key
        if key in GENERATORS_KEYS
    ]


def printable(text: str) -> str:
    """A text for a terminal: without control characters but for tabs and line ends, blanks around it stripped."""
    return UNPRINTABLE.sub("", text.replace("\r\n", "\n")).strip()
