"""One TFRecord file of a dataset: preparing its pictures, writing it, and knowing whether it is finished.

A finished shard `x.tfrecord` has `x.idx` and, written last, `x.stats.json` beside it. tensorflow writes the files; the
processes that prepare pictures do not import it.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagger.files import UserError, read_json
from tagger.formats import records
from tagger.formats.records import ABOUT_FILE, index_of
from tagger.tfrecord import shards
from tagger.tfrecord.catalog import Plan, Row


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


def remove(path: Path) -> None:
    """Delete a TFRecord file and what lies beside it; a kill on the way leaves an unfinished shard."""
    for file in (stats_path(path), index_of(path), path):
        file.unlink(missing_ok=True)


def digests(rows: Iterable[Row]) -> dict[str, str]:
    """Digests of which pictures a shard holds, and of their labels."""
    pictures, labels = hashlib.sha256(), hashlib.sha256()
    for row in rows:
        pictures.update(b"%d:" % row.rank + row.name.encode("utf-8", "surrogateescape") + b"\0" + row.digest)
        labels.update(b"%d:" % len(row.labels) + row.labels)
    return {"pictures": pictures.hexdigest(), "labels": labels.hexdigest()}


def changes(stats: Stats, shard: Shard) -> str:
    """What is not as it was when a shard was made; empty where all is."""
    was, now = dict(stats.made_of), dict(shard.made_of)
    content = {"pictures": "the dataset's pictures", "labels": "the tags in the txt files or the rows of the CSV"}
    flags = [name for name in now if name not in content and was.get(name) != now[name]]
    if flags:
        return ", ".join(f"{flag} was {was.get(flag)} and is {now[flag]}" for flag in flags)
    changed = [words for name, words in content.items() if was.get(name) != now[name]]
    return f"{changed[0]} changed" if changed else ""


def divide(output: Path, first: int, last: int, split: str, count: int) -> list[tuple[Path, int, int]]:
    """Path and ranks of each of `count` shards of nearly equal size; fewer where there are fewer pictures."""
    count = min(count, max(1, last - first))
    borders = [first + (last - first) * number // count for number in range(count + 1)]
    paths = records.shard_paths(output, split, count)
    return list(zip(paths, borders[:-1], borders[1:], strict=True))


def lay_out(planned: Plan, output: Path, count: int, arguments: Any) -> tuple[list[Shard], list[Shard]]:
    """The shards of train and of val.

    Args:
        count: the number of pictures in order.
    """
    border = planned.border(arguments.split_ratio)
    share = round(arguments.num_shards * (count - border) / border) if border else arguments.num_shards
    flags = ("split-ratio", "seed", "num-shards", "img-size", "resize-mode", "quality", "max-pixels")
    values = {f"--{flag}": getattr(arguments, flag.replace("-", "_")) for flag in flags}
    train, val = (
        [
            Shard(path, start, end, {**values, **shards.digests(planned.rows(start, end))})
            for path, start, end in divide(output, first, last, split, number)
        ]
        for split, first, last, number in (
            ("train", 0, border, arguments.num_shards),
            ("val", border, count, max(1, share)),
        )
    )
    return train, val


def compare(wanted: Sequence[Shard], output: Path) -> tuple[list[Shard], dict[Path, str]]:
    """The shards that are still to write, and those that stand there but are not what is wanted, with the reason."""
    done = {shard.path: stats for shard in wanted if (stats := shards.read_stats(shard.path))}
    stale = {
        shard.path: change
        for shard in wanted
        if shard.path in done and (change := shards.changes(done[shard.path], shard))
    }
    for path in sorted({*output.glob("record_shards_*/aibooru_*.tfrecord")} - {shard.path for shard in wanted}):
        stats = shards.read_stats(path)
        stale[path] = (stats and shards.changes(stats, wanted[0])) or "another run wrote it"
    return [shard for shard in wanted if shard.path not in done or shard.path in stale], stale


def clear(output: Path, stale: Iterable[Path]) -> None:
    """Make room: from here until the end, the folder is not finished."""
    (output / ABOUT_FILE).unlink(missing_ok=True)
    for path in stale:
        shards.remove(path)
    for part in output.glob("record_shards_*/.*.part"):  # of a run that was killed, perhaps with other shards
        part.unlink()


def read_all(written: Iterable[Shard]) -> list[Stats]:
    """The stats of shards that were all written.

    Raises:
        UserError: one is not there.
    """
    found = []
    for shard in written:
        if (stats := shards.read_stats(shard.path)) is None:
            raise UserError(f"{shard.path}: not there after it was written; do the workers see the same folder?")
        found.append(stats)
    return found
