"""What a dataset folder remembers of its crawls, so that the same command goes on where the last one ended.

Beside the pairs lie crawl_state.json (a cursor per query), crawled_pairs.csv (what each pair was asked for),
failures.csv (files that could not be had), passed_over.csv (files that turned out to be none that were asked for) and
tag_categories.csv:

    python -c "from tagger.crawl.dataset_folder import DatasetFolder; print(len(DatasetFolder('dataset').pairs))"
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from tagger.crawl.posts import FIRST_CATEGORIES, MD5
from tagger.files import UserError, read_csv, read_json, read_text, write_bytes, write_csv, write_json, write_text
from tagger.formats.pairs import CRAWL_STATE_FILE
from tagger.formats.tag_lists import format_tags, read_tags
from tagger.formats.vocabulary import CATEGORIES_FILE, Category, Vocabulary, read_categories, write_vocabulary

FAILURES_FILE = "failures.csv"
PASSED_OVER_FILE = "passed_over.csv"
PAIRS_FILE = "crawled_pairs.csv"  # only ever appended to: of several lines for one pair the last counts
PAIRS_HEADER = "md5,post_id,categories\n"


class Origin(NamedTuple):
    """Where a pair came from: the post, and the categories whose tags were asked for."""

    post_id: int
    categories: frozenset[str]


@dataclass
class Cursor:
    """How far one query has come.

    Attributes:
        oldest: every post with this id or a higher one, up to `newest`, is settled; None before the first.
        newest: the highest id seen; what was posted since is left to an update.
        page: of a search with an order of its own: the page, counted from 1, before which every post is settled.
    """

    oldest: int | None = None
    newest: int | None = None
    page: int | None = None


class DatasetFolder:
    """A folder of pairs and its records, for the one run that has its lock.

    Only `save_pair` and `note_categories` may be called from several threads.

    Raises:
        UserError: one of its own files cannot be read; the message says which.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._line_is_open = False  # whether a killed run left a line of PAIRS_FILE unfinished
        self.path.mkdir(parents=True, exist_ok=True)
        self.pairs = {txt.stem for txt in self.path.glob("*.txt") if txt.with_suffix(".jpg").exists()}
        self.failures = self._read_reasons(FAILURES_FILE)  # post id -> reason
        self.passed_over = self._read_reasons(PASSED_OVER_FILE)
        self.origins = self._read_origins()  # of pairs by MD5; a folder of version 0.1 knows none
        self._cursors = self._read_cursors()
        self._categories: dict[str, Category] | None = None

    # -- pairs -------------------------------------------------------------------------------------------------------

    def save_pair(self, md5: str, jpeg: bytes, names: Iterable[str], origin: Origin) -> None:
        """Write both files of a pair; the txt comes last, so that what has one is complete."""
        write_bytes(self.path / f"{md5}.jpg", jpeg)
        self.note_origin(md5, origin)  # first: a pair of unknown origin would be asked for again
        write_text(self.path / f"{md5}.txt", format_tags(names))

    def add_tags(self, md5: str, names: Iterable[str], origin: Origin) -> bool:
        """Add to a pair's txt what it lacks of these tags; what stands in it, perhaps edited by hand, stays.

        Returns:
            Whether anything was added.

        Raises:
            UserError: the txt cannot be read.
        """
        path = self.path / f"{md5}.txt"
        standing = read_tags(path)
        new = [name for name in names if name not in standing]
        if new:
            write_text(path, format_tags([*standing, *new]))
        self.note_origin(md5, origin)
        return bool(new)

    def tidy_origins(self) -> None:
        """Write PAIRS_FILE anew, sorted, so that it does not depend on which download ended first."""
        rows = sorted((origin.post_id, md5, origin) for md5, origin in self.origins.items() if md5 in self.pairs)
        if rows:
            lines = (f"{md5},{post_id},{' '.join(sorted(origin.categories))}\n" for post_id, md5, origin in rows)
            write_text(self.path / PAIRS_FILE, PAIRS_HEADER + "".join(lines))

    def categories_of(self, md5: str) -> frozenset[str]:
        """The categories that a pair was asked for; of one that an older version made, those of every pair."""
        return self.origins[md5].categories if md5 in self.origins else FIRST_CATEGORIES

    def note_origin(self, md5: str, origin: Origin) -> None:
        """Remember for which categories a pair was asked."""
        path = self.path / PAIRS_FILE
        line = f"{md5},{origin.post_id},{' '.join(sorted(origin.categories))}\n"
        with self._lock:
            self.origins[md5] = origin
            with open(path, "a+", encoding="utf-8", newline="") as file:
                if not file.tell():
                    file.write(PAIRS_HEADER)
                elif self._line_is_open:  # a killed run ended in the middle of one
                    file.write("\n")
                    self._line_is_open = False
                file.write(line)

    def incomplete(self, categories: Iterable[str]) -> tuple[dict[int, str], list[str]]:
        """The pairs that were not, or not surely, asked for all of these categories.

        Returns:
            MD5 by post id, and the MD5s of pairs whose post is not known.
        """
        wanted = frozenset(categories)
        known = {
            origin.post_id: md5
            for md5, origin in self.origins.items()
            if md5 in self.pairs and not wanted <= origin.categories
        }
        if wanted <= FIRST_CATEGORIES:
            return known, []  # what every version asked for unless it was told otherwise
        return known, sorted(md5 for md5 in self.pairs - self.origins.keys() if MD5.fullmatch(md5))

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

    def _read_origins(self) -> dict[str, Origin]:
        """See PAIRS_FILE; a line that a killed run left unfinished is passed over."""
        path = self.path / PAIRS_FILE
        if not path.exists():
            return {}
        text = read_text(path, "remove it to have the tags of all pairs looked up again")
        self._line_is_open = not text.endswith("\n")
        origins = {}
        for line in text.splitlines()[1:]:
            md5, _, rest = line.partition(",")
            post_id, _, categories = rest.partition(",")
            if MD5.fullmatch(md5) and post_id.isdecimal():
                origins[md5] = Origin(int(post_id), frozenset(categories.split()))
        return origins

    def _read_reasons(self, name: str) -> dict[int, str]:
        """Reason by post id, from one of the two CSV files; {} where it is not there."""
        path = self.path / name
        if not path.exists():
            return {}
        header, rows = read_csv(path, "remove it", ("post_id", "reason"))
        reasons = {}
        for number, row in rows:
            post_id, reason = row[header.index("post_id")], row[header.index("reason")]
            if not post_id.isdecimal():
                raise UserError(f"{path}: row {number}: not post_id,reason; correct that row or remove it")
            reasons[int(post_id)] = reason
        return reasons

    def _write_reasons(self, name: str, reasons: Mapping[int, str]) -> None:
        write_csv(self.path / name, ("post_id", "reason"), sorted(reasons.items(), reverse=True))

    # -- cursors -----------------------------------------------------------------------------------------------------

    def cursor(self, base_url: str, query: str) -> Cursor:
        """The cursor of a query on a server; a new one where this folder has not seen it."""
        return self._cursors.setdefault((base_url, query), Cursor())

    def save_cursors(self) -> None:
        rows = [{"base_url": url, "query": query, **asdict(at)} for (url, query), at in self._cursors.items()]
        write_json(self.path / CRAWL_STATE_FILE, {"cursors": rows})

    def _read_cursors(self) -> dict[tuple[str, str], Cursor]:
        path = self.path / CRAWL_STATE_FILE
        if not path.exists():
            return {}
        hint = "remove it to begin the queries anew; pairs that stand are kept"
        try:
            rows = read_json(path, hint)["cursors"]
            return {
                (row["base_url"], row["query"]): Cursor(
                    *(_checked(row.get(key)) for key in ("oldest", "newest", "page"))
                )
                for row in rows
            }
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(f"{path}: not a list of cursors; {hint}") from None


def _checked(value: object) -> int | None:
    if value is not None and not isinstance(value, int):
        raise ValueError(value)
    return value
