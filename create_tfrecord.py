"""Turn a dataset of images, with their tags beside them, into TFRecords for train_pytorch.py.

    python create_tfrecord.py --dataset-folder ./dataset --output-path ./output-datasets

Tags that the CSV lacks are appended to it. Every image is padded to a white square, resized and stored as JPEG with the
indices of its tags. What cannot be used is left out and named in skipped.csv (exit code 1). A killed run goes on where
it was; the output depends on the input and the flags alone, and not on the machine or the number of its cores.

1,200 x 1,700 JPEGs of 250 kB to 224 x 224: 358 images/s on two cores, 10 times the plain way (benchmarks/tfrecord.py).
"""

from tagger import cli  # first, so that an interrupt while the others are imported is one line

# isort: split

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tagger import files, images
from tagger.cli import counted
from tagger.files import UserError
from tagger.formats.namespaces import NamespaceReader
from tagger.formats.pairs import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES, folders_of
from tagger.formats.post_tables import Posts, check_table, read_posts
from tagger.formats.records import ABOUT_FILE, About
from tagger.formats.tag_lists import lookalikes_in_words
from tagger.formats.tag_relations import (
    ALIASES_FILE,
    aliases_beside,
    canonical_names,
    read_aliases,
    under_canonical_names,
)
from tagger.formats.vocabulary import (
    CATEGORIES_FILE,
    VOCABULARY_FILE,
    Category,
    append_to_vocabulary,
    before_path,
    categories_in,
    check_may_grow,
    keep_before,
    read_vocabulary,
    write_vocabulary,
)
from tagger.tfrecord.catalog import CATALOG_FILE, Catalog, Row, UnusableOutput, opened_catalog
from tagger.tfrecord.labels import UNKNOWN_TAGS_FILE, Labels, assign_labels, write_unknown_tags
from tagger.tfrecord.pairs import Pair, Scanned, printable, scan_pairs
from tagger.tfrecord.shards import Shard, compare, find_damage, lay_out, make_room, read_all_stats
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
ALIASES_HINT = "correct it, or name another with --tag-aliases"
ANOTHER_OUTPUT = "name another --output-path"


@dataclass(frozen=True)
class Settings:
    """What to make of which dataset, and where.

    Attributes:
        folder: of the pairs.
        recursive: also those of the folders below it.
        metadata: tables of posts that have the tags of pictures.
        output: of the records.
        overwrite: replace shards that were made of something else.
        verify: read every record of the finished shards, and write damaged ones again.
        strict: count what is left out as an error.
        tags_csv: the vocabulary that grows.
        aliases: a file of old names, or None.
        min_count: uses that a new tag needs to get a row there; None: no tag gets one.
        split_ratio: the share of the pairs that goes to train, 0..1.
        seed: of the division and the order.
        num_shards: files of the train split.
        pictures: how they are stored.
        workers: processes on this machine.
        dask: the address of a Dask scheduler whose workers write the shards.
    """

    folder: Path
    recursive: bool
    metadata: Sequence[Path]
    output: Path
    overwrite: bool
    verify: bool
    strict: bool
    tags_csv: Path
    aliases: Path | None
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
    data.add_argument(
        "--dataset-folder",
        type=Path,
        default=Path("dataset"),
        help="images, with their tags beside them, or tars of these",
    )
    data.add_argument(
        "--recursive", action="store_true", help="pairs in the folders below, too; one name in two is two pictures"
    )
    data.add_argument(
        "--metadata",
        type=Path,
        nargs="+",
        default=(),
        metavar="FILE",
        help="parquet, jsonl or csv with the tags of posts; pictures are called after the post's id or MD5",
    )
    data.add_argument("--output-path", type=Path, default=Path("output-datasets"), help="where the records go")
    data.add_argument("--overwrite", action="store_true", help="replace shards made of other input or with other flags")
    data.add_argument(
        "--verify",
        action="store_true",
        help="read every record of finished shards, and write damaged ones again; --overwrite does so too",
    )
    data.add_argument("--strict", action="store_true", help="exit code 2 instead of 1 where anything was left out")
    labels = parser.add_argument_group("tags")
    labels.add_argument(
        "--tags-csv", type=Path, default=Path(VOCABULARY_FILE), help="the vocabulary; new tags are appended to it"
    )
    labels.add_argument(
        "--tag-aliases",
        type=Path,
        metavar="CSV",
        help=f"read old names as today's, by this file (default: {ALIASES_FILE} beside the vocabulary, where there is "
        "one)",
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
        recursive=arguments.recursive,
        metadata=arguments.metadata,
        output=arguments.output_path,
        overwrite=arguments.overwrite,
        verify=arguments.verify or arguments.overwrite,
        strict=arguments.strict,
        tags_csv=arguments.tags_csv,
        aliases=arguments.tag_aliases or aliases_beside(arguments.tags_csv),
        min_count=None if arguments.no_new_tags else arguments.min_count,
        split_ratio=arguments.split_ratio,
        seed=arguments.seed,
        num_shards=arguments.num_shards,
        pictures=PictureSettings(arguments.img_size, arguments.resize_mode, arguments.quality, arguments.max_pixels),
        workers=arguments.workers or available_cores(),
        dask=arguments.dask,
    )


# --- before the long work: what a person has to correct -------------------------------------------------------------


def check_input(settings: Settings) -> Mapping[str, Category]:
    """Refuse a dataset or a vocabulary that cannot be used; the category by tag that tag_categories.csv knows.

    Raises:
        UserError: the dataset's folder is not there, or one of its files, a table or the CSV has to be corrected.
    """
    if not settings.folder.is_dir():
        raise UserError(f"{settings.folder}: no such folder; name the dataset with --dataset-folder")
    for path in settings.metadata:
        check_table(path)
    hint = "make it with generate_selected_tags.py, or name another --tags-csv"
    vocabulary = read_vocabulary(settings.tags_csv, hint)
    if settings.min_count is not None:
        hint = "pass --no-new-tags, or copy it and name the copy with --tags-csv"
        check_may_grow(settings.tags_csv, vocabulary, hint)
        files.check_writable(settings.tags_csv.parent, hint)
    return categories_in(folders_of(settings.folder, settings.recursive, left_out=settings.output))


def check_output(settings: Settings) -> None:
    """Refuse a folder that holds somebody's files under the names of ours, or that cannot be written to.

    Raises:
        UserError: the message names the file.
    """
    output = settings.output
    files.check_writable(output, ANOTHER_OUTPUT)
    is_ours = any((output / name).exists() for name in (ABOUT_FILE, CATALOG_FILE))
    for name in (VOCABULARY_FILE, UNKNOWN_TAGS_FILE, SKIPPED_FILE):
        files.check_output(
            output / name,
            hint=ANOTHER_OUTPUT,
            inputs=(settings.tags_csv, settings.folder / CATEGORIES_FILE),
            is_ours=lambda path: is_ours,
            overwrite=settings.overwrite,
            overwrite_hint=f"{ANOTHER_OUTPUT}, or pass --overwrite",
        )


# --- reading --------------------------------------------------------------------------------------------------------


def read_pairs(settings: Settings, catalog: Catalog, workers: Workers) -> None:
    """Bring the catalog up to date with the folder."""

    def read(batches: Iterator[list[Pair]]) -> Iterator[tuple[Sequence[Pair], list[Scanned | str]]]:
        return workers.map(partial(scan_pairs, settings.folder), batches, CRASHED)

    catalog.list_folder(settings.recursive, posts_in(settings.metadata) if settings.metadata else None)
    unread = catalog.unread()
    with tqdm(total=unread, desc="reading", unit="pair", dynamic_ncols=True, disable=not unread) as bar:
        for done in catalog.scan(read):
            bar.update(done)


def posts_in(tables: Sequence[Path]) -> Iterator[Posts]:
    """The rows of tables of posts, with a bar that counts them."""
    with tqdm(desc="looking up", unit="post", unit_scale=True, dynamic_ncols=True) as bar:
        for posts in chain.from_iterable(map(read_posts, tables)):
            yield posts
            bar.update(len(posts))


# --- tags -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tagging:
    """The labels, and the reader that made names of what is written beside the images."""

    labels: Labels
    reader: NamespaceReader


def vocabulary_to_itself(settings: Settings) -> AbstractContextManager[None]:
    """Have the CSV to oneself while tags are added: another run would otherwise give the same rows to others."""
    if settings.min_count is None:
        return nullcontext()
    return files.locked(files.lock_of(settings.tags_csv), "wait for it, or name another --tags-csv", wait=True)


def assign(
    catalog: Catalog, categories: Mapping[str, Category], aliases: Mapping[str, str], settings: Settings
) -> Tagging:
    """Read the tags of all pairs in whatever spelling they have, and give labels to those that the CSV lacks.

    Args:
        categories: by tag, from the dataset's tag_categories.csv.
        aliases: the next name by old name.
    """
    vocabulary = read_vocabulary(settings.tags_csv)
    canonical = canonical_names(aliases, vocabulary.index)
    categories = under_canonical_names(categories, canonical)
    reader = NamespaceReader({**vocabulary.index, **categories}, canonical)
    counts = catalog.tag_counts(reader.name)
    known = {**reader.categories, **categories}
    return Tagging(assign_labels(counts, vocabulary, known, settings.min_count), reader)


def extend_csv(tagging: Tagging, left_out: int, settings: Settings) -> None:
    """Append the new tags to the vocabulary, and say before and after what became of the tags that it lacked.

    Args:
        left_out: uses of what is no tag, in all pairs.
    """
    labels, csv_path = tagging.labels, settings.tags_csv
    if weights := tagging.reader.weights_in_words():
        cli.warn(f"{weights}; the weights were left out")
    if renamed := tagging.reader.renamed_in_words():
        cli.warn(f"{settings.aliases}: {renamed}")
    if labels.new:
        warn_of_new_tags(tagging, before_path(csv_path))
        kept = keep_before(csv_path)
        append_to_vocabulary(csv_path, labels.new)
        new = counted(len(labels.new), "new tag")
        print(f"{csv_path}: {new} appended; {kept} is the version before", file=sys.stderr)
    if unknown := labels.unknown:
        uses = counted(sum(labels.counts[name] for name in unknown), "use")
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        named = ", ".join(unknown[:NAMED]) + more
        are = "tag is" if len(unknown) == 1 else "tags are"
        cli.warn(f"{len(unknown):,} {are} not in {csv_path} ({uses}): {named}; see {UNKNOWN_TAGS_FILE}")
    if left_out:
        tags = counted(left_out, "tag")
        cli.warn(f"warning: {tags} left out, for being endless or having invisible characters or commas in them")


def warn_of_new_tags(tagging: Tagging, kept: Path) -> None:
    """Say which new tags are probably none, before the vocabulary has them for good.

    Args:
        kept: where the version without them will be.
    """
    labels = tagging.labels
    advice = f"if so, correct the txt files, put {kept} back in its place, and run this again"
    if labels.misspelt:
        words = lookalikes_in_words(labels.misspelt, labels.counts)
        cli.warn(f"warning: new tags that may be known ones misspelt: {words}; {advice}")
    new = dict(labels.new)
    if joined := {name: written for written, name in tagging.reader.names.items() if " " in written and name in new}:
        name, written = next(iter(joined.items()))
        cli.warn(
            f"warning: {counted(len(joined), 'new tag')} written with blanks, such as {written!r} for {name}; where "
            f"blanks separate tags, replace_blanks.py divides them: {advice}"
        )


# --- shards ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """The shards of train and of val; those of both that are still to write; and the files that are out of date."""

    train: Sequence[Shard]
    val: Sequence[Shard]
    todo: Sequence[Shard]
    stale: Sequence[Path]


def choose_shards(catalog: Catalog, tagging: Tagging, settings: Settings) -> Layout:
    """Divide the pictures among shards, and see what earlier runs wrote of these.

    Raises:
        UserError: no pair is usable, none is left for training, or what stands there was made of something else and may
            not be overwritten.
    """
    count = catalog.put_in_order(tagging.labels.vocabulary.index, tagging.reader.name, settings.seed)
    if not count:
        raise nothing_usable(catalog, settings)
    train, val = lay_out(
        catalog,
        settings.output,
        split_ratio=settings.split_ratio,
        num_shards=settings.num_shards,
        made_of=settings.made_of,
    )
    if not sum(map(len, train)):
        ratio = f"--split-ratio {settings.split_ratio:g} of {counted(count, 'usable image')}"
        raise UserError(f"{settings.folder}: {ratio} leaves no image for training; pass a higher one")
    todo, stale = compare([*train, *val], settings.output)
    if stale and not settings.overwrite:
        path, change = next(iter(stale.items()))
        affected = f"what is affected ({counted(len(stale), 'file')}) from {settings.folder}"
        hint = f"pass --overwrite to write anew {affected}, or name another --dataset-folder or --output-path"
        raise UserError(f"{path}: {change}; {hint}")
    return Layout(train, val, todo, list(stale))


def nothing_usable(catalog: Catalog, settings: Settings) -> UserError:
    """The error for a dataset without a usable pair; says before what is wrong with each, and writes it down."""
    if not catalog.images():
        hint = "fetch some pairs with simple_dan_crawl.py, or name another --dataset-folder"
        return UserError(f"{settings.folder}: no images in it; {hint}")
    path = settings.output / SKIPPED_FILE
    images = counted(write_skipped(path, catalog.problems()), "image")
    hint = f"correct the reasons above and in {path}, or name another --dataset-folder"
    return UserError(f"{settings.folder}: no usable pair among {images}; {hint}")


def with_damaged_ones(layout: Layout, workers: Workers) -> Layout:
    """Check every record of the finished shards; the layout with damaged ones among those that are to be written."""
    wanted = [*layout.train, *layout.val]
    rewritten = {shard.path for shard in layout.todo}
    finished = [[shard.path] for shard in wanted if shard.path not in rewritten]
    with tqdm(total=len(finished), desc="verifying", unit="shard", dynamic_ncols=True, disable=not finished) as bar:
        for (path,), (reason,) in workers.map(find_damage, finished, CRASHED):
            if reason:
                cli.warn(f"{path}: {reason}; it is written again")
                rewritten.add(path)
            bar.update()
    return replace(layout, todo=[shard for shard in wanted if shard.path in rewritten])


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


# --- what is written last -------------------------------------------------------------------------------------------


def finish(layout: Layout, labels: Labels, catalog: Catalog, settings: Settings) -> tuple[About, int]:
    """Account for every image and write what surrounds the shards; the number of images that were left out.

    aibooru.json comes last: with it the folder is finished.

    Raises:
        UserError: no image of the train split can be decoded, or the numbers do not add up.
    """
    output = settings.output
    train, val = read_all_stats(layout.train), read_all_stats(layout.val)
    undecodable = chain.from_iterable(stats.skipped for stats in (*train, *val))
    skipped = write_skipped(output / SKIPPED_FILE, chain(catalog.problems(), undecodable))
    written = [sum(stats.records for stats in split) for split in (train, val)]
    if (found := catalog.images()) != sum(written) + skipped:
        raise UserError(f"{output}: {found} images, but {written} written and {skipped} left out; report this, please")
    if not written[0]:
        skipped_file = output / SKIPPED_FILE
        raise UserError(f"{settings.folder}: no image of the train split can be decoded; {skipped_file} says why")
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


def report(about: About, skipped: int, catalog: Catalog, settings: Settings) -> int:
    """Say what is odd about the dataset, what of the folder was not read, and what was made of it.

    Returns:
        The number of pictures that were left out, those in formats that are not read here among them.
    """
    alone, first = catalog.txt_without_image()
    if alone:
        txt = f"{counted(alone, 'txt file')} {'has' if alone == 1 else 'have'}"
        cli.warn(f"warning: {txt} no image ({', '.join(IMAGE_SUFFIXES)}) of that name, such as {first}")
    if twice := catalog.labelled_twice():
        cli.warn(f"warning: {twice}")
    pictures = Counter({suffix: catalog.others[suffix] for suffix in OTHER_IMAGE_SUFFIXES if catalog.others[suffix]})
    if pictures:
        advice = "pictures in formats that are not read here; convert them to png or jpg"
        cli.warn(f"left out: {in_words(pictures)}: {advice}")
    if others := catalog.others - pictures:
        cli.warn(f"{settings.folder}: not read, for being neither pictures nor files with tags: {in_words(others)}")
    if equal := catalog.equal_pictures():
        equals = f"{counted(equal, 'image')} {'equals' if equal == 1 else 'equal'}"
        print(f"{settings.folder}: {equals} another one; equal ones are all in train or all in val", file=sys.stderr)
    written = f"{about.train_samples:,} train + {counted(about.val_samples, 'val image')}"
    left_out = skipped + pictures.total()
    print(f"{settings.output}: {written}, {counted(about.num_classes, 'tag')}, {left_out:,} left out")
    return left_out


def in_words(others: Counter[str]) -> str:
    """What Catalog.others counts: `2 .md, 1 folder, 1 without a suffix`."""
    rows = sorted(others.items(), key=lambda row: (-row[1], row[0]))
    parts = [
        counted(count, "folder") if suffix == "/" else f"{count:,} {printable(suffix) or 'without a suffix'}"
        for suffix, count in rows[:SHOWN]
    ]
    more = sum(count for _, count in rows[SHOWN:])
    return ", ".join(parts) + (f" and {more:,} others" if more else "")


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    settings = make_settings(parse_arguments(argv))
    categories = check_input(settings)
    aliases = read_aliases(settings.aliases, ALIASES_HINT) if settings.aliases else {}
    check_output(settings)
    try:
        with (
            files.locked_folder(settings.output, f"wait for it, or {ANOTHER_OUTPUT}"),
            opened_catalog(settings.output / CATALOG_FILE, settings.folder) as catalog,
            Workers(settings.workers) as workers,
        ):
            read_pairs(settings, catalog, workers)
            with vocabulary_to_itself(settings):
                tagging = assign(catalog, categories, aliases, settings)
                layout = choose_shards(catalog, tagging, settings)
                # Nothing of the user's was changed so far. From here on a run that is stopped goes on when repeated.
                extend_csv(tagging, catalog.tags_left_out(), settings)
            if settings.verify:
                layout = with_damaged_ones(layout, workers)
            write_shards(layout, catalog, settings, workers)
            about, skipped = finish(layout, tagging.labels, catalog, settings)
            left_out = report(about, skipped, catalog, settings)
            complete = not left_out and not catalog.tags_left_out()
    except UnusableOutput as error:
        raise UserError(f"{error}, or {ANOTHER_OUTPUT}") from None
    if complete:
        return cli.DONE
    return cli.UNUSABLE if settings.strict else cli.INCOMPLETE


if __name__ == "__main__":
    sys.exit(main())
