r"""The artists of a prompt as Danbooru's tags, with their weights.

    python -c "from tagger.inference.embedded.artists import *; print(find_artists(['{artist:mori}'], 'nai', Lookup()))"

A prefix (`artist:`, `@`), an <artist> block, and `by` behind a word such as `art` say it themselves. Everything else
is an artist only if the vocabulary has an artist of that name and nothing else of it: `rain` is both, and no guess.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tagger.formats.tag_lists import MAX_TAG_LENGTH, is_usable, unescaped
from tagger.inference.embedded.grammar import Segment, segments

# Tags about artists, some of which vocabularies file under artists.
NEVER = frozenset(
    ("artist_collaboration", "artist_name", "artist_logo", "artist_self-insert", "artistic_error", "artist_request")
)
# `artist:` and the ways in which it is misspelt in public prompts.
PREFIX = re.compile(r"(?<![\w\[])(?:artists?|aritst|artsit|artits|arist|atrist|arttist)\s{0,8}:", re.IGNORECASE)
AT_NAME = re.compile(r"\s*[({\[]*\s*@\s?(?=[^\W_])(?!preset:)")
BY = re.compile(r"(?:^|(?<=\s))by\s+(?=\S)", re.IGNORECASE)
MADE = re.compile(r"\b(?:art|artwork|drawn|illustrated|illustration|painted|painting|style)\s*$", re.IGNORECASE)
NO_NAME = re.compile(r"(?:the|an?|his|her|their|its|my|your)\b", re.IGNORECASE)
AND = re.compile(r"\s(?:and|&)\s", re.IGNORECASE)
SENTENCE_END = re.compile(r"\.\s(?=\s{0,8}[A-Z])")
WEIGHT_OF_OTHERS = re.compile(r":\s*[+-]?\d{0,4}\.?\d{1,4}\s*\)*\s*$")  # `(artist:x:1.2)` where it has no meaning
WILDCARD = re.compile(r"\s*__.*__\s*")
MAX_NAME = 2 * MAX_TAG_LENGTH  # characters, with all that a prompt puts around it
MAX_WORDS = 6  # of a tag that the vocabulary does not have; more are a sentence
OUTSIDE = " \t\n\"'“”‘’`{}"  # what may stand around a name and is no part of it


@dataclass(frozen=True)
class Lookup:
    """What names mean, to go by where a prompt does not say it.

    Attributes:
        artists: Danbooru tags of artists.
        others: those of all other categories.
        aliases: today's tag of a name that is no tag any more.
    """

    artists: Collection[str] = frozenset()
    others: Collection[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)

    def is_artist(self, tag: str) -> bool:
        return tag in self.artists and tag not in NEVER

    def is_only_artist(self, tag: str) -> bool:
        return self.is_artist(tag) and tag not in self.others

    def tag(self, name: str) -> str:
        r"""A name as Danbooru has it: `Hoshi \(circle nine\)` is `hoshi_(circle_nine)`."""
        tag = plain_tag(name)
        spaced = re.sub(r"(?<=[^_(])\(", "_(", tag)  # `name(circle)`
        for spelling in (name.strip(), tag, spaced):
            if spelling in self.artists or spelling in self.others:
                return spelling
        return self.aliases.get(tag, tag)


@dataclass(frozen=True)
class Artist:
    """An artist of a prompt.

    Attributes:
        tag: as Danbooru has it.
        weight: rounded to four digits; at most 0 where the prompt does not want it.
        by_prefix: whether the prompt says that it is an artist; else the vocabulary does.
        is_known: whether the vocabulary has it as an artist.
    """

    tag: str
    weight: float
    by_prefix: bool
    is_known: bool


def find_artists(prompts: Iterable[str], dialect: str, lookup: Lookup) -> list[Artist]:
    """The artists of some prompts in their order; of one that is named twice the stronger.

    Args:
        dialect: a key of grammar.DIALECTS.
    """
    found: dict[str, Artist] = {}
    for prompt in prompts:
        for segment in segments(prompt, dialect):
            for artist in artists_of(segment, lookup):
                if artist.tag not in found or artist.weight > found[artist.tag].weight:
                    found[artist.tag] = artist
    return list(found.values())


def artists_of(segment: Segment, lookup: Lookup) -> Iterator[Artist]:
    """The artists of one segment, by the first rule that finds any."""
    text = segment.text
    if WILDCARD.fullmatch(text):
        return
    names = _after_prefixes(text) or _after_at(text)
    if not names and segment.in_artists:
        names = [(0, _name(text))]
    names, by_prefix = names or _after_by(text, lookup), True
    if not names:
        if len(text) > MAX_NAME or not lookup.is_only_artist(lookup.tag(text)):
            return
        names, by_prefix = [(0, text)], False
    for place, name in names:
        tag = lookup.tag(name)
        if not tag or len(tag) > MAX_TAG_LENGTH or not re.search(r"\w", tag) or tag in NEVER:
            continue
        letter = place + len(name) - len(name.lstrip(OUTSIDE + "("))
        yield Artist(tag, round(segment.weight_at(letter), 4), by_prefix, lookup.is_artist(tag))


def find_tags(prompts: Iterable[str], dialect: str, lookup: Lookup) -> tuple[list[str], int]:
    """The tags of some prompts in their order, and how many pieces read as sentences and are no tags.

    Artists are among them, without what is not wanted, and tags that the vocabulary does not have.

    Args:
        dialect: a key of grammar.DIALECTS.
    """
    tags: dict[str, None] = {}
    sentences = 0
    for prompt in prompts:
        for segment in segments(prompt, dialect):
            if artists := list(artists_of(segment, lookup)):
                tags.update((artist.tag, None) for artist in artists if artist.weight > 0)
                continue
            text = segment.text.strip()
            if WILDCARD.fullmatch(text) or segment.weight <= 0:
                continue
            tag = lookup.tag(text) if len(text) <= MAX_NAME else ""
            words = len(text.split())
            if tag in lookup.others or tag in lookup.artists or (tag and words <= 2):
                is_tag = True
            else:
                is_tag = words <= MAX_WORDS and not text.endswith((".", "!", "?"))
            if is_tag and is_usable(tag):
                tags[tag] = None
            else:
                sentences += not is_tag
    return list(tags), sentences


def _name(text: str) -> str:
    """What may be a name at the beginning of a text: up to a sentence's end, and empty where it is too long for one."""
    name = SENTENCE_END.split(text[: 2 * MAX_NAME], maxsplit=1)[0]
    return name if len(name) <= MAX_NAME else ""


def _after_prefixes(text: str) -> list[tuple[int, str]]:
    """(place, name) behind each `artist:`."""
    prefixes = list(PREFIX.finditer(text))
    ends = [*(match.start() for match in prefixes), len(text)][1:]
    return [(match.end(), _name(text[match.end() : end])) for match, end in zip(prefixes, ends, strict=True)]


def _after_at(text: str) -> list[tuple[int, str]]:
    match = AT_NAME.match(text)
    return [(match.end(), _name(text[match.end() :]))] if match else []


def _after_by(text: str, lookup: Lookup) -> list[tuple[int, str]]:
    """(place, name) behind the last `by`: names that the vocabulary has, or any behind `art by` and the like."""
    matches = list(BY.finditer(text))
    if not matches:
        return []
    match = matches[-1]
    place, name = match.end(), _name(text[match.end() :])
    if lookup.is_artist(lookup.tag(name)):
        return [(place, name)]
    made = MADE.search(text[max(0, match.start() - 40) : match.start()]) is not None
    names: list[tuple[int, str]] = []
    bounds = [0, *(end for found in AND.finditer(name) for end in found.span()), len(name)]
    for begin, end in zip(bounds[::2], bounds[1::2], strict=True):
        part = name[begin:end]
        if lookup.is_artist(lookup.tag(part)) or (made and not NO_NAME.match(part.strip())):
            names.append((place + begin, part))
    return names


def plain_tag(name: str) -> str:
    """A name without what a prompt puts around it, in Danbooru's spelling."""
    name = WEIGHT_OF_OTHERS.sub("", name)
    name = unescaped(name.strip(OUTSIDE)).replace("\\", "")
    while True:  # outer brackets that have no other half within, or enclose the whole
        stripped = name.strip(OUTSIDE)
        if stripped.startswith("(") and (stripped.count("(") > stripped.count(")") or stripped.endswith(")")):
            stripped = stripped[1:-1] if stripped.endswith(")") else stripped[1:]
        elif stripped.endswith((")", "]")) and stripped.count(")") > stripped.count("("):
            stripped = stripped[:-1]
        if stripped == name:
            break
        name = stripped
    return re.sub(r"[\s_]+", "_", name.lower()).strip("_")
