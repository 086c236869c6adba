"""The logits of images, kept for the next run: edit threshold.json, and the answer is there at once.

One SQLite file in the user's cache folder, bounded, and safe to delete at any time. An entry is found by the image's
bytes, the checkpoint, its config and how it was run. What the folder of a model was found to be is kept here, too, for
its list of tags may take longer to read than the answer. A cache that cannot be read or written is as if it were not
there.

    python -c "from tagger.inference import cache; print(cache.default_path())"
"""

import contextlib
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import platformdirs

MAX_BYTES = 256 * 2**20  # about 6,000 images with WD v3's 10,861 tags, 4,300 with 200,000
# To be raised when models are shown other pixels or an entry has another form, so that no old one is found.
VERSION = "2"
# Read of a checkpoint, evenly spread: all of its 1.2 GB would take longer than the answer, and training changes every
# tensor.
SAMPLES, SAMPLE_BYTES = 256, 4096
KEPT = 0.75  # of the bound, when it is passed: dropping and VACUUM are slow, so they make room for many runs
DAY = 86_400  # seconds

TABLE = "CREATE TABLE IF NOT EXISTS predictions (key BLOB PRIMARY KEY, logits BLOB NOT NULL, day INTEGER NOT NULL)"


def default_path() -> Path | None:
    """Where the cache lies on this system; None for a user who has no home, as in a container."""
    try:
        folder = platformdirs.user_cache_path("eva02-tagger", appauthor=False)
    except RuntimeError:  # pathlib's, for a user whom the system does not know
        return None
    return folder / "predictions.sqlite"


def fingerprint(weights: Iterable[Path], identity: Mapping[str, Any], *how: str) -> bytes:
    """What the probabilities depend on besides the image: size, time and samples of the weights, and all else.

    Args:
        weights: the file of weights, or the files that hold them.
        identity: what the model's other files say, as JSON; the preparation of pixels is in it.
        how: device and precision, for they show in the last digits.
    """
    digest = hashlib.sha256(json.dumps([VERSION, identity, how], sort_keys=True).encode())
    for path in weights:
        status = path.stat()
        digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
        with open(path, "rb") as file:
            for number in range(SAMPLES):
                file.seek(max(0, status.st_size - SAMPLE_BYTES) * number // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.digest()


class PredictionCache:
    """Bytes by key. Every method does nothing where the file cannot be used."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self.path, self.max_bytes = path, max_bytes
        self._added = False
        self._database: sqlite3.Connection | None = None
        with contextlib.suppress(OSError, sqlite3.Error):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._database = self._open()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise  # locked by another run, or a folder that may not be written
                path.unlink()  # no database, or a damaged one
                self._database = self._open()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=5)
        try:
            # Not waiting for the disk is several times faster. A power cut may damage the file: then it is made anew.
            database.execute("PRAGMA synchronous = OFF")
            database.execute(TABLE)
        except sqlite3.Error:
            database.close()  # Windows removes no file that is open
            raise
        return database

    @contextlib.contextmanager
    def _trying(self) -> Iterator[sqlite3.Connection | None]:
        """The database, or None where it cannot be used; the first failure ends its use for this run."""
        try:
            yield self._database
        except sqlite3.Error:
            self._database = None

    def get(self, key: bytes) -> bytes | None:
        """What was put under a key."""
        with self._trying() as database:
            if database is None:
                return None
            row = database.execute("SELECT logits, day FROM predictions WHERE key = ?", (key,)).fetchone()
            if row is None:
                return None
            if row[1] != (today := int(time.time() // DAY)):
                database.execute("UPDATE predictions SET day = ? WHERE key = ?", (today, key))
                database.commit()  # or another run waits until this one ends
            return row[0] if isinstance(row[0], bytes) else None
        return None

    def put(self, key: bytes, logits: bytes) -> None:
        """Keep bytes under a key."""
        with self._trying() as database:
            if database is not None:
                row = (key, logits, int(time.time() // DAY))
                database.execute("INSERT OR REPLACE INTO predictions VALUES (?, ?, ?)", row)
                database.commit()
                self._added = True

    def close(self) -> None:
        """Let go of the file; where it has grown past its bound, drop what was not used for longest."""
        with self._trying() as database:
            if database is None:
                return
            if self._added and self._size(database) > self.max_bytes:
                (total,) = database.execute("SELECT sum(length(logits)) FROM predictions").fetchone()
                for rowid, size in database.execute(
                    "SELECT rowid, length(logits) FROM predictions ORDER BY day, rowid"
                ):
                    if total <= KEPT * self.max_bytes:
                        break
                    database.execute("DELETE FROM predictions WHERE rowid = ?", (rowid,))
                    total -= size
                database.commit()
                database.execute("VACUUM")
            database.commit()
            database.close()
        self._database = None

    @staticmethod
    def _size(database: sqlite3.Connection) -> int:
        """Bytes of the file."""
        (pages,), (size,) = (database.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
        return int(pages * size)
