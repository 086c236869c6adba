"""Artist strings (画师串反推): the likeliest artists of a picture, weighted, as an image model's prompt wants them.

python wdv3_pytorch.py --image_file test.png --model_path checkpoints --artist_string nai
"""

import math
from collections.abc import Callable, Mapping

from tagger.formats.tag_lists import spell

BACKSLASH = "\\"  # what escapes parentheses must be escaped itself


def weight(probability: float) -> str:
    """A prompt's weight, 0.50 to 1.50: neutral where the model is in two minds, and more the surer it is.

    Halves are rounded up, as report.html does it.
    """
    return f"{math.floor((0.5 + probability) * 100 + 0.5) / 100:.2f}"


def _novelai(name: str, p: float) -> str:
    """NovelAI's numeric emphasis (version 4 and later): 1.20::artist:name::"""
    return f"{weight(p)}::artist:{spell(name, spaces=True)}::"


def _stable_diffusion(name: str, p: float) -> str:
    """The emphasis of Stable Diffusion's interfaces, for Illustrious and NoobAI: (name:1.20)"""
    return f"({spell(name.replace(BACKSLASH, 2 * BACKSLASH), spaces=True, escape=True)}:{weight(p)})"


SYNTAXES: dict[str, Callable[[str, float], str]] = {
    "nai": _novelai,
    "sdxl": _stable_diffusion,
    "booru": lambda name, p: name,
}


def artist_string(artists: Mapping[str, float], syntax: str, top: int) -> str:
    """The `top` likeliest artists in a syntax, separated by commas; empty where there is none.

    Args:
        artists: probability by name, of those above their threshold.
        syntax: a key of SYNTAXES.
    """
    ordered = sorted(artists.items(), key=lambda item: -item[1])[:top]
    return ", ".join(SYNTAXES[syntax](name, p) for name, p in ordered)
