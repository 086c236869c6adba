"""Camais03's camie-tagger-v2: 70,527 tags with artists, years and more, in a picture that is fitted and padded.

python wdv3_pytorch.py --model_repo Camais03/camie-tagger-v2 --describe
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from tagger.formats.families.description import Description, Family, Files, Hints, Needed, Output, choose_onnx
from tagger.formats.families.labels import mapped_vocabulary, read_object
from tagger.preparation import IMAGENET_MEAN, IMAGENET_STD, MAX_SIDE, Fit, Pad, Preparation

METADATA_ENDING = "-metadata.json"
SIDE = 512
GREY = (124, 116, 104)  # ImageNet's mean
MACRO_F1 = 0.491837  # the threshold at which the authors measured the best macro-F1, over all categories


def choose(names: Collection[str], named: str | None) -> Needed | None:
    """See Family."""
    metadata = sorted(name for name in names if name.endswith(METADATA_ENDING))
    if len(metadata) != 1:
        return None
    return choose_onnx(names, named, metadata, preferred=(metadata[0].removesuffix(METADATA_ENDING) + ".onnx",))


def read(files: Files, weights: Path, hints: Hints) -> Description | None:
    """See Family."""
    path = next(path for name, path in files.items() if name.endswith(METADATA_ENDING))
    data = read_object(path)
    mapping = _object(_object(data.get("dataset_info")).get("tag_mapping"))
    if not mapping:
        return None
    side = _object(data.get("model_info")).get("img_size", SIDE)
    if not isinstance(side, int) or not 1 <= side <= MAX_SIDE:
        side = SIDE
    keys = ("general", "character", "artist", "copyright", "meta", "year")
    return Description(
        family=FAMILY.title,
        weights=weights,
        labels=path,
        vocabulary=mapped_vocabulary(mapping, path),
        preparation=Preparation(
            (Fit((side, side), "lanczos", "floor"), Pad((side, side), GREY)),
            background=None,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
        ),
        # The first output is what the model thought before it looked again.
        output=Output(names={"refined_predictions": "logits"}, position=1),
        files=(path,),
        advised={f"{name}_threshold": MACRO_F1 for name in keys},
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


FAMILY = Family("Camie tagger v2", "onnx", choose, read)
