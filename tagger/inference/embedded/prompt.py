"""What a generator's reader gives: the prompt of a picture, as it was typed.

python -c "from tagger.inference.embedded.prompt import Prompt; print(Prompt('novelai', 'nai', 'Comment', '1girl'))"
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """A prompt, and who wrote it.

    Attributes:
        generator: a key of generators.GENERATORS, or None where a known form names no program.
        dialect: a key of grammar.DIALECTS.
        key: the text that it was read from.
        text: the positive prompt.
        negative: the negative one, empty where there is none.
        characters: the prompts of single characters, which NovelAI keeps apart.
        problem: what of it could not be read, or None.
    """

    generator: str | None
    dialect: str
    key: str
    text: str
    negative: str = ""
    characters: tuple[str, ...] = ()
    problem: str | None = None
