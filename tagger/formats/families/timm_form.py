"""Weights for timm with a config.json: WD v3 and whoever has its form, any repository with tags, our own checkpoints.

python wdv3_pytorch.py --model_repo SmilingWolf/wd-eva02-large-tagger-v3 --describe

A config.json says nothing of the channels' order. WD taggers want BGR on a white square, and are known by their form,
for people keep folders and not names: mean and std of 0.5, and a CSV with the columns of WD_COLUMNS. Ours say it in
their key `tagger`. For all others timm's own way is assumed, and said.
"""

import fnmatch
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tagger.files import UserError, read_csv
from tagger.formats.checkpoint import (
    CONFIG_FILE,
    HUB_WEIGHTS,
    OUR_KEY,
    STATE_PATTERN,
    best_name,
    check_vocabulary,
    own_preparation,
    read_config,
)
from tagger.formats.families.description import Description, Family, Files, Hints, Needed
from tagger.formats.families.labels import HINT, Table, make_vocabulary, vocabulary_of
from tagger.formats.vocabulary import GENERAL, RATING, RATINGS, VOCABULARY_FILE, WD_COLUMNS, Vocabulary, read_vocabulary
from tagger.preparation import HALF, Preparation, from_timm, on_white_square

SUFFIXES = (".safetensors", ".pth", ".bin")
RARER_SUFFIXES = (".pt", ".ckpt")  # where none of the others is there, for an optimizer's state may have them too


def choose(names: Collection[str], named: str | None) -> Needed | None:
    """See Family. Of several files model.safetensors is meant, else the one <model>_best.pth, else the only one."""
    ordered = [name for name in sorted(names) if not fnmatch.fnmatch(name, STATE_PATTERN)]
    found = [name for name in ordered if name.endswith(SUFFIXES)]
    found = found or [name for name in ordered if name.endswith(RARER_SUFFIXES)]
    if named is not None:
        found = [named] if named in found or not named.endswith(".onnx") else []
    for preferred in (HUB_WEIGHTS, best_name("*"), "*"):
        matching = [name for name in found if fnmatch.fnmatch(name, preferred)]
        if len(matching) == 1:
            return Needed(matching[0], (CONFIG_FILE,), (VOCABULARY_FILE,) if VOCABULARY_FILE in names else ())
    return None


def read(files: Files, weights: Path, hints: Hints) -> Description | None:
    """See Family."""
    config = read_config(files[CONFIG_FILE], hints.config)
    vocabulary, labels, guess = read_labels(files, config, hints)
    if len(vocabulary):
        preparation, assumed = read_preparation(config, files)
    else:
        cfg = config["pretrained_cfg"]
        mean, std = tuple(cfg["mean"]), tuple(cfg["std"])
        preparation, assumed = on_white_square(cfg["input_size"][1], mean=mean, std=std), ()
    return Description(
        family=family_of(config, assumed),
        weights=weights,
        labels=labels,
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


# --- pixels ---------------------------------------------------------------------------------------------------------


def read_preparation(config: Mapping[str, Any], files: Files) -> tuple[Preparation, tuple[str, ...]]:
    """How pixels are made, by the first of these that says it; and what was assumed, a sentence each.

    1. our own key,
    2. WD's form,
    3. timm's way with the numbers of config.json.

    Raises:
        UserError: numbers that no preparation can be made of.
    """
    path, cfg = files[CONFIG_FILE], config["pretrained_cfg"]
    side = cfg["input_size"][1]
    if config[OUR_KEY]:
        return own_preparation(config, path), ()
    if tuple(cfg["mean"]) == tuple(cfg["std"]) == HALF and has_wd_columns(files.get(VOCABULARY_FILE)):
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


def read_labels(files: Files, config: Mapping[str, Any], hints: Hints) -> tuple[Vocabulary, Path, tuple[str, ...]]:
    """The labels, from selected_tags.csv or else the list `tags` of config.json; that file; and what was assumed.

    Raises:
        UserError: there are none, although hints.tags asks for some; or they are another model's.
    """
    csv_path, tags = files.get(VOCABULARY_FILE), config.get("tags")
    guess: tuple[str, ...] = ()
    if csv_path is None and not tags and hints.tags is None:
        return Vocabulary((), ()), files[CONFIG_FILE], ()
    if csv_path is None and isinstance(tags, list):
        ratings = frozenset(RATINGS.values())
        vocabulary = make_vocabulary(tags, [RATING if name in ratings else GENERAL for name in map(str, tags)])
        guess = ("all tags but the ratings are general ones, for config.json has no categories",)
        csv_path = files[CONFIG_FILE]
    else:
        csv_path = csv_path or files[CONFIG_FILE].with_name(VOCABULARY_FILE)
        if config[OUR_KEY] or not csv_path.is_file():
            vocabulary = read_vocabulary(csv_path, hints.tags or HINT)
        else:
            vocabulary = vocabulary_of(Table(csv_path))
    check_vocabulary(vocabulary, csv_path, config, files[CONFIG_FILE])
    return vocabulary, csv_path, guess


FAMILY = Family("timm", "torch", choose, read)
