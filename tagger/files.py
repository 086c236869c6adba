"""Files that appear whole or not at all, and the error for what a user can correct.

Every script of the toolkit may be killed at any moment and run again, so nothing is ever written in place:

    python -c "from tagger import files; files.write_text('note.txt', 'whole or not at all')"
"""

import contextlib
import csv
import errno
import fnmatch
import io
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any


class UserError(Exception):
    """Something the user can correct. The message is one line: file, reason, hint; scripts print it and exit with 2."""


class Busy(UserError):
    """Another run is at work where this one wants to write."""


# --- writing --------------------------------------------------------------------------------------------------------

LOCK_NAME = ".tagger.lock"  # in a folder that a run writes to
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # what disks without locks answer
SURELY_DEAD = 24 * 3600  # seconds without a write, on a disk that cannot tell who is writing
PART = re.compile(r"\.[0-9a-f]{12}\.part")  # the temporary names of `part_of`


@contextlib.contextmanager
def replacing_path(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path` to write to; leaving the block puts that file in its place, at once and durably.

    An exception leaves `path` as it was. A killed run leaves its temporary file behind: see `remove_parts`.
    """
    path = Path(path)
    if path.is_symlink():
        path = path.resolve()  # or a link would become a file, and what it points to would stay old
    with contextlib.ExitStack() as owned:
        part = _new_part(path, owned)
        try:
            yield part
            with open(part, "rb+") as file:
                os.fsync(file.fileno())
            if sys.platform == "win32":
                owned.close()  # an open file can neither be renamed nor removed there
            os.replace(part, path)
        except BaseException:
            owned.close()
            part.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def replacing(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Like `replacing_path`, yielding a file that is open for writing: mode "w" is UTF-8 text, "wb" bytes."""
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with replacing_path(path) as part, open(part, mode, **text) as file:
        yield file


def part_of(path: Path) -> Path:
    """A new temporary name under which `path` grows; no reader of the toolkit takes such a file for data.

    Every call gives another, so that two runs do not write to one file, and none is longer than a legal name.
    """
    return path.with_name(f".{os.urandom(6).hex()}.part")


def _new_part(path: Path, owned: contextlib.ExitStack) -> Path:
    """An empty file of a temporary name; as long as `owned` is open, `remove_parts` knows that its writer is alive."""
    while True:
        part = part_of(path)
        file = owned.enter_context(open(part, "xb"))  # noqa: SIM115
        _lock(file)
        if part.exists():  # else it was removed between the two, as what a dead run left
            return part


def _lock(file: IO[bytes]) -> bool | None:
    """Have a file to oneself while it is open; False where another has it, None where the system has no such locks."""
    if sys.platform == "win32":  # where a file that is open anywhere cannot be removed
        return None
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def remove_parts(folder: Path) -> None:
    """Remove what killed runs left in a folder, and nothing that a run is writing."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if PART.fullmatch(entry.name):
                with contextlib.suppress(OSError):  # gone, or open elsewhere on Windows
                    _remove_part(Path(entry.path))


def _remove_part(part: Path) -> None:
    with open(part, "rb+") as file:
        free = _lock(file)
        if free is None and sys.platform != "win32":
            free = time.time() - os.fstat(file.fileno()).st_mtime > SURELY_DEAD
        if free:
            part.unlink()
            return
    if sys.platform == "win32":
        part.unlink()


# --- what an output must not be -------------------------------------------------------------------------------------

TOOLKIT = Path(__file__).resolve().parent.parent
TOOLKIT_FOLDERS = frozenset(("tagger", "tests", "examples", "benchmarks", "docs", ".git", ".github", ".ci"))
TOOLKIT_FILES = (
    *("*.py", "*.md", "*.toml", "requirements*.txt", "LICENSE", "Makefile", ".git*", ".pre-commit-config.yaml"),
    *("selected_tags.csv", "threshold.json"),
)
CAPTIONS_OF_EXAMPLES = "examples/pictures/*.txt"  # which the READMEs' commands write


def is_toolkit_file(path: Path) -> bool:
    """Whether a path is that of a file which the toolkit came with."""
    resolved = path.resolve()
    if not resolved.is_relative_to(TOOLKIT) or resolved == TOOLKIT:
        return False
    inside = resolved.relative_to(TOOLKIT)
    if inside.match(CAPTIONS_OF_EXAMPLES):
        return False
    first, *below = inside.parts
    return first in TOOLKIT_FOLDERS if below else any(fnmatch.fnmatch(first, name) for name in TOOLKIT_FILES)


def check_output(
    path: Path,
    *,
    hint: str,
    inputs: Iterable[Path] = (),
    is_ours: Callable[[Path], bool] = lambda path: True,
    overwrite: bool = False,
    overwrite_hint: str | None = None,
) -> None:
    """Refuse an output before the work that it is for, rather than after it, and never over what is somebody's.

    Args:
        hint: ends an error, as in "name another file".
        inputs: files that are read.
        is_ours: whether a file that stands there looks like what the script writes there.
        overwrite: replace it whatever it is, unless it is a file of the toolkit, an input, a folder or a device.
        overwrite_hint: ends the error for a file that only `overwrite` replaces, in place of `hint`.

    Raises:
        UserError: a folder, a device, an input, a file of the toolkit, somebody's file, or a place that cannot be
            written to.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder stands there; {hint}")
    if path.exists() and not path.is_file():  # such as /dev/null, which root would replace with a file
        raise UserError(f"{path}: a device or a pipe; {hint}")
    if is_toolkit_file(path):
        raise UserError(f"{path}: a file of the toolkit; {hint}")
    if path.exists():
        if any(each.exists() and path.samefile(each) for each in inputs):
            raise UserError(f"{path}: an input of this run; {hint}")
        if not overwrite and not is_ours(path):
            hint = overwrite_hint or hint
            raise UserError(f"{path}: stands there and does not look like this script's output; {hint}")
    check_writable(path.parent, hint)


def check_writable(folder: Path, hint: str) -> None:
    """Refuse a folder in which nothing can be written; one that is not there must have a parent where it can be made.

    Raises:
        UserError: a file stands in the way, or the permissions do not allow it.
    """
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not there.is_dir():
        raise UserError(f"{there}: not a folder; {hint}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{there}: no permission to write there; {hint}")


# --- one run at a time ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(lock: Path, busy: str, wait: bool = False, patience: float = 0) -> Iterator[None]:
    """Hold a lock that only one process has at a time. The system takes it back however a process ends.

    The lock is a file that stays where it is, for removing it would let two processes hold two files of its name. Its
    text says who holds it.

    Args:
        lock: the lock file; its folder is made.
        busy: what a refused run is told, as in "wait for it, or name another folder".
        wait: wait for the other run instead, and say so on stderr.
        patience: seconds to wait before either, without a word: for runs that take turns.

    A disk that has no locks, as some network disks, is told of, and the run goes on.

    Raises:
        Busy: another run holds it; the message names that run.
    """
    import platform  # late, like the next: an answer from the cache needs no lock

    import filelock

    lock.parent.mkdir(parents=True, exist_ok=True)
    held = filelock.FileLock(lock, poll_interval=0.01, fallback_to_soft=False)  # a kill would leave a soft lock behind
    try:
        held.acquire(timeout=patience)
    except filelock.Timeout:
        owner = _owner(lock)
        if not wait:
            raise Busy(f"{lock.parent}: {owner} is at work here; {busy}") from None
        print(f"waiting for {owner}, which is at work on {lock.parent}", file=sys.stderr)
        held.acquire(timeout=-1)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        print(f"{lock.parent}: this disk has no locks; let no other run write there", file=sys.stderr)
    try:
        with contextlib.suppress(OSError):  # on Windows nobody writes to a locked file, and nobody reads it
            lock.write_text(f"{Path(sys.argv[0]).name} (process {os.getpid()} on {platform.node()})", encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.write_text("", encoding="utf-8")
        held.release()


def _owner(lock: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if text := lock.read_text(encoding="utf-8").strip():
            return text[:200]
    return "another run"


def lock_of(path: Path) -> Path:
    """The lock of a single file that several runs write to, such as a vocabulary."""
    return path.with_name(f".{path.name}.lock")


@contextlib.contextmanager
def locked_folder(folder: Path, busy: str = "wait for it, or name another folder") -> Iterator[None]:
    """Have a folder to oneself for writing: the lock, and no leftovers of killed runs."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LOCK_NAME, busy):
        remove_parts(folder)
        yield


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


POINTER = "version https://git-lfs.github.com/spec/"


def check_pointer(path: Path) -> None:
    """Refuse what stands in a Git repository for a large file that was not fetched.

    Raises:
        UserError: it is one.
    """
    with open(path, "rb") as file:
        _refuse_pointer(path, file.read(len(POINTER)).decode("latin-1"))


def _refuse_pointer(path: Path | str, text: str) -> None:
    if text.startswith(POINTER):
        raise UserError(f"{path}: a Git LFS pointer, not the file itself; run git lfs pull, or download the file")


def read_text(path: Path | str, hint: str, encoding_hint: str = "save it as UTF-8") -> str:
    """Read UTF-8 text, with or without a BOM; its line ends are kept.

    Args:
        hint: ends the error that a missing file raises.
        encoding_hint: ends the error for text in another encoding.

    Raises:
        UserError: the file is missing, unreadable, not UTF-8, or a Git LFS pointer.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {hint}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {hint}") from None
    return decode_text(path, data, encoding_hint)


def decode_text(path: Path | str, data: bytes, encoding_hint: str) -> str:
    """The text of a file's bytes; see `read_text`.

    Raises:
        UserError: not UTF-8, or a Git LFS pointer.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; {encoding_hint}") from None
    _refuse_pointer(path, text)
    return text


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


class _UnixLines:
    """Ends a csv.writer's rows in \\n on every system.

    With `lineterminator="\\n"` the writer would leave a carriage return within a cell unquoted (until Python 3.13).
    """

    def __init__(self, file: IO[str]) -> None:
        self.file = file

    def write(self, row: str) -> int:
        return self.file.write(row.removesuffix("\r\n") + "\n")


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as the lines of a CSV file."""
    out = io.StringIO(newline="")
    csv.writer(_UnixLines(out)).writerows(rows)
    return out.getvalue()


def read_csv(path: Path | str, hint: str, columns: Iterable[str]) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header of a CSV file, and its rows below it with their numbers as a spreadsheet shows them.

    Rows that are empty or hold nothing but commas, which spreadsheets leave behind, are passed over but counted. Short
    rows are filled up, so that every row has a cell for each column of the header.

    Args:
        hint: ends an error, as in "name another CSV".
        columns: that the header must have, in any order and among others.

    Raises:
        UserError: missing, not UTF-8, without one of the columns, or (while reading the rows) not CSV.
    """
    reader = csv.reader(io.StringIO(read_text(path, hint), newline=""), strict=True)

    def rows() -> Iterator[tuple[int, list[str]]]:
        number = 0
        try:
            for number, row in enumerate(reader, start=1):
                if any(row):
                    yield number, row
        except csv.Error as error:
            raise UserError(f"{path}: row {number + 1}: not CSV ({error}); correct that row") from None

    numbered = rows()
    _, header = next(numbered, (0, []))
    if missing := [column for column in columns if column not in header]:
        raise UserError(f"{path}: no column {' and '.join(missing)}; {hint}")
    width = len(header)
    return header, ((number, row + [""] * (width - len(row))) for number, row in numbered)


def write_csv(path: Path | str, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file row by row, whole or not at all."""
    with replacing(path) as file:
        csv.writer(_UnixLines(file)).writerows(itertools.chain([header], rows))


def write_table(path: Path | str, rows: Sequence[Mapping[str, object]]) -> None:
    """Write mappings as a CSV file whose columns are all their keys; what a row lacks stays empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    write_csv(path, columns, ([row.get(column, "") for column in columns] for row in rows))
