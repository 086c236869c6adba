"""Kaloscope: 39,261 artists, of whom one is likely; heathcliff01's model as DraconicDragon's ONNX conversion.

python wdv3_pytorch.py --image_file a.png --artist_model DraconicDragon/Kaloscope-onnx/v2.0 --artist_string nai

The shorter side becomes 512 and not 497, although the model's source names a crop_pct of 0.9: timm, which makes the
transform, never sees that number.
"""

from collections.abc import Collection
from pathlib import Path

from tagger.files import UserError
from tagger.formats.families.description import Description, Family, Files, Hints, Needed, Output, choose_onnx
from tagger.formats.families.labels import HINT, Table, make_vocabulary
from tagger.formats.vocabulary import ARTIST
from tagger.preparation import IMAGENET_MEAN, IMAGENET_STD, CenterCrop, Preparation, ResizeShorter

MAPPING_FILE = "class_mapping.csv"
MAX_CLASSES = 1_000_000


def choose(names: Collection[str], named: str | None) -> Needed | None:
    """See Family."""
    return choose_onnx(names, named, [MAPPING_FILE])


def read(files: Files, weights: Path, hints: Hints) -> Description | None:
    """See Family."""
    names = read_classes(files[MAPPING_FILE])
    return Description(
        family=FAMILY.title,
        weights=weights,
        labels=files[MAPPING_FILE],
        vocabulary=make_vocabulary(names, [ARTIST] * len(names)),
        preparation=Preparation(
            (ResizeShorter(512, "bicubic"), CenterCrop((448, 448))),
            background=None,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
        ),
        output=Output(kind="values", activation="softmax"),
        files=(files[MAPPING_FILE],),
        any_side=True,
    )


def read_classes(path: Path) -> list[str]:
    """The names of a CSV with the columns class_id and class_name, by class_id; "" where one is missing.

    Raises:
        UserError: not such a file.
    """
    table = Table(path)
    classes: dict[int, str] = {}
    for cell, name in zip(table.column("class_id"), table.column("class_name"), strict=True):
        if not cell.isdecimal() or not 0 <= int(cell) < MAX_CLASSES or int(cell) in classes:
            raise UserError(f"{path}: class_id {cell[:40]!r} is no number of its own; {HINT}")
        quoted = len(name) > 1 and name[0] == name[-1] == "'"
        classes[int(cell)] = name[1:-1] if quoted else name
    return [classes.get(number, "") for number in range(max(classes, default=-1) + 1)]


FAMILY = Family("Kaloscope, ONNX", "onnx", choose, read)
