"""Captions for training: which tags, in which order, in which spelling, and the txt file beside the image.

python wdv3_pytorch.py --image_file ./dataset --model_path checkpoints --write_captions --underscores space
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagger.files import read_text, write_text
from tagger.formats.tag_lists import danbooru_spelling, parse_tags, spell

SEPARATOR = ", "  # between the tags of a caption, and between the names of an artist string
EXISTING = ("skip", "overwrite", "append")  # what may become of a txt that is there already


# --- which tags, and in which order ---------------------------------------------------------------------------------

# Arguments: names (by category, and within it by falling probability), their probabilities, their label indices.
Order = Callable[[Sequence[str], Mapping[str, float], Mapping[str, int]], list[str]]


def _by_probability(names: Sequence[str], probabilities: Mapping[str, float], rows: Mapping[str, int]) -> list[str]:
    """The likeliest first, whatever its category."""
    return sorted(names, key=lambda name: -probabilities[name])


def _by_category(names: Sequence[str], probabilities: Mapping[str, float], rows: Mapping[str, int]) -> list[str]:
    """General tags, characters, artists; this is how they come."""
    return list(names)


def _by_row(names: Sequence[str], probabilities: Mapping[str, float], rows: Mapping[str, int]) -> list[str]:
    """As the vocabulary has them, so that the captions of all images agree in their order."""
    return sorted(names, key=lambda name: rows[name])


ORDERS: dict[str, Order] = {"probability": _by_probability, "category": _by_category, "csv": _by_row}


@dataclass(frozen=True)
class Style:
    """How a list of tags becomes a caption.

    Attributes:
        order: a key of ORDERS.
        exclude: tags that are left out, in Danbooru's spelling like all names here.
        first: tags that come first where they are there at all, in this order.
        spaces: blanks for underscores, but for emoticons.
        escape: backslashes before parentheses, which otherwise are weights to Stable Diffusion's interfaces.
    """

    order: str = "category"
    exclude: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    spaces: bool = False
    escape: bool = False


def in_order(
    names: Sequence[str], style: Style, probabilities: Mapping[str, float], rows: Mapping[str, int]
) -> list[str]:
    """The tags that a style keeps, in its order, in Danbooru's spelling.

    The order of two tags does not depend on which others are there: the report relies on that.

    Args:
        names: by category, and within it by falling probability.
        probabilities: of each name, 0..1.
        rows: label index of each name, see Vocabulary.index.
    """
    kept = ORDERS[style.order]([name for name in names if name not in style.exclude], probabilities, rows)
    first = [name for name in style.first if name in kept]
    return first + [name for name in kept if name not in first]


def spelled(name: str, style: Style) -> str:
    """A tag as a style spells it: `long hair`."""
    return spell(name, spaces=style.spaces, escape=style.escape)


def join(names: Iterable[str], style: Style) -> str:
    """A caption: `1girl, long hair`."""
    return SEPARATOR.join(spelled(name, style) for name in names)


# --- the txt beside the image ---------------------------------------------------------------------------------------


def caption_path(image: Path) -> Path:
    """Where the caption of an image lies."""
    return image.with_suffix(".txt")


def appended(existing_text: str, caption: str) -> str:
    """A txt's text, and behind it the tags of a caption that it lacks in any spelling; the text is not changed."""

    def key(tag: str) -> str:
        return danbooru_spelling(tag.replace("\\", "")).lower()

    known = {key(tag) for tag in parse_tags(existing_text)}
    new = [tag for tag in parse_tags(caption) if key(tag) not in known]
    # Somebody's text may end in a comma or a line end, which would otherwise give an empty tag.
    parts = [existing_text.rstrip().rstrip(","), *new] if existing_text.strip() else new
    return SEPARATOR.join(parts)


def write_caption(path: Path, caption: str, existing: str) -> bool:
    """Write a caption, whole or not at all; whether anything changed.

    Args:
        existing: what becomes of a file that is there already, one of EXISTING.

    Raises:
        UserError: the file that is there cannot be read, so nothing can be appended to it.
    """
    if path.exists():
        if existing == "skip":
            return False
        if existing == "append":
            existing_text = read_text(path, "make it readable")
            caption = appended(existing_text, caption)
            if caption == existing_text:
                return False  # its time stays as it was, too
    write_text(path, caption)
    return True
