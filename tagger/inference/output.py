"""What is printed of an image: text, JSON, JSON lines or CSV.

python wdv3_pytorch.py --image_file test.png --model_path checkpoints --output_format json
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tagger.files import csv_text
from tagger.formats.thresholds import GROUPS
from tagger.inference.selection import Tagging

CSV_COLUMNS = ("image", "rating", "caption", "tags", "general", "character", "artist", "artist_string")


def to_record(tagging: Tagging, caption: str, listed: str, artist_string: str | None) -> dict[str, Any]:
    """What a JSON object says of an image; probabilities are not rounded.

    Args:
        caption, listed: the caption and the tags as text.
        artist_string: left out where none was asked for.
    """
    record: dict[str, Any] = {"image": tagging.image, "caption": caption, "tags": listed}
    record |= {name: getattr(tagging, name) for name in ("ratings", "general", "character", "artist")}
    if artist_string is not None:
        record["artist_string"] = artist_string
    return record


def format_text(record: Mapping[str, Any], thresholds: Mapping[str, float | None]) -> str:
    """The original's layout; of the ratings only the likeliest."""
    lines = [f"Caption: {record['caption']}", f"Tags: {record['tags']}", "Ratings:"]
    lines += [f"  {name}: {p:.3f}" for name, p in list(record["ratings"].items())[:1]]
    for name in ("character", "general", "artist"):
        level = thresholds[name]
        lines.append(f"{name.capitalize()} tags (threshold={'per tag' if level is None else f'{level:.2f}'}):")
        lines += [f"  {tag}: {p:.3f}" for tag, p in record[name].items()]
    if "artist_string" in record:
        lines.append(f"Artist string: {record['artist_string'] or 'no artist above the threshold'}")
    return "\n".join(lines)


def csv_row(record: Mapping[str, Any]) -> list[str]:
    """The values of CSV_COLUMNS; groups as `name:probability`, separated by blanks (no tag has a blank in it)."""
    groups = (" ".join(f"{tag}:{p:.4f}" for tag, p in record[name].items()) for name in GROUPS)
    rating = next(iter(record["ratings"]), "")
    return [record["image"], rating, record["caption"], record["tags"], *groups, record.get("artist_string", "")]


class Printer:
    """Writes records in a format, one after the other."""

    def __init__(self, file: Any, output_format: str, titles: bool) -> None:
        self.out, self.format, self.titles = file, output_format, titles
        # JSON has escapes of its own for what a console's code page (GBK, cp1252) lacks.
        self.ascii = (getattr(file, "encoding", None) or "utf-8").lower() not in ("utf-8", "utf8")
        self.count = 0
        if output_format == "csv":
            self._row(CSV_COLUMNS)

    def _write(self, text: str) -> None:
        # A file's name may be no Unicode; its escapes are right in JSON, and readable elsewhere.
        self.out.write(text.encode("utf-8", "backslashreplace").decode())

    def _row(self, values: Sequence[str]) -> None:
        self._write(csv_text([values]))

    def add(self, tagging: Tagging, record: Mapping[str, Any]) -> None:
        if self.format == "text":
            title = f"== {record['image']} ==\n" if self.titles else ""
            self._write(title + format_text(record, tagging.thresholds) + "\n")
        elif self.format == "csv":
            self._row(csv_row(record))
        elif self.format == "jsonl":
            self._write(json.dumps(record, ensure_ascii=self.ascii) + "\n")
        else:
            self._write(("[\n" if not self.count else ",\n") + json.dumps(record, ensure_ascii=self.ascii, indent=2))
        self.count += 1
        self.out.flush()

    def end(self) -> None:
        if self.format == "json":
            self._write("\n]\n" if self.count else "[]\n")
