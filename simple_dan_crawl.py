"""Download images and their tags from Danbooru into a folder of image + txt pairs.

    python simple_dan_crawl.py --tags "1girl solo" --target-count 100

Newest posts first, each as <md5>.jpg + <md5>.txt. JPEG originals are kept byte for byte; png, webp and static gif
become JPEG on white; videos and animations are passed over. Run it again to go on: pairs that stand are kept.
"""

import hashlib
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

import cli
import images
import tags
from files import UserError, write_bytes, write_text

VERSION = "0.1"
# Danbooru refuses the names of HTTP libraries and of browsers.
USER_AGENT = f"eva02-tagger-toolkit/{VERSION} (simple_dan_crawl.py)"
PAGE = 200  # posts; the most that Danbooru lists at once
JOBS = 4  # downloads at a time
TRIES = 4
STATIC = {"jpg", "jpeg", "png", "webp", "gif"}  # the two last may turn out to be animated
MD5 = re.compile(r"[0-9a-f]{32}")


class PassedOver(Exception):
    """This post is none of those that were asked for; the message is the reason."""


@dataclass(frozen=True)
class Post:
    """What is kept of a post: where its image is and its tags by category name."""

    md5: str
    url: str
    suffix: str
    tags: dict[str, list[str]]

    @classmethod
    def of(cls, post: dict[str, Any]) -> "Post":
        """From one element of /posts.json; raises PassedOver for what is hidden or no static image."""
        md5, url, suffix = post.get("md5"), post.get("file_url"), post.get("file_ext")
        if not isinstance(md5, str) or not isinstance(url, str) or not MD5.fullmatch(md5):
            raise PassedOver("hidden")
        if suffix not in STATIC:
            raise PassedOver(f"{suffix} file")
        rating = tags.RATINGS.get(post.get("rating") or "")
        lists = {
            name: tags.parse_tags(str(post.get(f"tag_string_{name}") or "").replace(" ", ","))
            for name in ("general", "character", "artist")
        }
        return cls(md5, url, suffix, {"rating": [rating] if rating else [], **lists})


class Danbooru:
    """The part of Danbooru's API that a crawl needs."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url.rstrip("/")
        self.client = httpx.Client(headers={"User-Agent": USER_AGENT}, timeout=30, follow_redirects=True)

    def get(self, url: str, **params: str | int) -> httpx.Response:
        """GET with patience: throttling, server errors and broken connections are tried again, refusals are not.

        Raises:
            UserError: the server refuses, or does not recover.
        """
        for attempt in range(TRIES):
            try:
                response = self.client.get(url, params=params or None)
                if response.is_success:
                    return response
                problem = f"HTTP {response.status_code} {self._words(response)}"
                if response.status_code not in (429, 500, 502, 503, 504):
                    break
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
            time.sleep(2**attempt if attempt < TRIES - 1 else 0)
        raise UserError(f"{url}: {problem}; check --tags and --base-url, or run the same command again later")

    @staticmethod
    def _words(response: httpx.Response) -> str:
        try:
            return str(response.json()["message"])
        except (ValueError, KeyError, TypeError):
            return response.reason_phrase

    def posts(self, query: str) -> Iterator[list[dict[str, Any]]]:
        """Pages of posts, newest first; `page=b<id>` goes as deep as the site, numbered pages end at 1000."""
        position: dict[str, str] = {}
        while page := self._list(query, position):
            yield page
            position = {"page": f"b{min(post['id'] for post in page)}"}

    def _list(self, query: str, position: dict[str, str]) -> list[dict[str, Any]]:
        url = f"{self.base_url}/posts.json"
        response = self.get(url, tags=query, limit=PAGE, **position)
        try:
            page = response.json()
            if all(isinstance(post["id"], int) for post in page):
                return page
        except (ValueError, TypeError, KeyError):
            pass
        raise UserError(f"{url}: the answer is no list of posts; is --base-url a Danbooru?")

    def image(self, post: Post) -> bytes:
        """The original file of a post, checked against its MD5."""
        data = self.get(post.url).content
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != post.md5:
            raise UserError(f"{post.url}: its MD5 is not {post.md5}; run the same command again")
        return data


def to_jpeg(data: bytes, suffix: str) -> bytes:
    """A JPEG as it came; any other static image as a JPEG on white.

    Raises:
        PassedOver: an animation.
        images.UnreadableImage: damaged, or too large to decode safely.
    """
    picture = images.open_image(data)
    if suffix in ("jpg", "jpeg"):
        return data
    if suffix in ("gif", "webp", "png") and images.is_animated(data):
        raise PassedOver("animation")
    return images.encode_jpeg(picture)


def save_pair(booru: Danbooru, post: Post, folder: Path, categories: Sequence[str]) -> str:
    """Download one post; returns "saved", the reason it was passed over, or "failed: …"."""
    try:
        write_bytes(folder / f"{post.md5}.jpg", to_jpeg(booru.image(post), post.suffix))
        names = [name for category in categories for name in post.tags[category]]
        write_text(folder / f"{post.md5}.txt", tags.format_tags(names))  # last: a pair with a txt is complete
        return "saved"
    except PassedOver as reason:
        return str(reason)
    except UserError as error:
        return f"failed: {error}"


def pairs_in(folder: Path) -> set[str]:
    """The stems that have both a jpg and a txt."""
    return {path.stem for path in folder.glob("*.txt") if path.with_suffix(".jpg").exists()}


def note_categories(folder: Path, posts: Sequence[Post]) -> None:
    """Add the posts' characters and artists to tag_categories.csv. Before their pairs, so a kill leaves none out."""
    path = folder / tags.CATEGORIES_FILE
    known = tags.read_categories(path) if path.exists() else {}
    for post in posts:
        for category in ("character", "artist"):
            known.update(dict.fromkeys(post.tags[category], tags.CATEGORY_NUMBERS[category]))
    names = tuple(sorted(known))
    tags.write_vocabulary(path, tags.Vocabulary(names, tuple(known[name] for name in names)))


def crawl(booru: Danbooru, query: str, folder: Path, target: int, categories: Sequence[str]) -> Counter[str]:
    """Bring the folder to `target` pairs; what became of the posts, by reason."""
    have = pairs_in(folder)
    outcomes: Counter[str] = Counter()
    with (
        tqdm(total=target, initial=min(len(have), target), unit="pair", dynamic_ncols=True) as bar,
        ThreadPoolExecutor(JOBS) as pool,
    ):
        for page in booru.posts(query) if len(have) < target else ():
            wanted = []
            for raw in page:
                try:
                    post = Post.of(raw)
                    if post.md5 not in have:
                        wanted.append(post)
                except PassedOver as reason:
                    outcomes[f"passed over, {reason}"] += 1
            while wanted and len(have) < target:
                batch, wanted = wanted[: target - len(have)], wanted[target - len(have) :]
                if {"character", "artist"} & set(categories):
                    note_categories(folder, batch)
                for post, outcome in zip(
                    batch, pool.map(lambda post: save_pair(booru, post, folder, categories), batch), strict=True
                ):
                    if outcome == "saved":
                        have.add(post.md5)
                        bar.update()
                        outcomes["saved"] += 1
                    elif outcome.startswith("failed"):
                        tqdm.write(f"simple_dan_crawl.py: {outcome}", file=sys.stderr)
                        outcomes["failed"] += 1
                    else:
                        outcomes[f"passed over, {outcome}"] += 1
            if len(have) >= target:
                break
    return outcomes


def category_list(text: str) -> list[str]:
    """An argparse type: names of categories separated by commas, in the order in which their tags are written."""
    chosen = tags.parse_tags(text)
    if unknown := set(chosen) - tags.CATEGORY_NUMBERS.keys():
        raise cli.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(tags.CATEGORY_NUMBERS)}")
    return [name for name in tags.CATEGORY_NUMBERS if name in chosen]


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(doc=__doc__ or "")
    parser.add_argument(
        "--target-count",
        type=cli.positive_int,
        default=10,
        help="pairs that the folder shall hold (default: %(default)s)",
    )
    parser.add_argument("--output-dir", type=Path, default=Path("dataset"), help="(default: ./%(default)s)")
    parser.add_argument(
        "--tags",
        default="",
        metavar="QUERY",
        help="a Danbooru search; two tags without a paid account (default: everything)",
    )
    parser.add_argument(
        "--categories",
        type=category_list,
        default=["rating", "general"],
        help="which tags to write: rating,general,character,artist (default: rating,general)",
    )
    parser.add_argument("--base-url", default="https://danbooru.donmai.us", help="(default: %(default)s)")
    arguments = parser.parse_args(argv)

    folder: Path = arguments.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    booru = Danbooru(arguments.base_url)
    outcomes = crawl(booru, arguments.tags, folder, arguments.target_count, arguments.categories)
    total = len(pairs_in(folder))
    print(f"{folder}: {total} pairs; " + (", ".join(f"{n} {what}" for what, n in outcomes.items()) or "nothing to do"))
    return cli.INCOMPLETE if outcomes["failed"] or total < arguments.target_count else cli.DONE


if __name__ == "__main__":
    sys.exit(main())
