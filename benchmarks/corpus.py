"""Pictures and records that several benchmarks share: drawn here, and made once in a folder.

python -c "from pathlib import Path; from benchmarks.corpus import records; records(Path('corpus'), 60, 112)"
"""

import shutil
from pathlib import Path

from benchmarks.processes import require, script
from benchmarks.table import say
from examples.sample_booru.__main__ import CATEGORIES, RATINGS, tags_of
from examples.sample_booru.server import draw_posts

FINISHED = "finished"  # an empty file, made last


def made_once(folder: Path) -> bool:
    """Whether a folder was filled to its end; what an interrupted run left of it is removed."""
    if (folder / FINISHED).exists():
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def draw_pairs(folder: Path, count: int) -> Path:
    """`count` portraits with ratings, general tags, characters and artists, and the tag_categories.csv for them."""
    if made_once(folder):
        return folder
    say(f"drawing {count:,} pictures")
    folder.mkdir(parents=True)
    categories: dict[str, int] = {}
    # Some posts are films.
    posts = [post for post in draw_posts(range(count + count // 4 + 4)) if post.is_static][:count]
    for number, post in enumerate(posts):
        image = folder / f"{number:05}.{post.file_ext}"
        image.write_bytes(post.data)
        image.with_suffix(".txt").write_text(",".join(tags_of(post, CATEGORIES)), encoding="utf-8")
        categories |= dict.fromkeys(post.character, 4) | dict.fromkeys(post.artist, 1)
    write_vocabulary(folder / "tag_categories.csv", categories)
    (folder / FINISHED).touch()
    return folder


def write_vocabulary(path: Path, categories: dict[str, int]) -> None:
    lines = [f"{name},{category}" for name, category in sorted(categories.items())]
    path.write_text("\n".join(["name,category", *lines]) + "\n", encoding="utf-8")


def make_records(folder: Path, pairs: Path, image_size: int, split_ratio: float = 0.9) -> Path:
    """What create_tfrecord.py makes of pairs, with a vocabulary of their own.

    Raises:
        Missing: tensorflow is not here.
    """
    require("tensorflow")
    if made_once(folder):
        return folder / "records"
    folder.mkdir(parents=True)
    write_vocabulary(folder / "tags.csv", dict.fromkeys(RATINGS.values(), 9))
    given = ("--dataset-folder", pairs, "--output-path", folder / "records", "--tags-csv", folder / "tags.csv")
    script("create_tfrecord.py", *given, "--img-size", image_size, "--split-ratio", split_ratio)
    (folder / FINISHED).touch()
    return folder / "records"


def records(folder: Path, count: int, image_size: int, split_ratio: float = 0.9) -> Path:
    """Records of `count` drawn portraits.

    Raises:
        Missing: tensorflow is not here.
    """
    require("tensorflow")
    pairs = draw_pairs(folder / f"portraits-{count}", count)
    return make_records(folder / f"records-{count}-{image_size}-{split_ratio:g}", pairs, image_size, split_ratio)
