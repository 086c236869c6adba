"""Turn a dataset of image + txt pairs into TFRecords for train_pytorch.py.

    python create_tfrecord.py --dataset-folder ./dataset --output-path ./output-datasets

Tags that the CSV lacks are appended to it. Every image is padded to a white square, resized and stored as JPEG with the
indices of its tags. What cannot be used is left out and named in skipped.csv (exit code 1). A killed run goes on where
it was; the output depends on the input and the flags alone, and not on the machine or the number of its cores.

1,200 x 1,700 JPEGs of 250 kB to 224 x 224: 358 images/s on two cores, 10 times the plain way (benchmarks/tfrecord.py).
"""

import csv
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

import cli
import files
import images
import plan
import records
import shards
import tags
import workers
from files import UserError, write_json
from plan import Plan
from shards import Settings, Shard, Stats
from workers import DaskWorkers, Workers

ABOUT = "aibooru.json"  # written last: a folder without it is not finished
SKIPPED = "skipped.csv"
UNKNOWN = "unknown_tags.csv"
PLAN = ".plan.sqlite"
CRASHED = "the decoder crashed; replace or remove it"
SHOWN = 20  # lines about what was left out; all are in skipped.csv
NAMED = 10  # unknown tags
DASK_MODULES = (files, tags, images, records, plan, shards)  # each after what it imports


def parse_arguments(argv: Sequence[str] | None) -> Any:
    parser = cli.ArgumentParser(doc=__doc__ or "")
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset-folder",
        type=Path,
        default=Path("dataset"),
        help="folder with image + txt pairs (default: ./%(default)s)",
    )
    data.add_argument("--output-path", type=Path, default=Path("output-datasets"), help="(default: ./%(default)s)")
    data.add_argument("--overwrite", action="store_true", help="replace shards made of other input or with other flags")
    data.add_argument("--strict", action="store_true", help="exit code 2 instead of 1 where anything was left out")
    labels = parser.add_argument_group("tags")
    labels.add_argument(
        "--tags-csv",
        type=Path,
        default=Path("selected_tags.csv"),
        help="the vocabulary; new tags are appended to it (default: ./%(default)s)",
    )
    labels.add_argument(
        "--min-count",
        type=cli.positive_int,
        default=1,
        metavar="N",
        help="append only tags with at least N uses in the dataset (default: %(default)s)",
    )
    labels.add_argument("--no-new-tags", action="store_true", help="leave the CSV alone")
    division = parser.add_argument_group("division")
    division.add_argument(
        "--split-ratio",
        type=cli.fraction,
        default=0.7,
        help="share of the pairs that goes to train, the rest to val (default: %(default)s)",
    )
    division.add_argument(
        "--seed",
        type=cli.non_negative_int,
        default=0,
        help="another number, another division and order (default: %(default)s)",
    )
    division.add_argument(
        "--num-shards",
        type=cli.positive_int,
        default=1,
        metavar="N",
        help="files of the train split; val gets its share (default: %(default)s)",
    )
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument(
        "--img-size",
        type=cli.positive_int,
        default=224,
        help="side of the stored images in pixels (default: %(default)s)",
    )
    pictures.add_argument(
        "--resize-mode",
        choices=("pad", "stretch"),
        default="pad",
        help="pad to a white square as inference does, or stretch to it (default: %(default)s)",
    )
    pictures.add_argument(
        "--quality",
        type=quality,
        default=images.JPEG_QUALITY,
        help="of the stored JPEGs, 1 to 100 (default: %(default)s)",
    )
    pictures.add_argument(
        "--max-pixels",
        type=cli.positive_int,
        default=images.MAX_PIXELS,
        metavar="N",
        help="leave out larger images, which may be decompression bombs (default: %(default)s)",
    )
    work = parser.add_argument_group("work")
    work.add_argument(
        "--workers", type=cli.positive_int, metavar="N", help="processes that decode and encode (default: all cores)"
    )
    work.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="write the shards on a Dask cluster that sees the same files, such as tcp://scheduler:8786",
    )
    return parser.parse_args(argv)


def quality(text: str) -> int:
    """An argparse type: a JPEG quality."""
    value = int(text)
    if not 1 <= value <= 100:
        raise cli.ArgumentTypeError(f"{text} is not between 1 and 100")
    return value


def warn(message: str) -> None:
    print(f"create_tfrecord.py: {message}", file=sys.stderr)


# --- tags -----------------------------------------------------------------------------------------------------------


def new_tags(
    counts: Counter[str], vocabulary: tags.Vocabulary, known: Mapping[str, int], min_count: int
) -> list[tuple[str, int]]:
    """Names and categories of the tags that a vocabulary lacks, by falling frequency, ties by name.

    Args:
        counts: uses by tag in the dataset.
        known: category by tag, from the dataset's tag_categories.csv; other new tags are general (0).
        min_count: rarer tags are passed over.
    """
    categories = {**known, **dict.fromkeys(tags.RATINGS.values(), tags.RATING)}
    new = [name for name in counts if name not in vocabulary.index and counts[name] >= min_count]
    new.sort(key=lambda name: (-counts[name], name))
    return [(name, categories.get(name, tags.GENERAL)) for name in new]


def extended(vocabulary: tags.Vocabulary, new: Sequence[tuple[str, int]]) -> tags.Vocabulary:
    names, categories = zip(*new, strict=True) if new else ((), ())
    return tags.Vocabulary(vocabulary.names + names, vocabulary.categories + categories)


def report_tags(
    csv_path: Path, new: Sequence[tuple[str, int]], unknown: Sequence[str], uses: int, left_out: int
) -> None:
    """Say what became of the tags that the CSV lacked."""
    if blanks := [name for name, _ in new if " " in name]:
        warn(
            f"warning: {len(blanks)} new tags have blanks in them, such as {blanks[0]!r}; "
            "Danbooru writes them with _, and replace_blanks.py does that"
        )
    if new:
        print(f"{csv_path}: {len(new)} new tags appended", file=sys.stderr)
    if unknown:
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        named = ", ".join(unknown[:NAMED]) + more
        warn(f"{len(unknown)} tags are not in {csv_path} ({uses} uses): {named}; see {UNKNOWN}")
    if left_out:
        warn(f"warning: {left_out} tags left out that are endless or have control characters in them")


# --- shards ---------------------------------------------------------------------------------------------------------


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
    (output / ABOUT).unlink(missing_ok=True)
    for path in stale:
        shards.remove(path)
    for part in output.glob("record_shards_*/.*.part"):  # of a run that was killed, perhaps with other shards
        part.unlink()


def write_shards(todo: Sequence[Shard], planned: Plan, settings: Settings, arguments: Any, local: Workers) -> None:
    folder = arguments.dataset_folder
    with tqdm(total=sum(map(len, todo)), desc="writing", unit="img", dynamic_ncols=True) as bar:
        if arguments.dask:
            with DaskWorkers(arguments.dask, DASK_MODULES) as cluster:
                write = partial(shards.write_alone, folder.resolve(), settings)
                jobs = (
                    (replace(shard, path=shard.path.resolve()), list(planned.rows(shard.first, shard.last)))
                    for shard in todo
                )
                for (shard, _), _ in cluster.map(write, jobs):
                    bar.update(len(shard))
            return
        work = partial(shards.prepare_records, folder, settings)

        def prepare(batches: Iterator[list[plan.Row]]) -> shards.Prepared:
            return local.map(work, batches, CRASHED)

        for shard in todo:
            bar.set_postfix_str(shard.path.name)
            shards.write_shard(shard, planned.rows(shard.first, shard.last), prepare, bar.update)


# --- the end --------------------------------------------------------------------------------------------------------


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


def write_skipped(path: Path, skipped: Iterable[tuple[str, str]]) -> int:
    """Write the CSV of what was left out and name the first on stderr; how many there are."""
    count = 0
    with files.replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "reason"))
        for count, (name, reason) in enumerate(skipped, start=1):
            writer.writerow((name, reason))
            if count <= SHOWN:
                warn(f"left out: {name}: {reason}")
    if count > SHOWN:
        warn(f"and {count - SHOWN} more, see {path}")
    return count


def write_unknown(path: Path, unknown: Sequence[str], counts: Counter[str]) -> None:
    """Write the CSV of tags that have no label, or remove an earlier run's."""
    if not unknown:
        path.unlink(missing_ok=True)
        return
    general = (tags.GENERAL,) * len(unknown)
    tags.write_vocabulary(path, tags.Vocabulary(tuple(unknown), general, tuple(counts[name] for name in unknown)))


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    folder, output = arguments.dataset_folder, arguments.output_path
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the dataset with --dataset-folder")
    # Before the long work: what a person has to mend.
    vocabulary = tags.read_vocabulary(arguments.tags_csv)
    categories_file = folder / tags.CATEGORIES_FILE
    known = tags.read_categories(categories_file) if categories_file.exists() else {}
    count = arguments.workers or workers.available_cores()
    with closing(Plan(output / PLAN, folder)) as planned, Workers(count) as local:
        return run(arguments, planned, local, vocabulary, known)


def run(arguments: Any, planned: Plan, local: Workers, vocabulary: tags.Vocabulary, known: Mapping[str, int]) -> int:
    folder, output, csv_path = arguments.dataset_folder, arguments.output_path, arguments.tags_csv
    found = planned.list_folder()
    unread = planned.unread()
    with tqdm(total=unread, desc="reading", unit="pair", dynamic_ncols=True, disable=not unread) as bar:
        for done in planned.scan(lambda given: local.map(partial(plan.scan_pairs, folder), given, CRASHED)):
            bar.update(done)

    counts = planned.tag_counts()
    new = [] if arguments.no_new_tags else new_tags(counts, vocabulary, known, arguments.min_count)
    vocabulary = extended(vocabulary, new)
    unknown = [name for name, _ in new_tags(counts, vocabulary, {}, min_count=1)]
    usable = planned.arrange(vocabulary.index, arguments.seed)
    if not usable:
        raise UserError(
            f"{folder}: no image with a txt beside it that has a known tag ({found} images without); fetch some pairs "
            "with simple_dan_crawl.py or name another folder"
        )
    train, val = lay_out(planned, output, usable, arguments)
    todo, stale = compare([*train, *val], output)
    if stale and not arguments.overwrite:
        path, change = next(iter(stale.items()))
        mend = f"pass --overwrite to write anew what is affected ({len(stale)} files), or another --output-path"
        raise UserError(f"{path}: {change}; {mend}")
    if new:
        tags.append_to_vocabulary(csv_path, new)
    report_tags(csv_path, new, unknown, sum(counts[name] for name in unknown), planned.tags_left_out())
    if todo or stale:
        clear(output, stale)
        kept = len(train) + len(val) - len(todo)
        if kept:
            print(f"{output}: {kept} of {kept + len(todo)} shards are finished", file=sys.stderr)
        settings = Settings(arguments.img_size, arguments.resize_mode, arguments.quality, arguments.max_pixels)
        write_shards(todo, planned, settings, arguments, local)

    trained, validated = read_all(train), read_all(val)
    skipped = write_skipped(
        output / SKIPPED,
        chain(planned.problems(), chain.from_iterable(stats.skipped for stats in (*trained, *validated))),
    )
    written = [sum(stats.records for stats in split) for split in (trained, validated)]
    if found != sum(written) + skipped:
        raise UserError(f"{output}: {found} images, but {written} written and {skipped} left out; report this, please")
    uses: Counter[int] = Counter()
    for stats in trained:
        uses.update(stats.label_counts)
    frozen = tags.Vocabulary(
        vocabulary.names, vocabulary.categories, tuple(uses[label] for label in range(len(vocabulary)))
    )
    tags.write_vocabulary(output / "selected_tags.csv", frozen)
    write_unknown(output / UNKNOWN, unknown, counts)
    about = {
        "num_classes": len(frozen),
        "train_samples": written[0],
        "val_samples": written[1],
        "train_shards": len(train),
        "val_shards": len(val),
        "image_size": arguments.img_size,
        "tags_sha256": frozen.sha256,
    }
    write_json(output / ABOUT, about)
    alone, first = planned.txt_without_image()
    if alone:
        suffixes = ", ".join(images.IMAGE_SUFFIXES)
        warn(f"warning: {alone} txt files have no image ({suffixes}) beside them, such as {first}")
    if equal := planned.equal_pictures():
        print(f"{folder}: {equal} images equal another one; equal ones are all in train or all in val", file=sys.stderr)
    print(f"{output}: {written[0]} train + {written[1]} val images, {len(frozen)} tags, {skipped} left out")
    if skipped or planned.tags_left_out():
        return cli.UNUSABLE if arguments.strict else cli.INCOMPLETE
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
