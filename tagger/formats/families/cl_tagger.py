"""cella110n's cl_tagger, version 1: an EVA-02 that was taught on from a WD tagger, with its white square and BGR.

python wdv3_pytorch.py --model_repo cella110n/cl_tagger/cl_tagger_1_02 --describe
"""

from collections.abc import Collection
from pathlib import Path

from tagger.formats.families.description import Description, Family, Files, Hints, Needed, Output, choose_onnx
from tagger.formats.families.labels import by_number, make_vocabulary, mapped_vocabulary, named_category, read_object
from tagger.preparation import on_white_square

MAPPING_FILE = "tag_mapping.json"
GENERAL, CHARACTER = 0.55, 0.60  # of the authors' app


def choose(names: Collection[str], named: str | None) -> Needed | None:
    """See Family."""
    return choose_onnx(names, named, [MAPPING_FILE], preferred=("model_optimized.onnx", "model.onnx"))


def read(files: Files, weights: Path, hints: Hints) -> Description | None:
    """See Family."""
    path = files[MAPPING_FILE]
    data = read_object(path)
    if "idx_to_tag" in data:
        vocabulary = mapped_vocabulary(data, path)
    else:  # {"0": {"tag": …, "category": …}, …}
        entries = [each if isinstance(each, dict) else {} for each in by_number(data, path)]
        categories = [named_category(each.get("category"), path) for each in entries]
        vocabulary = make_vocabulary([each.get("tag") for each in entries], categories)
    return Description(
        family=FAMILY.title,
        weights=weights,
        labels=path,
        vocabulary=vocabulary,
        preparation=on_white_square(448, channel_order="BGR"),
        output=Output(kind="logits"),  # of several outputs, the first
        files=(path,),
        any_side=True,
        advised={
            **dict.fromkeys(("general_threshold", "meta_threshold", "model_threshold"), GENERAL),
            **dict.fromkeys(("character_threshold", "copyright_threshold", "artist_threshold"), CHARACTER),
        },
    )


FAMILY = Family("cl_tagger", "onnx", choose, read)
