"""What a dataset folder remembers of its crawls, so that the same command goes on where the last one ended.

Beside the pairs lie crawl_state.json (a cursor per query), failures.csv (files that could not be had),
passed_over.csv (files that turned out to be none that were asked for) and tag_categories.csv:

    python -c "from tagger.crawl.dataset_folder import DatasetFolder; print(len(DatasetFolder('dataset').pairs))"
"""

import csv
import io
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tagger.files import UserError, read_json, read_text, write_bytes, write_csv, write_json, write_text
from tagger.formats.tag_lists import format_tags
from tagger.formats.vocabulary import CATEGORIES_FILE, Vocabulary, read_categories, write_vocabulary

STATE_FILE = "crawl_state.json"
FAILURES_FILE = "failures.csv"
PASSED_OVER_FILE = "passed_over.csv"


@dataclass
class Cursor:
    """How far one query has come.

    Attributes:
        oldest: every post with this id or a higher one, up to `newest`, is settled; None before the first.
        newest: the highest id seen; what was posted since is left to an update.
    """

    oldest: int | None = None
    newest: int | None = None


class DatasetFolder:
    """A folder of pairs and its records. Only `save_pair` and `note_categories` may be called from several threads.

    Raises:
        UserError: one of its own files cannot be read; the message says which.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        for part in self.path.glob(".*.part"):  # what a killed run left behind
            part.unlink(missing_ok=True)
        self.pairs = {txt.stem for txt in self.path.glob("*.txt") if txt.with_suffix(".jpg").exists()}
        self.failures = self._read_reasons(FAILURES_FILE)  # post id -> reason
        self.passed_over = self._read_reasons(PASSED_OVER_FILE)
        self._cursors = self._read_cursors()
        self._categories: dict[str, int] | None = None
        self._lock = threading.Lock()

    # -- pairs -------------------------------------------------------------------------------------------------------

    def save_pair(self, md5: str, jpeg: bytes, names: Iterable[str]) -> None:
        """Write both files of a pair; the txt comes last, so that what has one is complete."""
        write_bytes(self.path / f"{md5}.jpg", jpeg)
        write_text(self.path / f"{md5}.txt", format_tags(names))

    def note_categories(self, found: Mapping[str, int]) -> None:
        """Add tags to tag_categories.csv, sorted by name; what stands in it, perhaps edited by hand, stays."""
        path = self.path / CATEGORIES_FILE
        with self._lock:
            if self._categories is None:
                self._categories = read_categories(path) if path.exists() else {}
            new = {name: category for name, category in found.items() if name not in self._categories}
            if new or not path.exists():
                self._categories = dict(sorted((self._categories | new).items()))
                write_vocabulary(path, Vocabulary(tuple(self._categories), tuple(self._categories.values())))

    # -- posts that gave no pair -------------------------------------------------------------------------------------

    def note_failure(self, post_id: int, reason: str) -> None:
        self.failures[post_id] = reason
        self._write_reasons(FAILURES_FILE, self.failures)

    def forget_failure(self, post_id: int) -> None:
        if self.failures.pop(post_id, None) is not None:
            self._write_reasons(FAILURES_FILE, self.failures)

    def note_passed_over(self, post_id: int, reason: str) -> None:
        """For reasons that only the file itself tells: it need not be downloaded again."""
        self.passed_over[post_id] = reason
        self._write_reasons(PASSED_OVER_FILE, self.passed_over)

    def _read_reasons(self, name: str) -> dict[int, str]:
        """Reason by post id, from one of the two CSV files; {} where it is not there."""
        path = self.path / name
        if not path.exists():
            return {}
        rows = csv.DictReader(io.StringIO(read_text(path, ""), newline=""))
        try:
            return {int(row["post_id"]): row["reason"] for row in rows}
        except (KeyError, TypeError, ValueError, csv.Error):
            raise UserError(f"{path}: row {rows.line_num}: not post_id,reason; correct that row or remove it") from None

    def _write_reasons(self, name: str, reasons: Mapping[int, str]) -> None:
        write_csv(self.path / name, ("post_id", "reason"), sorted(reasons.items(), reverse=True))

    # -- cursors -----------------------------------------------------------------------------------------------------

    def cursor(self, base_url: str, query: str) -> Cursor:
        """The cursor of a query on a server; a new one where this folder has not seen it."""
        return self._cursors.setdefault((base_url, query), Cursor())

    def save_cursors(self) -> None:
        rows = [{"base_url": url, "query": query, **asdict(at)} for (url, query), at in self._cursors.items()]
        write_json(self.path / STATE_FILE, {"cursors": rows})

    def _read_cursors(self) -> dict[tuple[str, str], Cursor]:
        path = self.path / STATE_FILE
        if not path.exists():
            return {}
        hint = "remove it to begin the queries anew; pairs that stand are kept"
        try:
            rows = read_json(path, hint)["cursors"]
            return {
                (row["base_url"], row["query"]): Cursor(_checked_id(row["oldest"]), _checked_id(row["newest"]))
                for row in rows
            }
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{path}: not a list of cursors; {hint}") from None


def _checked_id(value: object) -> int | None:
    if value is not None and not isinstance(value, int):
        raise ValueError(value)
    return value
