"""Make or extend a vocabulary (selected_tags.csv), from the tags of a dataset or from Danbooru's own list.

    python generate_selected_tags.py --dataset-folder ./dataset --output-csv ./selected_tags.csv
    python generate_selected_tags.py --from-danbooru --tag-categories artist --append-to ./selected_tags.csv

Ratings come first, then all other tags by falling frequency. Row number = label index of a model, so decide on the
vocabulary before training; later it can only grow at its end. What a dataset's tag_categories.csv (written by
simple_dan_crawl.py --categories …) or --categories-from does not know is general (0): edit that column by hand.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from tagger import cli
from tagger.crawl import danbooru
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

PAGE = 1000  # tags; the most that Danbooru lists at once
FIELDS = "id,name,category,post_count,is_deprecated"
FIRST_RATING_ID = 9999999  # what WD v3 gives `general`; the other ratings count down from it
RATING_NAMES = tuple(RATINGS.values())


def parse_arguments(argv: Sequence[str] | None) -> Any:
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
    site = parser.add_argument_group("from Danbooru")
    site.add_argument(
        "--from-danbooru",
        action="store_true",
        help="list the site's tags instead of a dataset's; run it again to go on after an interruption",
    )
    site.add_argument(
        "--tag-categories",
        type=tag_categories,
        default="general,character,artist",
        metavar="NAMES",
        help="which tags to list",
    )
    site.add_argument("--min-posts", type=cli.positive_int, default=50, help="leave out tags with fewer posts")
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
    danbooru.add_arguments(parser)
    arguments = parser.parse_args(argv)
    if arguments.append_to and (arguments.format == "wd" or arguments.with_count or arguments.overwrite):
        parser.error(
            "--append-to keeps the columns and the order of its CSV: leave out --format, --with-count and --overwrite"
        )
    return arguments


def tag_categories(text: str) -> list[int]:
    """An argparse type: the numbers of categories whose names are separated by commas."""
    known = {name: number for name, number in CATEGORY_NUMBERS.items() if number != RATING}
    if not (chosen := parse_tags(text)) or set(chosen) - known.keys():
        raise cli.ArgumentTypeError(f"{text!r}: choose from {', '.join(known)}")
    return [known[name] for name in chosen]


# --- sources of tags: tables with the columns of WD_COLUMNS ---------------------------------------------------------


def read_dataset(paths: Iterable[Path], known: Mapping[str, int], min_count: int) -> tuple[pd.DataFrame, list[str]]:
    """Tags of txt files with their uses, and a line for each file that could not be read.

    Args:
        known: category by tag; a tag that is not in it is general.
        min_count: tags with fewer uses are left out; ratings never are.
    """
    counts: Counter[str] = Counter(dict.fromkeys(RATING_NAMES, 0))
    problems = []
    for path in paths:
        try:
            counts.update(read_tags(path))
        except UserError as error:
            problems.append(str(error))
    known = {**known, **dict.fromkeys(RATING_NAMES, RATING)}
    rows = [(_rating_id(name), name, known.get(name, GENERAL), count) for name, count in counts.items()]
    table = pd.DataFrame(rows, columns=WD_COLUMNS)
    return table[(table["count"] >= min_count) | (table["category"] == RATING)], problems


def read_danbooru(client: danbooru.Client, categories: Sequence[int], min_posts: int, progress: Path) -> pd.DataFrame:
    """Danbooru's tags of these categories with at least so many posts, and the ratings.

    Args:
        progress: a file that keeps what was listed so far, so that a run that was killed can go on.

    Raises:
        UserError: the server refuses or does not recover.
    """
    query = {
        "search[category]": ",".join(map(str, sorted(categories))),
        "search[post_count]": f">={min_posts}",
        "search[hide_empty]": "yes",
    }
    identity = {"base_url": client.base_url, "query": query}
    rows: list[list[Any]] = []
    position = ""
    if progress.exists():
        kept = read_json(progress, "remove it to begin the list anew")
        if {key: kept.get(key) for key in identity} == identity:
            rows, position = kept["rows"], kept["position"]
    with tqdm(desc="listing", initial=len(rows), unit="tag", dynamic_ncols=True) as bar:
        for page in client.pages("/tags.json", position, limit=PAGE, only=FIELDS, **query):
            found = [row for row in (_tag(row, categories, min_posts) for row in page) if row]
            rows += found
            bar.update(len(found))
            position = f"b{min(row['id'] for row in page)}"
            write_json(progress, {**identity, "position": position, "rows": rows})
    ratings = [[_rating_id(name), name, RATING, 0] for name in RATING_NAMES]
    return pd.DataFrame(ratings + rows, columns=WD_COLUMNS)


def _tag(row: Mapping[str, Any], categories: Sequence[int], min_posts: int) -> list[Any] | None:
    """The cells of one row of /tags.json, or None where it is no tag that was asked for."""
    name, category, count = row.get("name"), row.get("category"), row.get("post_count")
    if not isinstance(name, str) or not isinstance(count, int) or not name.isprintable() or not name:
        return None
    if set(name) & set(", ") or category not in categories or count < min_posts or row.get("is_deprecated"):
        return None
    return [row["id"], name, category, count]


def _rating_id(name: str) -> int:
    return FIRST_RATING_ID - RATING_NAMES.index(name) if name in RATING_NAMES else 0


# --- output ---------------------------------------------------------------------------------------------------------


def arrange(table: pd.DataFrame, layout: str) -> pd.DataFrame:
    """Rows in the order of label indices: the four ratings, then by falling count, ties by name.

    layout "wd": general tags come before characters, and artists are left out.
    """
    order = {RATING: 0, GENERAL: 1, CHARACTER: 1, ARTIST: 1}
    if layout == "wd":
        table = table[table["category"] != ARTIST]
        order[CHARACTER] = 2
    keys = table.assign(group=table["category"].map(order))
    ratings = keys["category"] == RATING
    keys.loc[ratings, "count"] = keys.loc[ratings, "tag_id"]  # general, sensitive, questionable, explicit
    return table.loc[keys.sort_values(["group", "count", "name"], ascending=[True, False, True]).index]


def write_table(path: Path, table: pd.DataFrame, columns: Sequence[str]) -> None:
    write_csv(path, columns, table[list(columns)].itertuples(index=False))


def append(path: Path, table: pd.DataFrame) -> int:
    """Add the tags that the CSV lacks to its end; how many there were."""
    have = read_vocabulary(path).index
    new = [
        (name, category) for name, category in zip(table["name"], table["category"], strict=True) if name not in have
    ]
    if new:
        append_to_vocabulary(path, new)
    return len(new)


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    output: Path = arguments.append_to or arguments.output_csv
    if arguments.append_to:
        read_vocabulary(output)  # an unusable CSV is told before the long work
    elif output.exists() and not arguments.overwrite:
        raise UserError(
            f"{output}: exists, and may hold categories edited by hand; pass --overwrite to replace it, "
            "--append-to to extend it, or another --output-csv"
        )
    problems: list[str] = []
    progress = output.with_name(f".{output.name}.danbooru.json")
    if arguments.from_danbooru:
        table = read_danbooru(danbooru.connect(arguments), arguments.tag_categories, arguments.min_posts, progress)
    else:
        folder: Path = arguments.dataset_folder
        paths = tag_files(folder)
        sources = [folder / CATEGORIES_FILE] if (folder / CATEGORIES_FILE).exists() else []
        sources += [arguments.categories_from] if arguments.categories_from else []
        known = {name: category for source in sources for name, category in read_categories(source).items()}
        bar = tqdm(paths, desc="reading", unit="file", dynamic_ncols=True)
        table, problems = read_dataset(bar, known, arguments.min_count)
    table = arrange(table, arguments.format)

    for problem in problems:
        cli.warn(f"left out: {problem}")
    if arguments.append_to:
        added = append(output, table)
        print(f"{output}: {added} tags added, {len(read_vocabulary(output))} in all")
    else:
        columns = (
            WD_COLUMNS if arguments.format == "wd" else WD_COLUMNS[1:] if arguments.with_count else WD_COLUMNS[1:3]
        )
        write_table(output, table, columns)
        numbers = Counter(CATEGORY_NAMES[category] for category in table["category"])
        print(f"{output}: {len(table)} tags: " + ", ".join(f"{n} {name}" for name, n in numbers.items()))
    progress.unlink(missing_ok=True)
    return cli.INCOMPLETE if problems else cli.DONE


if __name__ == "__main__":
    sys.exit(main())
