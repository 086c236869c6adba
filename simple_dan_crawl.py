"""Download images and their tags from Danbooru into a folder of image + txt pairs.

    python simple_dan_crawl.py --tags "1girl solo" --target-count 100

Newest posts first, each as <md5>.jpg + <md5>.txt. JPEG originals are kept byte for byte; png, webp and static gif
become JPEG on white; videos and animations are passed over. The same command goes on where the last one ended, however
it ended; --update fetches what was posted since. A proxy is taken from the variable HTTPS_PROXY.
"""

import math
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tagger import cli
from tagger.crawl.client import BURST, Connection, SettingNames, site_address
from tagger.crawl.crawler import FAILED, SAVED, Crawl, CrawlSettings, NeverBegun
from tagger.crawl.danbooru import API_KEY_VARIABLE, HOME, LOGIN_VARIABLE, MAX_RATE
from tagger.crawl.dataset_folder import FAILURES_FILE, DatasetFolder
from tagger.crawl.posts import SIZES, Selection
from tagger.crawl.sites import open_booru
from tagger.files import UserError
from tagger.formats.tag_lists import parse_tags
from tagger.formats.vocabulary import CATEGORY_NUMBERS

DEFAULT_TARGET = 10  # pairs
FLAGS = SettingNames(base_url="--base-url", rate="--rate", login="--login", api_key="--api-key", query="--tags")


def parse_arguments(argv: Sequence[str] | None) -> Namespace:
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
        help=f"pairs that the folder shall hold (default: {DEFAULT_TARGET}; with --update, no limit)",
    )
    what.add_argument("--min-score", type=int, help="only posts with at least this score")
    what.add_argument(
        "--size",
        choices=SIZES,
        default="original",
        help="sample: 850 pixels wide; 720x720: within that square; the original where a post has none",
    )
    what.add_argument("--update", action="store_true", help="fetch what was posted since this query was begun")
    what.add_argument("--retry-failures", action="store_true", help=f"first try the posts in {FAILURES_FILE} again")
    output = parser.add_argument_group("what to write")
    output.add_argument("--output-dir", type=Path, default=Path("dataset"), help="where the pairs go")
    output.add_argument(
        "--categories",
        type=category_list,
        default=("rating", "general"),
        help="which tags: rating,general,character,artist (default: rating,general)",
    )
    site = parser.add_argument_group("connection")
    site.add_argument("--base-url", type=site_address, default=HOME, help="the site")
    site.add_argument(
        "--rate",
        type=cli.positive_float,
        default=1.0,
        help=f"requests a second after a burst of {BURST}; at most {MAX_RATE:.0f} for Danbooru itself",
    )
    site.add_argument("--login", help=f"Danbooru user name (default: the variable {LOGIN_VARIABLE})")
    site.add_argument(
        "--api-key",
        help=f"of your Danbooru profile; better set the variable {API_KEY_VARIABLE}, which no process list shows",
    )
    site.add_argument("--jobs", type=cli.positive_int, default=8, help="downloads at a time")
    site.add_argument(
        "--timeout",
        type=cli.positive_float,
        default=120.0,
        metavar="SECONDS",
        help="for one try at a file; the next goes on where it broke off",
    )
    return parser.parse_args(argv)


def category_list(text: str) -> tuple[str, ...]:
    """An argparse type: names of categories separated by commas, in the order in which their tags are written."""
    chosen = parse_tags(text)
    if unknown := set(chosen) - CATEGORY_NUMBERS.keys():
        raise cli.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(CATEGORY_NUMBERS)}")
    return tuple(name for name in CATEGORY_NUMBERS if name in chosen)


def make_settings(arguments: Namespace) -> tuple[Connection, CrawlSettings]:
    connection = Connection(
        base_url=arguments.base_url,
        rate=arguments.rate,
        login=arguments.login,
        api_key=arguments.api_key,
        file_seconds=arguments.timeout,
        threads=arguments.jobs,
        names=FLAGS,
    )
    settings = CrawlSettings(
        tags=arguments.tags,
        target=arguments.target_count or (math.inf if arguments.update else DEFAULT_TARGET),
        selection=Selection(arguments.size, arguments.categories, arguments.min_score),
        jobs=arguments.jobs,
        update=arguments.update,
        retry_failures=arguments.retry_failures,
    )
    return connection, settings


def summary(folder: DatasetFolder, outcomes: Counter[str]) -> str:
    """One line: what the folder holds, and what became of the posts that this run looked at."""
    passed_over = {what: n for what, n in outcomes.items() if what not in (SAVED, FAILED)}
    parts = [f"{len(folder.pairs)} pairs, {outcomes[SAVED]} of them new"]
    if passed_over:
        reasons = ", ".join(f"{n} {what}" for what, n in sorted(passed_over.items()))
        parts.append(f"passed over {sum(passed_over.values())} posts ({reasons})")
    if folder.failures:
        parts.append(f"{len(folder.failures)} failed, see {FAILURES_FILE}; --retry-failures tries them again")
    return f"{folder.path}: {'; '.join(parts)}"


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    connection, settings = make_settings(arguments)
    booru = open_booru(connection)
    folder = DatasetFolder(arguments.output_dir)
    crawl = Crawl(booru, folder, settings)
    try:
        crawl.run()
    except NeverBegun as error:
        raise UserError(f"{error}; run the same command without --update first") from None
    except KeyboardInterrupt:
        cli.warn("the same command goes on from here")
        raise
    finally:
        print(summary(folder, crawl.outcomes))
    missing = settings.target - len(folder.pairs)
    if missing > 0 and not math.isinf(missing):
        cli.warn(f"the search has no more posts; {missing} pairs are missing")
        return cli.INCOMPLETE
    return cli.INCOMPLETE if folder.failures else cli.DONE


if __name__ == "__main__":
    sys.exit(main())
