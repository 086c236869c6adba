"""A Hugging Face style folder that the WD taggers' tools read: model.safetensors, config.json, selected_tags.csv.

Those tools feed BGR, as WD v3 wants it, and find tags by position, in the order that they were trained in:

    timm.create_model("local-dir:exported", pretrained=True)
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tagger.files import write_csv, write_json
from tagger.formats.checkpoint import CONFIG_FILE, HUB_WEIGHTS, own_preparation
from tagger.formats.vocabulary import VOCABULARY_FILE, WD_COLUMNS, Category, Vocabulary
from tagger.formats.weights import save_safetensors


def write_folder(
    folder: Path, model: nn.Module, weights: Mapping[str, Tensor], config: Mapping[str, Any], vocabulary: Vocabulary
) -> None:
    """Write the three files. A model for RGB is turned into the same one for BGR, which WD's tools feed.

    Not one whose pixels are not made on a white square: it is no WD tagger, whatever its channels, and its config.json
    says what it wants.

    Args:
        model: one of the same architecture, whose own weights do not matter.
        weights: a state dict with timm's names.
        config: the content of its config.json.
        vocabulary: its tags.
    """
    weights, config = dict(weights), copy.deepcopy(dict(config))
    preparation = own_preparation(config, CONFIG_FILE)
    if preparation.is_white_square and preparation.channel_order == "RGB":
        first = first_convolution(model) + ".weight"
        weights[first] = weights[first].flip(1)  # (D, 3, P, P): its input channels in the other order
        config["tagger"]["channel_order"] = "BGR"
        for key in ("mean", "std"):
            config["pretrained_cfg"][key] = config["pretrained_cfg"][key][::-1]
    folder.mkdir(parents=True, exist_ok=True)
    save_safetensors(folder / HUB_WEIGHTS, weights)
    write_json(folder / CONFIG_FILE, config)
    counts = vocabulary.counts or (0,) * len(vocabulary)
    write_csv(folder / VOCABULARY_FILE, WD_COLUMNS, enumerate_rows(vocabulary, counts))


def first_convolution(model: nn.Module) -> str:
    """The name of the layer that sees the pixels. Not the config's word for it: published ones say null there."""
    name: str = next(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    return name


def enumerate_rows(vocabulary: Vocabulary, counts: tuple[int, ...]) -> list[tuple[int, str, Category, int]]:
    """WD's four columns; tag_id is the row, for a dataset does not know Danbooru's numbers."""
    rows = zip(vocabulary.names, vocabulary.categories, counts, strict=True)
    return [(number, name, category, count) for number, (name, category, count) in enumerate(rows)]
