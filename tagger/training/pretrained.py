"""Start from published weights: WD v3's, timm's or our own. The head's rows are carried over by tag name.

source = pretrained.read("SmilingWolf/wd-eva02-large-tagger-v3")
config = pretrained.adapt_config(source, models.model_name(source.config), 448, vocabulary)
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from timm.models.eva import Eva, checkpoint_filter_fn
from torch import Tensor, nn

from tagger.files import UserError
from tagger.formats.checkpoint import OUR_KEY
from tagger.formats.families import hub, registry
from tagger.formats.families.description import Hints
from tagger.formats.families.engines import EngineMissing
from tagger.formats.vocabulary import Vocabulary
from tagger.formats.weights import load_sound_weights
from tagger.preparation import WHITE, Pad, PadToSquare, Preparation

HINTS = Hints(config="put the config.json that was published or written with these weights beside them", tags=None)
NEW_TAG_STD = 0.002  # of a new tag's weights: a tenth of timm's, so that it starts at its frequency


@dataclass(frozen=True)
class Source:
    """What training starts from.

    Attributes:
        name: as the user gave it.
        config: its config.json, see formats.checkpoint.read_config.
        preparation: of the pixels that it has learnt from, for a square picture as the records hold it.
        shown: the same for any picture, as inference makes them.
        vocabulary: its tags, or None where it is no tagger.
        weights: its state dict, with timm's names.
        assumptions: what no file says of it, a sentence each.
    """

    name: str
    config: dict[str, Any]
    preparation: Preparation
    shown: Preparation
    vocabulary: Vocabulary | None
    weights: dict[str, Tensor]
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Carried:
    """How many tags of the head were carried over, are new, and were dropped."""

    carried: int
    new: int
    dropped: int


def read(name: str) -> Source:
    """Read a folder, a file with config.json (and selected_tags.csv) beside it, or a repository of the hub.

    Raises:
        UserError: there is nothing of that name, a part is missing, or the parts do not match.
    """
    open_place = registry.open_folder if Path(name).exists() else hub.open_repository
    try:
        found = open_place(name, hints=HINTS, engines=("torch",))
    except EngineMissing:
        raise UserError(f"{name}: an ONNX graph cannot be trained; name weights, such as model.safetensors") from None
    assert found.config is not None  # what torch runs has one
    vocabulary = found.vocabulary if len(found.vocabulary) else None
    weights = load_sound_weights(found.weights)
    shown = found.preparation
    return Source(name, found.config, of_records(shown), shown, vocabulary, weights, found.assumptions)


def of_records(preparation: Preparation) -> Preparation:
    """What a model is shown of pictures that create_tfrecord.py has padded to white squares, and at inference too.

    A model that pads by itself is shown its own padding, which on a square is none. One that crops would lose white
    instead of picture, so the white square comes first for it in training and in inference alike.
    """
    pads = any(isinstance(stage, (Pad, PadToSquare)) for stage in preparation.stages)
    return preparation if pads else replace(preparation, stages=(PadToSquare(WHITE), *preparation.stages))


def head_name(model: nn.Module) -> str:
    """What a model calls its head. By the model, not by the config: published ones say null there."""
    layer = model.get_classifier()  # type: ignore[operator]
    name: str = next(name for name, module in model.named_modules() if module is layer)
    return name


def load_as_it_is(source: Source, build: Callable[[dict[str, Any]], nn.Module]) -> nn.Module:
    """The source's model with its own head.

    A run that was killed between its files may have left a head of more or fewer rows than config.json says.

    Args:
        build: makes a model of a config.json.

    Raises:
        UserError: the weights are those of another architecture.
    """
    model = build(source.config)
    rows = len(source.weights.get(f"{head_name(model)}.bias", ()))
    if rows not in (0, source.config["num_classes"]):
        model = build(source.config | {"num_classes": rows})
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in source.weights.items()})
    except RuntimeError as error:
        raise UserError(f"{source.name}: {' '.join(str(error).split())}; check its config.json") from None
    return model


def same_config(source: Source, name: str, vocabulary: Vocabulary) -> dict[str, Any]:
    """The config of the source's model with more tags, for pixels of the same kind and size.

    Args:
        name: what checkpoints of this architecture are named after.
        vocabulary: the source's tags and more.
    """
    config = copy.deepcopy(source.config)
    _say(config, name, vocabulary, source.shown)
    return config


def _say(config: dict[str, Any], name: str, vocabulary: Vocabulary, preparation: Preparation) -> None:
    """Put into a config which tags a model has and how its pixels are made."""
    config["num_classes"] = config["pretrained_cfg"]["num_classes"] = len(vocabulary)
    config["pretrained_cfg"] |= {"mean": list(preparation.mean), "std": list(preparation.std)}
    config.pop("tags", None)  # the source's, which others take for the model's
    config[OUR_KEY] |= {"model": name, "channel_order": preparation.channel_order, "tags_sha256": vocabulary.sha256}
    config[OUR_KEY].pop("preparation", None)
    if not preparation.is_white_square:
        config[OUR_KEY]["preparation"] = preparation.to_json()


def adapt_config(source: Source, name: str, image_size: int, vocabulary: Vocabulary) -> dict[str, Any]:
    """The config of the model that will be trained: the source's, with our tags and image size.

    The preparation of pixels, in proportion, and ref_feat_shape come along: the RoPE positions of another grid are
    scaled to that of the source, which is how EVA-02 was taken from 224 to 448 pixels.

    Args:
        name: what checkpoints of this architecture are named after.
        image_size: side of the input in pixels.
        vocabulary: the tags to train.
    """
    config = copy.deepcopy(source.config)
    config["model_args"] = model_args = config.get("model_args") or {}
    if "img_size" in model_args or config["pretrained_cfg"].get("fixed_input_size"):
        model_args["img_size"] = image_size
    config["pretrained_cfg"]["input_size"] = [3, image_size, image_size]
    _say(config, name, vocabulary, source.preparation.with_side(image_size))
    return config


def load_into(model: Any, source: Source, vocabulary: Vocabulary, frequency: Tensor) -> Carried:
    """Fill a model with the source's weights, its head by tag name.

    Args:
        model: built from `adapt_config`'s result.
        vocabulary: the C tags to train.
        frequency: (C,) in 0..1, at whose log-odds new tags start.

    Raises:
        UserError: the weights are those of another architecture.
    """
    layer, classifier = model.get_classifier(), head_name(model)
    head = {f"{classifier}.weight", f"{classifier}.bias"}
    weights = {name: tensor for name, tensor in source.weights.items() if name not in head}
    if isinstance(model, Eva):
        weights = checkpoint_filter_fn(weights, model)  # resamples pos_embed
    elif "pos_embed" in weights and weights["pos_embed"].shape != model.pos_embed.shape:
        weights["pos_embed"] = resample_abs_pos_embed(
            weights["pos_embed"], model.patch_embed.grid_size, num_prefix_tokens=model.num_prefix_tokens
        )
    try:
        result = model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, strict=False)
    except RuntimeError as error:
        raise UserError(f"{source.name}: {' '.join(str(error).split())}; check its config.json") from None
    wrong = sorted({*result.missing_keys} - head) + sorted(result.unexpected_keys)
    wrong += sorted(head - source.weights.keys()) if source.vocabulary else []  # without tags, no head is needed
    if wrong:
        architecture = source.config["architecture"]
        raise UserError(f"{source.name}: {wrong[0]} does not fit {architecture}; check its config.json")

    rows = {} if source.vocabulary is None else source.vocabulary.index
    carried = [(new, rows[name]) for new, name in enumerate(vocabulary.names) if name in rows]
    with torch.no_grad():
        nn.init.normal_(layer.weight, std=NEW_TAG_STD)
        layer.bias.copy_(torch.logit(frequency))
        if carried:
            new, from_old = (torch.tensor(numbers) for numbers in zip(*carried, strict=True))
            for part, target in (("weight", layer.weight), ("bias", layer.bias)):
                target[new] = source.weights[f"{classifier}.{part}"][from_old].float()
    return Carried(len(carried), len(vocabulary) - len(carried), len(rows) - len(carried))
