"""What files held before a script changed them: a line of JSON for each, so that the change can be taken back.

    python replace_blanks.py --dataset-folder ./dataset --undo

Lines are only ever appended, and are on the disk before the files change. What a person edited since is left alone.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tagger.files import UserError, write_bytes, write_text


@dataclass(frozen=True)
class Change:
    """One file's change.

    Attributes:
        name: of the file, in the folder of the log.
        before: its bytes.
        after_sha256: of the bytes that it was given, in hexadecimal.
    """

    name: str
    before: bytes
    after_sha256: str

    @classmethod
    def to(cls, path: Path, before: bytes, after: bytes) -> "Change":
        return cls(path.name, before, hashlib.sha256(after).hexdigest())


class UndoLog:
    """The log of a folder, for the one run that has its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, changes: Iterable[Change]) -> None:
        """Note changes that are about to be made; they are on the disk when this returns."""
        lines = "".join(_to_line(change) for change in changes)
        with open(self.path, "ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a line that a killed run did not end; its files were not changed yet
                    file.write(b"\n")
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[Change]:
        """The changes, oldest first; a line that a killed run left unfinished is passed over.

        Raises:
            UserError: there is no log, or it is not one.
        """
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            raise UserError(f"{self.path}: no such file; nothing was changed here that could be undone") from None
        changes = [_from_line(line) for line in lines if line.strip()]
        found = [change for change in changes if change is not None]
        if changes and not found:
            raise UserError(f"{self.path}: not a log of changes; restore the file from a backup")
        return found

    def undo(self) -> tuple[list[str], list[str]]:
        """Take all changes back, the newest first; what could not be is kept in the log.

        Returns:
            Names of the files that are as they were, and of those that somebody changed since, or removed.
        """
        changes = self.read()
        left: dict[str, list[Change]] = {}
        restored: dict[str, None] = {}
        for change in reversed(changes):
            path = self.path.parent / change.name
            now = path.read_bytes() if path.is_file() else None
            if change.name in left or now is None:
                left.setdefault(change.name, []).insert(0, change)
            elif now == change.before:  # undone already, by a run that was killed, or never changed
                restored[change.name] = None
            elif hashlib.sha256(now).hexdigest() == change.after_sha256:
                write_bytes(path, change.before)
                restored[change.name] = None
            else:
                left.setdefault(change.name, []).insert(0, change)
        kept = [change for change in changes if change in left.get(change.name, ())]
        if kept:
            write_text(self.path, "".join(map(_to_line, kept)))
        else:
            self.path.unlink()
        return sorted(restored.keys() - left.keys()), sorted(left)


def _to_line(change: Change) -> str:
    try:
        before = {"before": change.before.decode("utf-8")}
    except UnicodeDecodeError:
        before = {"before_base64": base64.b64encode(change.before).decode("ascii")}
    name = os.fsencode(change.name).decode("utf-8", "surrogateescape")
    return json.dumps({"file": name, **before, "after_sha256": change.after_sha256}) + "\n"


def _from_line(line: bytes) -> Change | None:
    try:
        row = json.loads(line)
        name, after = row["file"], row["after_sha256"]
        before = base64.b64decode(row["before_base64"]) if "before_base64" in row else row["before"].encode("utf-8")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if not isinstance(name, str) or not isinstance(after, str) or Path(name).name != name:
        return None  # nothing outside of the folder
    return Change(name, before, after)
