"""Files that appear whole or not at all, and the error for what a user can correct.

Every script of the toolkit may be killed at any moment and run again, so nothing is ever written in place:

    python -c "from tagger import files; files.write_text('note.txt', 'whole or not at all')"
"""

import contextlib
import csv
import io
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any


class UserError(Exception):
    """Something the user can correct. The message is one line: file, reason, hint; scripts print it and exit with 2."""


@contextlib.contextmanager
def replacing_path(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path` to write to; leaving the block puts that file in its place, at once and durably.

    An exception leaves `path` as it was. The temporary name is fixed, so what a killed run left behind is overwritten
    by the next.
    """
    path = Path(path)
    part = part_of(path)
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replacing(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Like `replacing_path`, yielding a file that is open for writing: mode "w" is UTF-8 text, "wb" bytes."""
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with replacing_path(path) as part, open(part, mode, **text) as file:
        yield file


def part_of(path: Path) -> Path:
    """The temporary name under which `path` grows; no reader of the toolkit takes such a file for data."""
    return path.with_name(f".{path.name}.part")


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text, whole or not at all; line ends stay as given."""
    with replacing(path) as file:
        file.write(text)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write bytes, whole or not at all."""
    with replacing(path, "wb") as file:
        file.write(data)


def write_json(path: Path | str, value: Any) -> None:
    """Write indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_text(path: Path | str, hint: str) -> str:
    """Read UTF-8 text, with or without a BOM. `hint` ends the error that a missing file raises.

    Raises:
        UserError: the file is missing, unreadable or not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {hint}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {hint}") from None


def read_json(path: Path | str, hint: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file is missing or does not hold a JSON object.
    """
    try:
        value = json.loads(read_text(path, hint))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); {hint}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: a JSON object {{...}} belongs here, not a {type(value).__name__}; {hint}")
    return value


# --- CSV ------------------------------------------------------------------------------------------------------------


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as the lines of a CSV file, which end in \\n on every system."""
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def write_csv(path: Path | str, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file row by row, whole or not at all."""
    with replacing(path) as file:
        csv.writer(file, lineterminator="\n").writerows(itertools.chain([header], rows))


def write_table(path: Path | str, rows: Sequence[Mapping[str, object]]) -> None:
    """Write mappings as a CSV file whose columns are all their keys; what a row lacks stays empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    write_csv(path, columns, ([row.get(column, "") for column in columns] for row in rows))
