"""What is said of a file's own prompt: as text, JSON and CSV, and as the tags of a caption.

    python wdv3_pytorch.py --image_file picture.png --embedded_prompt only --artist_string sdxl

No model is asked for any of it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tagger.cli import counted
from tagger.formats.tag_relations import ALIASES_FILE, canonical_names, read_aliases
from tagger.formats.vocabulary import ARTIST, Vocabulary
from tagger.inference.artist_strings import ArtistSettings, weighted_string
from tagger.inference.captions import Facts, Style, in_order, make_caption
from tagger.inference.embedded.artists import Artist, Lookup, find_tags
from tagger.inference.embedded.generators import title_of
from tagger.inference.embedded.reading import Embedded, read_embedded

# --- names ----------------------------------------------------------------------------------------------------------


def make_lookup(vocabulary: Vocabulary | None, tags_csv: Path | None) -> Lookup:
    """What a vocabulary knows of names, and the aliases that lie beside it.

    Raises:
        UserError: the aliases cannot be read.
    """
    artists, others = set[str](), set[str]()
    if vocabulary:
        for name, category in zip(vocabulary.names, vocabulary.categories, strict=True):
            (artists if category == ARTIST else others).add(name)
    aliases = tags_csv.with_name(ALIASES_FILE) if tags_csv else None
    old_names = read_aliases(aliases) if aliases and aliases.exists() else {}
    return Lookup(artists, others, canonical_names(old_names, artists | others))


# --- an answer ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PromptAnswer:
    """What a file, or several together, say of how they were made.

    Attributes:
        image: its name.
        embedded: what was read.
        artist_string: its own artists in another syntax; None where none was asked for.
        caption: the prompt's tags; None where none was asked for.
        shares: of several files, the share that names an artist, 0..1, by tag; None of one file.
        files: how many they are.
        marks_unknown: whether artists that the vocabulary lacks are marked: it has some.
    """

    image: str
    embedded: Embedded
    artist_string: str | None = None
    caption: str | None = None
    shares: Mapping[str, float] | None = None
    files: int = 1
    marks_unknown: bool = False

    def fields(self) -> dict[str, Any]:
        """What is said of the prompt as members of a JSON object; weights are rounded to four digits."""
        embedded = self.embedded
        fields: dict[str, Any] = {
            "prompt": embedded.prompt,
            "negative_prompt": embedded.negative_prompt,
            "character_prompts": list(embedded.character_prompts),
            "generator": embedded.generator,
            "prompt_source": embedded.source,
            "artists_in_prompt": embedded.wanted,
            "artists_unwanted": embedded.unwanted,
        }
        if self.shares is not None:
            fields["artists_share_of_files"] = dict(self.shares)
        if self.artist_string is not None:
            fields["prompt_artist_string"] = self.artist_string
        return fields

    def record(self) -> dict[str, Any]:
        """A JSON object of its own."""
        caption = {} if self.caption is None else {"caption": self.caption}
        return {"image": self.image, **self.fields(), **caption}

    def lines(self) -> list[str]:
        """The lines of a text."""
        embedded = self.embedded
        if embedded.source is None and self.shares is None:
            return ["Prompt: none in the file"]
        lines = [] if embedded.prompt is None else [f"Prompt: {_one_paragraph(embedded.prompt)}"]
        lines += [f"Character prompt: {_one_paragraph(text)}" for text in embedded.character_prompts]
        if embedded.negative_prompt:
            lines.append(f"Negative prompt: {_one_paragraph(embedded.negative_prompt)}")
        lines.append(f"Artists in the prompt ({self.origin()}):")
        lines += [
            f"  {artist.tag}: {artist.weight:g}{self._mark(artist)}" for artist in embedded.artists if artist.weight > 0
        ]
        if embedded.unwanted:
            lines.append("Artists that the prompt does not want:")
            lines += [f"  {tag}: {weight:g}" for tag, weight in embedded.unwanted.items()]
        if self.artist_string is not None:
            lines.append(f"Artist string of the prompt: {self.artist_string or 'no artist in it'}")
        if self.caption is not None:
            lines.append(f"Caption: {self.caption}")
        return lines

    def origin(self) -> str:
        """Who wrote the prompt and where it stands, or how many files there are."""
        if self.shares is not None:
            return f"{self.files} files"
        return f"{title_of(self.embedded.generator)}, {self.embedded.source}"

    def _mark(self, artist: Artist) -> str:
        """What of an artist is not certain, and how many files name it."""
        marks = []
        if not artist.by_prefix:
            marks.append("no prefix")
        if not artist.is_known and self.marks_unknown:
            marks.append("not in the vocabulary")
        if self.shares is not None:
            marks.append(f"in {round(self.shares[artist.tag] * self.files)} of {self.files} files")
        return f" ({', '.join(marks)})" if marks else ""

    def cells(self) -> list[str]:
        """A CSV's row but for the image, in the order of output.PROMPT_COLUMNS; weights are `tag:weight tag:weight`."""
        embedded = self.embedded
        return [
            embedded.prompt or "",
            embedded.negative_prompt or "",
            "\n".join(embedded.character_prompts),
            embedded.generator or "",
            embedded.source or "",
            *(
                " ".join(f"{tag}:{weight:g}" for tag, weight in group.items())
                for group in (embedded.wanted, embedded.unwanted)
            ),
            self.artist_string or "",
        ]


def _one_paragraph(text: str) -> str:
    """A prompt of several lines, indented, so that no line of it looks like one of ours."""
    return "\n  ".join(text.splitlines())


def make_prompt_answer(image: object, embedded: Embedded, lookup: Lookup, artists: ArtistSettings) -> PromptAnswer:
    """Put what was read into words."""
    return PromptAnswer(
        str(image), embedded, weighted_string(embedded.wanted, artists), marks_unknown=bool(lookup.artists)
    )


# --- several files together -----------------------------------------------------------------------------------------


class Pool:
    """What several files say together: each artist with its mean weight over the files that name it.

    Prompts and sources are told where they are the same in all files that have one.
    """

    def __init__(self, lookup: Lookup, artists: ArtistSettings) -> None:
        self.lookup, self.artists = lookup, artists
        self.files = 0
        self._prompts: list[Embedded] = []  # at most two different ones
        self._found: dict[tuple[str, bool], _Tally] = {}  # by tag, and whether it is wanted

    def add(self, embedded: Embedded) -> None:
        """Count a file."""
        self.files += 1
        told = replace(embedded, artists=(), problems=())
        if embedded.source and told not in self._prompts and len(self._prompts) < 2:
            self._prompts.append(told)
        for artist in embedded.artists:
            self._found.setdefault((artist.tag, artist.weight > 0), _Tally()).add(artist)

    def answer(self, title: str) -> PromptAnswer:
        """The answer for all files, the artists of the most files first."""
        tallies = sorted(self._found.values(), key=lambda tally: -tally.count)
        pooled = replace(
            self._prompts[0] if len(self._prompts) == 1 else Embedded(),
            artists=tuple(tally.mean() for tally in tallies),
        )
        shares = {tag: round(tally.count / self.files, 4) for (tag, wanted), tally in self._found.items() if wanted}
        answer = make_prompt_answer(title, pooled, self.lookup, self.artists)
        return replace(answer, shares={tag: shares[tag] for tag in pooled.wanted}, files=self.files)


@dataclass
class _Tally:
    """An artist in several files."""

    total: float = 0.0
    count: int = 0
    artist: Artist | None = None

    def add(self, artist: Artist) -> None:
        self.total += artist.weight
        self.count += 1
        by_prefix = artist.by_prefix or bool(self.artist and self.artist.by_prefix)
        self.artist = replace(artist, by_prefix=by_prefix)

    def mean(self) -> Artist:
        assert self.artist is not None  # one was added
        return replace(self.artist, weight=round(self.total / self.count, 4))


# --- files ----------------------------------------------------------------------------------------------------------


class Prompts:
    """Reads the prompts of files, and puts them into words.

    Args:
        lookup: what names mean.
        artists: the syntax of the artist strings.
        warn: told in a line what of a file could not be read.
    """

    def __init__(self, lookup: Lookup, artists: ArtistSettings, warn: Callable[[str], None]) -> None:
        self.lookup, self.artists, self.warn = lookup, artists, warn

    def read(self, path: Path) -> Embedded:
        """What a file says.

        Raises:
            UserError: the file is missing or cannot be read.
        """
        embedded = read_embedded(path, self.lookup)
        if embedded.problems:
            self.warn(f"warning: {path}: {'; '.join(embedded.problems)}")
        return embedded

    def answer(self, path: Path) -> PromptAnswer:
        """The answer for a file; raises like `read`."""
        return make_prompt_answer(path, self.read(path), self.lookup, self.artists)

    def pool(self) -> Pool:
        """For several files together; none are in it yet."""
        return Pool(self.lookup, self.artists)

    def together(self, paths: Iterable[Path], title: str) -> PromptAnswer:
        """One answer for several files; raises like `read`."""
        pool = self.pool()
        for path in paths:
            pool.add(self.read(path))
        return pool.answer(title)

    def captioned(self, path: Path, style: Style) -> PromptAnswer:
        """The same with the prompt's tags as a caption; None for that of a file without a prompt."""
        answer = self.answer(path)
        caption, sentences = prompt_caption(answer.embedded, self.lookup, style)
        if sentences:
            self.warn(f"warning: {path}: {counted(sentences, 'piece')} of the prompt left out: sentences, no tags")
        return replace(answer, caption=caption)


# --- captions -------------------------------------------------------------------------------------------------------


def prompt_caption(embedded: Embedded, lookup: Lookup, style: Style) -> tuple[str | None, int]:
    """The prompt's tags as a caption, in the prompt's order, and how many of its pieces are sentences and no tags.

    Args:
        style: its names are Danbooru's; its order is not asked.

    Returns:
        None for the caption of a file without a prompt.
    """
    if embedded.prompt is None or embedded.dialect is None:
        return None, 0
    tags, sentences = find_tags([embedded.prompt, *embedded.character_prompts], embedded.dialect, lookup)
    return make_caption(in_order(tags, replace(style, order="category"), Facts({}, {}, {})), style), sentences
