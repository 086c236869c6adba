"""Turn a dataset of image + txt pairs into TFRecords for train_pytorch.py.

    python create_tfrecord.py --dataset-folder ./dataset --output-path ./output-datasets

Tags that the CSV lacks are appended to it. Every image is padded to a white square, resized and stored as JPEG with the
indices of its tags. What cannot be used is left out and named in skipped.csv (exit code 1). A killed run goes on where
it was; the output depends on the input and the flags alone, and not on the machine or the number of its cores.

1,200 x 1,700 JPEGs of 250 kB to 224 x 224: 358 images/s on two cores, 10 times the plain way (benchmarks/tfrecord.py).
"""

from tagger import cli  # first, so that an interrupt while the others are imported is one line

# isort: split

import sqlite3
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tagger import files, images
from tagger.files import UserError
from tagger.formats.pairs import IMAGE_SUFFIXES
from tagger.formats.records import ABOUT_FILE, About
from tagger.formats.vocabulary import (
    CATEGORIES_FILE,
    VOCABULARY_FILE,
    Vocabulary,
    append_to_vocabulary,
    read_categories,
    read_vocabulary,
    write_vocabulary,
)
from tagger.tfrecord.catalog import CATALOG_FILE, Catalog, PairNames, Row, UnusableOutput
from tagger.tfrecord.labels import UNKNOWN_TAGS_FILE, Labels, assign_labels, write_unknown_tags
from tagger.tfrecord.pairs import Scanned, scan_pairs
from tagger.tfrecord.shards import Shard, compare, lay_out, make_room, read_all_stats
from tagger.tfrecord.workers import DaskWorkers, Workers, available_cores
from tagger.tfrecord.writer import (
    RESIZE_MODES,
    PictureSettings,
    Prepared,
    prepare_records,
    write_shard,
    write_shard_in_one_process,
)

SKIPPED_FILE = "skipped.csv"
CRASHED = "the decoder crashed; replace or remove it"
SHOWN = 20  # lines about what was left out; all are in SKIPPED_FILE
NAMED = 10  # unknown tags


@dataclass(frozen=True)
class Settings:
    """What to make of which dataset, and where.

    Attributes:
        folder: of the pairs.
        output: of the records.
        overwrite: replace shards that were made of something else.
        strict: count what is left out as an error.
        tags_csv: the vocabulary that grows.
        min_count: uses that a new tag needs to get a row there; None: no tag gets one.
        split_ratio: the share of the pairs that goes to train, 0..1.
        seed: of the division and the order.
        num_shards: files of the train split.
        pictures: how they are stored.
        workers: processes on this machine.
        dask: the address of a Dask scheduler whose workers write the shards.
    """

    folder: Path
    output: Path
    overwrite: bool
    strict: bool
    tags_csv: Path
    min_count: int | None
    split_ratio: float
    seed: int
    num_shards: int
    pictures: PictureSettings
    workers: int
    dask: str | None

    @property
    def made_of(self) -> dict[str, Any]:
        """What the shards' bytes depend on besides the dataset, by flag.

        It is kept with each shard and compared by the next run: what it is called must stay, or every folder of records
        would seem to be out of date.
        """
        values = {"split_ratio": self.split_ratio, "seed": self.seed, "num_shards": self.num_shards}
        values |= asdict(self.pictures)
        return {"--" + name.replace("_", "-"): value for name, value in values.items()}


def parse_arguments(argv: Sequence[str] | None) -> Namespace:
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
        choices=RESIZE_MODES,
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


def make_settings(arguments: Namespace) -> Settings:
    return Settings(
        folder=arguments.dataset_folder,
        output=arguments.output_path,
        overwrite=arguments.overwrite,
        strict=arguments.strict,
        tags_csv=arguments.tags_csv,
        min_count=None if arguments.no_new_tags else arguments.min_count,
        split_ratio=arguments.split_ratio,
        seed=arguments.seed,
        num_shards=arguments.num_shards,
        pictures=PictureSettings(arguments.img_size, arguments.resize_mode, arguments.quality, arguments.max_pixels),
        workers=arguments.workers or available_cores(),
        dask=arguments.dask,
    )


# --- reading --------------------------------------------------------------------------------------------------------


def check_output_folder(settings: Settings) -> None:
    """Refuse a folder for the records that is not for records, before anything is written.

    Raises:
        UserError: it holds the input CSV, a file of the toolkit or somebody's vocabulary, or cannot be written to.
    """
    output, hint = settings.output, "name another --output-path"
    files.check_writable(output, hint)
    holds_records = (output / ABOUT_FILE).exists() or (output / CATALOG_FILE).exists()
    files.check_output(
        output / VOCABULARY_FILE,
        hint=hint,
        inputs=[settings.tags_csv],
        is_ours=lambda path: holds_records,
        overwrite=settings.overwrite,
    )


def read_csv_files(settings: Settings) -> tuple[Vocabulary, Mapping[str, int]]:
    """The vocabulary, and the category by tag that the dataset's tag_categories.csv knows.

    Raises:
        UserError: the dataset's folder is not there, or one of its files or the CSV has to be corrected.
    """
    if not settings.folder.is_dir():
        raise UserError(f"{settings.folder}: no such folder; name the dataset with --dataset-folder")
    vocabulary = read_vocabulary(
        settings.tags_csv, "make it with generate_selected_tags.py, or name another --tags-csv"
    )
    categories_file = settings.folder / CATEGORIES_FILE
    return vocabulary, read_categories(categories_file) if categories_file.exists() else {}


def read_pairs(folder: Path, catalog: Catalog, workers: Workers) -> None:
    """Bring the catalog up to date with the folder."""

    def read(batches: Iterator[list[PairNames]]) -> Iterator[tuple[Sequence[PairNames], list[Scanned | str]]]:
        return workers.map(partial(scan_pairs, folder), batches, CRASHED)

    catalog.list_folder()
    unread = catalog.unread()
    with tqdm(total=unread, desc="reading", unit="pair", dynamic_ncols=True, disable=not unread) as bar:
        for done in catalog.scan(read):
            bar.update(done)


# --- shards ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """The shards of train and of val; those of both that are still to write; and the files that are out of date."""

    train: Sequence[Shard]
    val: Sequence[Shard]
    todo: Sequence[Shard]
    stale: Sequence[Path]


def choose_shards(catalog: Catalog, labels: Labels, settings: Settings) -> Layout:
    """Divide the pictures among shards, and see what earlier runs wrote of these.

    Raises:
        UserError: no pair is usable, or what stands there was made of something else and may not be overwritten.
    """
    if not catalog.put_in_order(labels.index, settings.seed):
        raise nothing_usable(catalog, settings)
    train, val = lay_out(
        catalog,
        settings.output,
        split_ratio=settings.split_ratio,
        num_shards=settings.num_shards,
        made_of=settings.made_of,
    )
    if not sum(map(len, train)):
        raise UserError(f"--split-ratio {settings.split_ratio:g}: leaves no image for training; pass a higher one")
    todo, stale = compare([*train, *val], settings.output)
    if stale and not settings.overwrite:
        path, change = next(iter(stale.items()))
        hint = f"pass --overwrite to write anew what is affected ({len(stale)} files), or another --output-path"
        raise UserError(f"{path}: {change}; {hint}")
    return Layout(train, val, todo, list(stale))


def nothing_usable(catalog: Catalog, settings: Settings) -> UserError:
    """The error for a folder without a usable pair; what is wrong with each is written to skipped.csv."""
    if not catalog.images():
        return UserError(
            f"{settings.folder}: no images in it; fetch some pairs with simple_dan_crawl.py or name another folder"
        )
    path = settings.output / SKIPPED_FILE
    count = write_skipped(path, catalog.problems())
    return UserError(
        f"{settings.folder}: no usable pair among {cli.counted(count, 'image')}, for the reasons above and in {path}; "
        "correct them (replace_blanks.py converts other encodings), or name another folder"
    )


def write_shards(layout: Layout, catalog: Catalog, settings: Settings, workers: Workers) -> None:
    """Write what is missing or out of date, with the processes of this machine or on a Dask cluster."""
    if not layout.todo and not layout.stale:
        return
    make_room(settings.output, layout.stale)
    shards = len(layout.train) + len(layout.val)
    if len(layout.todo) < shards:
        finished = shards - len(layout.todo)
        print(f"{settings.output}: {finished} of {shards} shards are finished", file=sys.stderr)
    with tqdm(total=sum(map(len, layout.todo)), desc="writing", unit="img", dynamic_ncols=True) as bar:
        if settings.dask:
            for shard in written_on_cluster(settings.dask, layout.todo, catalog, settings):
                bar.update(len(shard))
            return
        work = partial(prepare_records, settings.folder, settings.pictures)

        def prepare(batches: Iterator[list[Row]]) -> Prepared:
            return workers.map(work, batches, CRASHED)

        for shard in layout.todo:
            bar.set_postfix_str(shard.path.name)
            write_shard(shard, catalog.rows(shard.first, shard.last), prepare, bar.update)


def written_on_cluster(address: str, todo: Sequence[Shard], catalog: Catalog, settings: Settings) -> Iterator[Shard]:
    """Let each worker of a Dask cluster write whole shards, which their disks must see under the same paths."""
    with DaskWorkers(address) as cluster:
        write = partial(write_shard_in_one_process, settings.folder.resolve(), settings.pictures)
        jobs = (
            (replace(shard, path=shard.path.resolve()), list(catalog.rows(shard.first, shard.last))) for shard in todo
        )
        for (shard, _), _ in cluster.map(write, jobs):
            yield shard


# --- tags -----------------------------------------------------------------------------------------------------------


def extend_csv(labels: Labels, left_out: int, csv_path: Path) -> None:
    """Append the new tags to the vocabulary, and say what became of the tags that it lacked.

    Args:
        left_out: uses of what is no tag, in all pairs.
    """
    if labels.weights:
        written, name = next(iter(labels.weights.items()))
        different = cli.counted(len(labels.weights), "different tag")
        cli.warn(f"{different} with the weight of a prompt, such as {written}, read as {name}")
    for name, right in list(labels.lookalikes.items())[:SHOWN]:
        cli.warn(f"warning: {name} ({cli.counted(labels.counts[name], 'use')}) is new; is {right} meant?")
    if labels.new:
        before = csv_path.with_suffix(f".before{csv_path.suffix}")
        files.write_bytes(before, csv_path.read_bytes())
        append_to_vocabulary(csv_path, labels.new)
    if labels.new:
        appended = f"{cli.counted(len(labels.new), 'new tag')} appended"
        print(f"{csv_path}: {appended}; {before.name} beside it is the version before", file=sys.stderr)
    if unknown := labels.unknown:
        uses = sum(labels.counts[name] for name in unknown)
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        named = ", ".join(unknown[:NAMED]) + more
        cli.warn(f"{len(unknown)} tags are not in {csv_path} ({uses} uses): {named}; see {UNKNOWN_TAGS_FILE}")
    if left_out:
        cli.warn(f"warning: {left_out} tags left out that are endless or have control characters in them")


# --- what is written last -------------------------------------------------------------------------------------------


def finish(layout: Layout, labels: Labels, catalog: Catalog, settings: Settings) -> tuple[About, int]:
    """Account for every image and write what surrounds the shards; the number of images that were left out.

    aibooru.json comes last: with it the folder is finished.

    Raises:
        UserError: the numbers do not add up.
    """
    output = settings.output
    train, val = read_all_stats(layout.train), read_all_stats(layout.val)
    undecodable = chain.from_iterable(stats.skipped for stats in (*train, *val))
    skipped = write_skipped(output / SKIPPED_FILE, chain(catalog.problems(), undecodable))
    written = [sum(stats.records for stats in split) for split in (train, val)]
    if (found := catalog.images()) != sum(written) + skipped:
        raise UserError(f"{output}: {found} images, but {written} written and {skipped} left out; report this, please")
    uses: Counter[int] = Counter()
    for stats in train:
        uses.update(stats.label_counts)
    frozen = replace(labels.vocabulary, counts=tuple(uses[label] for label in range(len(labels.vocabulary))))
    write_vocabulary(output / VOCABULARY_FILE, frozen)
    write_unknown_tags(output / UNKNOWN_TAGS_FILE, labels)
    about = About(
        num_classes=len(frozen),
        train_samples=written[0],
        val_samples=written[1],
        train_shards=len(train),
        val_shards=len(val),
        image_size=settings.pictures.img_size,
        tags_sha256=frozen.sha256,
    )
    about.write(output)
    return about, skipped


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


def report(about: About, skipped: int, catalog: Catalog, settings: Settings) -> None:
    """Say what is odd about the dataset without being wrong, and what was made of it."""
    alone, first = catalog.txt_without_image()
    if alone:
        suffixes = ", ".join(IMAGE_SUFFIXES)
        cli.warn(f"warning: {alone} txt files have no image ({suffixes}) beside them, such as {first}")
    if others := {suffix: count for suffix, count in sorted(catalog.others.items()) if count}:
        listed = ", ".join(f"{count} {suffix}" for suffix, count in others.items())
        print(f"{settings.folder}: neither images that are read here nor txt files: {listed}", file=sys.stderr)
    if equal := catalog.equal_pictures():
        one = "1 image equals" if equal == 1 else f"{equal} images equal"
        equal_ones = f"{one} another one; equal ones are all in train or all in val"
        print(f"{settings.folder}: {equal_ones}", file=sys.stderr)
    written = f"{about.train_samples} train + {about.val_samples} val images"
    print(f"{settings.output}: {written}, {about.num_classes} tags, {skipped} left out")


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    settings = make_settings(parse_arguments(argv))
    read_csv_files(settings)  # before the long work: what a person has to correct
    check_output_folder(settings)
    try:
        with (
            closing(Catalog(settings.output / CATALOG_FILE, settings.folder)) as catalog,
            Workers(settings.workers) as workers,
        ):
            read_pairs(settings.folder, catalog, workers)
            # Another run may extend the same CSV: what is appended must be what is missing when it is appended.
            with files.locked(files.lock_of(settings.tags_csv), busy="", wait=True):
                vocabulary, known = read_csv_files(settings)
                labels = assign_labels(catalog.tag_counts(), vocabulary, known, settings.min_count)
                layout = choose_shards(catalog, labels, settings)
                # Nothing of the user's was changed so far. From here on a run that is stopped goes on when repeated.
                extend_csv(labels, catalog.tags_left_out(), settings.tags_csv)
            write_shards(layout, catalog, settings, workers)
            about, skipped = finish(layout, labels, catalog, settings)
            report(about, skipped, catalog, settings)
            complete = not skipped and not catalog.tags_left_out()
    except UnusableOutput as error:
        raise UserError(f"{error}, or name another --output-path") from None
    except sqlite3.Error as error:
        raise UserError(f"{settings.output}: {error}; make room there, or name another --output-path") from None
    if complete:
        return cli.DONE
    return cli.UNUSABLE if settings.strict else cli.INCOMPLETE


if __name__ == "__main__":
    sys.exit(main())
