"""Which files make up a tagger: weights, config.json and selected_tags.csv, in a folder or on the Hugging Face hub.

python -c "import model_files; print(model_files.locate('checkpoints'))"
"""

from dataclasses import dataclass
from pathlib import Path

from files import UserError

SUFFIXES = (".safetensors", ".pth", ".bin")
HUB_FILES = ("config.json", "selected_tags.csv", "model.safetensors")


@dataclass(frozen=True)
class ModelFiles:
    """The three files of a tagger; not all of them need be there."""

    weights: Path
    config: Path
    tags_csv: Path


def locate(
    model_path: Path | str, config_path: Path | str | None = None, tags_csv: Path | str | None = None
) -> ModelFiles:
    """The files of a folder, or of a file of weights and what lies beside it; what is given by name wins.

    Raises:
        UserError: there is no such file or folder, or no weights in it.
    """
    path = Path(model_path)
    weights = weights_in(path) if path.is_dir() else path
    if not weights.is_file():
        raise UserError(f"{path}: no such file; name a checkpoint with --model_path")
    folder = weights.parent
    return ModelFiles(
        weights, Path(config_path or folder / "config.json"), Path(tags_csv or folder / "selected_tags.csv")
    )


def weights_in(folder: Path) -> Path:
    """The weights in a folder: model.safetensors, else the one <model>_best.pth, else the only file of weights.

    Raises:
        UserError: there are none, or several that could be meant.
    """
    found = [path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES]
    for preferred in ("model.safetensors", "*_best.pth", "*"):
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
                if file != "selected_tags.csv":  # offline, an optional file that was never fetched looks like this
                    raise
            except EntryNotFoundError:
                if file != "selected_tags.csv":
                    raise
    except (HfHubHTTPError, EntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"{name}: neither a file or folder nor a repository that can be fetched ({reason}); check the name and the "
            "network, or download it and name the folder"
        ) from None
    config = paths["config.json"]
    return ModelFiles(paths["model.safetensors"], config, paths.get("selected_tags.csv", config.parent / HUB_FILES[1]))
