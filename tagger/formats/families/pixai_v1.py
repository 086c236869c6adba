"""PixAI's tagger v1.0 as ONNX, in the three forms in which people converted it; its `style` tags are artists.

python wdv3_pytorch.py --model_repo Mexes/pixai-tagger-v1.0-onnx-fp32-fp16-int8 --describe
"""

from collections.abc import Callable, Collection
from pathlib import Path

from tagger.files import UserError
from tagger.formats.families.description import Description, Family, Files, Hints, Needed, Output, choose_onnx
from tagger.formats.families.labels import HINT, Table, make_vocabulary, named_category, read_object, vocabulary_of
from tagger.formats.vocabulary import VOCABULARY_FILE, Category, Vocabulary
from tagger.preparation import BLACK, Fit, Pad, Preparation

CONFIG_FILE, TAGS_FILE = "config.json", "tags.json"
SIDE = 1008
# Of the model's card; ratings are compared with each other.
ADVISED = {"general": 0.17, "character": 0.27, "artist": 0.15, "copyright": 0.24, "meta": 0.17}


def _choose(file: str) -> Callable[[Collection[str], str | None], Needed | None]:
    return lambda names, named: choose_onnx(names, named, [file])


def describe(file: Path, weights: Path, vocabulary: Vocabulary) -> Description:
    """What all forms share."""
    return Description(
        family=TITLE,
        weights=weights,
        labels=file,
        vocabulary=vocabulary,
        # As on a tensor: scaled without rounding to 8 bits, and black before the values are shifted.
        preparation=Preparation((Fit((SIDE, SIDE), "bilinear", "floor"), Pad((SIDE, SIDE), BLACK)), floats=True),
        output=Output(names={"logits": "logits"}, kind="values"),
        files=(file,),
        any_side=True,
        inclusive=False,
        advised={f"{name}_threshold": value for name, value in ADVISED.items()},
    )


def read_csv(files: Files, weights: Path, hints: Hints) -> Description | None:
    """A selected_tags.csv; what makes it PixAI's and no WD tagger's are ratings such as `rating:g`."""
    table = Table(files[VOCABULARY_FILE])
    if not any(name.startswith("rating:") for name in table.column("name")):
        return None
    return describe(table.path, weights, vocabulary_of(table))


def read_config(files: Files, weights: Path, hints: Hints) -> Description | None:
    """PixAI's own config.json: `tags` in the order of the outputs, `tags_split` the categories' names and lengths."""
    path = files[CONFIG_FILE]
    config = read_object(path)
    if "tags_split" not in config:
        return None
    tags = config.get("tags")
    try:
        split = [(named_category(word, path), length) for word, length in config["tags_split"]]
        categories: list[Category] = [category for category, length in split for _ in range(_counted(length))]
    except (TypeError, ValueError):
        raise UserError(f"{path}: tags_split is no list of categories and lengths; {HINT}") from None
    if not isinstance(tags, list) or len(tags) != len(categories):
        raise UserError(f"{path}: tags and tags_split are not of one length; {HINT}")
    return describe(path, weights, make_vocabulary(tags, categories))


def read_blocks(files: Files, weights: Path, hints: Hints) -> Description | None:
    """A tags.json: `categories`, each with name, offset and tags."""
    path = files[TAGS_FILE]
    names: list[object] = []
    categories: list[Category] = []
    try:
        blocks = sorted(read_object(path)["categories"], key=lambda block: int(block["offset"]))
        for block in blocks:
            if block["offset"] != len(names):
                raise ValueError
            names += block["tags"]
            categories += [named_category(block["name"], path)] * len(block["tags"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: not blocks of tags, one behind the other; {HINT}") from None
    return describe(path, weights, make_vocabulary(names, categories))


def _counted(length: object) -> int:
    if isinstance(length, bool) or not isinstance(length, int) or not 0 <= length <= 1_000_000:
        raise ValueError
    return length


TITLE = "PixAI tagger v1.0, ONNX"
CSV = Family(TITLE, "onnx", _choose(VOCABULARY_FILE), read_csv)
CONFIG = Family(TITLE, "onnx", _choose(CONFIG_FILE), read_config)
BLOCKS = Family(TITLE, "onnx", _choose(TAGS_FILE), read_blocks)
