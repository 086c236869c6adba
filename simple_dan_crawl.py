"""Download images and their tags from Danbooru into a folder of image + txt pairs.

    python simple_dan_crawl.py --tags "1girl solo" --target-count 100

Newest posts first, or in the order that order:score and the like ask for, each as <md5>.jpg + <md5>.txt. JPEG originals
are kept byte for byte; png, webp and static gif become JPEG on white; videos and animations are passed over. The same
command goes on where the last one ended, however it ended; --update fetches what was posted since. Proxies are taken
from HTTPS_PROXY or ALL_PROXY, also of the kind socks5://.
"""

from tagger import cli  # first, so that an interrupt while the others are imported is one line

# isort: split

import contextlib
import math
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tagger.crawl.client import BURST, Connection, SettingNames, site_address
from tagger.crawl.crawler import FAILED, SAVED, Crawl, CrawlSettings, FailingAlike, NeverBegun, OrderedUpdate
from tagger.crawl.danbooru import API_KEY_VARIABLE, HOME, LOGIN_VARIABLE, MAX_RATE
from tagger.crawl.dataset_folder import FAILURES_FILE, DatasetFolder
from tagger.crawl.posts import SIZES, Selection
from tagger.crawl.sites import open_booru
from tagger.files import UserError, check_writable, locked_folder
from tagger.formats.tag_lists import parse_tags, read_tags
from tagger.formats.vocabulary import (
    ARTIST,
    CATEGORIES_FILE,
    CATEGORY_NUMBERS,
    CHARACTER,
    COPYRIGHT,
    GENERAL,
    META,
    RATING,
    RATINGS,
    Category,
    read_categories,
)

DEFAULT_TARGET = 10  # pairs
SHOWN = 5  # names of a category at the end
COUNTED_PAIRS = 100_000  # whose tags are counted at the end; more would take a minute
FELT_SECONDS, FELT_SHARE = 5.0, 0.7  # of a run, from which --rate is said to have decided its length
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
        help="which tags: rating,general,character,artist,copyright,meta (default: rating,general)",
    )
    site = parser.add_argument_group("connection")
    site.add_argument("--base-url", type=site_address, default=HOME, help="the site")
    site.add_argument(
        "--rate",
        type=cli.positive_float,
        default=1.0,
        help=f"requests a second, downloads included, after a burst of {BURST}; at most {MAX_RATE:.0f} for Danbooru",
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


# --- what is said at the end ----------------------------------------------------------------------------------------


def summary(crawl: Crawl) -> str:
    """One line: what the folder holds, and what became of the posts that this run looked at."""
    folder, outcomes = crawl.folder, crawl.outcomes
    passed_over = {what: n for what, n in outcomes.items() if what not in (SAVED, FAILED)}
    parts = [f"{cli.counted(len(folder.pairs), 'pair')}, {outcomes[SAVED]:,} of them new"]
    if crawl.completed:
        parts.append(f"tags added to {cli.counted(crawl.completed, 'older pair')}")
    if passed_over:
        reasons = ", ".join(f"{n} {what}" for what, n in sorted(passed_over.items()))
        parts.append(f"passed over {cli.counted(sum(passed_over.values()), 'post')} ({reasons})")
    if folder.failures:
        parts.append(f"{len(folder.failures):,} failed, see {FAILURES_FILE}; --retry-failures tries them again")
    return f"{folder.path}: {'; '.join(parts)}"


def content(folder: DatasetFolder) -> list[str]:
    """What a folder's tags are, so that it can be seen whether it is what was wanted: a line per category."""
    try:
        categories = read_categories(folder.path / CATEGORIES_FILE)
    except UserError:
        categories = {}
    counts: dict[Category, Counter[str]] = {}
    for md5 in sorted(folder.pairs)[:COUNTED_PAIRS]:
        with contextlib.suppress(UserError):  # create_tfrecord.py names what cannot be read
            names = read_tags(folder.path / f"{md5}.txt")
            ratings = [name for name in names[:1] if name in RATINGS.values()]
            for name in names:
                category = RATING if name in ratings else categories.get(name, GENERAL)
                counts.setdefault(category, Counter())[name] += 1
    lines = []
    for title, category in (
        ("ratings", RATING),
        ("general tags", GENERAL),
        ("characters", CHARACTER),
        ("artists", ARTIST),
        ("copyrights", COPYRIGHT),
        ("meta tags", META),
    ):
        if found := counts.get(category):
            most = ", ".join(f"{name} {n:,}" for name, n in found.most_common(SHOWN))
            more = ", …" if len(found) > SHOWN else ""
            lines.append(f"  {len(found):,} {title if len(found) > 1 else title.rstrip('s')}: {most}{more}")
    return lines


def explain_what_is_missing(crawl: Crawl, tags: str, missing: float) -> None:
    """Say why there are fewer pairs than were asked for."""
    if not crawl.listed and crawl.cursor.oldest is None and crawl.cursor.page is None:
        searched = f"nothing was found for {crawl.query!r}" if crawl.query else "the site has no posts"
        cli.warn(f"{searched}; {crawl.booru.spelling_hint(tags)}")
    else:
        cli.warn(f"the search has no more posts; {cli.counted(int(missing), 'pair')} missing")


def tell_of_rate(crawl: Crawl, rate: float, seconds: float) -> None:
    """Say so where --rate, and not the server, decided how long it took."""
    throttle = crawl.booru.client.throttle
    if throttle.floor > max(FELT_SECONDS, FELT_SHARE * seconds):
        cli.warn(
            f"--rate {rate:g} decided how long this took: {throttle.requests:,} requests, files included; Danbooru "
            f"allows up to {MAX_RATE:.0f} a second, and asks for about 1 on long runs"
        )


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    connection, settings = make_settings(arguments)
    booru = open_booru(connection)
    check_writable(arguments.output_dir, "name another --output-dir")
    with locked_folder(arguments.output_dir, "wait for it, or name another --output-dir"):
        started = time.monotonic()
        folder = DatasetFolder(arguments.output_dir)
        try:
            crawl = Crawl(booru, folder, settings)
        except OrderedUpdate as error:
            raise UserError(f"{error}; run it without --update") from None
        try:
            crawl.run()
        except NeverBegun as error:
            raise UserError(f"{error}; run the same command without --update first") from None
        except FailingAlike as error:
            raise UserError(f"{error}; when the files can be had again, --retry-failures fetches them") from None
        except KeyboardInterrupt:
            cli.warn("the same command goes on from here")
            raise
        finally:
            print(summary(crawl))
        print(*content(folder), sep="\n", end="\n" if folder.pairs else "")
        tell_of_rate(crawl, connection.rate, time.monotonic() - started)
    missing = settings.target - len(folder.pairs)
    if missing > 0 and not math.isinf(missing):
        explain_what_is_missing(crawl, settings.tags, missing)
        return cli.INCOMPLETE
    return cli.INCOMPLETE if folder.failures else cli.DONE


if __name__ == "__main__":
    sys.exit(main())
