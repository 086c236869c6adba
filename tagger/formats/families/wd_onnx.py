"""ONNX graphs of the WD taggers: SmilingWolf's of versions 2 and 3, others' conversions, and what this toolkit exports.

python wdv3_pytorch.py --model_path wd-v1-4-moat-tagger-v2 --describe    # a folder with model.onnx, selected_tags.csv

SmilingWolf's take NHWC pixels of 0..255 and have the sigmoid inside; conversions of the PyTorch weights take NCHW,
scaled by the caller, and may or may not have it. The graph's input shape tells the one, the output's numbers the other.
All want BGR on a white square.
"""

from collections.abc import Collection
from pathlib import Path

from tagger.formats.families.description import Description, Family, Files, Hints, Needed, Output, choose_onnx
from tagger.formats.families.labels import Table, vocabulary_of
from tagger.formats.vocabulary import VOCABULARY_FILE
from tagger.preparation import on_white_square

SIDE = 448  # of all graphs that are known, should one leave it open


def choose(names: Collection[str], named: str | None) -> Needed | None:
    """See Family."""
    return choose_onnx(names, named, [VOCABULARY_FILE])


def read(files: Files, weights: Path, hints: Hints) -> Description | None:
    """See Family."""
    table = Table(files[VOCABULARY_FILE])
    if any(name.startswith("rating:") for name in table.column("name")):
        return None  # PixAI's names
    return Description(
        family=FAMILY.title,
        weights=weights,
        labels=table.path,
        vocabulary=vocabulary_of(table),
        preparation=on_white_square(SIDE, channel_order="BGR"),
        output=Output(names={"predictions_sigmoid": "probabilities"}, kind="values"),
        files=(files[VOCABULARY_FILE],),
        any_side=True,
        raw_nhwc=True,
        inclusive=False,
    )


FAMILY = Family("WD tagger, ONNX", "onnx", choose, read)
