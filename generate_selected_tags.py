"""Make or extend a vocabulary (selected_tags.csv), from the tags of a dataset or from Danbooru's own list.

    python generate_selected_tags.py --dataset-folder ./dataset --output-csv ./selected_tags.csv
    python generate_selected_tags.py --from-danbooru --tag-categories artist --append-to ./selected_tags.csv
    python generate_selected_tags.py --from-danbooru --implications --aliases

Ratings come first, then all other tags by falling frequency. Row number = label index of a model, so decide on the
vocabulary before training; later it can only grow at its end. What a dataset's tag_categories.csv (written by
simple_dan_crawl.py --categories …) or --categories-from does not know is general (0): edit that column by hand.
"""

from tagger import cli  # first, so that an interrupt while the others are imported is one line

# isort: split

import functools
import sys
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from tagger import files
from tagger.cli import counted
from tagger.crawl.client import BURST, Connection, SettingNames, site_address
from tagger.crawl.danbooru import API_KEY_VARIABLE, HOME, LOGIN_VARIABLE, MAX_RATE, RELATION_QUERY, Danbooru
from tagger.files import UserError, read_json, write_csv, write_json
from tagger.formats.namespaces import NamespaceReader
from tagger.formats.pairs import CAPTION_SUFFIX, folders_of
from tagger.formats.post_tables import check_table, read_posts
from tagger.formats.tag_lists import is_usable, lookalikes, lookalikes_in_words, parse_tags, tag_files, usable_tags
from tagger.formats.tag_relations import (
    ALIAS_COLUMNS,
    ALIASES_FILE,
    IMPLICATION_COLUMNS,
    IMPLICATIONS_FILE,
    aliases_beside,
    canonical_names,
    read_aliases,
    read_implications,
    under_canonical_names,
)
from tagger.formats.vocabulary import (
    CATEGORIES_FILE,
    CATEGORY_NUMBERS,
    CHARACTER,
    GENERAL,
    RATING,
    RATINGS,
    VOCABULARY_FILE,
    WD_COLUMNS,
    Category,
    append_to_vocabulary,
    before_path,
    categories_in,
    category_name,
    check_may_grow,
    keep_before,
    read_categories,
    read_vocabulary,
)
from tagger.tfrecord.catalog import CATALOG_FILE, opened_catalog
from tagger.tfrecord.pairs import read_tags_of
from tagger.tfrecord.sources.found import Member

FIRST_RATING_ID = 9999999  # what WD v3 gives `general`; the other ratings count down from it
RATING_NAMES = tuple(RATINGS.values())
SHIPPED_VOCABULARY = Path(__file__).with_name(VOCABULARY_FILE)
ALIASES_HINT = "correct it, or name another with --tag-aliases"
NO_PAIRS = "fetch some pairs with simple_dan_crawl.py, or name another --dataset-folder"
FLAGS = SettingNames(
    base_url="--base-url", rate="--rate", login="--login", api_key="--api-key", query="--tag-categories"
)


@dataclass(frozen=True)
class Relation:
    """A list of Danbooru's that ties two tags together a row.

    Attributes:
        file: that it is written to.
        columns: of the file.
        noun: what a row is.
        rows: the pages of the list from a position on, see Danbooru.implications.
        check: given a file and the end of an error, refuses what is no such file.
    """

    file: str
    columns: tuple[str, str]
    noun: str
    rows: Callable[[Danbooru, str], Iterable[tuple[Sequence[Sequence[Any]], str]]]
    check: Callable[[Path, str], object]


IMPLICATIONS = Relation(IMPLICATIONS_FILE, IMPLICATION_COLUMNS, "implication", Danbooru.implications, read_implications)
ALIASES = Relation(ALIASES_FILE, ALIAS_COLUMNS, "old name", Danbooru.aliases, read_aliases)


@dataclass(frozen=True)
class DatasetSource:
    """The tags of a dataset's pictures.

    Attributes:
        folder: of the pictures, with their tags beside them.
        recursive: also those of the folders below it.
        metadata: tables of posts that have the tags of pictures.
        min_count: tags with fewer uses are left out.
        categories_from: a vocabulary that knows categories better than the folder's tag_categories.csv.
        aliases: a file of old names, or None.
    """

    folder: Path
    recursive: bool
    metadata: Sequence[Path]
    min_count: int
    categories_from: Path | None
    aliases: Path | None


@dataclass(frozen=True)
class DanbooruSource:
    """Danbooru's list of tags: those of some categories that at least `min_posts` posts have; or else its relations."""

    connection: Connection
    categories: tuple[int, ...]
    min_posts: int
    relations: tuple[Relation, ...]


@dataclass(frozen=True)
class Output:
    """What to write.

    Attributes:
        path: of the CSV.
        append: add to the end of a CSV that stands; its columns stay as they are.
        overwrite: replace a CSV that stands.
        columns: those of a new CSV, of WD_COLUMNS.
        wd_order: WD v3's order, without artists.
    """

    path: Path
    append: bool
    overwrite: bool
    columns: tuple[str, ...]
    wd_order: bool

    @property
    def progress(self) -> Path:
        """What an interrupted listing of Danbooru's tags keeps."""
        return progress_of(self.path)

    def beside(self, name: str) -> Path:
        """A file that belongs to the CSV."""
        return self.path.with_name(name)


def progress_of(path: Path) -> Path:
    """What an interrupted listing keeps beside the CSV that it is for."""
    return path.with_name(f".{path.name}.danbooru.json")


def parse_arguments(argv: Sequence[str] | None) -> Namespace:
    parser = cli.ArgumentParser(doc=__doc__ or "")
    dataset = parser.add_argument_group("from a dataset")
    dataset.add_argument(
        "--dataset-folder",
        type=Path,
        default=Path("dataset"),
        help="images, with their tags beside them, or tars of these",
    )
    dataset.add_argument("--recursive", action="store_true", help="those in the folders below, too")
    dataset.add_argument(
        "--metadata",
        type=Path,
        nargs="+",
        default=(),
        metavar="FILE",
        help="parquet, jsonl or csv with the tags of posts; pictures are called after the post's id or MD5",
    )
    dataset.add_argument("--min-count", type=cli.positive_int, default=1, help="leave out tags with fewer uses")
    dataset.add_argument(
        "--categories-from",
        type=Path,
        metavar="CSV",
        help="take categories from this vocabulary, before those of tag_categories.csv",
    )
    dataset.add_argument(
        "--tag-aliases",
        type=Path,
        metavar="CSV",
        help=f"read old names as today's, by this file (default: {ALIASES_FILE} beside the CSV, where there is one)",
    )
    danbooru = parser.add_argument_group("from Danbooru")
    danbooru.add_argument(
        "--from-danbooru",
        action="store_true",
        help="list the site's tags instead of a dataset's; run it again to go on after an interruption",
    )
    danbooru.add_argument(
        "--tag-categories",
        type=tag_categories,
        default="general,character,artist",
        metavar="NAMES",
        help="which tags to list; there are also copyright and meta",
    )
    danbooru.add_argument(
        "--implications",
        action="store_true",
        help=f"write {IMPLICATIONS_FILE} beside the CSV instead, for captions: which tags imply which",
    )
    danbooru.add_argument(
        "--aliases",
        action="store_true",
        help=f"write {ALIASES_FILE} beside the CSV instead: old names of tags, and today's",
    )
    danbooru.add_argument("--min-posts", type=cli.positive_int, default=50, help="leave out tags with fewer posts")
    danbooru.add_argument("--base-url", type=site_address, default=HOME, help="the site")
    danbooru.add_argument(
        "--rate",
        type=cli.positive_float,
        default=1.0,
        help=f"requests a second after a burst of {BURST}; at most {MAX_RATE:.0f} for Danbooru itself",
    )
    danbooru.add_argument("--login", help=f"Danbooru user name (default: the variable {LOGIN_VARIABLE})")
    danbooru.add_argument(
        "--api-key",
        help=f"of your Danbooru profile; better set the variable {API_KEY_VARIABLE}, which no process list shows",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--output-csv", type=cli.file_path, default=Path(VOCABULARY_FILE), help="the CSV to write")
    output.add_argument(
        "--overwrite", action="store_true", help="replace an existing CSV; the version before is kept as X.before.csv"
    )
    output.add_argument(
        "--append-to",
        type=cli.file_path,
        metavar="CSV",
        help="add what it lacks to the end of this CSV instead; its rows stay as they are",
    )
    output.add_argument("--with-count", action="store_true", help="write a column count as well")
    output.add_argument(
        "--format",
        choices=("ours", "wd"),
        default="ours",
        help="wd: tag_id,name,category,count in WD v3's order, no other kinds, for tools that read by position",
    )
    arguments = parser.parse_args(argv)
    for flag, is_asked_for in (("--implications", arguments.implications), ("--aliases", arguments.aliases)):
        if is_asked_for and not arguments.from_danbooru:
            parser.error(f"{flag} are Danbooru's: pass --from-danbooru, too")
    if arguments.append_to and (arguments.format == "wd" or arguments.with_count or arguments.overwrite):
        parser.error(
            "--append-to keeps the columns and the order of its CSV: leave out --format, --with-count and --overwrite"
        )
    return arguments


def tag_categories(text: str) -> tuple[int, ...]:
    """An argparse type: the numbers of categories whose names are separated by commas."""
    known = {name: number for name, number in CATEGORY_NUMBERS.items() if number != RATING}
    if not (chosen := parse_tags(text)) or set(chosen) - known.keys():
        raise cli.ArgumentTypeError(f"{text!r}: choose from {', '.join(known)}")
    return tuple(known[name] for name in chosen)


def make_settings(arguments: Namespace) -> tuple[DatasetSource | DanbooruSource, Output]:
    path: Path = arguments.append_to or arguments.output_csv
    source: DatasetSource | DanbooruSource
    if arguments.from_danbooru:
        connection = Connection(
            arguments.base_url, arguments.rate, login=arguments.login, api_key=arguments.api_key, names=FLAGS
        )
        asked_for = ((IMPLICATIONS, arguments.implications), (ALIASES, arguments.aliases))
        relations = tuple(relation for relation, is_asked_for in asked_for if is_asked_for)
        source = DanbooruSource(connection, arguments.tag_categories, arguments.min_posts, relations)
    else:
        source = DatasetSource(
            folder=arguments.dataset_folder,
            recursive=arguments.recursive,
            metadata=arguments.metadata,
            min_count=arguments.min_count,
            categories_from=arguments.categories_from,
            aliases=arguments.tag_aliases or aliases_beside(path),
        )
    columns = WD_COLUMNS if arguments.format == "wd" else WD_COLUMNS[1:] if arguments.with_count else WD_COLUMNS[1:3]
    output = Output(
        path=path,
        append=arguments.append_to is not None,
        overwrite=arguments.overwrite,
        columns=columns,
        wd_order=arguments.format == "wd",
    )
    return source, output


# --- sources of tags: tables with the columns of WD_COLUMNS ---------------------------------------------------------


@dataclass
class Found:
    """What a source holds.

    Attributes:
        table: the tags, with the columns of WD_COLUMNS.
        problems: a line for each file that could not be read.
        left_out: how many uses there were of what cannot be a tag.
        weights, renamed: a sentence on tags with weights, and on those that have another name; or nothing.
        certain: the tags that cannot be misspelt: those of a list of tags, of which the categories are known.
    """

    table: pd.DataFrame
    problems: list[str] = field(default_factory=list)
    left_out: int = 0
    weights: str = ""
    renamed: str = ""
    certain: frozenset[str] = frozenset()


def read_dataset(source: DatasetSource, standing: Iterable[str]) -> Found:
    """The tags of a dataset and the ratings, with their uses.

    Args:
        standing: the names of the vocabulary that is to be extended, which the tags are spelt like.
    """
    standing = set(standing)
    aliases = read_aliases(source.aliases, ALIASES_HINT) if source.aliases else {}
    counts: Counter[str] = Counter(dict.fromkeys(RATING_NAMES, 0))
    canonical = canonical_names(aliases, standing)
    known = under_canonical_names(known_categories(source), canonical)
    reader = NamespaceReader(known.keys() | standing, canonical)
    problems, left_out = [], 0
    for written in tqdm(tag_lists(source), desc="reading", unit="list", dynamic_ncols=True):
        if isinstance(written, UserError):
            problems.append(str(written))
            continue
        usable = usable_tags(written)
        left_out += len(written) - len(usable)
        counts.update(set(map(reader.name, usable)))
    known = {**reader.categories, **known}
    rows = [(rating_id(name), name, known.get(name, GENERAL), count) for name, count in counts.items()]
    table = pd.DataFrame(rows, columns=WD_COLUMNS)
    # A model needs all four ratings, also where a dataset lacks one.
    table = table[(table["count"] >= source.min_count) | (table["category"] == RATING)]
    renamed = f"{source.aliases}: {reader.renamed_in_words()}" if reader.renamed else ""
    return Found(table, problems, left_out, reader.weights_in_words(), renamed, frozenset(known))


def tag_lists(source: DatasetSource) -> Iterator[list[str] | UserError]:
    """The tags of each picture as they are written, or why they cannot be read; where there is no picture, of each txt.

    Raises:
        UserError: there is no such folder, or nothing with tags in it.
    """
    if not source.folder.is_dir():
        raise UserError(f"{source.folder}: no such folder; {NO_PAIRS}")
    with (
        tempfile.TemporaryDirectory() as temporary,
        opened_catalog(Path(temporary, CATALOG_FILE), source.folder) as catalog,
    ):
        posts = chain.from_iterable(map(read_posts, source.metadata))
        catalog.list_folder(source.recursive, posts if source.metadata else None)
        if not catalog.has_labels():
            txts = tag_files(source.folder, NO_PAIRS, source.recursive)
            yield from (read_list(path.parent, path.name) for path in txts)
            return
        others, _ = catalog.txt_without_image()
        if others:
            cli.warn(f"{counted(others, 'txt file')} without a picture of that name: not read")
        if twice := catalog.labelled_twice():
            cli.warn(f"warning: {twice}")
        yield from (read_list(source.folder, name, member) for name, member in catalog.labels())
        yield from catalog.described()


def read_list(folder: Path, name: str, member: Member | None = None) -> list[str] | UserError:
    """The tags in a file of a folder, or in a member of a tar there; or why they cannot be read."""
    try:
        return read_tags_of(folder, name, member)
    except UserError as error:
        return error


def known_categories(source: DatasetSource) -> dict[str, Category]:
    """Category by tag; a tag that is not in it is general."""
    known = categories_in(folders_of(source.folder, source.recursive))
    if source.categories_from:
        known |= read_categories(source.categories_from)
    return known | dict.fromkeys(RATING_NAMES, RATING)


def read_danbooru(source: DanbooruSource, progress: Path) -> Found:
    """Tags of Danbooru's list, and the ratings.

    Args:
        progress: a file that keeps what was listed so far, so that a run that was killed can go on.

    Raises:
        UserError: the server refuses or does not recover.
    """
    site = Danbooru(source.connection)
    identity = {"base_url": site.client.base_url, "query": site.tag_query(source.categories, source.min_posts)}
    list_from = functools.partial(site.tags, source.categories, source.min_posts)
    rows = list_resumably(list_from, identity, progress, "tag")
    ratings = [[rating_id(name), name, RATING, 0] for name in RATING_NAMES]
    table = pd.DataFrame(ratings + rows, columns=WD_COLUMNS)
    usable = table["name"].map(is_usable)
    return Found(table[usable], left_out=int((~usable).sum()), certain=frozenset(table["name"]))


def write_relation(source: DanbooruSource, relation: Relation, path: Path) -> str:
    """Write one of Danbooru's relations, by name; what was done, in one line. An earlier file of it is replaced.

    Raises:
        UserError: something else stands there, or cannot be written; the server refuses or does not recover.
    """
    files.check_writable(path.parent, "name a CSV in another folder with --output-csv")
    if path.exists():
        relation.check(path, f"it is no file of {relation.noun}s, and would be replaced; move it")
    site = Danbooru(source.connection)
    progress = progress_of(path)
    identity = {"base_url": site.client.base_url, "query": RELATION_QUERY}
    rows = list_resumably(functools.partial(relation.rows, site), identity, progress, relation.noun)
    pairs = sorted(set(map(tuple, rows)))
    write_csv(path, relation.columns, pairs)
    progress.unlink(missing_ok=True)  # only now: until the CSV stands, a killed run goes on from it
    return f"{path}: {counted(len(pairs), relation.noun)}"


def list_resumably(
    list_from: Callable[[str], Iterable[tuple[Sequence[Sequence[Any]], str]]],
    identity: Mapping[str, Any],
    progress: Path,
    unit: str,
) -> list[list[Any]]:
    """All rows of a listing; what a run that was killed had of it is not asked for again.

    Args:
        list_from: the pages from a position on, each with the position behind it.
        identity: what is asked for, and where.
        progress: a file that keeps what was listed so far.
        unit: what a row is.

    Raises:
        UserError: the server refuses or does not recover, or the file is damaged.
    """
    rows, start = read_progress(progress, identity)
    with tqdm(desc="listing", initial=len(rows), unit=unit, dynamic_ncols=True) as bar:
        for found, position in list_from(start):
            rows += map(list, found)
            bar.update(len(found))
            write_json(progress, {**identity, "position": position, "rows": rows})
    return rows


def read_progress(path: Path, identity: Mapping[str, Any]) -> tuple[list[list[Any]], str]:
    """The rows that an interrupted listing has, and where it goes on; nothing where it asked for something else."""
    hint = "remove it to begin the list anew"
    kept = read_json(path, hint) if path.exists() else {}
    if {key: kept.get(key) for key in identity} != identity:
        return [], ""
    rows, position = kept.get("rows"), kept.get("position")
    if not isinstance(rows, list) or not isinstance(position, str):
        raise UserError(f"{path}: no rows or no position in it; {hint}")
    return rows, position


def rating_id(name: str) -> int:
    """WD v3's tag_id of a rating; 0 for a tag whose id on Danbooru is not known."""
    return FIRST_RATING_ID - RATING_NAMES.index(name) if name in RATING_NAMES else 0


# --- output ---------------------------------------------------------------------------------------------------------


def in_label_order(table: pd.DataFrame, wd_order: bool) -> pd.DataFrame:
    """Rows in the order of label indices: the four ratings, then by falling count, ties by name.

    Args:
        wd_order: general tags come before characters, and all other kinds are left out.
    """
    wd_groups = {RATING: 0, GENERAL: 1, CHARACTER: 2}
    if wd_order:
        table = table[table["category"].isin(list(wd_groups))]
    keys = table.assign(group=table["category"].map(wd_groups if wd_order else lambda category: category != RATING))
    ratings = keys["category"] == RATING
    keys.loc[ratings, "count"] = keys.loc[ratings, "tag_id"]  # general, sensitive, questionable, explicit
    return table.loc[keys.sort_values(["group", "count", "name"], ascending=[True, False, True]).index]


def check_output(source: DatasetSource | DanbooruSource, output: Output) -> Sequence[str]:
    """Refuse a CSV that cannot be extended or must not be replaced, before the long work.

    Returns:
        The names in the CSV that is to be extended.

    Raises:
        UserError: the message says why.
    """
    path = output.path
    if output.append:
        vocabulary = read_vocabulary(path, "name another CSV with --append-to")
        hint = "copy it, and name the copy with --append-to"
        check_may_grow(path, vocabulary, hint)
        files.check_writable(path.parent, hint)
        return vocabulary.names
    hint = "name another file with --output-csv"
    if path.resolve() == SHIPPED_VOCABULARY.resolve():  # a file of the toolkit, which is there to be replaced
        files.check_writable(path.parent, hint)
    else:
        files.check_output(path, hint=hint, inputs=inputs(source, path), overwrite=True)
    if path.exists() and not output.overwrite:
        origin = ["--from-danbooru"] if isinstance(source, DanbooruSource) else ["--dataset-folder", str(source.folder)]
        alone = cli.command_line(["generate_selected_tags.py", *origin, "--output-csv", "my_tags.csv"])
        together = cli.command_line(["generate_selected_tags.py", *origin, "--append-to", str(path)])
        raise UserError(
            f"{path}: exists, and may hold categories edited by hand; for these tags alone, run {alone}; "
            f"to add them to the tags that are there, {together}; or pass --overwrite to replace it"
        )
    return ()


def inputs(source: DatasetSource | DanbooruSource, output: Path) -> list[Path]:
    """The files that are read of a dataset, which a CSV must not replace."""
    if isinstance(source, DanbooruSource):
        return []
    is_tag_list = output.suffix == CAPTION_SUFFIX and output.absolute().parent == source.folder.absolute()
    read = [source.folder / CATEGORIES_FILE, *([source.aliases] if source.aliases else [])]
    return [*read, *([output] if is_tag_list else [])]


def write_new(output: Output, table: pd.DataFrame) -> str:
    """Write a new CSV, and keep the one that it replaces; what is in it, in one line."""
    before = f"; {keep_before(output.path)} is the version before" if output.path.exists() else ""
    write_csv(output.path, output.columns, table[list(output.columns)].itertuples(index=False))
    numbers = Counter(category_name(category) for category in table["category"])
    by_category = ", ".join(f"{n:,} {name}" for name, n in numbers.items())
    return f"{output.path}: {counted(len(table), 'tag')}: {by_category}{before}"


def append_missing(path: Path, table: pd.DataFrame, certain: frozenset[str]) -> str:
    """Add the tags that a CSV lacks to its end, and keep the version before; what was done, in one line.

    Args:
        certain: tags that are not misspelt.
    """
    index = read_vocabulary(path).index
    uses = dict(zip(table["name"], table["count"], strict=True))
    tags: Iterable[tuple[str, Category]] = zip(table["name"], table["category"], strict=True)
    new = [(name, category) for name, category in tags if name not in index]
    if misspelt := lookalikes([name for name, _ in new if name not in certain], index):
        cli.warn(
            f"warning: new tags that may be known ones misspelt: {lookalikes_in_words(misspelt, uses)}; if so, correct "
            f"the txt files, put {before_path(path)} back in its place, and run this again"
        )
    before = ""
    if new:
        before = f"; {keep_before(path)} is the version before"
        append_to_vocabulary(path, new)
    return f"{path}: {counted(len(new), 'tag')} added, {len(index) + len(new):,} in all{before}"


def write(output: Output, found: Found) -> str:
    """Write or extend the CSV; what was done, in one line."""
    table = in_label_order(found.table, output.wd_order)
    if not output.path.exists():
        return write_new(output, table)
    # A run that appends tags at the same time, of this script or of create_tfrecord.py, would lose them, or lose ours.
    with files.locked(files.lock_of(output.path), "wait for it, or name another CSV", wait=True):
        return append_missing(output.path, table, found.certain) if output.append else write_new(output, table)


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    source, output = make_settings(parse_arguments(argv))
    if isinstance(source, DanbooruSource) and source.relations:
        for relation in source.relations:
            print(write_relation(source, relation, output.beside(relation.file)))
        return cli.DONE
    standing = check_output(source, output)
    for path in source.metadata if isinstance(source, DatasetSource) else ():
        check_table(path)
    if isinstance(source, DanbooruSource):
        found = read_danbooru(source, output.progress)
    else:
        found = read_dataset(source, standing)
    for problem in found.problems:
        cli.warn(f"left out: {problem}")
    if found.renamed:
        cli.warn(found.renamed)
    if found.weights:
        cli.warn(f"{found.weights}; the weights were left out")
    if found.left_out:
        tags = counted(found.left_out, "tag")
        cli.warn(f"warning: {tags} left out, for being endless or having invisible characters or commas in them")
    print(write(output, found))
    output.progress.unlink(missing_ok=True)  # only now: until the CSV stands, a killed run goes on from it
    return cli.INCOMPLETE if found.problems or found.left_out else cli.DONE


if __name__ == "__main__":
    sys.exit(main())
