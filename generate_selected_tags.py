"""Make a vocabulary (selected_tags.csv) from the tags of a dataset.

    python generate_selected_tags.py --dataset-folder ./dataset --output-csv ./selected_tags.csv

Ratings come first, then all other tags by falling frequency. Row number = label index of a model, so decide on the
vocabulary before training. A dataset's tag_categories.csv (written by simple_dan_crawl.py --categories …) tells
characters and artists from general tags; otherwise edit the column by hand: 9 rating, 0 general, 4 character, 1 artist.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

import cli
import tags
from files import UserError


def count_tags(paths: Iterable[Path]) -> tuple[Counter[str], list[str]]:
    """Uses of each tag over txt files, and a line for each file that could not be read."""
    counts: Counter[str] = Counter()
    problems = []
    for path in paths:
        try:
            counts.update(tags.read_tags(path))
        except UserError as error:
            problems.append(str(error))
    return counts, problems


def make_vocabulary(counts: Mapping[str, int], known: Mapping[str, int]) -> tags.Vocabulary:
    """All four ratings (9), then the other tags by falling count, ties by name.

    Args:
        counts: uses by tag.
        known: category by tag, from tag_categories.csv; a tag that is not in it is general (0).
    """
    ratings = list(tags.RATINGS.values())
    table = pd.DataFrame({"name": counts.keys(), "count": counts.values()})
    table = table[~table["name"].isin(ratings)].sort_values(["count", "name"], ascending=[False, True])
    others = table["name"].tolist()
    categories = [tags.RATING] * len(ratings) + [known.get(name, tags.GENERAL) for name in others]
    return tags.Vocabulary((*ratings, *others), tuple(categories))


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(doc=__doc__ or "")
    parser.add_argument(
        "--dataset-folder",
        type=Path,
        default=Path("dataset"),
        help="folder with image + txt pairs (default: ./%(default)s)",
    )
    parser.add_argument("--output-csv", type=Path, default=Path("selected_tags.csv"), help="(default: ./%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing CSV")
    arguments = parser.parse_args(argv)

    output: Path = arguments.output_csv
    if output.exists() and not arguments.overwrite:
        raise UserError(
            f"{output}: exists, and may hold categories edited by hand; pass --overwrite to replace it, "
            "or another --output-csv"
        )
    paths = tags.tag_files(arguments.dataset_folder)
    counts, problems = count_tags(tqdm(paths, desc="reading", unit="file", dynamic_ncols=True))
    categories_file = arguments.dataset_folder / tags.CATEGORIES_FILE
    known = tags.read_categories(categories_file) if categories_file.exists() else {}
    vocabulary = make_vocabulary(counts, known)
    tags.write_vocabulary(output, vocabulary)
    for problem in problems:
        print(f"generate_selected_tags.py: left out: {problem}", file=sys.stderr)
    by_category = Counter(tags.CATEGORY_NAMES[number] for number in vocabulary.categories)
    print(
        f"{output}: {len(vocabulary)} tags from {len(paths) - len(problems)} files: "
        + ", ".join(f"{number} {name}" for name, number in by_category.items())
    )
    return cli.INCOMPLETE if problems else cli.DONE


if __name__ == "__main__":
    sys.exit(main())
