"""Serve a booru of drawn portraits, or draw some of them into a folder of image + txt pairs.

    python -m examples.sample_booru serve --port 8766 --posts 1200
    python -m examples.sample_booru draw --output-dir /tmp/portraits --posts 40 --first 100000

Post numbers that a model was not trained on make its test pictures.
"""

import argparse
import hashlib
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from examples.sample_booru.drawing import Post
from examples.sample_booru.server import draw_posts, start

RATINGS = {"g": "general", "s": "sensitive", "q": "questionable", "e": "explicit"}
CATEGORIES = ("rating", "general", "character", "artist")


def tags_of(post: Post, categories: Sequence[str]) -> list[str]:
    """The post's tags of these categories, in the order in which a txt file has them."""
    by_category = {
        "rating": (RATINGS[post.rating],),
        "general": post.general,
        "character": post.character,
        "artist": post.artist,
    }
    return [tag for name, tags in by_category.items() if name in categories for tag in tags]


def draw_pairs(folder: Path, numbers: Sequence[int], categories: Sequence[str]) -> int:
    """Write <md5>.<ext> and <md5>.txt for each post with a static picture; how many there were."""
    folder.mkdir(parents=True, exist_ok=True)
    posts = [post for post in draw_posts(numbers) if post.is_static]
    for post in posts:
        stem = folder / hashlib.md5(post.data, usedforsecurity=False).hexdigest()
        stem.with_suffix(f".{post.file_ext}").write_bytes(post.data)
        stem.with_suffix(".txt").write_text(",".join(tags_of(post, categories)), encoding="utf-8")
    return len(posts)


def category_list(text: str) -> list[str]:
    """An argparse type: categories separated by commas."""
    names = text.split(",")
    if unknown := sorted(set(names) - set(CATEGORIES)):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(CATEGORIES)}")
    return names


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.sample_booru",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--posts", type=int, default=60, help="how many (default: %(default)s)")
    both.add_argument("--first", type=int, default=0, help="number of the first post (default: %(default)s)")

    serve = commands.add_parser("serve", parents=[both], help="answer like Danbooru until interrupted")
    serve.add_argument("--port", type=int, default=8766, help="(default: %(default)s)")
    serve.add_argument("--latency", type=float, default=0.0, help="seconds before every answer (default: %(default)s)")

    draw = commands.add_parser("draw", parents=[both], help="write image + txt pairs")
    draw.add_argument("--output-dir", type=Path, required=True, help="made where it is missing")
    draw.add_argument(
        "--categories",
        type=category_list,
        default=list(CATEGORIES),
        help=f"which tags to write (default: {','.join(CATEGORIES)})",
    )
    arguments = parser.parse_args(argv)

    if arguments.command == "draw":
        numbers = range(arguments.first, arguments.first + arguments.posts)
        count = draw_pairs(arguments.output_dir, numbers, arguments.categories)
        print(f"{arguments.output_dir}: {count} pairs")
    else:
        _, booru = start(arguments.posts, arguments.first, arguments.port, arguments.latency)
        print(f"{len(booru.posts)} posts at {booru.base_url}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 130  # 128 + SIGINT, what shells expect
    return 0


if __name__ == "__main__":
    sys.exit(main())
