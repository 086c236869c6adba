"""Artist strings (画师串反推): the likeliest artists of a picture, weighted, as an image model's prompt wants them.

python wdv3_pytorch.py --image_file test.png --model_path checkpoints --artist_string nai
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tagger.formats.tag_lists import spell
from tagger.inference.captions import SEPARATOR

BACKSLASH = "\\"


# --- weights --------------------------------------------------------------------------------------------------------


def weight(probability: float) -> float:
    """A prompt's weight, 0.50 to 1.50: neutral (1) at probability 0.5, and more the surer the model is."""
    return rounded(0.5 + probability)


def rounded(weight: float) -> float:
    """A weight with two digits; halves are rounded up.

    Python's own rounding to the even digit would give 0.625 and 0.635 the same weight.
    """
    return math.floor(weight * 100 + 0.5) / 100


# --- syntaxes: the piece of a prompt for a name and its weight ------------------------------------------------------


def _novelai(name: str, weight: float) -> str:
    """NovelAI's numeric emphasis (version 4 and later): 1.20::artist:name::"""
    text = spell(name, spaces=True)
    end = " ::" if text[-1:].isdigit() else "::"  # `jp06::` would be read as the beginning of a weight of 6
    return f"{weight:.2f}::artist:{text}{end}"


def _stable_diffusion(name: str, weight: float) -> str:
    """The emphasis of Stable Diffusion's interfaces, for Illustrious and NoobAI: (name:1.20)"""
    # A parenthesis would end the emphasis, so it is escaped; and so is the backslash, which escapes it.
    return f"({spell(name.replace(BACKSLASH, 2 * BACKSLASH), spaces=True, escape=True)}:{weight:.2f})"


def _danbooru(name: str, weight: float) -> str:
    """The bare tag, for models that were trained on Danbooru's tags, and for searching there."""
    return name


@dataclass(frozen=True)
class Syntax:
    """A way to write an artist into a prompt.

    Attributes:
        title: what the report's button says.
        write: makes the piece of a prompt from a name and its weight.
    """

    title: str
    write: Callable[[str, float], str]


SYNTAXES = {
    "nai": Syntax("NovelAI", _novelai),
    "sdxl": Syntax("SDXL", _stable_diffusion),
    "booru": Syntax("Danbooru", _danbooru),
}


@dataclass(frozen=True)
class ArtistSettings:
    """What is said of the artists.

    Attributes:
        syntax: a key of SYNTAXES; None where no artist string is asked for.
        top: names in an artist string at most.
    """

    syntax: str | None = None
    top: int = 5


def artist_pieces(artists: Mapping[str, float], syntax: str, top: int) -> list[str]:
    """The pieces of an artist string: the `top` likeliest artists in a syntax, by falling probability.

    Args:
        artists: probability by name.
        syntax: a key of SYNTAXES.
    """
    likeliest = sorted(artists.items(), key=lambda item: -item[1])[:top]
    return [SYNTAXES[syntax].write(name, weight(probability)) for name, probability in likeliest]


def artist_string(artists: Mapping[str, float], settings: ArtistSettings) -> str | None:
    """The likeliest artists, separated by commas; empty where there is none, None where none was asked for.

    Args:
        artists: probability by name, of those above their threshold.
    """
    if settings.syntax is None:
        return None
    return SEPARATOR.join(artist_pieces(artists, settings.syntax, settings.top))


def weighted_string(artists: Mapping[str, float], settings: ArtistSettings) -> str | None:
    """Artists that have weights already, as those of a prompt, in their order; None where no string was asked for.

    Numbers stay as they are, though no two models make the same of them: 1.2 is heavier in SDXL than in NovelAI.

    Args:
        artists: weight by name.
    """
    if settings.syntax is None:
        return None
    write = SYNTAXES[settings.syntax].write
    return SEPARATOR.join(write(name, rounded(weight)) for name, weight in artists.items())
