"""Which files make up a tagger: weights, config.json and selected_tags.csv, in a folder or on the Hugging Face hub.

python -c "from tagger.formats import checkpoint; print(checkpoint.locate('checkpoints'))"
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagger.files import UserError, read_json
from tagger.formats.vocabulary import VOCABULARY_FILE, Vocabulary, first_difference, read_vocabulary

SUFFIXES = (".safetensors", ".pth", ".bin")
CONFIG_FILE = "config.json"
HUB_WEIGHTS = "model.safetensors"
HINT = "check the path"
HUB_FILES = (CONFIG_FILE, VOCABULARY_FILE, HUB_WEIGHTS)


def best_name(model: str) -> str:
    """The file of the best epoch's weights."""
    return f"{model}_best.pth"


def epoch_name(model: str, epoch: int | str) -> str:
    """The file of an epoch's weights; "*" gives a pattern for all epochs."""
    return f"{model}_epoch_{epoch}.pth"


@dataclass(frozen=True)
class ModelFiles:
    """The three files of a tagger; not all of them need be there."""

    weights: Path
    config: Path
    tags_csv: Path


def locate(
    model_path: Path | str, config_path: Path | str | None = None, tags_csv: Path | str | None = None, hint: str = HINT
) -> ModelFiles:
    """The files of a folder, or of a file of weights and what lies beside it; what is given by name wins.

    Args:
        hint: ends the error for a path that is not there, as in "name a checkpoint".

    Raises:
        UserError: there is no such file or folder, or no weights in it.
    """
    path = Path(model_path)
    weights = weights_in(path) if path.is_dir() else path
    if not weights.is_file():
        raise UserError(f"{path}: no such file; {hint}")
    folder = weights.parent
    return ModelFiles(weights, Path(config_path or folder / CONFIG_FILE), Path(tags_csv or folder / VOCABULARY_FILE))


def weights_in(folder: Path) -> Path:
    """The weights in a folder: model.safetensors, else the one <model>_best.pth, else the only file of weights.

    Raises:
        UserError: there are none, or several that could be meant.
    """
    found = [path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES]
    for preferred in (HUB_WEIGHTS, best_name("*"), "*"):
        matching = [path for path in found if path.match(preferred)]
        if len(matching) == 1:
            return matching[0]
    many = ", ".join(path.name for path in found[:3]) if found else "no .safetensors or .pth"
    raise UserError(f"{folder}: {many}; name one file of weights")


def fetch(name: str) -> ModelFiles:
    """Download a repository's three files, or take them from huggingface_hub's cache. The CSV may be missing.

    Args:
        name: such as SmilingWolf/wd-eva02-large-tagger-v3.

    Raises:
        UserError: no such repository, no network, or a file that a tagger needs is not in it.
    """
    import huggingface_hub  # here, for it brings a web client that local files do not need
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    repository = name.removeprefix("hf-hub:").removeprefix("hf_hub:")
    paths: dict[str, Path] = {}
    try:
        for file in HUB_FILES:
            try:
                paths[file] = Path(huggingface_hub.hf_hub_download(repository, file))
            except LocalEntryNotFoundError:
                if file != VOCABULARY_FILE:  # offline, an optional file that was never fetched looks like this
                    raise
            except EntryNotFoundError:
                if file != VOCABULARY_FILE:
                    raise
    except (HfHubHTTPError, EntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"{name}: neither a file or folder nor a repository that can be fetched ({reason}); check the name and the "
            "network, or download it and name the folder"
        ) from None
    config = paths[CONFIG_FILE]
    return ModelFiles(paths["model.safetensors"], config, paths.get(VOCABULARY_FILE, config.parent / HUB_FILES[1]))


def read_config(path: Path | str, hint: str = HINT) -> dict[str, Any]:
    """Read a config.json: ours, or that of a WD v3 repository (which has no key `tagger` and wants BGR).

    Args:
        hint: ends the error for a missing file, as in "name the config.json of the checkpoint".

    Raises:
        UserError: missing, not JSON, or without what a model needs.
    """
    config = read_json(path, hint)
    if missing := {"architecture", "num_classes", "pretrained_cfg"} - config.keys():
        raise UserError(f"{path}: no key {', '.join(sorted(missing))}; use the config.json of the checkpoint")
    try:
        config["tagger"] = {"channel_order": "BGR"} | config.get("tagger", {})
        _, height, width = config["pretrained_cfg"]["input_size"]
        sound = (
            config["num_classes"] > 0
            and isinstance(config["architecture"], str)
            and isinstance(config.get("model_args") or {}, dict)
            and height == width > 0
            and config["tagger"]["channel_order"] in ("RGB", "BGR")
            and len(config["pretrained_cfg"]["mean"]) == len(config["pretrained_cfg"]["std"]) == 3
            and all(abs(value) < math.inf for value in config["pretrained_cfg"]["mean"])
            and all(0 < value < math.inf for value in config["pretrained_cfg"]["std"])
        )
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise UserError(f"{path}: not a tagger's config; use the config.json that was written with the checkpoint")
    return config


def check_vocabulary(vocabulary: Vocabulary, csv_path: Path, config: Mapping[str, Any], config_path: Path) -> None:
    """Refuse a CSV whose names are not those that the model was trained with.

    Raises:
        UserError: naming the first row that differs, where the checkpoint's own CSV lies beside its config.json.
    """
    hint = f"use the {VOCABULARY_FILE} beside {config_path.name}"
    if len(vocabulary) != config["num_classes"]:
        raise UserError(f"{csv_path}: {len(vocabulary)} tags, but the model has {config['num_classes']}; {hint}")
    trained_with = config["tagger"].get("tags_sha256")
    if trained_with in (None, "", vocabulary.sha256):
        return
    original = config_path.parent / VOCABULARY_FILE
    difference = "its names or their order changed"
    if original.exists() and original.resolve() != csv_path.resolve():
        difference = first_difference(vocabulary.names, read_vocabulary(original).names)
    raise UserError(f"{csv_path}: not the tags that the model was trained with ({difference}); {hint}")
