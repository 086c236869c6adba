"""Turn a dataset of image + txt pairs into TFRecords for train_pytorch.py.

    python create_tfrecord.py --dataset-folder ./dataset --output-path ./output-datasets

Tags that the CSV lacks are appended to it. Every image is padded to a white square, resized and stored as JPEG with the
indices of its tags. What cannot be used is left out and named in skipped.csv (exit code 1). A killed run goes on where
it was; the output depends on the input and the flags alone, and not on the machine or the number of its cores.

1,200 x 1,700 JPEGs of 250 kB to 224 x 224: 358 images/s on two cores, 10 times the plain way (benchmarks/tfrecord.py).
"""

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

from tagger import cli, files, images
from tagger.files import UserError
from tagger.formats.pairs import IMAGE_SUFFIXES
from tagger.formats.records import About
from tagger.formats.vocabulary import (
    CATEGORIES_FILE,
    GENERAL,
    RATING,
    RATINGS,
    VOCABULARY_FILE,
    Vocabulary,
    append_to_vocabulary,
    read_categories,
    read_vocabulary,
    write_vocabulary,
)
from tagger.tfrecord import catalog, pairs, workers, writer
from tagger.tfrecord.catalog import Plan
from tagger.tfrecord.shards import Shard, clear, compare, lay_out, read_all
from tagger.tfrecord.workers import DaskWorkers, Workers
from tagger.tfrecord.writer import Settings

SKIPPED = "skipped.csv"
UNKNOWN = "unknown_tags.csv"
PLAN = ".plan.sqlite"
CRASHED = "the decoder crashed; replace or remove it"
SHOWN = 20  # lines about what was left out; all are in skipped.csv
NAMED = 10  # unknown tags


def parse_arguments(argv: Sequence[str] | None) -> Any:
    parser = cli.ArgumentParser(doc=__doc__ or "")
    data = parser.add_argument_group("data")
    data.add_argument("--dataset-folder", type=Path, default=Path("dataset"), help="folder with image + txt pairs")
    data.add_argument("--output-path", type=Path, default=Path("output-datasets"), help="where the records go")
    data.add_argument("--overwrite", action="store_true", help="replace shards made of other input or with other flags")
    data.add_argument("--strict", action="store_true", help="exit code 2 instead of 1 where anything was left out")
    labels = parser.add_argument_group("tags")
    labels.add_argument(
        "--tags-csv", type=Path, default=Path(VOCABULARY_FILE), help="the vocabulary; new tags are appended to it"
    )
    labels.add_argument(
        "--min-count",
        type=cli.positive_int,
        default=1,
        metavar="N",
        help="append only tags with at least N uses in the dataset",
    )
    labels.add_argument("--no-new-tags", action="store_true", help="leave the CSV alone")
    division = parser.add_argument_group("division")
    division.add_argument(
        "--split-ratio", type=cli.fraction, default=0.7, help="share of the pairs that goes to train, the rest to val"
    )
    division.add_argument(
        "--seed", type=cli.non_negative_int, default=0, help="another number, another division and order"
    )
    division.add_argument(
        "--num-shards",
        type=cli.positive_int,
        default=1,
        metavar="N",
        help="files of the train split; val gets its share",
    )
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument("--img-size", type=cli.positive_int, default=224, help="side of the stored images in pixels")
    pictures.add_argument(
        "--resize-mode",
        choices=("pad", "stretch"),
        default="pad",
        help="pad to a white square as inference does, or stretch to it",
    )
    pictures.add_argument("--quality", type=quality, default=images.JPEG_QUALITY, help="of the stored JPEGs, 1 to 100")
    pictures.add_argument(
        "--max-pixels",
        type=cli.positive_int,
        default=images.MAX_PIXELS,
        metavar="N",
        help="leave out larger images, which may be decompression bombs",
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


# --- tags -----------------------------------------------------------------------------------------------------------


def new_tags(
    counts: Counter[str], vocabulary: Vocabulary, known: Mapping[str, int], min_count: int
) -> list[tuple[str, int]]:
    """Names and categories of the tags that a vocabulary lacks, by falling frequency, ties by name.

    Args:
        counts: uses by tag in the dataset.
        known: category by tag, from the dataset's tag_categories.csv; other new tags are general (0).
        min_count: rarer tags are passed over.
    """
    categories = {**known, **dict.fromkeys(RATINGS.values(), RATING)}
    new = [name for name in counts if name not in vocabulary.index and counts[name] >= min_count]
    new.sort(key=lambda name: (-counts[name], name))
    return [(name, categories.get(name, GENERAL)) for name in new]


def extended(vocabulary: Vocabulary, new: Sequence[tuple[str, int]]) -> Vocabulary:
    names, categories = zip(*new, strict=True) if new else ((), ())
    return Vocabulary(vocabulary.names + names, vocabulary.categories + categories)


def report_tags(
    csv_path: Path, new: Sequence[tuple[str, int]], unknown: Sequence[str], uses: int, left_out: int
) -> None:
    """Say what became of the tags that the CSV lacked."""
    if blanks := [name for name, _ in new if " " in name]:
        cli.warn(
            f"warning: {len(blanks)} new tags have blanks in them, such as {blanks[0]!r}; "
            "Danbooru writes them with _, and replace_blanks.py does that"
        )
    if new:
        print(f"{csv_path}: {len(new)} new tags appended", file=sys.stderr)
    if unknown:
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        named = ", ".join(unknown[:NAMED]) + more
        cli.warn(f"{len(unknown)} tags are not in {csv_path} ({uses} uses): {named}; see {UNKNOWN}")
    if left_out:
        cli.warn(f"warning: {left_out} tags left out that are endless or have control characters in them")


# --- shards ---------------------------------------------------------------------------------------------------------


def write_shards(todo: Sequence[Shard], planned: Plan, settings: Settings, arguments: Any, local: Workers) -> None:
    folder = arguments.dataset_folder
    with tqdm(total=sum(map(len, todo)), desc="writing", unit="img", dynamic_ncols=True) as bar:
        if arguments.dask:
            with DaskWorkers(arguments.dask) as cluster:
                write = partial(writer.write_alone, folder.resolve(), settings)
                jobs = (
                    (replace(shard, path=shard.path.resolve()), list(planned.rows(shard.first, shard.last)))
                    for shard in todo
                )
                for (shard, _), _ in cluster.map(write, jobs):
                    bar.update(len(shard))
            return
        work = partial(writer.prepare_records, folder, settings)

        def prepare(batches: Iterator[list[catalog.Row]]) -> writer.Prepared:
            return local.map(work, batches, CRASHED)

        for shard in todo:
            bar.set_postfix_str(shard.path.name)
            writer.write_shard(shard, planned.rows(shard.first, shard.last), prepare, bar.update)


# --- the end --------------------------------------------------------------------------------------------------------


def write_skipped(path: Path, skipped: Iterable[tuple[str, str]]) -> int:
    """Write the CSV of what was left out and name the first on stderr; how many there are."""
    count = 0

    def told() -> Iterator[tuple[str, str]]:
        nonlocal count
        for count, (name, reason) in enumerate(skipped, start=1):
            if count <= SHOWN:
                cli.warn(f"left out: {name}: {reason}")
            yield name, reason

    files.write_csv(path, ("file", "reason"), told())
    if count > SHOWN:
        cli.warn(f"and {count - SHOWN} more, see {path}")
    return count


def write_unknown(path: Path, unknown: Sequence[str], counts: Counter[str]) -> None:
    """Write the CSV of tags that have no label, or remove an earlier run's."""
    if not unknown:
        path.unlink(missing_ok=True)
        return
    general = (GENERAL,) * len(unknown)
    write_vocabulary(path, Vocabulary(tuple(unknown), general, tuple(counts[name] for name in unknown)))


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    folder, output = arguments.dataset_folder, arguments.output_path
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the dataset with --dataset-folder")
    # Before the long work: what a person has to correct.
    vocabulary = read_vocabulary(arguments.tags_csv)
    categories_file = folder / CATEGORIES_FILE
    known = read_categories(categories_file) if categories_file.exists() else {}
    count = arguments.workers or workers.available_cores()
    with closing(Plan(output / PLAN, folder)) as planned, Workers(count) as local:
        return run(arguments, planned, local, vocabulary, known)


def run(arguments: Any, planned: Plan, local: Workers, vocabulary: Vocabulary, known: Mapping[str, int]) -> int:
    folder, output, csv_path = arguments.dataset_folder, arguments.output_path, arguments.tags_csv
    found = planned.list_folder()
    unread = planned.unread()
    with tqdm(total=unread, desc="reading", unit="pair", dynamic_ncols=True, disable=not unread) as bar:
        for done in planned.scan(lambda given: local.map(partial(pairs.scan_pairs, folder), given, CRASHED)):
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
        hint = f"pass --overwrite to write anew what is affected ({len(stale)} files), or another --output-path"
        raise UserError(f"{path}: {change}; {hint}")
    if new:
        append_to_vocabulary(csv_path, new)
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
    frozen = Vocabulary(vocabulary.names, vocabulary.categories, tuple(uses[label] for label in range(len(vocabulary))))
    write_vocabulary(output / VOCABULARY_FILE, frozen)
    write_unknown(output / UNKNOWN, unknown, counts)
    About(
        num_classes=len(frozen),
        train_samples=written[0],
        val_samples=written[1],
        train_shards=len(train),
        val_shards=len(val),
        image_size=arguments.img_size,
        tags_sha256=frozen.sha256,
    ).write(output)
    alone, first = planned.txt_without_image()
    if alone:
        suffixes = ", ".join(IMAGE_SUFFIXES)
        cli.warn(f"warning: {alone} txt files have no image ({suffixes}) beside them, such as {first}")
    if equal := planned.equal_pictures():
        print(f"{folder}: {equal} images equal another one; equal ones are all in train or all in val", file=sys.stderr)
    print(f"{output}: {written[0]} train + {written[1]} val images, {len(frozen)} tags, {skipped} left out")
    if skipped or planned.tags_left_out():
        return cli.UNUSABLE if arguments.strict else cli.INCOMPLETE
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
