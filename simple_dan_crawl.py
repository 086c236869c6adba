"""Download images and their tags from Danbooru into a folder of image + txt pairs.

    python simple_dan_crawl.py --tags "1girl solo" --target-count 100

Newest posts first, each as <md5>.jpg + <md5>.txt. JPEG originals are kept byte for byte; png, webp and static gif
become JPEG on white; videos and animations are passed over. The same command goes on where the last one ended, however
it ended; --update fetches what was posted since. A proxy is taken from the variable HTTPS_PROXY.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tagger import cli
from tagger.crawl import danbooru
from tagger.crawl.crawler import Crawl, summary
from tagger.crawl.dataset_folder import FAILURES_FILE, DatasetFolder
from tagger.crawl.posts import SIZES
from tagger.formats.tag_lists import parse_tags
from tagger.formats.vocabulary import CATEGORY_NUMBERS


def parse_arguments(argv: Sequence[str] | None) -> Any:
    parser = cli.ArgumentParser(doc=__doc__ or "")
    what = parser.add_argument_group("what to fetch")
    what.add_argument(
        "--tags",
        default="",
        metavar="QUERY",
        help="a Danbooru search; two tags without a paid account, rating: score: filetype: and the like "
        "are free (default: everything)",
    )
    what.add_argument(
        "--target-count",
        type=cli.positive_int,
        help="pairs that the folder shall hold (default: 10; with --update, no limit)",
    )
    what.add_argument("--min-score", type=int, help="only posts with at least this score")
    what.add_argument(
        "--size",
        choices=SIZES,
        default="original",
        help="sample: 850 pixels wide; 720x720: within that square; the original where a post has none ",
    )
    what.add_argument("--update", action="store_true", help="fetch what was posted since this query was begun")
    what.add_argument("--retry-failures", action="store_true", help=f"first try the posts in {FAILURES_FILE} again")
    output = parser.add_argument_group("what to write")
    output.add_argument("--output-dir", type=Path, default=Path("dataset"), help="where the pairs go")
    output.add_argument(
        "--categories",
        type=category_list,
        default=["rating", "general"],
        help="which tags: rating,general,character,artist (default: rating,general)",
    )
    danbooru.add_arguments(parser)
    parser.add_argument("--jobs", type=cli.positive_int, default=8, help="downloads at a time")
    parser.add_argument(
        "--timeout",
        type=cli.positive_float,
        default=120.0,
        metavar="SECONDS",
        help="for one try at a file; the next goes on where it broke off",
    )
    return parser.parse_args(argv)


def category_list(text: str) -> list[str]:
    """An argparse type: names of categories separated by commas, in the order in which their tags are written."""
    chosen = parse_tags(text)
    if unknown := set(chosen) - CATEGORY_NUMBERS.keys():
        raise cli.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(CATEGORY_NUMBERS)}")
    return [name for name in CATEGORY_NUMBERS if name in chosen]


# --- posts ----------------------------------------------------------------------------------------------------------


# --- files ----------------------------------------------------------------------------------------------------------


# --- the crawl ------------------------------------------------------------------------------------------------------


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    client = danbooru.connect(arguments, file_seconds=arguments.timeout, connections=arguments.jobs + 1)
    folder = DatasetFolder(arguments.output_dir)
    target = arguments.target_count or (math.inf if arguments.update else 10)
    crawl = Crawl(client, folder, target, arguments)
    try:
        crawl.run()
    except KeyboardInterrupt:
        cli.warn("the same command goes on from here")
        raise
    finally:
        print(summary(folder, crawl.outcomes))
    if len(folder.pairs) < target and not math.isinf(target):
        print(
            f"simple_dan_crawl.py: the search has no more posts; {target - len(folder.pairs)} pairs are missing",
            file=sys.stderr,
        )
        return cli.INCOMPLETE
    return cli.INCOMPLETE if folder.failures else cli.DONE


if __name__ == "__main__":
    sys.exit(main())
