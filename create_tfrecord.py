"""Turn a dataset of image + txt pairs into TFRecords for train_pytorch.py.

    python create_tfrecord.py --dataset-folder ./dataset --output-path ./output-datasets

Tags that the CSV lacks are appended to it. Every image is padded to a white square, resized and stored as JPEG with the
indices of its tags. What cannot be used is left out and named on stderr (exit code 1).
"""

import hashlib
import importlib
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tqdm import tqdm

import cli
import images
import tags
from files import UserError, replacing_path, write_json
from records import OVERHEAD, write_index

ABOUT = "aibooru.json"


@dataclass(frozen=True)
class Pair:
    """A usable pair: the image, the SHA-256 of its bytes, and the names of its tags."""

    image: Path
    digest: bytes
    tags: list[str]


def find_images(folder: Path) -> tuple[list[Path], list[str]]:
    """The images of a dataset folder, one per stem, and a line for each that was left out."""
    by_stem: dict[str, Path] = {}
    problems = []
    found = (path for path in folder.iterdir() if path.suffix.lower() in images.IMAGE_SUFFIXES)
    for path in sorted(found, key=lambda path: (images.IMAGE_SUFFIXES.index(path.suffix.lower()), path.name)):
        if (first := by_stem.setdefault(path.stem, path)) is not path:
            problems.append(f"{path}: {first.name} has the same txt; rename one of them")
    return sorted(by_stem.values(), key=lambda path: path.name), problems


def read_pairs(paths: Iterable[Path]) -> tuple[list[Pair], list[str]]:
    """Images with their tags, and a line for each image that has none."""
    pairs, problems = [], []
    for path in paths:
        try:
            names = [sys.intern(name) for name in tags.read_tags(path.with_suffix(".txt"))]
            if not names:
                raise UserError(f"{path.with_suffix('.txt')}: no tags in it; write some, separated by commas")
            pairs.append(Pair(path, hashlib.sha256(path.read_bytes()).digest(), names))
        except UserError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{path}: {error.strerror}; replace or remove it")
    return pairs, problems


def split(pairs: Iterable[Pair], ratio: float) -> tuple[list[Pair], list[Pair]]:
    """Train and validation pairs, in the order of their digests: `round(n * ratio)` go to train.

    The digest depends on nothing but the picture, so the split is the same on every machine, and it scatters the
    pictures like a shuffle. Equal pictures are neighbours; those at the border all go to train.
    """
    ordered = sorted(pairs, key=lambda pair: (pair.digest, pair.image.name))
    border = round(len(ordered) * ratio)
    while 0 < border < len(ordered) and ordered[border].digest == ordered[border - 1].digest:
        border += 1
    return ordered[:border], ordered[border:]


def extend_vocabulary(csv_path: Path, pairs: Iterable[Pair], known: dict[str, int]) -> tags.Vocabulary:
    """Append the tags that the CSV lacks to it, by falling frequency, and read it again.

    Args:
        known: category by tag, from the dataset's tag_categories.csv; other new tags are general (0).
    """
    vocabulary = tags.read_vocabulary(csv_path)
    counts = Counter(name for pair in pairs for name in pair.tags if name not in vocabulary.index)
    known = known | dict.fromkeys(tags.RATINGS.values(), tags.RATING)
    new = sorted(counts, key=lambda name: (-counts[name], name))
    if not new:
        return vocabulary
    if blanks := [name for name in new if " " in name]:
        print(
            f"create_tfrecord.py: warning: {len(blanks)} new tags have blanks in them, such as {blanks[0]!r}; "
            "Danbooru writes them with _, and replace_blanks.py does that",
            file=sys.stderr,
        )
    tags.append_to_vocabulary(csv_path, [(name, known.get(name, tags.GENERAL)) for name in new])
    print(f"{csv_path}: {len(new)} new tags appended", file=sys.stderr)
    return tags.read_vocabulary(csv_path)


def import_tensorflow() -> ModuleType:
    """tensorflow, imported late and quietly.

    Late, because it takes 4 s, which --help and a wrong path need not wait for. Quietly, because it greets with a page
    on stderr that none of its settings silences; what goes wrong in importing it still raises. Writing needs no GPU.
    """
    os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"})
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        return importlib.import_module("tensorflow")
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@dataclass
class Written:
    """What became of one split: records, uses by label index, and a line for each image that was left out."""

    records: int
    counts: Counter[int]
    problems: list[str]


def write_split(
    path: Path, pairs: Sequence[Pair], vocabulary: tags.Vocabulary, img_size: int, first_id: int
) -> Written:
    """Write one TFRecord file and its index; the image_ids count from `first_id`."""
    tf = import_tensorflow()
    sizes: list[int] = []
    counts: Counter[int] = Counter()
    problems: list[str] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_path(path) as part, tf.io.TFRecordWriter(str(part)) as writer:
        for pair in tqdm(pairs, desc=path.stem, unit="img", dynamic_ncols=True):
            try:
                picture = images.prepare(pair.image, img_size, reduced_decoding=True)
            except images.UnreadableImage as error:
                problems.append(str(error))
                continue
            labels = [vocabulary.index[name] for name in pair.tags]
            features = {
                "image_id": tf.train.Feature(int64_list=tf.train.Int64List(value=[first_id + len(sizes)])),
                "image_bytes": tf.train.Feature(bytes_list=tf.train.BytesList(value=[images.encode_jpeg(picture)])),
                "label_indexes": tf.train.Feature(int64_list=tf.train.Int64List(value=labels)),
                "image_name": tf.train.Feature(bytes_list=tf.train.BytesList(value=[os.fsencode(pair.image.name)])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            data = example.SerializeToString(deterministic=True)  # a map's order is otherwise a matter of chance
            writer.write(data)
            sizes.append(len(data) + OVERHEAD)
            counts.update(labels)
    write_index(path, sizes)
    return Written(len(sizes), counts, problems)


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(doc=__doc__ or "")
    parser.add_argument(
        "--dataset-folder",
        type=Path,
        default=Path("dataset"),
        help="folder with image + txt pairs (default: ./%(default)s)",
    )
    parser.add_argument("--output-path", type=Path, default=Path("output-datasets"), help="(default: ./%(default)s)")
    parser.add_argument(
        "--tags-csv",
        type=Path,
        default=Path("selected_tags.csv"),
        help="the vocabulary; new tags are appended to it (default: ./%(default)s)",
    )
    parser.add_argument(
        "--split-ratio",
        type=cli.fraction,
        default=0.7,
        help="share of the pairs that goes to train, the rest to val (default: %(default)s)",
    )
    parser.add_argument(
        "--img-size",
        type=cli.positive_int,
        default=224,
        help="side of the stored images in pixels (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)

    folder: Path = arguments.dataset_folder
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the dataset with --dataset-folder")
    tags.read_vocabulary(arguments.tags_csv)  # before the long work
    paths, problems = find_images(folder)
    pairs, unpaired = read_pairs(tqdm(paths, desc="reading", unit="pair", dynamic_ncols=True))
    problems += unpaired
    if not pairs:
        raise UserError(
            f"{folder}: no image with a txt beside it ({len(problems)} images without); fetch some pairs "
            "with simple_dan_crawl.py or name another folder"
        )
    categories_file = folder / tags.CATEGORIES_FILE
    known = tags.read_categories(categories_file) if categories_file.exists() else {}
    vocabulary = extend_vocabulary(arguments.tags_csv, pairs, known)

    output: Path = arguments.output_path
    (output / ABOUT).unlink(missing_ok=True)  # it comes back last: a folder without it is not finished
    train, val = split(pairs, arguments.split_ratio)
    trained = write_split(
        output / "record_shards_train" / "aibooru_train.tfrecord", train, vocabulary, arguments.img_size, first_id=0
    )
    validated = write_split(
        output / "record_shards_val" / "aibooru_val.tfrecord",
        val,
        vocabulary,
        arguments.img_size,
        first_id=trained.records,
    )
    problems += trained.problems + validated.problems
    counts = tuple(trained.counts[label] for label in range(len(vocabulary)))
    frozen = tags.Vocabulary(vocabulary.names, vocabulary.categories, counts)
    tags.write_vocabulary(output / "selected_tags.csv", frozen)
    about = {
        "num_classes": len(frozen),
        "train_samples": trained.records,
        "val_samples": validated.records,
        "image_size": arguments.img_size,
        "tags_sha256": frozen.sha256,
    }
    write_json(output / ABOUT, about)
    for problem in problems:
        print(f"create_tfrecord.py: left out: {problem}", file=sys.stderr)
    print(
        f"{output}: {trained.records} train + {validated.records} val images, {len(frozen)} tags, "
        f"{len(problems)} left out"
    )
    return cli.INCOMPLETE if problems else cli.DONE


if __name__ == "__main__":
    sys.exit(main())
