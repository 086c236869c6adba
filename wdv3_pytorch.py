"""Tag images: caption, tags, rating, characters, general tags and artists, steered by threshold.json.

    python wdv3_pytorch.py --image_file test.png --model_path checkpoints/eva02_large_best.pth \\
        --config_path checkpoints/config.json --tags_csv checkpoints/selected_tags.csv

Edit threshold.json and run it again. A WD v3 repository's model.safetensors, config.json and selected_tags.csv do as
well. Results go to stdout, everything else to stderr.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cli
import images
import tags
from files import UserError, read_json
from model_config import read_config

DEFAULT_THRESHOLDS = {
    "general_threshold": 0.35,
    "character_threshold": 0.75,
    "artist_threshold": 0.75,
    "caption_threshold": 0.35,
    "tags_threshold": 0.35,
}
FLAGS = {
    "general_threshold": "--gen_threshold",
    "character_threshold": "--char_threshold",
    "artist_threshold": "--artist_threshold",
    "caption_threshold": "--caption_threshold",
    "tags_threshold": "--tags_threshold",
}


def parse_arguments(argv: Sequence[str] | None) -> Any:
    parser = cli.ArgumentParser(doc=__doc__ or "", separator="_")
    parser.add_argument("--image_file", type=Path, nargs="+", required=True, metavar="IMAGE", help="one or more images")
    parser.add_argument("--model_path", type=Path, required=True, help="weights, .pth or .safetensors")
    parser.add_argument("--config_path", type=Path, required=True, help="the config.json of the checkpoint")
    parser.add_argument(
        "--tags_csv",
        type=Path,
        required=True,
        help="the vocabulary it was trained with; categories may be edited, names may not",
    )
    parser.add_argument(
        "--output_format",
        choices=("text", "jsonl"),
        default="text",
        help="jsonl: a JSON object a line and image (default: %(default)s)",
    )
    thresholds = parser.add_argument_group("thresholds", "a tag passes when its probability is above")
    thresholds.add_argument(
        "--threshold_json",
        type=Path,
        default=Path("threshold.json"),
        help="(default: ./%(default)s; where missing: 0.35, and 0.75 for characters and artists)",
    )
    for key, flag in FLAGS.items():
        thresholds.add_argument(flag, dest=key, type=cli.fraction, metavar="P", help=f"wins over {key} of the file")
    return parser.parse_args(argv)


# --- thresholds -----------------------------------------------------------------------------------------------------


def read_thresholds(path: Path) -> dict[str, float]:
    """The five thresholds of a threshold.json; a key that it lacks, or a missing file, leaves the default.

    Raises:
        UserError: not JSON, or a value that is no number in 0..1; the message names the key.
    """
    if not path.exists():
        return dict(DEFAULT_THRESHOLDS)
    given = read_json(path, 'it should look like {"general_threshold": 0.4}')
    for key in given.keys() - DEFAULT_THRESHOLDS.keys():
        print(
            f"wdv3_pytorch.py: warning: {path}: {key} is no threshold; there are {', '.join(DEFAULT_THRESHOLDS)}",
            file=sys.stderr,
        )
    for key in given.keys() & DEFAULT_THRESHOLDS.keys():
        value = given[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise UserError(f"{path}: {key} is {json.dumps(value)}; give a number between 0 and 1")
    return {key: given.get(key, default) for key, default in DEFAULT_THRESHOLDS.items()}


# --- from probabilities to tags -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tagging:
    """What is said of one image: probabilities by tag name, each group by falling probability."""

    image: Path
    caption: list[str]
    tags: list[str]
    ratings: dict[str, float]  # all of them
    general: dict[str, float]  # these three: above their threshold
    character: dict[str, float]
    artist: dict[str, float]


def select(
    image: Path, probabilities: Sequence[float], vocabulary: tags.Vocabulary, thresholds: Mapping[str, float]
) -> Tagging:
    """Apply the thresholds to one image's probabilities.

    Args:
        probabilities: C numbers in 0..1, in the vocabulary's order.
        thresholds: the five keys of threshold.json.
    """

    def group(category: int, threshold: float) -> dict[str, float]:
        passed = [i for i in vocabulary.indices(category) if probabilities[i] > threshold]
        return {vocabulary.names[i]: probabilities[i] for i in sorted(passed, key=lambda i: -probabilities[i])}

    general = group(tags.GENERAL, thresholds["general_threshold"])
    character = group(tags.CHARACTER, thresholds["character_threshold"])
    artist = group(tags.ARTIST, thresholds["artist_threshold"])
    listed, captioned = thresholds["tags_threshold"], thresholds["caption_threshold"]
    return Tagging(
        image=image,
        caption=[name for members in (general, character, artist) for name, p in members.items() if p > captioned],
        tags=[name for members in (general, character) for name, p in members.items() if p > listed],
        ratings=group(tags.RATING, -1.0),
        general=general,
        character=character,
        artist=artist,
    )


def format_text(tagging: Tagging, thresholds: Mapping[str, float]) -> str:
    """The original's layout; of the ratings only the likeliest."""
    lines = [f"Caption: {', '.join(tagging.caption)}", f"Tags: {', '.join(tagging.tags)}", "Ratings:"]
    lines += [f"  {name}: {p:.3f}" for name, p in list(tagging.ratings.items())[:1]]
    for name in ("character", "general", "artist"):
        lines.append(f"{name.capitalize()} tags (threshold={thresholds[f'{name}_threshold']:.2f}):")
        lines += [f"  {tag}: {p:.3f}" for tag, p in getattr(tagging, name).items()]
    return "\n".join(lines)


def format_json(tagging: Tagging) -> str:
    """One line of JSON; probabilities are not rounded."""
    record = {
        "image": str(tagging.image),
        "caption": ", ".join(tagging.caption),
        "tags": ", ".join(tagging.tags),
        "ratings": tagging.ratings,
        "general": tagging.general,
        "character": tagging.character,
        "artist": tagging.artist,
    }
    return json.dumps(record, ensure_ascii=False)


# --- the model ------------------------------------------------------------------------------------------------------


def check_vocabulary(vocabulary: tags.Vocabulary, csv_path: Path, config: Mapping[str, Any], config_path: Path) -> None:
    """Refuse a CSV whose names are not those that the model was trained with.

    Raises:
        UserError: naming the first row that differs, where the checkpoint's own CSV lies beside its config.json.
    """
    mend = f"use the selected_tags.csv beside {config_path.name}"
    if len(vocabulary) != config["num_classes"]:
        raise UserError(f"{csv_path}: {len(vocabulary)} tags, but the model has {config['num_classes']}; {mend}")
    trained_with = config["tagger"].get("tags_sha256")
    if trained_with in (None, "", vocabulary.sha256):
        return
    original = config_path.parent / "selected_tags.csv"
    difference = "its names or their order changed"
    if original.exists() and original.resolve() != csv_path.resolve():
        difference = tags.first_difference(vocabulary.names, tags.read_vocabulary(original).names)
    raise UserError(f"{csv_path}: not the tags that the model was trained with ({difference}); {mend}")


def predict(paths: Sequence[Path], model_path: Path, config: Mapping[str, Any]) -> Iterator[list[float] | UserError]:
    """For each image in turn its C probabilities, or why it could not be read."""
    import torch  # here, so that a wrong path or threshold is told at once and not after seconds of imports

    import models

    model = models.load(config, model_path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    size, order = config["pretrained_cfg"]["input_size"][1], config["tagger"]["channel_order"]
    for path in paths:
        try:
            pixels = images.to_array(images.prepare(path, size), order)
        except images.UnreadableImage as error:
            yield error
            continue
        with torch.inference_mode():
            batch = torch.from_numpy(pixels.copy()).unsqueeze(0).to(device)  # (1, H, W, 3)
            yield torch.sigmoid(model(models.normalise(batch, config))[0]).tolist()


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    thresholds = read_thresholds(arguments.threshold_json)
    thresholds |= {key: getattr(arguments, key) for key in FLAGS if getattr(arguments, key) is not None}
    vocabulary = tags.read_vocabulary(arguments.tags_csv)

    config = read_config(arguments.config_path)
    check_vocabulary(vocabulary, arguments.tags_csv, config, arguments.config_path)
    paths: list[Path] = arguments.image_file
    if missing := [path for path in paths if not path.exists()]:
        raise UserError(f"{missing[0]}: no such file; check --image_file")

    left_out = 0
    for path, result in zip(paths, predict(paths, arguments.model_path, config), strict=True):
        if isinstance(result, UserError):
            print(f"wdv3_pytorch.py: error: {result}", file=sys.stderr)
            left_out += 1
            continue
        tagging = select(path, result, vocabulary, thresholds)
        if arguments.output_format == "jsonl":
            print(format_json(tagging))
        else:
            title = f"== {path} ==\n" if len(paths) > 1 else ""
            print(title + format_text(tagging, thresholds))
    if left_out == len(paths):
        return cli.UNUSABLE
    return cli.INCOMPLETE if left_out else cli.DONE


if __name__ == "__main__":
    sys.exit(main())
