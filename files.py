"""Files that appear whole or not at all, and the error that a person can mend.

Every script of the toolkit may be killed at any moment and run again, so nothing is ever written in place:

    python -c "import files; files.write_text('note.txt', 'whole or not at all')"
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


class UserError(Exception):
    """Something the user can mend. The message is one line that names the file and the mend; scripts exit with 2."""


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


def read_text(path: Path | str, mend: str) -> str:
    """Read UTF-8 text, with or without a BOM. `mend` ends the error that a missing file raises.

    Raises:
        UserError: the file is missing, unreadable or not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {mend}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {mend}") from None


def read_json(path: Path | str, mend: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file is missing or does not hold a JSON object.
    """
    try:
        value = json.loads(read_text(path, mend))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); {mend}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: a JSON object {{...}} belongs here, not a {type(value).__name__}; {mend}")
    return value
