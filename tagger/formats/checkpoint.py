"""What makes a checkpoint of ours: names of its files, config.json, and whether the vocabulary is the model's.

    python -c "from tagger.formats.checkpoint import read_config as r; print(r('checkpoints/config.json')['tagger'])"

How any tagger's files are found and read is in tagger.formats.families; ours are one family there.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tagger.files import UserError, read_json
from tagger.formats.vocabulary import VOCABULARY_FILE, Vocabulary, first_difference, read_vocabulary
from tagger.preparation import Preparation, on_white_square

CONFIG_FILE = "config.json"
HUB_WEIGHTS = "model.safetensors"
STATE_PATTERN = "resume_*.pt"  # what a killed run needs to go on, which is no model to tag with
PROTOTYPES_FILE = "prototypes.safetensors"  # of taught artists, see formats.prototypes
OUR_KEY = "tagger"  # in config.json: model, channel_order, tags_sha256, and preparation where it is not the usual one


def best_name(model: str) -> str:
    """The file of the best epoch's weights; "*" gives a pattern for all models."""
    return f"{model}_best.pth"


def epoch_name(model: str, epoch: int | str) -> str:
    """The file of an epoch's weights; "*" gives a pattern for all epochs."""
    return f"{model}_epoch_{epoch}.pth"


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


def own_preparation(config: Mapping[str, Any], origin: object) -> Preparation:
    """How the pixels of one of our models are made: as its config.json says, else on a white square as WD's.

    Args:
        config: the content of a config.json that has our key.
        origin: the file, for errors.

    Raises:
        UserError: a description that cannot be carried out.
    """
    ours, cfg = config[OUR_KEY], config["pretrained_cfg"]
    if "preparation" in ours:
        return Preparation.from_json(ours["preparation"], origin)
    mean, std = tuple(cfg["mean"]), tuple(cfg["std"])
    order = ours.get("channel_order", "RGB")
    return on_white_square(cfg["input_size"][1], channel_order=order, mean=mean, std=std)


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
