"""Captions for training: which tags, in which order, in which spelling, and the txt file beside the image.

python wdv3_pytorch.py --image_file ./dataset --model_path checkpoints --write_captions --underscores space
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagger.files import read_text, write_text
from tagger.formats.tag_lists import danbooru_spelling, parse_tags, spell

ORDERS = ("probability", "category", "csv")
EXISTING = ("skip", "overwrite", "append")


@dataclass(frozen=True)
class Style:
    """How a list of tags becomes a caption.

    Attributes:
        order: "probability", "category" (general, characters, artists, each by probability) or "csv" (row numbers).
        exclude: tags that are left out.
        first: tags that come first where they are there at all, in this order.
        spaces: blanks for underscores, but for emoticons.
        escape: backslashes before parentheses, which otherwise are weights to Stable Diffusion's interfaces.
    """

    order: str = "category"
    exclude: frozenset[str] = frozenset()
    first: tuple[str, ...] = ()
    spaces: bool = False
    escape: bool = False


def arrange(
    names: Sequence[str], style: Style, probabilities: Mapping[str, float], index: Mapping[str, int]
) -> list[str]:
    """The tags that a style keeps, in its order, in Danbooru's spelling.

    Args:
        names: by category, and within it by falling probability.
        probabilities: of each name.
        index: row number of each name.
    """
    kept = [name for name in names if name not in style.exclude]
    if style.order == "probability":
        kept.sort(key=lambda name: -probabilities[name])
    elif style.order == "csv":
        kept.sort(key=lambda name: index[name])
    first = [name for name in style.first if name in kept]
    return first + [name for name in kept if name not in first]


def join(names: Iterable[str], style: Style) -> str:
    """A caption: `1girl, long hair`."""
    return ", ".join(spell(name, spaces=style.spaces, escape=style.escape) for name in names)


# --- the txt beside the image ---------------------------------------------------------------------------------------


def caption_path(image: Path) -> Path:
    """Where the caption of an image lies."""
    return image.with_suffix(".txt")


def appended(standing: str, caption: str) -> str:
    """A caption with the tags at its end that it lacks, whatever their spelling; what stands there is not changed."""

    def key(tag: str) -> str:
        return danbooru_spelling(tag.replace("\\", "")).lower()

    there = {key(tag) for tag in parse_tags(standing)}
    new = [tag for tag in parse_tags(caption) if key(tag) not in there]
    parts = [standing.rstrip().rstrip(","), *new] if standing.strip() else new
    return ", ".join(parts)


def write_caption(path: Path, caption: str, existing: str) -> bool:
    """Write a caption, whole or not at all; whether anything changed.

    Args:
        existing: what becomes of a file that stands there, one of EXISTING.

    Raises:
        UserError: what stands there cannot be read, so nothing can be appended to it.
    """
    if path.exists():
        if existing == "skip":
            return False
        if existing == "append":
            standing = read_text(path, "make it readable")
            caption = appended(standing, caption)
            if caption == standing:
                return False
    write_text(path, caption)
    return True
