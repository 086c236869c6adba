"""Weights for timm with a config.json: WD v3 and whoever has its form, any repository with tags, our own checkpoints.

python wdv3_pytorch.py --model_repo SmilingWolf/wd-eva02-large-tagger-v3 --describe

A config.json says nothing of the channels' order. WD taggers want BGR on a white square, and are known by their form,
for people keep folders and not names: mean and std of 0.5, and a CSV with the columns of WD_COLUMNS. Ours say it in
their key `tagger`. For all others timm's own way is assumed, and said.
"""

import fnmatch
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tagger.files import UserError, read_csv, read_json
from tagger.formats.families.description import Description, Family, Files, Hints, Needed
from tagger.formats.families.labels import Table, make_vocabulary, vocabulary_of
from tagger.formats.vocabulary import (
    GENERAL,
    RATING,
    RATINGS,
    VOCABULARY_FILE,
    WD_COLUMNS,
    Vocabulary,
    first_difference,
    read_vocabulary,
)
from tagger.preparation import HALF, Preparation, from_timm, on_white_square

CONFIG_FILE = "config.json"
SUFFIXES = (".safetensors", ".pth", ".bin")
HUB_WEIGHTS = "model.safetensors"
BEST_PATTERN = "*_best.pth"  # of the trainer's files
OUR_KEY = "tagger"  # in config.json: model, channel_order, tags_sha256, and preparation where it is no white square


def choose(names: Collection[str], named: str | None) -> Needed | None:
    """See Family. Of several files model.safetensors is meant, else the one <model>_best.pth, else the only one."""
    found = [name for name in sorted(names) if name.endswith(SUFFIXES)]
    if named is not None:
        found = [named] if named in found or not named.endswith(".onnx") else []
    for preferred in (HUB_WEIGHTS, BEST_PATTERN, "*"):
        matching = [name for name in found if fnmatch.fnmatch(name, preferred)]
        if len(matching) == 1:
            return Needed(matching[0], (CONFIG_FILE,), (VOCABULARY_FILE,) if VOCABULARY_FILE in names else ())
    return None


def read(files: Files, weights: Path, hints: Hints) -> Description | None:
    """See Family."""
    config = read_config(files[CONFIG_FILE], hints.config)
    vocabulary, guess = read_labels(files, config, hints)
    preparation, assumed = read_preparation(config, files)
    return Description(
        family=family_of(config, assumed),
        weights=weights,
        vocabulary=vocabulary,
        preparation=preparation,
        config=config,
        files=tuple(files.values()),
        inclusive=False,
        assumptions=(*guess, *assumed),
    )


def family_of(config: Mapping[str, Any], assumed: Collection[str]) -> str:
    """What the user is told."""
    if config[OUR_KEY]:
        return "checkpoint of this toolkit"
    return "timm" if assumed else "WD tagger"


# --- config.json ----------------------------------------------------------------------------------------------------


def read_config(path: Path | str, hint: str = "check the path") -> dict[str, Any]:
    """Read a config.json in timm's form; its key `tagger` is empty where it is not ours.

    Args:
        hint: ends the error for a missing file, as in "name the config.json of the checkpoint".

    Raises:
        UserError: missing, not JSON, or without what a model needs.
    """
    config = read_json(path, hint)
    if missing := {"architecture", "num_classes", "pretrained_cfg"} - config.keys():
        raise UserError(f"{path}: no key {', '.join(sorted(missing))}; use the config.json of the checkpoint")
    try:
        config[OUR_KEY] = dict(config.get(OUR_KEY, {}))
        _, height, width = config["pretrained_cfg"]["input_size"]
        sound = (
            config["num_classes"] > 0
            and isinstance(config["architecture"], str)
            and isinstance(config.get("model_args") or {}, dict)
            and height == width > 0
            and config[OUR_KEY].get("channel_order", "RGB") in ("RGB", "BGR")
            and len(config["pretrained_cfg"]["mean"]) == len(config["pretrained_cfg"]["std"]) == 3
            and all(abs(value) < math.inf for value in config["pretrained_cfg"]["mean"])
            and all(0 < value < math.inf for value in config["pretrained_cfg"]["std"])
        )
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise UserError(f"{path}: not a tagger's config; use the config.json that was written with the checkpoint")
    return config


def read_preparation(config: Mapping[str, Any], files: Files) -> tuple[Preparation, tuple[str, ...]]:
    """How pixels are made, by the first of these that says it; and what was assumed, a sentence each.

    1. our own key,
    2. WD's form,
    3. timm's way with the numbers of config.json.

    Raises:
        UserError: numbers that no preparation can be made of.
    """
    path, ours, cfg = files[CONFIG_FILE], config[OUR_KEY], config["pretrained_cfg"]
    mean, std = tuple(cfg["mean"]), tuple(cfg["std"])
    side = cfg["input_size"][1]
    if "preparation" in ours:
        return Preparation.from_json(ours["preparation"], path), ()
    if ours:
        order = ours.get("channel_order", "RGB")
        return on_white_square(side, channel_order=order, mean=mean, std=std), ()
    if mean == std == HALF and has_wd_columns(files.get(VOCABULARY_FILE)):
        return on_white_square(side, channel_order="BGR"), ()
    try:
        preparation = from_timm(cfg)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: pixels are made in a way that is not known here ({error})") from None
    return preparation, (
        "channels in the order RGB, on white and otherwise as timm does it, for its form is not known",
    )


def has_wd_columns(path: Path | None) -> bool:
    """Whether a CSV has the columns of the WD taggers, in their order."""
    if path is None or not path.is_file():
        return False
    header, _ = read_csv(path, "", ())
    return tuple(header) == WD_COLUMNS


# --- labels ---------------------------------------------------------------------------------------------------------


def read_labels(files: Files, config: Mapping[str, Any], hints: Hints) -> tuple[Vocabulary, tuple[str, ...]]:
    """The labels, from selected_tags.csv or else from the list `tags` of config.json; and what was assumed.

    Raises:
        UserError: there are none, or they are another model's.
    """
    csv_path = files.get(VOCABULARY_FILE)
    tags = config.get("tags")
    guess: tuple[str, ...] = ()
    if csv_path is None and isinstance(tags, list):
        ratings = frozenset(RATINGS.values())
        vocabulary = make_vocabulary(tags, [RATING if name in ratings else GENERAL for name in map(str, tags)])
        guess = ("all tags but the ratings are general ones, for config.json has no categories",)
        csv_path = files[CONFIG_FILE]
    else:
        csv_path = csv_path or files[CONFIG_FILE].with_name(VOCABULARY_FILE)
        if config[OUR_KEY] or not csv_path.is_file():
            vocabulary = read_vocabulary(csv_path, hints.tags)
        else:
            vocabulary = vocabulary_of(Table(csv_path))
    check_vocabulary(vocabulary, csv_path, config, files[CONFIG_FILE])
    return vocabulary, guess


def check_vocabulary(vocabulary: Vocabulary, csv_path: Path, config: Mapping[str, Any], config_path: Path) -> None:
    """Refuse labels that are not those that the model was trained with.

    Raises:
        UserError: naming the first row that differs, where the checkpoint's own CSV lies beside its config.json.
    """
    hint = f"use the {VOCABULARY_FILE} beside {config_path.name}"
    if len(vocabulary) != config["num_classes"]:
        raise UserError(f"{csv_path}: {len(vocabulary)} tags, but the model has {config['num_classes']}; {hint}")
    trained_with = config[OUR_KEY].get("tags_sha256")
    if trained_with in (None, "", vocabulary.sha256):
        return
    original = config_path.parent / VOCABULARY_FILE
    difference = "its names or their order changed"
    if original.exists() and original.resolve() != csv_path.resolve():
        difference = first_difference(vocabulary.names, read_vocabulary(original).names)
    raise UserError(f"{csv_path}: not the tags that the model was trained with ({difference}); {hint}")


FAMILY = Family("timm", "torch", choose, read)
