"""What is printed of an image: text, JSON, JSON lines or CSV.

python wdv3_pytorch.py --image_file test.png --model_path checkpoints --output_format json
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from tagger.files import csv_text
from tagger.formats.thresholds import GROUPS
from tagger.formats.translations import Translations
from tagger.inference.artist_strings import ArtistSettings, artist_string
from tagger.inference.captions import Facts, Style, in_order, join, make_caption, without_prepended
from tagger.inference.selection import Tagging

if TYPE_CHECKING:  # few runs ask for prompts
    from tagger.inference.embedded.answer import PromptAnswer

CSV_COLUMNS = ("image", "rating", "caption", "tags", *GROUPS)  # then further categories, and the artist string
PROMPT_COLUMNS = (
    *("prompt", "negative_prompt", "character_prompts", "generator", "prompt_source"),
    *("artists_in_prompt", "artists_unwanted", "prompt_artist_string"),
)
SIMILAR_COLUMN = "similar_artists"  # the key in JSON, too


# --- an answer ------------------------------------------------------------------------------------------------------


class Tellable(Protocol):
    """What can be said of one image in every format: an Answer, or a PromptAnswer where no model is asked."""

    @property
    def image(self) -> str: ...

    def lines(self) -> list[str]: ...

    def record(self) -> dict[str, Any]: ...

    def cells(self) -> list[str]: ...


@dataclass(frozen=True)
class Answer:
    """What is said of one image.

    Attributes:
        tagging: the tags that passed, with their probabilities.
        caption, tags: the two lists of tags as text.
        artist_string: None where none was asked for.
        similar: similarity of the closest taught artists by name, falling; empty where an artist passed, and None where
            they were not asked for.
        prompt: what the file itself says; None where that was not asked for.
        translations: of the tags that are told, by name; None where none were asked for.
    """

    tagging: Tagging
    caption: str
    tags: str
    artist_string: str | None
    similar: Mapping[str, float] | None = None
    prompt: "PromptAnswer | None" = None
    translations: Mapping[str, Sequence[str]] | None = None

    @property
    def image(self) -> str:
        return self.tagging.image

    def record(self) -> dict[str, Any]:
        """The answer as a JSON object; probabilities are not rounded."""
        record: dict[str, Any] = {"image": self.tagging.image, "caption": self.caption, "tags": self.tags}
        record |= {"ratings": self.tagging.ratings, **self.tagging.groups}
        if self.artist_string is not None:
            record["artist_string"] = self.artist_string
        if self.tells_of_candidates:
            record["artist_candidates"] = self.tagging.candidates
        if self.translations is not None:
            record["translations"] = self.translations
        if self.similar is not None:
            record[SIMILAR_COLUMN] = dict(self.similar)
        if self.prompt:
            record |= self.prompt.fields()
        return record

    @property
    def tells_of_candidates(self) -> bool:
        """Whether an artist string was asked for, and there are only artists below the threshold."""
        return self.artist_string == "" and bool(self.tagging.candidates)

    def lines(self) -> list[str]:
        """The layout of the README, behind what the file itself says; of the ratings only the likeliest."""
        tagging = self.tagging
        lines = self.prompt.lines() if self.prompt else []
        lines += [f"Caption: {self.caption}", f"Tags: {self.tags}"]
        if tagging.sections != ("artist",):  # a model of artists alone has no ratings either
            lines.append("Ratings:")
            lines += [f"  {name}: {p:.3f}" for name, p in list(tagging.ratings.items())[:1]]
        for name in tagging.sections:
            level = tagging.thresholds[name]
            title = name.capitalize().replace("_", " ")
            lines.append(f"{title} tags (threshold={'per tag' if level is None else f'{level:.2f}'}):")
            lines += [f"  {tag}: {p:.3f}" for tag, p in tagging.groups[name].items()]
        if self.artist_string is not None:
            lines.append(f"Artist string: {self.artist_string or 'no artist above the threshold'}")
        if self.tells_of_candidates:
            lines.append("Likeliest artists, all below the threshold:")
            lines += [f"  {tag}: {p:.3f}" for tag, p in tagging.candidates.items()]
        if self.similar:
            lines.append("Closest taught artists, none above the threshold (similarity from -1 to 1, no probability):")
            lines += [f"  {tag}: {similarity:.3f}" for tag, similarity in self.similar.items()]
        return lines

    def cells(self) -> list[str]:
        """A CSV's row but for the image; a group is `name:probability`, separated by blanks (no tag has one in it)."""
        tagging = self.tagging
        cells = map(_pairs, tagging.groups.values())
        rating = next(iter(tagging.ratings), "")
        row = [rating, self.caption, self.tags, *cells, self.artist_string or ""]
        row += [] if self.similar is None else [_pairs(self.similar)]
        return row + (self.prompt.cells() if self.prompt else [])


def _pairs(numbers: Mapping[str, float]) -> str:
    return " ".join(f"{tag}:{number:.4f}" for tag, number in numbers.items())


def csv_columns(groups: Iterable[str], with_prompts: bool, with_similar: bool = False) -> tuple[str, ...]:
    """The columns of a CSV of answers.

    Args:
        groups: the categories of every answer, see thresholds.groups_of.
        with_prompts: whether answers tell of the files' own prompts.
        with_similar: whether they tell of the closest taught artists.
    """
    further = (name for name in groups if name not in GROUPS)
    similar = (SIMILAR_COLUMN,) if with_similar else ()
    return (*CSV_COLUMNS, *further, "artist_string", *similar, *(PROMPT_COLUMNS if with_prompts else ()))


def make_answer(
    tagging: Tagging,
    rows: Mapping[str, int],
    style: Style,
    artists: ArtistSettings,
    translations: Translations | None = None,
) -> Answer:
    """Put what was selected into words.

    Args:
        rows: label index of each name, see Vocabulary.index.
        style: of the caption and the tags.
        translations: of tags, or None where they are not told.
    """
    facts = Facts.of(tagging.groups, rows)
    caption, tags = (in_order(names, style, facts) for names in (tagging.caption, tagging.tags))
    rating = next(iter(tagging.ratings), None)
    told = dict.fromkeys(chain(tagging.ratings, *tagging.groups.values(), tagging.candidates))
    return Answer(
        tagging,
        make_caption(caption, style, rating),
        join(tags, style),
        artist_string(tagging.artists, artists),
        translations=translations.among(told) if translations else None,
    )


def caption_names(tagging: Tagging, rows: Mapping[str, int], style: Style) -> list[str]:
    """The tags of an image's caption by their names in the vocabulary, but for those that every caption begins with.

    Args:
        rows: label index of each name, see Vocabulary.index.
    """
    return without_prepended(in_order(tagging.caption, style, Facts.of(tagging.groups, rows)), style)


# --- formats --------------------------------------------------------------------------------------------------------


class Writer:
    """Writes answers to a file in one format. Create it, `add` each answer, `end` it.

    Args:
        file: open for writing text.
        titles: whether each image's name stands above its answer, in a format that has no other place for it.
        columns: of a CSV: the image's name, and an answer's cells.

    Attributes:
        beginning: a regular expression for how a file begins that has this format.
    """

    beginning: str

    def __init__(self, file: IO[str], titles: bool = False, columns: Sequence[str] = ()) -> None:
        self.file, self.titles, self.columns = file, titles, columns
        self.count = 0  # answers so far
        self.write(self.head())

    def head(self) -> str:
        """What comes before the first answer."""
        return ""

    def body(self, answer: Tellable) -> str:
        """What is written of an answer, with all that separates it from the one before."""
        raise NotImplementedError

    def tail(self) -> str:
        """What comes after the last answer."""
        return ""

    def add(self, answer: Tellable) -> None:
        """Write an answer, at once: whoever reads from a pipe shall not wait for the images after it."""
        self.write(self.body(answer))
        self.count += 1
        self.file.flush()

    def end(self) -> None:
        self.write(self.tail())

    def write(self, text: str) -> None:
        # A file's name may be no Unicode; its escapes are right in JSON, and readable elsewhere.
        self.file.write(text.encode("utf-8", "backslashreplace").decode())

    def json_text(self, answer: Tellable, indent: int | None = None) -> str:
        # What a console's code page (GBK, cp1252) lacks is written as JSON's own escapes.
        encoding = getattr(self.file, "encoding", None) or "utf-8"
        return json.dumps(answer.record(), ensure_ascii=encoding.lower() not in ("utf-8", "utf8"), indent=indent)


class TextWriter(Writer):
    """Lines for a reader."""

    beginning = (
        r"(?s:(== .*? ==\n)?(Caption: .*?\nTags: |Prompt: none in the file\n"
        r"|((Character p|P)rompt: .*?\n)?Artists in the prompt \())"
    )

    def body(self, answer: Tellable) -> str:
        lines = [f"== {answer.image} =="] if self.titles else []
        return "".join(f"{line}\n" for line in lines + answer.lines())


class JsonWriter(Writer):
    """A list of objects."""

    beginning = r'\[\]\n$|\[\n\{\n  "image": .*\n  "(caption|prompt)": '

    def body(self, answer: Tellable) -> str:
        return (",\n" if self.count else "[\n") + self.json_text(answer, indent=2)

    def tail(self) -> str:
        return "\n]\n" if self.count else "[]\n"


class JsonLinesWriter(Writer):
    """An object a line."""

    beginning = r'\{"image": ".*?", "(caption|prompt)": '

    def body(self, answer: Tellable) -> str:
        return self.json_text(answer) + "\n"


class CsvWriter(Writer):
    """A row an image."""

    beginning = (
        rf"({','.join(CSV_COLUMNS)}(,[a-z_]+)*,artist_string(,{SIMILAR_COLUMN})?|image)(,{','.join(PROMPT_COLUMNS)})?\n"
    )

    def head(self) -> str:
        return csv_text([self.columns])

    def body(self, answer: Tellable) -> str:
        return csv_text([[answer.image, *answer.cells()]])


FORMATS: dict[str, type[Writer]] = {"text": TextWriter, "json": JsonWriter, "jsonl": JsonLinesWriter, "csv": CsvWriter}

BEGINNING = 100_000  # characters of a file in which its first answer begins; captions and file names may be long


def is_answers(path: Path) -> bool:
    """Whether a file looks like what one of FORMATS writes, be it of no image at all."""
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        text = file.read(BEGINNING)
    return not text or any(re.match(writer.beginning, text) for writer in FORMATS.values())
