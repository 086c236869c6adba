"""Which pictures go into which TFRecord file, and which of these files are finished, still to write, or out of date.

A finished shard `x.tfrecord` has its index `x.idx` beside it and, written last, `x.stats.json`:

    python create_tfrecord.py --dataset-folder ./dataset --num-shards 4
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagger.files import UserError, read_json
from tagger.formats.records import ABOUT_FILE, RecordFile, index_of, shard_paths
from tagger.tfrecord.catalog import Catalog, Row


@dataclass(frozen=True)
class Shard:
    """The pictures of the ranks first <= rank < last in one file; `made_of` is what its bytes depend on, by name."""

    path: Path
    first: int
    last: int
    made_of: Mapping[str, Any]

    def __len__(self) -> int:
        return self.last - self.first


@dataclass(frozen=True)
class Stats:
    """What a finished shard holds.

    Attributes:
        made_of: see Shard.
        records: their number.
        bytes: the size of the TFRecord file.
        skipped: (name, reason) of each picture that is not in it.
        label_counts: uses by label index, of the labels that occur.
    """

    made_of: Mapping[str, Any]
    records: int
    bytes: int
    skipped: Sequence[tuple[str, str]]
    label_counts: Mapping[int, int]


# --- the layout -----------------------------------------------------------------------------------------------------


def lay_out(
    catalog: Catalog, output: Path, *, split_ratio: float, num_shards: int, made_of: Mapping[str, Any]
) -> tuple[list[Shard], list[Shard]]:
    """The shards of train and of val.

    Args:
        catalog: its pictures must be in order.
        split_ratio: the share of the pictures that goes to train, 0..1.
        num_shards: files of the train split; val gets as many as make its shards equally large.
        made_of: the settings that the bytes of all shards depend on, by the names that messages should call them.
    """
    count, border = catalog.count(), catalog.border(split_ratio)
    val_shards = round(num_shards * (count - border) / border) if border else num_shards

    def split(name: str, first: int, last: int, number: int) -> list[Shard]:
        return [
            Shard(path, start, end, {**made_of, **digests(catalog.rows(start, end))})
            for path, start, end in divide(output, name, first, last, number)
        ]

    return split("train", 0, border, num_shards), split("val", border, count, max(1, val_shards))


def divide(output: Path, split: str, first: int, last: int, count: int) -> list[tuple[Path, int, int]]:
    """Path and ranks of each of `count` shards of nearly equal size; fewer where there are fewer pictures."""
    count = min(count, max(1, last - first))
    borders = [first + (last - first) * number // count for number in range(count + 1)]
    return list(zip(shard_paths(output, split, count), borders[:-1], borders[1:], strict=True))


def digests(rows: Iterable[Row]) -> dict[str, str]:
    """Digests of which pictures a shard holds, and of their labels."""
    pictures, labels = hashlib.sha256(), hashlib.sha256()
    for row in rows:
        pictures.update(b"%d:" % row.rank + row.name.encode("utf-8", "surrogateescape") + b"\0" + row.digest)
        labels.update(b"%d:" % len(row.labels) + row.labels)
    return {"pictures": pictures.hexdigest(), "labels": labels.hexdigest()}


# --- what stands there ----------------------------------------------------------------------------------------------


def stats_path(path: Path) -> Path:
    """Where the stats of a TFRecord file lie."""
    return path.with_suffix(".stats.json")


def read_stats(path: Path) -> Stats | None:
    """The stats of the TFRecord file `path`; None where it is not finished."""
    try:
        raw = read_json(stats_path(path), "")
        counts = {int(label): count for label, count in raw["label_counts"].items()}
        skipped = [(name, reason) for name, reason in raw["skipped"]]
        stats = Stats(raw["made_of"], raw["records"], raw["bytes"], skipped, counts)
        if path.stat().st_size == stats.bytes and index_of(path).is_file():
            return stats
    except (UserError, OSError, KeyError, TypeError, ValueError, AttributeError):
        pass  # missing, or edited: the shard will be written again
    return None


def read_all_stats(shards: Iterable[Shard]) -> list[Stats]:
    """The stats of shards that were all written.

    Raises:
        UserError: one is not there.
    """
    found = []
    for shard in shards:
        if (stats := read_stats(shard.path)) is None:
            raise UserError(f"{shard.path}: not there after it was written; do the workers see the same folder?")
        found.append(stats)
    return found


def changes(stats: Stats, shard: Shard) -> str:
    """What is not as it was when a shard was made; empty where all is."""
    was, now = dict(stats.made_of), dict(shard.made_of)
    content = {
        "pictures": "the dataset's pictures",
        "labels": "the tags in the txt files, their aliases or the rows of the CSV",
    }
    settings = [name for name in now if name not in content and was.get(name) != now[name]]
    if settings:  # another setting may have changed the content as well, and is what can be taken back
        return ", ".join(f"{name} was {was.get(name)} and is {now[name]}" for name in settings)
    changed = [words for name, words in content.items() if was.get(name) != now[name]]
    return f"{changed[0]} changed" if changed else ""


def compare(wanted: Sequence[Shard], output: Path) -> tuple[list[Shard], dict[Path, str]]:
    """The shards that are still to write, and the files that are out of date, each with the reason."""
    finished = {shard.path: stats for shard in wanted if (stats := read_stats(shard.path))}
    stale = {
        shard.path: change
        for shard in wanted
        if shard.path in finished and (change := changes(finished[shard.path], shard))
    }
    # Files of another number of shards would be read along with the wanted ones.
    for path in sorted({*output.glob("record_shards_*/aibooru_*.tfrecord")} - {shard.path for shard in wanted}):
        other = read_stats(path)
        stale[path] = (other and changes(other, wanted[0])) or "another run wrote it"
    return [shard for shard in wanted if shard.path not in finished or shard.path in stale], stale


def make_room(output: Path, stale: Iterable[Path]) -> None:
    """Remove what is out of date. From here until aibooru.json is written anew, the folder is not finished."""
    (output / ABOUT_FILE).unlink(missing_ok=True)
    for path in stale:
        # The stats go first: a kill on the way leaves an unfinished shard, not one that seems finished.
        for file in (stats_path(path), index_of(path), path):
            file.unlink(missing_ok=True)
    for part in output.glob("record_shards_*/.*.part"):  # of a run that was killed, perhaps with other shards
        part.unlink()


# --- damage ---------------------------------------------------------------------------------------------------------


def find_damage(paths: Sequence[Path]) -> list[str]:
    """What is wrong with finished shards: every record's checksums, the index, and what the stats say of them.

    Returns:
        A reason for each path; empty where all is as it was written.
    """
    return [_find_damage(path) for path in paths]


def _find_damage(path: Path) -> str:
    stats = read_stats(path)
    if stats is None:
        return "not finished"
    uses: Counter[int] = Counter()
    try:
        records = RecordFile(path, "")
        for number in range(len(records)):
            uses.update(records[number].labels)
    except (UserError, OSError) as error:
        return str(error).removeprefix(f"{path}: ").rstrip("; ")
    offsets = zip(records.offsets, records.sizes, strict=True)
    if index_of(path).read_bytes() != "".join(f"{offset} {size}\n" for offset, size in offsets).encode():
        return f"{index_of(path).name} does not fit it"
    if len(records) != stats.records or uses != stats.label_counts:
        return f"{stats_path(path).name} does not fit it"
    return ""
