"""Tag images: caption, tags, rating, characters, general tags and artists, steered by threshold.json.

    python wdv3_pytorch.py --image_file test.png --model_path checkpoints/eva02_large_best.pth
    python wdv3_pytorch.py --image_file ./pictures --model_path checkpoints --write_captions
    python wdv3_pytorch.py --image_file a.png b.png --model_path checkpoints --artist_string nai --pool

Edit threshold.json and run it again: the probabilities come from a cache. WD v3 repositories work as they are. Results
go to stdout, everything else to stderr.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tagger import cli
from tagger.device import DEVICES
from tagger.files import UserError, replacing
from tagger.formats.checkpoint import ModelFiles, check_vocabulary, fetch, locate, read_config
from tagger.formats.tag_lists import danbooru_spelling, parse_tags
from tagger.formats.thresholds import THRESHOLDS, read_tag_thresholds, read_thresholds
from tagger.formats.vocabulary import ARTIST, Vocabulary, read_vocabulary
from tagger.inference.artist_strings import SYNTAXES, ArtistSettings
from tagger.inference.cache import PredictionCache, default_path, fingerprint
from tagger.inference.captions import EXISTING, ORDERS, Style, caption_path, write_caption
from tagger.inference.distributed import process_group, split
from tagger.inference.output import FORMATS, make_answer
from tagger.inference.predictor import PRECISIONS, Hints, Predictor, PredictorSettings, Result, pooled, predictions
from tagger.inference.selection import SelectionRule, select, sigmoid

if TYPE_CHECKING:  # each takes longer to import than an answer from the cache
    import torch

    from tagger.inference import report

# What is taken from a folder; a file that is named may be called anything.
FOLDER_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"))
SHORT_FLAGS = {"general_threshold": "gen_threshold", "character_threshold": "char_threshold"}  # others are their keys
HINTS = Hints(device="pass --device cpu", memory="halve --batch_size", path="check --image_file")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
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
    for key in THRESHOLDS:
        flag = f"--{SHORT_FLAGS.get(key, key)}"
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
        "--output_format", choices=FORMATS, default="text", help="json: a list of objects; jsonl: an object a line"
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
        "--tag_order", choices=ORDERS, default="category", help="category: general, characters, artists"
    )
    captions.add_argument("--underscores", choices=("keep", "space"), default="keep", help="space: long hair, but ^_^")
    captions.add_argument("--escape_parentheses", action="store_true", help="\\( and \\)")
    artists = parser.add_argument_group("artists")
    artists.add_argument(
        "--artist_string", choices=SYNTAXES, help="the likeliest artists with weights, in the syntax of a prompt"
    )
    artists.add_argument(
        "--top_artists", type=cli.positive_int, default=5, metavar="K", help="names in an artist string at most"
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


# --- settings -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageSettings:
    """Which images: files and folders, and whether their folders count too."""

    paths: tuple[Path, ...]
    recursive: bool


@dataclass(frozen=True)
class ModelSettings:
    """Which tagger: a file or folder, or a repository of the hub; the other two win over what lies beside it."""

    path: Path | None
    repository: str | None
    config: Path | None
    tags_csv: Path | None


@dataclass(frozen=True)
class ThresholdSettings:
    """Where the thresholds come from.

    Attributes:
        file: a threshold.json.
        given: keys of the file with the values that win over it.
        by_mcut, per_tag: see SelectionRule; per_tag is read from the checkpoint's folder.
    """

    file: Path
    given: Mapping[str, float]
    by_mcut: bool
    per_tag: bool


@dataclass(frozen=True)
class OutputSettings:
    """Where answers go.

    Attributes:
        format: a key of FORMATS.
        file: None for stdout.
        report, onnx: further files to write, or None.
    """

    format: str
    file: Path | None
    report: Path | None
    onnx: Path | None


@dataclass(frozen=True)
class CaptionSettings:
    """How captions look, and whether they are written beside the images.

    Attributes:
        style: also of the caption and the tags that are printed.
        write: whether a txt is asked for.
        existing: one of EXISTING.
        dry_run: print what would be written instead.
    """

    style: Style
    write: bool
    existing: str
    dry_run: bool


@dataclass(frozen=True)
class Settings:
    """All that a run is asked for, by whom it concerns.

    Attributes:
        pool: one answer for all images.
        use_cache: take and keep logits.
    """

    images: ImageSettings
    model: ModelSettings
    predictor: PredictorSettings
    thresholds: ThresholdSettings
    output: OutputSettings
    captions: CaptionSettings
    artists: ArtistSettings
    pool: bool
    use_cache: bool


def make_settings(arguments: argparse.Namespace) -> Settings:
    """The command line's arguments, sorted; nothing else sees them."""
    given = {key: getattr(arguments, key) for key in THRESHOLDS if getattr(arguments, key) is not None}
    style = Style(
        order=arguments.tag_order,
        exclude=arguments.exclude_tags,
        first=arguments.always_first,
        spaces=arguments.underscores == "space",
        escape=arguments.escape_parentheses,
    )
    return Settings(
        images=ImageSettings(tuple(arguments.image_file), arguments.recursive),
        model=ModelSettings(arguments.model_path, arguments.model_repo, arguments.config_path, arguments.tags_csv),
        predictor=PredictorSettings(arguments.device, arguments.precision, arguments.batch_size),
        thresholds=ThresholdSettings(
            arguments.threshold_json, given, by_mcut=arguments.mcut, per_tag=arguments.thresholds == "per_tag"
        ),
        output=OutputSettings(arguments.output_format, arguments.output, arguments.report, arguments.export_onnx),
        captions=CaptionSettings(
            style, write=arguments.write_captions, existing=arguments.existing, dry_run=arguments.dry_run
        ),
        artists=ArtistSettings(arguments.artist_string, arguments.top_artists),
        pool=arguments.pool,
        use_cache=not arguments.no_cache,
    )


# --- the tagger -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tagger:
    """A tagger's files, and what is in them but for the weights.

    Attributes:
        files: where they lie.
        config: the content of config.json.
        vocabulary: C tags, which fit the config.
    """

    files: ModelFiles
    config: Mapping[str, Any]
    vocabulary: Vocabulary

    def load(self) -> "torch.nn.Module":
        """The model."""
        import models  # late: with torch it takes three seconds, and an answer from the cache needs neither

        return models.load(self.config, self.files.weights)


def open_tagger(settings: ModelSettings) -> Tagger:
    """Find the files of a tagger, or fetch them, and read all but the weights.

    Raises:
        UserError: a file is missing or unusable, or the vocabulary is another model's.
    """
    if settings.repository:
        fetched = fetch(settings.repository)
        files = ModelFiles(fetched.weights, settings.config or fetched.config, settings.tags_csv or fetched.tags_csv)
    else:
        assert settings.path is not None  # see parse_arguments
        files = locate(settings.path, settings.config, settings.tags_csv, hint="name a checkpoint with --model_path")
    vocabulary = read_vocabulary(files.tags_csv, hint="name the CSV of the checkpoint with --tags_csv")
    config = read_config(files.config, hint="name the config.json of the checkpoint with --config_path")
    check_vocabulary(vocabulary, files.tags_csv, config, files.config)
    return Tagger(files, config, vocabulary)


def make_rule(thresholds: Mapping[str, float], settings: ThresholdSettings, tagger: Tagger) -> SelectionRule:
    """What tags must pass.

    Raises:
        UserError: thresholds per tag are asked for, and there are none beside the weights.
    """
    per_tag = None
    if settings.per_tag:
        per_tag = read_tag_thresholds(tagger.files.weights.with_name("tag_metrics.csv"), tagger.vocabulary)
    return SelectionRule(thresholds, settings.by_mcut, per_tag)


def export(path: Path, tagger: Tagger) -> None:
    """Write the model as an ONNX file, and say so."""
    from tagger.inference import onnx_export  # late, like models

    cli.warn(onnx_export.write(path, tagger.load(), tagger.config))


# --- images ---------------------------------------------------------------------------------------------------------


def choose_images(images: ImageSettings, captions: CaptionSettings) -> tuple[list[Path], bool]:
    """The images to tag; and whether some were left out because they share a txt with another.

    Raises:
        UserError: see `find_images`.
    """
    found = find_images(images)
    if not captions.write:
        return found, False
    chosen = without_shared(found)
    shares_txt = len(chosen) < len(found)
    return without_captions(chosen) if captions.existing == "skip" else chosen, shares_txt


def find_images(settings: ImageSettings) -> list[Path]:
    """Images by name, and those in folders, sorted.

    Raises:
        UserError: a path that is not there, or no image in any folder.
    """
    found: list[Path] = []
    for path in settings.paths:
        if path.is_dir():
            inside = path.rglob("*") if settings.recursive else path.iterdir()
            # A dot in front is a file that a program is still writing, or one that macOS left behind.
            found += sorted(
                each for each in inside if each.suffix.lower() in FOLDER_SUFFIXES and not each.name.startswith(".")
            )
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file; check --image_file")
    if not found:
        raise UserError(f"{settings.paths[0]}: no images in it; name another folder, or pass --recursive")
    return list(dict.fromkeys(found))


def without_shared(paths: Sequence[Path]) -> list[Path]:
    """The images that have a txt of their own: of a.jpg and a.png only the first would keep its caption."""
    owners: dict[Path, Path] = {}
    for path in paths:
        if (owner := owners.setdefault(caption_path(path), path)) != path:
            cli.warn(f"error: {path}: has the same txt as {owner.name}; rename one of them")
    return list(owners.values())


def without_captions(paths: Sequence[Path]) -> list[Path]:
    """The images that still need a caption: the others are passed over before the model is asked."""
    left = [path for path in paths if not caption_path(path).exists()]
    if len(left) < len(paths):
        cli.warn(f"{len(paths) - len(left)} images have a txt already; --existing overwrite or append changes that")
    return left


# --- answers --------------------------------------------------------------------------------------------------------


@dataclass
class Counts:
    """How many images there were, and how many of them were left out with an error."""

    total: int = 0
    left_out: int = 0

    def leave_out(self, error: UserError) -> None:
        cli.warn(f"error: {error}")
        self.left_out += 1


def write_answers(
    results: Iterable[Result], tagger: Tagger, rule: SelectionRule, settings: Settings, titles: bool
) -> Counts:
    """Print the answer of each image, and write its caption and the report where they are asked for.

    Args:
        titles: whether each image's name stands above its answer.
    """
    captions, output = settings.captions, settings.output
    writes_captions = captions.write and not captions.dry_run
    counts, written = Counts(), 0
    entries: list[report.Entry] = []
    if output.report:
        from tagger.inference.report import make_entry  # late: it imports Pillow
    with open_output(output.file) as file:
        # Who has captions written wants no thousand answers on the screen.
        writer = None if writes_captions and not output.file else FORMATS[output.format](file, titles)
        for path, logits in results:
            counts.total += 1
            if isinstance(logits, UserError):
                counts.leave_out(logits)
                continue
            probabilities = sigmoid(logits)
            tagging = select(path, probabilities, tagger.vocabulary, rule)
            answer = make_answer(tagging, tagger.vocabulary.index, captions.style, settings.artists)
            if writer:
                writer.add(answer)
            if writes_captions:
                try:
                    written += write_caption(caption_path(path), answer.caption, captions.existing)
                except UserError as error:
                    counts.leave_out(error)
            if output.report:
                entries.append(make_entry(path, probabilities, tagger.vocabulary))
        if writer:
            writer.end()
    if writes_captions:
        cli.warn(f"{written} captions written")
    if output.report and entries:
        write_report(output.report, entries, tagger, rule, settings)
    return counts


def open_output(path: Path | None) -> contextlib.AbstractContextManager[IO[str]]:
    """A file that appears when it is complete, or stdout, which is left open."""
    return replacing(path) if path else contextlib.nullcontext(sys.stdout)


def write_report(
    path: Path, entries: Sequence["report.Entry"], tagger: Tagger, rule: SelectionRule, settings: Settings
) -> None:
    """Write the report, and say so."""
    from tagger.inference import report

    rows, style = tagger.vocabulary.index, settings.captions.style
    report.write_report(path, entries, rule.thresholds, rows, style, settings.artists)
    cli.warn(f"{path}: open it in a browser")


def warn_of_no_effect(settings: Settings, tagger: Tagger) -> None:
    """Warn of flags that can have no effect."""
    style, tags_csv = settings.captions.style, tagger.files.tags_csv
    for name in (*style.exclude, *style.first):
        if name not in tagger.vocabulary.index:
            cli.warn(f"warning: {name} is no tag of {tags_csv}")
    if settings.artists.syntax and not tagger.vocabulary.indices(ARTIST):
        cli.warn(f"warning: {tags_csv} has no artists (category 1), so no image has an artist string")


def open_cache(wanted: bool) -> contextlib.AbstractContextManager[PredictionCache | None]:
    """The cache of this user, or None."""
    return contextlib.closing(PredictionCache(default_path())) if wanted else contextlib.nullcontext()


def with_progress(results: Iterable[Result], total: int) -> Iterator[Result]:
    """A progress bar on stderr."""
    from tqdm import tqdm  # late: it takes as long as half an answer from the cache

    yield from tqdm(results, total=total, unit="img", dynamic_ncols=True, disable=None, leave=False)


# --- the run --------------------------------------------------------------------------------------------------------


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    settings = make_settings(parse_arguments(argv))
    thresholds = {**read_thresholds(settings.thresholds.file), **settings.thresholds.given}
    tagger = open_tagger(settings.model)
    rule = make_rule(thresholds, settings.thresholds, tagger)
    if settings.output.onnx:
        export(settings.output.onnx, tagger)
        if not settings.images.paths:
            return cli.DONE

    paths, shares_txt = choose_images(settings.images, settings.captions)
    if not paths:
        return cli.INCOMPLETE if shares_txt else cli.DONE
    warn_of_no_effect(settings, tagger)

    predictor = Predictor(tagger.load, tagger.config, settings.predictor, HINTS)
    how = (settings.predictor.device, settings.predictor.precision)
    key = fingerprint(tagger.files.weights, tagger.config, *how)
    group = process_group()
    with open_cache(settings.use_cache) as cache:
        results = split(paths, lambda share: predictions(share, predictor, cache, key), group)
        if group.rank:  # of torchrun's processes: its answers go to the first, which alone writes
            for _ in results:
                pass
            cli.warn(f"process {group.rank}: {predictor.summary(predictor.images)}")
            return cli.DONE
        # A bar among results on the same terminal would be torn to pieces.
        if len(paths) > 1 and (settings.output.file or settings.captions.write or not sys.stdout.isatty()):
            results = with_progress(results, len(paths))
        if settings.pool:
            results = pooled(results)
        counts = write_answers(results, tagger, rule, settings, titles=len(paths) > 1 and not settings.pool)
    cli.warn(predictor.summary(len(paths)))
    if counts.left_out == counts.total:
        return cli.UNUSABLE
    return cli.INCOMPLETE if counts.left_out or shares_txt else cli.DONE


if __name__ == "__main__":
    sys.exit(main())
