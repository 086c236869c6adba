"""Tables of posts, such as the public metadata of Danbooru: parquet, jsonl or csv, read in flat memory.

    python -c "from tagger.formats.post_tables import read_posts as r; print(sum(map(len, r('posts.jsonl'))))"

Of the columns only `id`, `md5` and those of posts.py are read, and of the rows only those are made Python objects that
are asked for.
"""

import csv
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from tagger.files import UserError
from tagger.formats.posts import COLUMNS, key_of, tags_of

KEYS = ("id", "md5")  # the columns that say which post a row is about
ROWS = 4096  # at a time: some megabytes of tags


@dataclass(frozen=True)
class Posts:
    """Some rows of a table.

    Attributes:
        keys: for each row the keys of its post, see `key_of`.
        rows: gives the rows of some numbers.
    """

    keys: Sequence[Sequence[str]]
    rows: Callable[[Sequence[int]], Iterable[Mapping[str, Any]]]

    def __len__(self) -> int:
        return len(self.keys)

    def tags(self, numbers: Sequence[int]) -> list[list[str]]:
        """The tags of the posts in the rows of these numbers, see `tags_of`."""
        return [tags_of(row) for row in self.rows(numbers)]


def check_table(path: Path) -> None:
    """Refuse what cannot be a table of posts, before the work that it is for.

    Raises:
        UserError: missing, of another suffix, or a parquet where pyarrow lacks.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; name a table of posts")
    if path.suffix not in READERS:
        raise UserError(f"{path}: none of {', '.join(READERS)}; convert it to one of them")
    if path.suffix == ".parquet":
        _import_pyarrow(path)


def read_posts(path: Path | str) -> Iterator[Posts]:
    """The rows of a table, some at a time.

    Raises:
        UserError: see `check_table`; damaged, or without one of the columns.
    """
    path = Path(path)
    check_table(path)
    any_key = False
    try:
        for posts in READERS[path.suffix](path):
            any_key = any_key or any(posts.keys)
            yield posts
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; make it readable, or fetch it again") from None
    if not any_key:
        raise UserError(f"{path}: no post in it has an id or an MD5; name another table")


def _read_csv(path: Path) -> Iterator[Posts]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        _check_columns(path, reader.fieldnames or ())
        try:
            while rows := list(islice(reader, ROWS)):
                yield _posts(rows)
        except csv.Error as error:
            raise UserError(f"{path}: line {reader.line_num}: not CSV ({error}); correct it") from None


def _read_jsonl(path: Path) -> Iterator[Posts]:
    with open(path, encoding="utf-8-sig") as file:
        lines = enumerate(file, start=1)
        while some := list(islice(lines, ROWS)):
            yield _posts([_json_row(path, number, line) for number, line in some if line.strip()])


def _json_row(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path}: line {number}: not JSON ({error}); correct or remove it") from None
    if not isinstance(row, dict):
        raise UserError(f"{path}: line {number}: a post {{...}} belongs here; correct or remove it")
    return row


def _posts(rows: Sequence[Mapping[str, Any]]) -> Posts:
    keys = [_keys(row.get("id"), row.get("md5")) for row in rows]

    def chosen(numbers: Sequence[int]) -> Iterator[Mapping[str, Any]]:
        # Other columns may be called like something else that says what a post is.
        return ({key: rows[number][key] for key in rows[number].keys() & COLUMNS} for number in numbers)

    return Posts(keys, chosen)


def _read_parquet(path: Path) -> Iterator[Posts]:
    pyarrow, parquet = _import_pyarrow(path)
    try:
        # A buffer, for without one all of a row group's column is in memory at once: 8 million rows may be one group.
        with parquet.ParquetFile(path, buffer_size=1 << 20) as file:
            names = file.schema_arrow.names
            _check_columns(path, names)
            columns = [name for name in names if name in COLUMNS or name in KEYS]
            nothing = [None] * ROWS
            for batch in file.iter_batches(ROWS, columns=columns):
                ids, md5s = (batch[key].to_pylist() if key in columns else nothing for key in KEYS)
                keys = [_keys(*pair) for pair in zip(ids, md5s, strict=False)]
                yield Posts(keys, functools.partial(_taken, batch))
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # the disk's; pyarrow's own have no number
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a whole parquet ({reason}); fetch it again") from None


def _taken(batch: Any, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The rows of some numbers in a pyarrow.RecordBatch."""
    rows: list[dict[str, Any]] = batch.take(list(numbers)).to_pylist()
    return rows


def _import_pyarrow(path: Path) -> tuple[ModuleType, ModuleType]:
    """pyarrow and its parquet, imported late: only who has a parquet needs them."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path}: reading parquet takes the package pyarrow; pip install pyarrow") from None
    return pyarrow, pyarrow.parquet


def _check_columns(path: Path, names: Iterable[str]) -> None:
    names = set(names)
    if not names & set(KEYS):
        raise UserError(f"{path}: no column id and none md5; name another table")
    if not names & (COLUMNS - {"rating"}):
        raise UserError(f"{path}: no column with tags, such as tag_string_general or tags; name another table")


def _keys(number: object, md5: object) -> list[str]:
    """The keys of a post by its id, a number in whatever type, and by its MD5."""
    found = []
    if isinstance(number, float):  # as pandas has whole numbers in a column where some lack
        number = int(number) if number.is_integer() else None
    for value in (number, md5):
        if isinstance(value, (str, int)) and (key := key_of(str(value).strip())):
            found.append(key)
    return found


READERS: dict[str, Callable[[Path], Iterator[Posts]]] = {
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
}
