"""What is printed of an image: text, JSON, JSON lines or CSV.

python wdv3_pytorch.py --image_file test.png --model_path checkpoints --output_format json
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tagger.files import csv_text
from tagger.formats.thresholds import GROUPS
from tagger.inference.artist_strings import ArtistSettings, artist_string
from tagger.inference.captions import Style, in_order, join
from tagger.inference.selection import Tagging

CSV_COLUMNS = ("image", "rating", "caption", "tags", *GROUPS)  # then further categories, and the artist string


# --- an answer ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What is said of one image.

    Attributes:
        tagging: the tags that passed, with their probabilities.
        caption, tags: the two lists of tags as text.
        artist_string: None where none was asked for.
    """

    tagging: Tagging
    caption: str
    tags: str
    artist_string: str | None

    def record(self) -> dict[str, Any]:
        """The answer as a JSON object; probabilities are not rounded."""
        record: dict[str, Any] = {"image": self.tagging.image, "caption": self.caption, "tags": self.tags}
        record |= {"ratings": self.tagging.ratings, **self.tagging.groups}
        if self.artist_string is not None:
            record["artist_string"] = self.artist_string
        if self.tells_of_candidates:
            record["artist_candidates"] = self.tagging.candidates
        return record

    @property
    def tells_of_candidates(self) -> bool:
        """Whether an artist string was asked for, and there are only artists below the threshold."""
        return self.artist_string == "" and bool(self.tagging.candidates)


def make_answer(tagging: Tagging, rows: Mapping[str, int], style: Style, artists: ArtistSettings) -> Answer:
    """Put what was selected into words.

    Args:
        rows: label index of each name, see Vocabulary.index.
        style: of the caption and the tags.
    """
    caption, tags = (
        join(in_order(names, style, tagging.probabilities, rows), style) for names in (tagging.caption, tagging.tags)
    )
    return Answer(tagging, caption, tags, artist_string(tagging.artists, artists))


# --- formats --------------------------------------------------------------------------------------------------------


class Writer:
    """Writes answers to a file in one format. Create it, `add` each answer, `end` it.

    Args:
        file: open for writing text.
        titles: whether each image's name stands above its answer, in a format that has no other place for it.
        groups: the categories of every answer, for a format that names them once.

    Attributes:
        beginning: matches where a file begins that has this format.
    """

    beginning: re.Pattern[str]

    def __init__(self, file: IO[str], titles: bool = False, groups: Sequence[str] = GROUPS) -> None:
        self.file, self.titles, self.groups = file, titles, groups
        self.count = 0  # answers so far
        self.write(self.head())

    def head(self) -> str:
        """What comes before the first answer."""
        return ""

    def body(self, answer: Answer) -> str:
        """What is written of an answer, with all that separates it from the one before."""
        raise NotImplementedError

    def tail(self) -> str:
        """What comes after the last answer."""
        return ""

    def add(self, answer: Answer) -> None:
        """Write an answer, at once: whoever reads from a pipe shall not wait for the images after it."""
        self.write(self.body(answer))
        self.count += 1
        self.file.flush()

    def end(self) -> None:
        self.write(self.tail())

    def write(self, text: str) -> None:
        # A file's name may be no Unicode; its escapes are right in JSON, and readable elsewhere.
        self.file.write(text.encode("utf-8", "backslashreplace").decode())

    def json_text(self, answer: Answer, indent: int | None = None) -> str:
        # What a console's code page (GBK, cp1252) lacks is written as JSON's own escapes.
        encoding = getattr(self.file, "encoding", None) or "utf-8"
        return json.dumps(answer.record(), ensure_ascii=encoding.lower() not in ("utf-8", "utf8"), indent=indent)


class TextWriter(Writer):
    """The layout of the README; of the ratings only the likeliest."""

    beginning = re.compile(r"(== .*? ==\n)?Caption: .*?\nTags: ", re.DOTALL)

    def body(self, answer: Answer) -> str:
        tagging = answer.tagging
        lines = [f"== {tagging.image} =="] if self.titles else []
        lines += [f"Caption: {answer.caption}", f"Tags: {answer.tags}"]
        if tagging.sections != ("artist",):  # a model of artists alone has no ratings either
            lines.append("Ratings:")
            lines += [f"  {name}: {p:.3f}" for name, p in list(tagging.ratings.items())[:1]]
        for name in tagging.sections:
            level = tagging.thresholds[name]
            title = name.capitalize().replace("_", " ")
            lines.append(f"{title} tags (threshold={'per tag' if level is None else f'{level:.2f}'}):")
            lines += [f"  {tag}: {p:.3f}" for tag, p in tagging.groups[name].items()]
        if answer.artist_string is not None:
            lines.append(f"Artist string: {answer.artist_string or 'no artist above the threshold'}")
        if answer.tells_of_candidates:
            lines.append("Likeliest artists, all below the threshold:")
            lines += [f"  {tag}: {p:.3f}" for tag, p in tagging.candidates.items()]
        return "".join(f"{line}\n" for line in lines)


class JsonWriter(Writer):
    """A list of objects."""

    beginning = re.compile(r'\[\]\n$|\[\n\{\n  "image": .*\n  "caption": ')

    def body(self, answer: Answer) -> str:
        return (",\n" if self.count else "[\n") + self.json_text(answer, indent=2)

    def tail(self) -> str:
        return "\n]\n" if self.count else "[]\n"


class JsonLinesWriter(Writer):
    """An object a line."""

    beginning = re.compile(r'\{"image": ".*?", "caption": "')

    def body(self, answer: Answer) -> str:
        return self.json_text(answer) + "\n"


class CsvWriter(Writer):
    """A row an image; a group is `name:probability`, separated by blanks (no tag has a blank in it)."""

    beginning = re.compile(",".join(CSV_COLUMNS) + r"(,[a-z_]+)*,artist_string\n")

    def head(self) -> str:
        return csv_text([[*CSV_COLUMNS, *(name for name in self.groups if name not in GROUPS), "artist_string"]])

    def body(self, answer: Answer) -> str:
        tagging = answer.tagging
        cells = (" ".join(f"{tag}:{p:.4f}" for tag, p in tagging.groups[name].items()) for name in self.groups)
        rating = next(iter(tagging.ratings), "")
        return csv_text([[tagging.image, rating, answer.caption, answer.tags, *cells, answer.artist_string or ""]])


FORMATS: dict[str, type[Writer]] = {"text": TextWriter, "json": JsonWriter, "jsonl": JsonLinesWriter, "csv": CsvWriter}

BEGINNING = 100_000  # characters of a file in which its first answer begins; captions and file names may be long


def is_answers(path: Path) -> bool:
    """Whether a file looks like what one of FORMATS writes, be it of no image at all."""
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        text = file.read(BEGINNING)
    return not text or any(writer.beginning.match(text) for writer in FORMATS.values())
