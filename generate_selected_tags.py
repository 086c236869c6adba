"""Make or extend a vocabulary (selected_tags.csv), from the tags of a dataset or from Danbooru's own list.

    python generate_selected_tags.py --dataset-folder ./dataset --output-csv ./selected_tags.csv
    python generate_selected_tags.py --from-danbooru --tag-categories artist --append-to ./selected_tags.csv

Ratings come first, then all other tags by falling frequency. Row number = label index of a model, so decide on the
vocabulary before training; later it can only grow at its end. What a dataset's tag_categories.csv (written by
simple_dan_crawl.py --categories …) or --categories-from does not know is general (0): edit that column by hand.
"""

from tagger import cli  # first, so that an interrupt while the others are imported is one line
from tagger.files import check_writable, lock_of, locked, write_bytes
from tagger.formats.tag_lists import TagReader, is_usable

# isort: split

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from tagger.crawl.client import BURST, Connection, SettingNames, site_address
from tagger.crawl.danbooru import API_KEY_VARIABLE, HOME, LOGIN_VARIABLE, MAX_RATE, Danbooru
from tagger.files import UserError, read_json, write_csv, write_json
from tagger.formats.tag_lists import parse_tags, read_tags, tag_files
from tagger.formats.vocabulary import (
    ARTIST,
    CATEGORIES_FILE,
    CATEGORY_NAMES,
    CATEGORY_NUMBERS,
    CHARACTER,
    GENERAL,
    RATING,
    RATINGS,
    WD_COLUMNS,
    append_to_vocabulary,
    read_categories,
    read_vocabulary,
)

FIRST_RATING_ID = 9999999  # what WD v3 gives `general`; the other ratings count down from it
RATING_NAMES = tuple(RATINGS.values())
NO_PAIRS = "fetch some pairs with simple_dan_crawl.py, or name another --dataset-folder"
FLAGS = SettingNames(
    base_url="--base-url", rate="--rate", login="--login", api_key="--api-key", query="--tag-categories"
)


@dataclass(frozen=True)
class DatasetSource:
    """The tags of a dataset's txt files.

    Attributes:
        folder: of the pairs.
        min_count: tags with fewer uses are left out.
        categories_from: a vocabulary that knows categories better than the folder's tag_categories.csv.
    """

    folder: Path
    min_count: int
    categories_from: Path | None


@dataclass(frozen=True)
class DanbooruSource:
    """The tags of Danbooru's list: those of some categories that at least `min_posts` posts have."""

    connection: Connection
    categories: tuple[int, ...]
    min_posts: int


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
        return self.path.with_name(f".{self.path.name}.danbooru.json")


def parse_arguments(argv: Sequence[str] | None) -> Namespace:
    parser = cli.ArgumentParser(doc=__doc__ or "")
    dataset = parser.add_argument_group("from a dataset")
    dataset.add_argument("--dataset-folder", type=Path, default=Path("dataset"), help="folder with image + txt pairs")
    dataset.add_argument("--min-count", type=cli.positive_int, default=1, help="leave out tags with fewer uses")
    dataset.add_argument(
        "--categories-from",
        type=Path,
        metavar="CSV",
        help="take categories from this vocabulary, before those of tag_categories.csv",
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
        help="which tags to list",
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
    output.add_argument("--output-csv", type=Path, default=Path("selected_tags.csv"), help="the CSV to write")
    output.add_argument("--overwrite", action="store_true", help="replace an existing CSV")
    output.add_argument(
        "--append-to",
        type=Path,
        metavar="CSV",
        help="add what it lacks to the end of this CSV instead; its rows stay as they are",
    )
    output.add_argument("--with-count", action="store_true", help="write a column count as well")
    output.add_argument(
        "--format",
        choices=("ours", "wd"),
        default="ours",
        help="wd: tag_id,name,category,count in WD v3's order, artists left out, for tools that read by position",
    )
    arguments = parser.parse_args(argv)
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
    source: DatasetSource | DanbooruSource
    if arguments.from_danbooru:
        connection = Connection(
            arguments.base_url, arguments.rate, login=arguments.login, api_key=arguments.api_key, names=FLAGS
        )
        source = DanbooruSource(connection, arguments.tag_categories, arguments.min_posts)
    else:
        source = DatasetSource(arguments.dataset_folder, arguments.min_count, arguments.categories_from)
    columns = WD_COLUMNS if arguments.format == "wd" else WD_COLUMNS[1:] if arguments.with_count else WD_COLUMNS[1:3]
    output = Output(
        path=arguments.append_to or arguments.output_csv,
        append=arguments.append_to is not None,
        overwrite=arguments.overwrite,
        columns=columns,
        wd_order=arguments.format == "wd",
    )
    return source, output


# --- sources of tags: tables with the columns of WD_COLUMNS ---------------------------------------------------------


def read_dataset(source: DatasetSource) -> tuple[pd.DataFrame, list[str]]:
    """The tags of a dataset and the ratings, with their uses; and a line for each txt that could not be read."""
    paths = tag_files(source.folder, NO_PAIRS)
    counts: Counter[str] = Counter(dict.fromkeys(RATING_NAMES, 0))
    known = known_categories(source)
    reader = TagReader(known)
    unusable = 0
    problems = []
    for path in tqdm(paths, desc="reading", unit="file", dynamic_ncols=True):
        try:
            names = dict.fromkeys(map(reader.name, read_tags(path)))
        except UserError as error:
            problems.append(str(error))
            continue
        usable = [name for name in names if is_usable(name)]
        counts.update(usable)
        unusable += len(names) - len(usable)
    if unusable:
        cli.warn(f"warning: {cli.counted(unusable, 'tag')} left out, endless or with control characters in them")
    if reader.weights:
        written, name = next(iter(reader.weights.items()))
        cli.warn(f"{len(reader.weights)} different tags had weights, such as {written}, read as {name}")
    rows = [(rating_id(name), name, known.get(name, GENERAL), count) for name, count in counts.items()]
    table = pd.DataFrame(rows, columns=WD_COLUMNS)
    # A model needs all four ratings, also where a dataset lacks one.
    return table[(table["count"] >= source.min_count) | (table["category"] == RATING)], problems


def known_categories(source: DatasetSource) -> dict[str, int]:
    """Category by tag; a tag that is not in it is general."""
    in_folder = source.folder / CATEGORIES_FILE
    known = read_categories(in_folder) if in_folder.exists() else {}
    if source.categories_from:
        known |= read_categories(source.categories_from)
    return known | dict.fromkeys(RATING_NAMES, RATING)


def read_danbooru(source: DanbooruSource, progress: Path) -> pd.DataFrame:
    """Tags of Danbooru's list, and the ratings.

    Args:
        progress: a file that keeps what was listed so far, so that a run that was killed can go on.

    Raises:
        UserError: the server refuses or does not recover.
    """
    site = Danbooru(source.connection)
    query = site.tag_query(source.categories, source.min_posts)
    identity = {"base_url": site.client.base_url, "query": query}
    rows, start = read_progress(progress, identity)
    with tqdm(desc="listing", initial=len(rows), unit="tag", dynamic_ncols=True) as bar:
        for found, position in site.tags(source.categories, source.min_posts, start):
            rows += map(list, found)
            bar.update(len(found))
            write_json(progress, {**identity, "position": position, "rows": rows})
    ratings = [[rating_id(name), name, RATING, 0] for name in RATING_NAMES]
    return pd.DataFrame(ratings + rows, columns=WD_COLUMNS)


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
        wd_order: general tags come before characters, and artists are left out.
    """
    order = {RATING: 0, GENERAL: 1, CHARACTER: 1, ARTIST: 1}
    if wd_order:
        table = table[table["category"] != ARTIST]
        order[CHARACTER] = 2
    keys = table.assign(group=table["category"].map(order))
    ratings = keys["category"] == RATING
    keys.loc[ratings, "count"] = keys.loc[ratings, "tag_id"]  # general, sensitive, questionable, explicit
    return table.loc[keys.sort_values(["group", "count", "name"], ascending=[True, False, True]).index]


def check_output(output: Output) -> None:
    """Refuse a CSV that cannot be extended or must not be replaced, before the long work.

    Raises:
        UserError: the message says why.
    """
    if output.append:
        read_vocabulary(output.path, "name another CSV with --append-to")
    elif output.path.exists() and not output.overwrite:
        raise UserError(
            f"{output.path}: exists, and may hold categories edited by hand; pass --output-csv my_tags.csv for a "
            f"vocabulary of your dataset's own, --append-to {output.path} to extend it, or --overwrite to replace it"
        )
    if output.path.is_dir():
        raise UserError(f"{output.path}: a folder stands there; name a file in it")
    check_writable(output.path.parent, "name another folder")


def keep_before(path: Path) -> None:
    """Keep the CSV that is about to change as <name>.before.csv beside it."""
    if path.exists():
        write_bytes(path.with_suffix(f".before{path.suffix}"), path.read_bytes())


def write_new(output: Output, table: pd.DataFrame) -> str:
    """Write a new CSV; what is in it, in one line."""
    keep_before(output.path)
    write_csv(output.path, output.columns, table[list(output.columns)].itertuples(index=False))
    numbers = Counter(CATEGORY_NAMES[category] for category in table["category"])
    return f"{output.path}: {len(table)} tags: " + ", ".join(f"{n} {name}" for name, n in numbers.items())


def append_missing(path: Path, table: pd.DataFrame) -> str:
    """Add the tags that a CSV lacks to its end; what was done, in one line."""
    index = read_vocabulary(path).index
    tags: Iterable[tuple[str, int]] = zip(table["name"], table["category"], strict=True)
    new = [(name, category) for name, category in tags if name not in index]
    if new:
        keep_before(path)
        append_to_vocabulary(path, new)
    return f"{path}: {len(new)} tags added, {len(index) + len(new)} in all"


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    source, output = make_settings(parse_arguments(argv))
    check_output(output)
    problems: list[str] = []
    if isinstance(source, DanbooruSource):
        table = read_danbooru(source, output.progress)
    else:
        table, problems = read_dataset(source)
    table = in_label_order(table, output.wd_order)
    for problem in problems:
        cli.warn(f"left out: {problem}")
    if output.append:
        with locked(lock_of(output.path), busy="", wait=True):  # another run may extend the same CSV
            print(append_missing(output.path, table))
    else:
        print(write_new(output, table))
    output.progress.unlink(missing_ok=True)  # only now: until the CSV stands, a killed run goes on from it
    return cli.INCOMPLETE if problems else cli.DONE


if __name__ == "__main__":
    sys.exit(main())
