"""Captions for training: which tags, in which order, in which spelling, and the txt file beside the image.

python wdv3_pytorch.py --image_file ./dataset --model_path checkpoints --write_captions --underscores space
"""

import errno
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tagger.cli import ArgumentTypeError, counted
from tagger.files import (
    LOCK_NAME,
    Busy,
    UserError,
    check_writable,
    is_toolkit_file,
    locked,
    read_csv,
    read_text,
    write_text,
)
from tagger.formats.pairs import CAPTION_SUFFIX, IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES, caption_path
from tagger.formats.tag_lists import TagReader, parse_tags, spell
from tagger.formats.tag_relations import Implications

SEPARATOR = ", "  # between the tags of a caption, and between the names of an artist string
EXISTING = ("skip", "overwrite", "append")  # what may become of a txt that is there already
RATING_PLACES = ("none", "first", "last")  # of the rating in a caption
FULL = (errno.ENOSPC, errno.EDQUOT)  # the disk, or the user's share of it
NO_IMPLICATIONS = Implications(())
PATIENCE = 10  # seconds to wait for a folder in which another run is at work


# --- which tags, and in which order ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """What is known of the tags of an image, by name.

    Attributes:
        probabilities: 0..1.
        rows: label indices, see Vocabulary.index.
        categories: names of categories, such as character.
    """

    probabilities: Mapping[str, float]
    rows: Mapping[str, int]
    categories: Mapping[str, str]

    @classmethod
    def of(cls, groups: Mapping[str, Mapping[str, float]], rows: Mapping[str, int]) -> "Facts":
        """Of tags by category; a name in two of them counts where it is first, with the higher probability."""
        probabilities: dict[str, float] = {}
        categories: dict[str, str] = {}
        for category, group in groups.items():
            for name, probability in group.items():
                probabilities[name] = max(probability, probabilities.get(name, 0.0))
                categories.setdefault(name, category)
        return cls(probabilities, rows, categories)


# The names come by category, and within it by falling probability.
Order = Callable[[Sequence[str], Facts], list[str]]


def _by_probability(names: Sequence[str], facts: Facts) -> list[str]:
    """The likeliest first, whatever its category."""
    return sorted(names, key=lambda name: -facts.probabilities[name])


def _by_category(names: Sequence[str], facts: Facts) -> list[str]:
    """General tags, characters, artists; this is how they come."""
    return list(names)


def _by_row(names: Sequence[str], facts: Facts) -> list[str]:
    """As the vocabulary has them, so that the captions of all images agree in their order."""
    return sorted(names, key=lambda name: facts.rows[name])


# Danbooru's tags for how many there are; in a vocabulary of its own they may have blanks.
COUNT_TAG = re.compile(r"\d+\+?(girl|boy|other)s?|multiple[_ ](girls|boys|others)|solo|no[_ ]humans")
PROMPT_CATEGORIES = ("character", "copyright", "artist")  # behind the counts, and before the rest


def _as_in_prompts(names: Sequence[str], facts: Facts) -> list[str]:
    """How many there are, characters, copyrights, artists, the rest: as the guides of NovelAI and Anima advise."""

    def rank(name: str) -> int:
        if COUNT_TAG.fullmatch(name):
            return -1
        category = facts.categories[name]
        return PROMPT_CATEGORIES.index(category) if category in PROMPT_CATEGORIES else len(PROMPT_CATEGORIES)

    return sorted(names, key=rank)


ORDERS: dict[str, Order] = {
    "probability": _by_probability,
    "category": _by_category,
    "csv": _by_row,
    "prompt": _as_in_prompts,
}


@dataclass(frozen=True)
class Style:
    """How a list of tags becomes a caption.

    Attributes:
        order: a key of ORDERS.
        exclude: tags that are left out, spelt as in the vocabulary like all names here.
        first: tags that come first where they are there at all, in this order.
        spaces: blanks for underscores, but for emoticons.
        escape: backslashes before parentheses, which otherwise are weights to Stable Diffusion's interfaces.
        prepend: what no model knows, such as a trigger word; it begins every caption, as it is written.
        relation: "prune" leaves out what another tag implies, "expand" adds what tags imply; "none".
        implications: known for either.
        replacements: texts that stand for tags, as they are written; an empty one leaves its tag out.
        rating: where the likeliest rating stands in a caption, one of RATING_PLACES; first is behind `prepend`.
        constant: tags that nearly all captions of a run share, which are left out when all else is decided.
    """

    order: str = "category"
    exclude: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    spaces: bool = False
    escape: bool = False
    prepend: tuple[str, ...] = ()
    relation: str = "none"
    implications: Implications = NO_IMPLICATIONS
    replacements: Mapping[str, str] = field(default_factory=dict)
    rating: str = "none"
    constant: frozenset[str] = frozenset()

    def read_by(self, reader: TagReader) -> "Style":
        """The same style, with tags that a person wrote in any spelling as the reader knows them."""
        first, exclude = (tuple(map(reader.name, names)) for names in (self.first, self.exclude))
        replacements = {reader.name(name): text for name, text in self.replacements.items()}
        return replace(self, first=first, exclude=exclude, replacements=replacements)

    def keeps(self, name: str) -> bool:
        """Whether a tag is neither excluded nor replaced by nothing."""
        return name not in self.exclude and self.replacements.get(name) != ""


def in_order(names: Sequence[str], style: Style, facts: Facts) -> list[str]:
    """The tags that a style keeps, in its order, spelt as in the vocabulary.

    Without relations the order of two tags does not depend on which others are there: the report relies on that.

    Args:
        names: by category, and within it by falling probability.
    """
    kept = ORDERS[style.order](list(filter(style.keeps, names)), facts)
    related = begun(with_relations(begun(kept, style), style), style)
    # Last: what a constant tag implies was pruned for its sake, and must not come back without it.
    return [name for name in related if name not in style.constant]


def begun(names: Sequence[str], style: Style) -> list[str]:
    """The names, those first that a style has first."""
    first = [name for name in style.first if name in names]
    return first + [name for name in names if name not in first]


def with_relations(names: Sequence[str], style: Style) -> list[str]:
    """The names without those that others imply, or with those that they imply, where a style asks for that."""
    if style.relation == "prune":
        return style.implications.pruned(names)
    if style.relation == "expand":
        return list(filter(style.keeps, style.implications.expanded(names)))
    return list(names)


def spelled(name: str, style: Style) -> str:
    """A tag as a style spells it: `long hair`."""
    if name in style.replacements:
        return style.replacements[name]
    return spell(name, spaces=style.spaces, escape=style.escape)


def join(names: Iterable[str], style: Style) -> str:
    """A list of tags: `1girl, long hair`. Where several are replaced by one text, it stands once."""
    return SEPARATOR.join(dict.fromkeys(spelled(name, style) for name in names))


def make_caption(names: Iterable[str], style: Style, rating: str | None = None) -> str:
    """A caption: what the style puts before all tags, the tags in their order, and the rating.

    Args:
        names: of the tags, see `in_order`.
        rating: the likeliest; None where the model has none.
    """
    rated = [rating] if rating and style.rating != "none" else []
    others = [name for name in names if name not in rated]
    listed = rated + others if style.rating == "first" else others + rated
    texts = (spelled(name, style) for name in without_prepended(listed, style))
    return SEPARATOR.join(dict.fromkeys([*style.prepend, *texts]))


def without_prepended(names: Iterable[str], style: Style) -> list[str]:
    """The names but for those that `prepend` has in any spelling, for nothing stands twice in a caption."""
    reader = TagReader()
    prepended = {_key(text, reader) for text in style.prepend}
    return [name for name in names if not prepended or _key(name, reader) not in prepended]


def _key(tag: str, reader: TagReader) -> str:
    """What all spellings of a tag share."""
    return reader.name(tag).casefold()


def read_replacements(path: Path, hint: str) -> dict[str, str]:
    """The texts that stand for tags, by tag, from a CSV with the columns old and new; an empty new drops its tag.

    Args:
        hint: ends an error, as in "name another CSV".

    Raises:
        UserError: missing, unreadable, without one of the columns; or a tag is blank or has two texts.
    """
    header, rows = read_csv(path, hint, ("old", "new"))
    old_at, new_at = header.index("old"), header.index("new")
    replacements: dict[str, str] = {}
    for number, row in rows:
        old, new = row[old_at].strip(), " ".join(row[new_at].split())  # a caption is one line
        if not old:
            raise UserError(f"{path}: row {number}: no old tag; correct that row")
        if replacements.setdefault(old, new) != new:
            raise UserError(f"{path}: row {number}: {old} has another new tag above; remove one of the rows")
    return replacements


# --- the txt beside the image ---------------------------------------------------------------------------------------

# Files of other kinds, which lie beside pictures, too.
NO_CAPTION_SUFFIXES = (".json", ".csv", ".html", ".pth", ".safetensors", ".onnx", ".npz", ".py")


def caption_suffix(text: str) -> str:
    """An argparse type: a suffix for caption files, such as .caption.

    Raises:
        ArgumentTypeError: it is none, or the suffix of pictures or of other files.
    """
    suffix = "." + text.removeprefix(".")
    taken = (*IMAGE_SUFFIXES, *OTHER_IMAGE_SUFFIXES, *NO_CAPTION_SUFFIXES)
    if not re.fullmatch(r"\.[A-Za-z0-9_-]+", suffix) or suffix.lower() in taken:
        raise ArgumentTypeError(f"{text!r}: an extension of text files, such as .caption")
    return suffix


def owners_of_captions(images: Iterable[Path], suffix: str = CAPTION_SUFFIX) -> tuple[list[Path], list[UserError]]:
    """The images that a caption can be written for, in their order, and why it cannot for the others.

    Of several images that share a txt, the one that create_tfrecord.py takes has it. A txt that is no caption file, for
    it is an image, a folder or a part of the toolkit, is nobody's.
    """
    images = list(images)
    pictures = {os.path.realpath(path) for path in images}
    owners: dict[Path, Path] = {}
    for path in images:
        owner = owners.setdefault(caption_path(path, suffix), path)
        if _suffix_rank(path) < _suffix_rank(owner):
            owners[caption_path(path, suffix)] = path
    kept, errors = [], []
    for path in images:
        target = caption_path(path, suffix)
        if os.path.realpath(target) in pictures:
            errors.append(UserError(f"{path}: its caption would replace the image {target}; rename one of them"))
        elif (owner := owners[target]) != path:
            errors.append(UserError(f"{path}: has the same {suffix[1:]} as {owner.name}; rename one of them"))
        elif os.path.isdir(target):
            errors.append(UserError(f"{path}: a folder stands where its caption belongs, {target}; rename one of them"))
        elif is_toolkit_file(target):
            errors.append(UserError(f"{path}: its caption would replace {target}, a file of the toolkit; rename it"))
        else:
            kept.append(path)
    return kept, errors


def _suffix_rank(path: Path) -> int:
    suffix = path.suffix.lower()
    return IMAGE_SUFFIXES.index(suffix) if suffix in IMAGE_SUFFIXES else len(IMAGE_SUFFIXES)


def without_captions(images: Iterable[Path], suffix: str = CAPTION_SUFFIX) -> list[Path]:
    """The images that have no txt yet."""
    return [path for path in images if not os.path.isfile(caption_path(path, suffix))]


def in_writable_folders(images: Iterable[Path]) -> tuple[list[Path], list[UserError]]:
    """The images in whose folders captions can be written, and a reason for each other folder.

    Raises:
        Busy: another script is at work in one of them.
    """
    images = list(images)
    refused: dict[Path, UserError] = {}
    for folder in sorted({path.parent for path in images}):
        try:
            check_writable(folder, "its images get no captions")
            with _turn(folder):
                pass
        except Busy:
            raise
        except UserError as error:
            refused[folder] = error
        except OSError as error:
            refused[folder] = UserError(f"{error.filename or folder}: {error.strerror}; its images get no captions")
    return [path for path in images if path.parent not in refused], list(refused.values())


def _turn(folder: Path) -> AbstractContextManager[None]:
    """A folder to oneself for as long as one caption takes, so that two runs in one folder both end right.

    To read a txt, add tags and write it back must not be interrupted by another run that does the same. Runs that have
    a folder for longer, as replace_blanks.py has, are not waited for.
    """
    return locked(folder / LOCK_NAME, "wait for it, and run this again", patience=PATIENCE)


@dataclass(frozen=True)
class Merging:
    """How a caption joins a txt that is there.

    Attributes:
        reader: of the vocabulary; compares the tags of both in any spelling.
        first: what stands before the text, where the text lacks it; the caption's other tags stand behind it.
        ratings: they exclude each other, so a txt that has one keeps it.
    """

    reader: TagReader
    first: Collection[str] = ()
    ratings: Collection[str] = ()

    @classmethod
    def of(cls, style: Style, reader: TagReader, ratings: Collection[str] = ()) -> "Merging":
        """For the captions of a style."""
        return cls(reader, (*style.prepend, *(ratings if style.rating == "first" else ())), ratings)


def appended(existing_text: str, caption: str, merging: Merging) -> str:
    """A txt's text, and around it the tags of a caption that it lacks in any spelling; the text is not changed."""
    reader = merging.reader
    standing = parse_tags(existing_text)
    known = {_key(tag, reader) for tag in standing}
    ratings = {_key(name, reader) for name in merging.ratings}
    if ratings & known:
        known |= ratings
    new = [tag for tag in parse_tags(caption) if _key(tag, reader) not in known]
    if not new or not standing:
        return SEPARATOR.join(new) if new else existing_text
    first = {_key(tag, reader) for tag in merging.first}
    if before := [tag for tag in new if _key(tag, reader) in first]:
        existing_text = SEPARATOR.join([*before, existing_text.lstrip()])
        standing = [*before, *standing]
        new = [tag for tag in new if _key(tag, reader) not in first]
    if not new:
        return existing_text
    # Somebody's text may end in a comma or a line end, which would otherwise give an empty tag.
    beginning = existing_text.rstrip().rstrip(",，、")
    joined = beginning + SEPARATOR + SEPARATOR.join(new)
    if (
        parse_tags(joined)[: len(standing)] != standing
    ):  # a semicolon separates at the end of a line, not before a comma
        joined = beginning + "\n" + SEPARATOR.join(new)
    return joined


def new_text(path: Path, caption: str, existing: str, merging: Merging) -> str | None:
    """What a caption's txt should hold; None where what stands there may stay.

    Args:
        existing: what becomes of a file that is there already, one of EXISTING.
        merging: how both become one.

    Raises:
        UserError: the file that is there cannot be read, so nothing can be appended to it.
    """
    if not os.path.exists(path):
        return caption
    if existing == "append":
        existing_text = read_text(path, "make it readable")
        text = appended(existing_text, caption, merging)
        return None if text == existing_text else text  # its time stays as it was, too
    return caption if existing == "overwrite" else None


def write_caption(path: Path, caption: str, existing: str, merging: Merging) -> str | None:
    """Write a caption's txt, whole or not at all; what it holds now, None where it stays. See `new_text`.

    Raises:
        UserError: this txt cannot be read or written; others may.
        Busy: another script is at work in the folder.
        OSError: the disk is full, so no other caption can be written either.
    """
    try:
        with _turn(path.parent):
            text = new_text(path, caption, existing, merging)
            if text is not None:
                write_text(path, text)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise UserError(f"{path}: {error.strerror}; the image is left without this caption") from None
    return text


class CaptionFiles:
    """The captions of a run, which are written, or in a dry run only worked out.

    Args:
        existing: one of EXISTING.
        merging: how a caption joins a txt that is there.
        suffix: of the files.

    Attributes:
        count: txt files that were, or would be, written.
    """

    def __init__(self, existing: str, merging: Merging, dry_run: bool, suffix: str = CAPTION_SUFFIX) -> None:
        self.existing, self.merging, self.dry_run, self.suffix = existing, merging, dry_run, suffix
        self.count = 0

    def put(self, image: Path, caption: str) -> str | None:
        """What an image's txt holds now, or would hold; None where it stays as it was.

        Raises:
            UserError, Busy, OSError: see write_caption.
        """
        work = new_text if self.dry_run else write_caption
        text = work(caption_path(image, self.suffix), caption, self.existing, self.merging)
        self.count += text is not None
        return text

    def summary(self) -> str:
        """How many."""
        return f"{counted(self.count, 'caption')} {'would be ' if self.dry_run else ''}written"
