"""What is in a dataset folder, and in which order it is written: a database beside the records.

    python create_tfrecord.py --dataset-folder ./dataset && sqlite3 output-datasets/.plan.sqlite .tables

Pictures are read once; a later run reads only those whose size or time changed, so a killed run goes on where it was.
Nothing here grows in memory with the dataset, but for counters over tags and over suffixes.
"""

import contextlib
import hashlib
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby, islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tagger.files import UserError
from tagger.formats.pairs import CAPTION_SUFFIX, CRAWL_STATE_FILE, UNDO_SUFFIX, folders_of, label_files, stems_of_labels
from tagger.formats.post_tables import Posts
from tagger.formats.posts import key_of
from tagger.formats.tag_lists import format_tags, usable_tags
from tagger.formats.vocabulary import CATEGORIES_FILE
from tagger.tfrecord.pairs import Pair, Scanned, printable
from tagger.tfrecord.sources import tars
from tagger.tfrecord.sources.folders import look_at, out_of
from tagger.tfrecord.sources.found import BROKEN_TAR, LABELS, Found, Member

T = TypeVar("T")
ReadPairs = Callable[[Iterator[list[Pair]]], Iterator[tuple[Sequence[Pair], Sequence[Scanned | str]]]]

CATALOG_FILE = ".plan.sqlite"  # beside the records
VERSION = "2"  # of `about` and `scanned`, and of what is read from a pair
SCAN_BATCH = 64  # pairs
COMMIT_EVERY = 2000  # pairs
LABEL_TYPE = np.dtype("<i4")
LONGEST_SUFFIX = 16  # characters; what is longer is the end of a sentence

# What earlier runs and this one read of the pictures. Names are bytes, for not every file name is Unicode.
KEPT_TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE scanned (
    name BLOB PRIMARY KEY, stamp TEXT, digest BLOB, tags TEXT, tags_left_out INTEGER, problem TEXT
) WITHOUT ROWID;
"""
# Made anew by each run: `listed` is what lies in the folder, by the stem of the picture that it may belong to;
# `present` the images among it, with the file that holds the tags of each; `alone` the other files that may hold tags,
# once for each stem; `wanted` the posts that images are called after; `described` the tags of images in a table of
# posts; `ordered` the usable images in the order of the records, and `unlabelled` those whose tags have no label.
TABLES = {
    "listed": "(stem BLOB, kind INTEGER, name BLOB, stamp TEXT, problem TEXT, member TEXT)",
    "present": (
        "(name BLOB PRIMARY KEY, labels BLOB, others INTEGER, lacking INTEGER, file TEXT, stamp TEXT, problem TEXT, "
        "member TEXT, labels_member TEXT) WITHOUT ROWID"
    ),
    "alone": "(name BLOB, suffix TEXT, stems INTEGER)",
    "wanted": "(key TEXT, name BLOB)",
    "described": "(name BLOB PRIMARY KEY, tags TEXT, left_out INTEGER) WITHOUT ROWID",
    "ordered": "(rank INTEGER PRIMARY KEY, name BLOB, digest BLOB, labels BLOB)",
    "unlabelled": "(name BLOB, tags TEXT)",
}


class UnusableOutput(UserError):
    """The output folder cannot be written to; the message is path, reason and hint, and another folder would do."""


@contextlib.contextmanager
def opened_catalog(path: Path, folder: Path) -> Iterator["Catalog"]:
    """The catalog of a dataset folder, which is kept in the file `path`.

    Raises:
        UnusableOutput: another run is at work in the same folder, the disk is full, or the file was damaged.
    """
    try:
        with contextlib.closing(Catalog(path, folder)) as catalog:
            yield catalog
    except sqlite3.OperationalError as error:
        raise UnusableOutput(f"{path}: {error}; make room there") from None
    except sqlite3.DatabaseError as error:
        raise UnusableOutput(f"{path}: {error}; remove it") from None


class Row(NamedTuple):
    """A picture in its place. `digest` is SHA-256 over its file, `labels` an array of LABEL_TYPE as bytes.

    `member` says where it is in a tar, if so.
    """

    rank: int
    name: str
    digest: bytes
    labels: bytes
    member: Member | None = None


def labels_of(row: Row) -> list[int]:
    """The label indices of a picture."""
    labels: list[int] = np.frombuffer(row.labels, LABEL_TYPE).tolist()
    return labels


def batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` items."""
    while batch := list(islice(items, size)):
        yield batch


# The files of `alone` that belong to no picture by any of their stems.
ALONE = "SELECT name, suffix FROM alone GROUP BY name HAVING count(*) = max(stems)"


# The tags of an image: those beside it, or else those in a table of posts.
TAGS = "coalesce(scanned.tags, described.tags) FROM scanned LEFT JOIN described USING (name)"


def _is_the_toolkits(name: str) -> bool:
    """Whether a file of a dataset's folder is one that the scripts keep there."""
    return name in (CATEGORIES_FILE, CRAWL_STATE_FILE) or name.endswith(UNDO_SUFFIX)


def _listed(file: Found) -> list[tuple[bytes, int, bytes, str, str | None, str | None]]:
    """Rows of `listed`."""
    rest = (file.kind, os.fsencode(file.name), file.stamp, file.problem, file.member and file.member.packed())
    return [(os.fsencode(stem), *rest) for stem in file.stems()]


def _member(name: bytes | None, packed: str | None) -> Member | None:
    return Member.unpacked(name, packed) if name and packed else None


def _pair(name: bytes, labels: bytes | None, member: str | None, labels_member: str | None) -> Pair:
    """The pair of some columns of `present`."""
    labels_name = None if labels is None else os.fsdecode(labels)
    return Pair(os.fsdecode(name), labels_name, _member(name, member), _member(labels, labels_member))


def _alone(labels: bytes) -> tuple[bytes, str, int]:
    """A row of `alone`."""
    name = os.fsdecode(labels)
    return labels, os.path.splitext(name)[1], len(stems_of_labels(name))


def _label_files(image: bytes) -> list[bytes]:
    return [os.fsencode(name) for name in label_files(os.fsdecode(image))]


def _described(name: bytes, written: Sequence[str]) -> tuple[bytes, str, int]:
    """A row of `described`."""
    tags = usable_tags(written)
    return name, format_tags(tags), len(written) - len(tags)


def _paired(images: Sequence[Any], labels: Mapping[bytes, Any]) -> Iterator[tuple[Any, ...]]:
    """Rows of `present`.

    Args:
        images: rows of `listed` that have one stem.
        labels: the rows of the files that may hold their tags, by name.
    """
    for number, (stem, kind, name, stamp, problem, member) in enumerate(images):
        expected = _label_files(name)
        # Files that are called by the stem belong to the first; another needs one with its whole name.
        own = [each for each in expected if each in labels and (not number or each.startswith(name))]
        first, label_stamp = (own[0], labels[own[0]][3]) if own else (None, "")
        lacking = False
        if kind == BROKEN_TAR:
            pass  # its problem is all that there is to say
        elif first is None and number:
            problem = f"{os.fsdecode(images[0][2])} has the same txt; rename one of them"
        elif first is None:
            lacking = not problem  # a table of posts may have the tags
            problem = f"{os.fsdecode(stem)}.txt: no such file; write its tags, separated by commas"
        elif not problem and (reason := labels[first][4]):
            problem = f"{os.fsdecode(first)}: {reason}"
        if first and (place := expected.index(first)):
            label_stamp += f" {place}"
        problem = printable(problem) if problem else None
        # The problem is a part of the stamp, so that a pair is read anew when it is gone.
        whole_stamp = f"{stamp} {label_stamp} {problem or ''}"
        labels_member = labels[first][5] if first else None
        yield name, first, len(own[1:]), lacking, stamp, whole_stamp, problem, member, labels_member


class Catalog:
    """The pairs of a dataset folder, what is in them, and the order in which their pictures are written.

    A database in a file, which one run at a time can have open. `list_folder`, `scan` and `put_in_order` fill it, in
    this order; what the last one needs is kept for the next run.

    Attributes:
        folder: of the dataset.
        path: of the database.
        others: how many files of the folder are neither pictures that the toolkit decodes nor files with the tags of
            one, by suffix ("" where they have none), and how many folders there are ("/"). What has a dot before its
            name is passed over.

    Raises:
        UnusableOutput: another run is at work in the same folder.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.folder = folder
        self.path = path
        self.others: Counter[str] = Counter()
        self._indexes: set[bytes] = set()  # the names of files that say what is in a tar
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"version": VERSION, "folder": os.fsencode(folder.resolve())}  # bytes, like all names
        self._database = self._open(path)
        if self._about() != about:
            self.close()
            # Of another version or another dataset, or damaged. The journal goes along, or SQLite would roll it back
            # into the new file.
            for old in (path, path.with_name(path.name + "-journal")):
                old.unlink(missing_ok=True)
            self._database = self._open(path)
            self._database.executescript(KEPT_TABLES)
            self._database.executemany("INSERT INTO about VALUES (?, ?)", about.items())
            self._database.commit()

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, timeout=0)
        # The lock is the system's and falls with the process, however that ends.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        try:
            database.execute("BEGIN EXCLUSIVE")
            database.commit()
        except sqlite3.OperationalError as error:
            database.close()
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise UnusableOutput(f"{path}: another run is at work here; wait for it") from None
            raise
        except sqlite3.DatabaseError:
            pass  # not a database: `_about` finds nothing in it
        return database

    def _about(self) -> dict[str, str | bytes]:
        with contextlib.suppress(sqlite3.DatabaseError):
            return dict(self._database.execute("SELECT key, value FROM about"))
        return {}

    def close(self) -> None:
        self._database.close()

    # --- the folder -------------------------------------------------------------------------------------------------

    def list_folder(self, recursive: bool = False, posts: Iterable[Posts] | None = None) -> None:
        """Note what is in the folder and in its tars, and forget what earlier runs read of files that changed since.

        Args:
            recursive: also what is in the folders below it, but for the one that the records are written to. A file's
                name is then its path from the dataset's folder, with slashes on every system.
            posts: where the tags of images are that have none beside them. An image belongs to the post whose id or MD5
                it is called after; of several rows on one post the first holds.
        """
        for table, columns in TABLES.items():
            self._database.execute(f"DROP TABLE IF EXISTS {table}")
            self._database.execute(f"CREATE TABLE {table} {columns}")
        root = self.folder.resolve()
        self.others.clear()
        self._indexes.clear()
        for folder in folders_of(self.folder, recursive, left_out=self.path.parent):
            prefix = "" if folder == self.folder else folder.relative_to(self.folder).as_posix() + "/"
            with os.scandir(folder) as entries:
                rows = map(_listed, self._files(entries, root, prefix, recursive))
                self._database.executemany("INSERT INTO listed VALUES (?, ?, ?, ?, ?, ?)", chain.from_iterable(rows))
        self._pair_up()
        if posts is not None:
            self._describe(posts)
        self._database.execute(
            "DELETE FROM scanned WHERE NOT EXISTS "
            "(SELECT 1 FROM present WHERE present.name = scanned.name AND present.stamp = scanned.stamp)"
        )
        self._database.execute(
            "INSERT OR IGNORE INTO scanned SELECT name, stamp, NULL, NULL, 0, problem FROM present "
            "WHERE problem IS NOT NULL"
        )
        self._database.commit()

    def images(self) -> int:
        """The number of images in the folder, usable or not."""
        return self._number("SELECT count(*) FROM present")

    def _files(self, entries: Iterator[os.DirEntry[str]], root: Path, prefix: str, recursive: bool) -> Iterator[Found]:
        """The images and the files that may hold tags; what is neither is counted in `others`.

        Args:
            root: the dataset's folder, resolved.
            prefix: the way from there to the folder of these entries, "" or with a slash at its end.
            recursive: folders are visited on their own, and are not counted.
        """
        for entry in entries:
            if entry.name.startswith(".") or _is_the_toolkits(entry.name):
                continue
            if entry.name.endswith(tars.SUFFIX) and os.path.isfile(entry.path):  # which a link in a circle is not
                yield from self._files_in_tar(entry, prefix + entry.name, root)
            elif file := look_at(entry, prefix + entry.name, root):
                yield file
            elif not (recursive and entry.is_dir(follow_symlinks=False)):
                self._count_other(entry)

    def _files_in_tar(self, entry: os.DirEntry[str], name: str, root: Path) -> Iterator[Found]:
        if problem := out_of(root, entry):
            yield Found(BROKEN_TAR, name, "", problem)
            return
        self._indexes.add(os.fsencode(str(PurePosixPath(name).with_suffix(".json"))))
        yield from tars.find_in_tar(Path(entry.path), name, self._count_suffix)

    def _count_other(self, entry: os.DirEntry[str]) -> None:
        suffix = os.path.splitext(entry.name)[1].lower()
        with contextlib.suppress(OSError):  # a link in a circle is no folder
            if entry.is_dir():
                suffix = "/"
        self._count_suffix(suffix)

    def _count_suffix(self, suffix: str) -> None:
        self.others[suffix if len(suffix) <= LONGEST_SUFFIX else ""] += 1

    def _pair_up(self) -> None:
        """Bring images and the files with their tags together."""
        rows = self._database.execute(
            "SELECT stem, kind, name, stamp, problem, member FROM listed ORDER BY stem, kind, name, rowid"
        )
        groups = (list(group) for _, group in groupby(rows, key=lambda row: row[0]))
        for some in batches(groups, COMMIT_EVERY):
            present: list[tuple[Any, ...]] = []
            alone: list[tuple[bytes, str, int]] = []
            for group in some:
                labels = {row[2]: row for row in group if row[1] == LABELS}
                # Of two files in a tar with one name, the later one holds.
                images = list({row[2]: row for row in group if row[1] != LABELS}.values())
                present += _paired(images, labels)
                theirs = {name for image in images for name in _label_files(image[2])}
                alone += [_alone(name) for name in labels if name not in theirs]
            self._database.executemany("INSERT INTO present VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", present)
            self._database.executemany("INSERT INTO alone VALUES (?, ?, ?)", alone)
        # A file that may hold tags, and belongs to none of the pictures whose stems it has.
        for name, suffix in self._database.execute(f"{ALONE} AND suffix <> ?", (CAPTION_SUFFIX,)):
            if name not in self._indexes:
                self.others[suffix] += 1

    def _describe(self, posts: Iterable[Posts]) -> None:
        """Look up the images in tables of posts."""
        execute, executemany = self._database.execute, self._database.executemany
        names = execute("SELECT name FROM present")
        for some in batches((name for (name,) in names), COMMIT_EVERY):
            keys = ((key_of(Path(os.fsdecode(name)).stem), name) for name in some)
            executemany("INSERT INTO wanted VALUES (?, ?)", (each for each in keys if each[0]))
        execute("CREATE INDEX wanted_key ON wanted (key)")
        execute("CREATE TEMP TABLE IF NOT EXISTS keys (key TEXT, number INTEGER)")
        for batch in posts:
            rows = ((key, number) for number, keys in enumerate(batch.keys) for key in keys)
            executemany("INSERT INTO keys VALUES (?, ?)", rows)
            # CROSS JOIN: each of the few keys is looked up, and not each of the many images.
            query = "SELECT name, number FROM keys CROSS JOIN wanted ON wanted.key = keys.key ORDER BY number"
            if found := execute(query).fetchall():
                written = batch.tags([number for _, number in found])
                tagged = (_described(name, tags) for (name, _), tags in zip(found, written, strict=True))
                executemany("INSERT OR IGNORE INTO described VALUES (?, ?, ?)", tagged)
            execute("DELETE FROM keys")
        execute("DROP TABLE wanted")
        is_described = "EXISTS (SELECT 1 FROM described WHERE described.name = present.name)"
        execute(f"UPDATE present SET others = others + 1 WHERE labels IS NOT NULL AND {is_described}")
        # The tags are no part of the stamp: they are not read from the image, but from here, whenever they are needed.
        execute(
            f"UPDATE present SET problem = NULL, stamp = file || ' described' WHERE lacking AND {is_described} "
            "AND (SELECT tags FROM described WHERE described.name = present.name) <> ''"
        )
        execute(
            "UPDATE present SET problem = 'no tags beside it, and none in the metadata; write some, or remove it', "
            "stamp = file || ' not described' WHERE lacking AND problem IS NOT NULL"
        )

    def txt_without_image(self) -> tuple[int, str]:
        """How many txt files have no image beside them, and the name of one."""
        query = f"SELECT count(*), min(name) FROM ({ALONE}) WHERE suffix = ?"
        number, first = self._database.execute(query, (CAPTION_SUFFIX,)).fetchone()
        return number, os.fsdecode(first or b"")

    def labels(self) -> Iterator[tuple[str, Member | None]]:
        """The files with the tags of the images, and where they are in tars; in the order of the images' names."""
        query = "SELECT labels, labels_member FROM present WHERE labels IS NOT NULL ORDER BY name"
        for name, member in self._database.execute(query):
            yield os.fsdecode(name), _member(name, member)

    def described(self) -> Iterator[list[str]]:
        """The tags of the images that have none beside them, but in a table of posts; in the order of their names."""
        query = "SELECT tags FROM described JOIN present USING (name) WHERE lacking AND tags <> '' ORDER BY name"
        for (tags,) in self._database.execute(query):
            yield tags.split(",")

    def has_labels(self) -> bool:
        """Whether any image has tags, in a file or in a table of posts."""
        return bool(self._number("SELECT EXISTS (SELECT 1 FROM present WHERE labels IS NOT NULL OR problem IS NULL)"))

    def labelled_twice(self) -> str:
        """A sentence on images with tags in several places, of which one was read; empty where there is none."""
        query = "SELECT count(*), min(name) FROM present WHERE others AND labels IS NOT NULL"
        number, first = self._database.execute(query).fetchone()
        if not number:
            return ""
        have = "1 image has" if number == 1 else f"{number:,} images have"
        order = ", ".join(label_files("x.jpg"))
        return f"{have} tags in several places, such as {os.fsdecode(first)}; taken was the first of {order}, metadata"

    def unread(self) -> int:
        """The number of pairs that `scan` has still to read."""
        return self._number("SELECT count(*) FROM present WHERE name NOT IN (SELECT name FROM scanned)")

    def scan(self, read: ReadPairs) -> Iterator[int]:
        """Read the pairs that are new or changed; yields the number of pairs read since the last time.

        Args:
            read: given batches of pairs, yields each with what `scan_pairs` makes of it.
        """
        self._database.execute("DROP TABLE IF EXISTS temp.todo")
        self._database.execute(
            "CREATE TEMP TABLE todo AS SELECT name, labels, stamp, member, labels_member FROM present "
            "WHERE name NOT IN (SELECT name FROM scanned) ORDER BY name"
        )
        stamps = self._database.execute("SELECT stamp FROM todo ORDER BY rowid")
        rows = self._database.execute("SELECT name, labels, member, labels_member FROM todo ORDER BY rowid")
        pairs = (_pair(*row) for row in rows)
        uncommitted = 0
        for batch, results in read(batches(pairs, SCAN_BATCH)):
            scanned: list[tuple[object, ...]] = []
            for pair, result in zip(batch, results, strict=True):
                (stamp,) = next(stamps)
                if isinstance(result, str):
                    scanned.append((os.fsencode(pair.image), stamp, None, None, 0, printable(result)))
                else:
                    scanned.append((os.fsencode(pair.image), stamp, *result, None))
            self._database.executemany("INSERT INTO scanned VALUES (?, ?, ?, ?, ?, ?)", scanned)
            uncommitted += len(batch)
            if uncommitted >= COMMIT_EVERY:
                self._database.commit()
                uncommitted = 0
            yield len(batch)
        self._database.commit()

    # --- the vocabulary ---------------------------------------------------------------------------------------------

    def tag_counts(self, name_of: Callable[[str], str]) -> Counter[str]:
        """In how many of the usable pairs each tag is; they are read in the order of the images' names.

        Args:
            name_of: a tag's name by what is written.
        """
        counts: Counter[str] = Counter()
        for (written,) in self._database.execute(f"SELECT {TAGS} WHERE problem IS NULL ORDER BY name"):
            counts.update(set(map(name_of, written.split(","))))
        return counts

    def tags_left_out(self) -> int:
        """How many tags cannot be any, in all pairs together; see Scanned."""
        return self._number(
            "SELECT coalesce(sum(iif(scanned.tags IS NULL, described.left_out, tags_left_out)), 0) "
            "FROM scanned LEFT JOIN described USING (name) WHERE problem IS NULL"
        )

    # --- the order --------------------------------------------------------------------------------------------------

    def put_in_order(self, index: Mapping[str, int], name_of: Callable[[str], str], seed: int) -> int:
        """Put the usable pairs in the order of their digests, each with the indices of its tags.

        The digest depends on nothing but the picture, so the order is the same on every machine, and it scatters the
        pictures like a shuffle. Equal pictures are neighbours. A seed other than 0 gives another such order.

        Args:
            index: label index by tag; other tags are passed over, and pictures that have only such are left out.
            name_of: a tag's name by what is written.

        Returns:
            The number of pictures in order.
        """

        def order_key(digest: bytes) -> bytes:
            return hashlib.sha256(b"%d:" % seed + digest).digest() if seed else digest

        self._database.create_function("order_key", 1, order_key, deterministic=True)
        rank = 0
        for names in batches(self._usable(), COMMIT_EVERY):
            ordered: list[tuple[int, bytes, bytes, bytes]] = []
            unlabelled: list[tuple[bytes, str]] = []
            for name in names:
                query = f"SELECT digest, {TAGS} WHERE name = ?"
                digest, tags = self._database.execute(query, (name,)).fetchone()
                labels = list(dict.fromkeys(index[tag] for tag in map(name_of, tags.split(",")) if tag in index))
                if labels:
                    ordered.append((rank, name, digest, np.array(labels, LABEL_TYPE).tobytes()))
                    rank += 1
                else:
                    unlabelled.append((name, tags))
            self._database.executemany("INSERT INTO ordered VALUES (?, ?, ?, ?)", ordered)
            self._database.executemany("INSERT INTO unlabelled VALUES (?, ?)", unlabelled)
        self._database.commit()
        return rank

    def _usable(self) -> Iterator[bytes]:
        """The names of the usable pairs' images in their order; names alone, so that what SQLite sorts is small."""
        query = "SELECT name FROM scanned WHERE problem IS NULL ORDER BY order_key(digest), name"
        return (name for (name,) in self._database.execute(query))

    def count(self) -> int:
        """The number of pictures in order."""
        return self._number("SELECT count(*) FROM ordered")

    def border(self, ratio: float) -> int:
        """How many of the first pictures go to train: `round(n * ratio)`, and those that equal the last of them."""
        count = self.count()
        border = round(count * ratio)
        if not 0 < border < count:
            return border
        (last,) = self._database.execute("SELECT digest FROM ordered WHERE rank = ?", (border - 1,)).fetchone()
        return self._number(
            "SELECT coalesce(min(rank), ?) FROM ordered WHERE rank >= ? AND digest <> ?", count, border, last
        )

    def equal_pictures(self) -> int:
        """How many pictures equal an earlier one byte for byte."""
        return self._number("SELECT count(*) - count(DISTINCT digest) FROM ordered")

    def rows(self, first: int, last: int) -> Iterator[Row]:
        """The pictures of the ranks first <= rank < last."""
        query = (
            "SELECT rank, name, digest, ordered.labels, member FROM ordered CROSS JOIN present USING (name) "
            "WHERE rank >= ? AND rank < ? ORDER BY rank"
        )
        for rank, name, digest, labels, member in self._database.execute(query, (first, last)):
            yield Row(rank, os.fsdecode(name), digest, labels, _member(name, member))

    def problems(self) -> Iterator[tuple[str, str]]:
        """Name and reason of each image that is not in order, by name."""
        query = (
            "SELECT name, problem FROM scanned WHERE problem IS NOT NULL "
            "UNION ALL SELECT name, 'no known tag among: ' || substr(tags, 1, 200) FROM unlabelled ORDER BY 1"
        )
        for name, problem in self._database.execute(query):
            yield printable(os.fsdecode(name)), printable(problem)

    def _number(self, query: str, *values: object) -> int:
        return int(self._database.execute(query, values).fetchone()[0])
