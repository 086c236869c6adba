"""Tag images: caption, tags, rating, characters, general tags and artists, steered by threshold.json.

    python wdv3_pytorch.py --image_file test.png --model_path checkpoints/eva02_large_best.pth
    python wdv3_pytorch.py --image_file ./pictures --model_path checkpoints --write_captions
    python wdv3_pytorch.py --image_file a.png b.png --model_path checkpoints --artist_string nai --pool

Edit threshold.json and run it again: the probabilities come from a cache. WD v3 repositories work as they are. Results
go to stdout, everything else to stderr.
"""

import contextlib
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagger import cli
from tagger.device import DEVICES
from tagger.files import UserError, replacing
from tagger.formats.checkpoint import ModelFiles, check_vocabulary, fetch, locate, read_config
from tagger.formats.tag_lists import danbooru_spelling, parse_tags
from tagger.formats.thresholds import read_tag_thresholds, read_thresholds
from tagger.formats.vocabulary import ARTIST, CATEGORY_NUMBERS, RATING, Vocabulary, read_vocabulary
from tagger.inference import distributed
from tagger.inference.artist_strings import SYNTAXES, artist_string
from tagger.inference.cache import PredictionCache, default_path, fingerprint
from tagger.inference.captions import EXISTING, ORDERS, Style, arrange, caption_path, join, write_caption
from tagger.inference.output import Printer, to_record
from tagger.inference.predictor import PRECISIONS, Predictor, Result, predictions
from tagger.inference.selection import Tagging, select, sigmoid

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"))  # in a folder
FLAGS = {
    "general_threshold": "--gen_threshold",
    "character_threshold": "--char_threshold",
    "artist_threshold": "--artist_threshold",
    "caption_threshold": "--caption_threshold",
    "tags_threshold": "--tags_threshold",
}


def parse_arguments(argv: Sequence[str] | None) -> Any:
    parser = cli.ArgumentParser(doc=__doc__ or "", separator="_")
    given = parser.add_argument_group("images")
    given.add_argument("--image_file", type=Path, nargs="+", metavar="PATH", default=[], help="images and folders")
    given.add_argument("--recursive", action="store_true", help="also what is in the folders' folders")
    given.add_argument("--batch_size", type=cli.positive_int, default=8, help="images at a time")
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model_path", type=Path, help="weights, .pth or .safetensors, or a folder with one of them and the rest"
    )
    model.add_argument(
        "--model_repo", metavar="ID", help="or a repository of the hub: SmilingWolf/wd-eva02-large-tagger-v3"
    )
    model.add_argument("--config_path", type=Path, help="its config.json (default: beside the weights)")
    model.add_argument(
        "--tags_csv",
        type=Path,
        help="its vocabulary; categories may be edited, names may not (default: selected_tags.csv beside the weights)",
    )
    model.add_argument("--device", choices=DEVICES, default="auto", help="(default: a GPU where there is one)")
    model.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="bfloat16: faster where the processor knows it, probabilities differ by a few thousandths",
    )
    model.add_argument("--no_cache", action="store_true", help="neither take nor keep probabilities")
    thresholds = parser.add_argument_group("thresholds", "a tag passes when its probability is above")
    thresholds.add_argument(
        "--threshold_json",
        type=Path,
        default=Path("threshold.json"),
        help="(default: ./%(default)s; where missing: 0.35, and 0.75 for characters and artists)",
    )
    for key, flag in FLAGS.items():
        thresholds.add_argument(flag, dest=key, type=cli.fraction, metavar="P", help=f"wins over {key} of the file")
    thresholds.add_argument(
        "--thresholds",
        choices=("json", "per_tag"),
        default="json",
        help="per_tag: each tag's own, from the tag_metrics.csv beside the weights",
    )
    thresholds.add_argument(
        "--mcut", action="store_true", help="each group's at the largest gap between its probabilities"
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output_format",
        choices=("text", "json", "jsonl", "csv"),
        default="text",
        help="json: a list of objects; jsonl: an object a line",
    )
    output.add_argument("--output", type=Path, metavar="FILE", help="instead of stdout")
    output.add_argument("--report", type=Path, metavar="HTML", help="a page with all pictures, their tags, and sliders")
    output.add_argument("--export_onnx", type=Path, metavar="FILE", help="write the model as WD repositories ship it")
    captions = parser.add_argument_group("captions", "--write_captions writes a txt with the caption beside each image")
    captions.add_argument("--write_captions", action="store_true")
    captions.add_argument("--existing", choices=EXISTING, default="skip", help="what to do with a txt that is there")
    captions.add_argument("--dry_run", action="store_true", help="print what would be written, and write no txt")
    captions.add_argument("--exclude_tags", type=names, default=(), metavar="A,B", help="leave these out")
    captions.add_argument("--always_first", type=names, default=(), metavar="A,B", help="put these first")
    captions.add_argument(
        "--tag_order", choices=ORDERS, default="category", help="category: general, characters, artists (the default)"
    )
    captions.add_argument(
        "--underscores", choices=("keep", "space"), default="keep", help="space: long hair, but ^_^ (default: keep)"
    )
    captions.add_argument("--escape_parentheses", action="store_true", help="\\( and \\)")
    artists = parser.add_argument_group("artists")
    artists.add_argument(
        "--artist_string", choices=SYNTAXES, help="the likeliest artists with weights, in the syntax of a prompt"
    )
    artists.add_argument(
        "--top_artists", type=cli.positive_int, default=5, metavar="K", help="names in an artist string"
    )
    artists.add_argument("--pool", action="store_true", help="one answer for all images, drawn with the same prompt")
    arguments = parser.parse_args(argv)
    if bool(arguments.model_path) == bool(arguments.model_repo):
        parser.error("name a model with --model_path, or with --model_repo")
    if not arguments.image_file and not arguments.export_onnx:
        parser.error("name one or more images with --image_file")
    if arguments.mcut and arguments.thresholds == "per_tag":
        parser.error("--mcut and --thresholds per_tag both set the thresholds; pass one of them")
    if arguments.pool and (arguments.write_captions or arguments.report):
        parser.error("--pool gives one answer for all images, --write_captions and --report one for each; pass one")
    if arguments.report and (arguments.mcut or arguments.thresholds == "per_tag"):
        parser.error("--report has sliders of its own; it goes neither with --mcut nor with --thresholds per_tag")
    if arguments.dry_run and not arguments.write_captions:
        parser.error("--dry_run belongs to --write_captions")
    return arguments


def names(text: str) -> tuple[str, ...]:
    """An argparse type: tags separated by commas, in Danbooru's spelling or with blanks."""
    return tuple(danbooru_spelling(tag) for tag in parse_tags(text))


# --- images and model -----------------------------------------------------------------------------------------------


def find_images(given: Sequence[Path], recursive: bool) -> list[Path]:
    """Images by name, and those in folders, sorted.

    Raises:
        UserError: a path that is not there, or no image in any folder.
    """
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = path.rglob("*") if recursive else path.iterdir()
            found += sorted(
                each for each in inside if each.suffix.lower() in SUFFIXES and not each.name.startswith(".")
            )
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file; check --image_file")
    if not found:
        raise UserError(f"{given[0]}: no images in it; name another folder, or pass --recursive")
    return list(dict.fromkeys(found))


def without_shared(paths: Sequence[Path]) -> list[Path]:
    """The images that have a txt of their own: of a.jpg and a.png only the first would keep its caption."""
    owners: dict[Path, Path] = {}
    for path in paths:
        if (owner := owners.setdefault(caption_path(path), path)) != path:
            cli.warn(f"error: {path}: has the same txt as {owner.name}; rename one of them")
    return list(owners.values())


def without_captions(paths: Sequence[Path]) -> list[Path]:
    """The images that still need a caption: what is done is passed over before the model is asked."""
    left = [path for path in paths if not caption_path(path).exists()]
    if len(left) < len(paths):
        cli.warn(f"{len(paths) - len(left)} images have a txt already; --existing overwrite or append changes that")
    return left


def pooled(results: Iterable[Result]) -> Iterator[Result]:
    """One result for all: the mean of the logits. What could not be read is passed on."""
    total: list[float] = []
    count = 0
    for path, logits in results:
        if isinstance(logits, UserError):
            yield path, logits
            continue
        total = [a + b for a, b in zip(total, logits, strict=True)] if total else list(logits)
        count += 1
    if count:
        yield Path(f"{count} images together"), array("f", (x / count for x in total))


# --- what is said of an image ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Teller:
    """Makes of logits what is printed."""

    vocabulary: Vocabulary
    thresholds: Mapping[str, float]
    per_tag: Sequence[float] | None
    style: Style
    arguments: Any

    def tell(self, path: Path, logits: Sequence[float]) -> tuple[Tagging, dict[str, Any]]:
        """The selection, and what a JSON object says of it."""
        tagging = select(
            path, sigmoid(logits), self.vocabulary, self.thresholds, by_mcut=self.arguments.mcut, per_tag=self.per_tag
        )
        caption, listed = (
            join(arrange(chosen, self.style, tagging.probabilities, self.vocabulary.index), self.style)
            for chosen in (tagging.caption, tagging.tags)
        )
        string = None
        if self.arguments.artist_string:
            string = artist_string(tagging.artist, self.arguments.artist_string, self.arguments.top_artists)
        return tagging, to_record(tagging, caption, listed, string)

    def entry(self, path: Path, logits: Sequence[float], lowest: float) -> Any:
        """What the report needs, see report.Entry: probabilities by category, those of at least `lowest`."""
        probabilities = sigmoid(logits)
        entry: dict[str, Any] = {"image": path}
        for name, category in CATEGORY_NUMBERS.items():
            entry[name] = {
                self.vocabulary.names[i]: probabilities[i]
                for i in self.vocabulary.indices(category)
                if probabilities[i] >= lowest or category == RATING
            }
        return entry


def tell_all(results: Iterable[Result], teller: Teller, arguments: Any, titles: bool) -> tuple[int, int]:
    """Print, write captions and report; how many images there were, and how many of them could not be read."""
    total = left_out = written = 0
    entries: list[Any] = []
    if arguments.report:
        from tagger.inference import report
    file = replacing(arguments.output) if arguments.output else contextlib.nullcontext(sys.stdout)
    with file as out:
        quiet = arguments.write_captions and not arguments.output and not arguments.dry_run
        printer = Printer(out, arguments.output_format, titles)
        for path, logits in results:
            total += 1
            if isinstance(logits, UserError):
                cli.warn(f"error: {logits}")
                left_out += 1
                continue
            tagging, record = teller.tell(path, logits)
            if not quiet:
                printer.add(tagging, record)
            if arguments.write_captions and not arguments.dry_run:
                try:
                    written += write_caption(caption_path(path), record["caption"], arguments.existing)
                except UserError as error:
                    cli.warn(f"error: {error}")
                    left_out += 1
            if arguments.report:
                entries.append(teller.entry(path, logits, report.LOWEST))
        if not quiet:
            printer.end()
    if arguments.write_captions and not arguments.dry_run:
        cli.warn(f"{written} captions written")
    if arguments.report and entries:
        report.write_report(arguments.report, entries, teller.thresholds, arguments.top_artists)
        cli.warn(f"{arguments.report}: open it in a browser")
    return total, left_out


# --- the run --------------------------------------------------------------------------------------------------------


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    thresholds = read_thresholds(arguments.threshold_json)
    thresholds |= {key: getattr(arguments, key) for key in FLAGS if getattr(arguments, key) is not None}
    if arguments.model_repo:
        found = fetch(arguments.model_repo)
        found = ModelFiles(found.weights, arguments.config_path or found.config, arguments.tags_csv or found.tags_csv)
    else:
        found = locate(arguments.model_path, arguments.config_path, arguments.tags_csv)
    vocabulary, config = read_vocabulary(found.tags_csv), read_config(found.config)
    check_vocabulary(vocabulary, found.tags_csv, config, found.config)
    per_tag = None
    if arguments.thresholds == "per_tag":
        per_tag = read_tag_thresholds(found.weights.with_name("tag_metrics.csv"), vocabulary)
    if arguments.export_onnx:
        from tagger.inference import onnx_export

        print(onnx_export.write(arguments.export_onnx, found.weights, config), file=sys.stderr)
        if not arguments.image_file:
            return cli.DONE

    paths = find_images(arguments.image_file, arguments.recursive)
    given = len(paths)
    if arguments.write_captions:
        paths = without_shared(paths)
    shared = given - len(paths)
    if arguments.write_captions and arguments.existing == "skip":
        paths = without_captions(paths)
    if not paths:
        return cli.INCOMPLETE if shared else cli.DONE
    tell_of_unknown(arguments, vocabulary, found.tags_csv)
    style = Style(
        order=arguments.tag_order,
        exclude=frozenset(arguments.exclude_tags),
        first=tuple(arguments.always_first),
        spaces=arguments.underscores == "space",
        escape=arguments.escape_parentheses,
    )
    teller = Teller(vocabulary, thresholds, per_tag, style, arguments)
    model = Predictor(found.weights, config, arguments.device, arguments.precision)
    cache = None if arguments.no_cache else PredictionCache(default_path())
    key = fingerprint(found.weights, config, arguments.device, arguments.precision)
    try:
        results = distributed.split(paths, lambda some: predictions(some, model, cache, key, arguments.batch_size))
        if distributed.RANK:
            list(results)  # of nothing: the first process of torchrun speaks for all
            cli.warn(f"process {distributed.RANK}: {model.summary(model.images)}")
            return cli.DONE
        # A bar among results on the same terminal would be torn to pieces.
        if len(paths) > 1 and (arguments.output or arguments.write_captions or not sys.stdout.isatty()):
            results = with_progress(results, len(paths))
        if arguments.pool:
            results = pooled(results)
        total, left_out = tell_all(results, teller, arguments, titles=len(paths) > 1 and not arguments.pool)
    finally:
        if cache:
            cache.close()
    cli.warn(model.summary(len(paths)))
    if left_out == total:
        return cli.UNUSABLE
    return cli.INCOMPLETE if left_out or shared else cli.DONE


def tell_of_unknown(arguments: Any, vocabulary: Vocabulary, csv_path: Path) -> None:
    """Warn of flags that can have no effect."""
    for name in (*arguments.exclude_tags, *arguments.always_first):
        if name not in vocabulary.index:
            cli.warn(f"warning: {name} is no tag of {csv_path}")
    if arguments.artist_string and not vocabulary.indices(ARTIST):
        cli.warn(f"warning: {csv_path} has no artists (category 1), so no image has an artist string")


def with_progress(results: Iterable[Result], total: int) -> Iterator[Result]:
    """A progress bar on stderr."""
    from tqdm import tqdm

    yield from tqdm(results, total=total, unit="img", dynamic_ncols=True, disable=None, leave=False)


if __name__ == "__main__":
    sys.exit(main())
