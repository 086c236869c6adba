"""Artist strings (画师串反推): the likeliest artists of a picture, weighted, as an image model's prompt wants them.

python wdv3_pytorch.py --image_file test.png --model_path checkpoints --artist_string nai
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tagger.formats.tag_lists import spell
from tagger.inference.captions import SEPARATOR

BACKSLASH = "\\"
BRACKET_STEP = 1.05  # what a pair of braces multiplies in NovelAI's older prompts, and a pair of brackets divides by


# --- weights --------------------------------------------------------------------------------------------------------

# A prompt's weights are relative to 1, and a probability is none by nature: these are ways to make one of the other.
# Arguments: the artist's probability, the highest of the image, the place (0 is the likeliest), names at most; each
# gives a share of the way from the lightest weight to the heaviest. None depends on how many names pass a threshold, so
# a slider of the report only ever cuts off the end.
Weigh = Callable[[float, float, int, int], float]


def _by_probability(probability: float, highest: float, place: int, top: int) -> float:
    """The surer, the heavier: with a range of 0.5 to 1.5, probability 0.5 is neutral."""
    return probability


def _by_rank(probability: float, highest: float, place: int, top: int) -> float:
    """The likeliest has the heaviest weight, the last of `top` the lightest, in even steps."""
    return 1 - place / (top - 1) if top > 1 else 1.0


def _equal(probability: float, highest: float, place: int, top: int) -> float:
    """All the same, in the middle of the range."""
    return 0.5


def _relative(probability: float, highest: float, place: int, top: int) -> float:
    """In proportion to the likeliest, which has the heaviest weight however unsure the model is."""
    return probability / highest if highest else 1.0


ARTIST_WEIGHTS: dict[str, Weigh] = {"prob": _by_probability, "rank": _by_rank, "equal": _equal, "relative": _relative}


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


def _novelai_braces(name: str, weight: float) -> str:
    """NovelAI's emphasis before version 4: {{artist:name}} is 1.05 twice, [artist:name] 1/1.05."""
    pairs = round(math.log(weight) / math.log(BRACKET_STEP)) if weight > 0 else 0
    left, right = ("{", "}") if pairs > 0 else ("[", "]")
    return left * abs(pairs) + f"artist:{spell(name, spaces=True)}" + right * abs(pairs)


def _stable_diffusion(name: str, weight: float) -> str:
    """The emphasis of Stable Diffusion's interfaces, for Illustrious and NoobAI: (name:1.20)"""
    # A parenthesis would end the emphasis, so it is escaped; and so is the backslash, which escapes it.
    return f"({spell(name.replace(BACKSLASH, 2 * BACKSLASH), spaces=True, escape=True)}:{weight:.2f})"


def _anima(name: str, weight: float) -> str:
    """Anima knows artists by an @ before the name, and has no weights; its interfaces read parentheses as emphasis."""
    return f"@{spell(name.replace(BACKSLASH, 2 * BACKSLASH), spaces=True, escape=True)}"


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
    "nai3": Syntax("NovelAI 3", _novelai_braces),
    "sdxl": Syntax("SDXL", _stable_diffusion),
    "anima": Syntax("Anima", _anima),
    "booru": Syntax("Danbooru", _danbooru),
}


@dataclass(frozen=True)
class ArtistSettings:
    """What is said of the artists.

    Attributes:
        syntax: a key of SYNTAXES; None where no artist string is asked for.
        top: names in an artist string at most.
        weights: a key of ARTIST_WEIGHTS.
        weight_range: the lightest and the heaviest weight.
        similar: how many of the taught artists that are closest are told of where none passes.
    """

    syntax: str | None = None
    top: int = 5
    weights: str = "prob"
    weight_range: tuple[float, float] = (0.5, 1.5)
    similar: int = 0

    @property
    def candidates(self) -> int:
        """How many artists are told of where none passes; none where no string was asked for."""
        return self.top if self.syntax else 0


def artist_pieces(artists: Mapping[str, float], syntax: str, settings: ArtistSettings) -> list[str]:
    """The pieces of an artist string: the likeliest artists in a syntax, by falling probability.

    Args:
        artists: probability by name.
        syntax: a key of SYNTAXES, which need not be that of the settings.
    """
    likeliest = sorted(artists.items(), key=lambda item: -item[1])[: settings.top]
    lightest, heaviest = settings.weight_range
    pieces = []
    for place, (name, probability) in enumerate(likeliest):
        share = ARTIST_WEIGHTS[settings.weights](probability, likeliest[0][1], place, settings.top)
        pieces.append(SYNTAXES[syntax].write(name, rounded(lightest + (heaviest - lightest) * share)))
    return pieces


def artist_string(artists: Mapping[str, float], settings: ArtistSettings) -> str | None:
    """The likeliest artists, separated by commas; empty where there is none, None where none was asked for.

    Args:
        artists: probability by name, of those above their threshold.
    """
    if settings.syntax is None:
        return None
    return SEPARATOR.join(artist_pieces(artists, settings.syntax, settings))


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
