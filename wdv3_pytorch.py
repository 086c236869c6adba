"""Tag images: caption, tags, rating, characters, general tags and artists, steered by threshold.json.

    python wdv3_pytorch.py --image_file examples/prompt.png --embedded_prompt only
    python wdv3_pytorch.py --image_file examples/pictures --model_repo SmilingWolf/wd-eva02-large-tagger-v3
    python wdv3_pytorch.py --image_file ./pictures --model_path checkpoints --write_captions
    python wdv3_pytorch.py --image_file a.png b.png --model_path checkpoints --artist_string nai --pool

Edit threshold.json and run it again: the probabilities come from a cache. Public taggers are known by their files, and
shown the pixels that they want; --describe tells of them. Results go to stdout, everything else to stderr.
"""

from tagger import cli  # first, so that an interrupt while the others are imported is one line

# isort: split

import argparse
import contextlib
import functools
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from tagger.device import DEVICES, GRAPH_DEVICES
from tagger.files import Busy, UserError, check_output, replacing
from tagger.formats.families.description import Hints
from tagger.formats.families.engines import EngineMissing
from tagger.formats.pairs import CAPTION_SUFFIX, caption_path
from tagger.formats.tag_lists import TagReader, lookalikes, parse_tags
from tagger.formats.tag_relations import IMPLICATIONS_FILE, read_implications
from tagger.formats.thresholds import (
    FURTHER_KEYS,
    TAG_METRICS_FILE,
    THRESHOLDS,
    THRESHOLDS_FILE,
    default_thresholds,
    groups_of,
    read_thresholds,
)
from tagger.formats.translations import read_translations
from tagger.formats.vocabulary import ARTIST, RATING, VOCABULARY_FILE, Vocabulary, read_vocabulary
from tagger.inference import image_files, predictor, taggers
from tagger.inference.artist_strings import ARTIST_WEIGHTS, SYNTAXES, ArtistSettings
from tagger.inference.cache import PredictionCache, default_path
from tagger.inference.captions import (
    EXISTING,
    ORDERS,
    RATING_PLACES,
    CaptionFiles,
    Merging,
    Style,
    caption_suffix,
    in_writable_folders,
    owners_of_captions,
    read_replacements,
    without_captions,
)
from tagger.inference.constant_tags import LEAST_CAPTIONS, ConstantTags, find_constant, kept
from tagger.inference.distributed import process_group, split
from tagger.inference.engines.protocol import PRECISIONS, EngineHints, EngineSettings
from tagger.inference.output import (
    FORMATS,
    PROMPT_COLUMNS,
    Answer,
    Writer,
    caption_names,
    csv_columns,
    is_answers,
    make_answer,
)
from tagger.inference.predictor import Results, pooled
from tagger.inference.selection import Demand, Request, SelectionRule, select
from tagger.inference.settings import (
    EMBEDDED,
    CaptionSettings,
    ImageSettings,
    ModelSettings,
    OutputSettings,
    Settings,
    ThresholdSettings,
)
from tagger.inference.taggers import Tagger, Taggers, open_tagger

if TYPE_CHECKING:  # each takes longer to import than an answer from the cache
    from torch import nn

    from tagger.inference import report
    from tagger.inference.embedded.answer import PromptAnswer, Prompts
    from tagger.inference.similar import SimilarArtists

Cache = PredictionCache | None
Said = TypeVar("Said", "Answer", "PromptAnswer")  # what has a caption
SHIPPED_THRESHOLDS = Path(__file__).with_name(THRESHOLDS_FILE)
SHORT_FLAGS = {"general_threshold": "gen_threshold", "character_threshold": "char_threshold"}  # others are their keys
MODEL_HINTS = Hints(
    path="name a checkpoint with --model_path",
    config="name the config.json of the checkpoint with --config_path",
    tags="name the CSV of the checkpoint with --tags_csv",
)
INSTALL = {
    "torch": "pip install -r requirements.txt, or take an ONNX model",
    "onnx": "pip install -r requirements-onnx.txt",
}
IMPLICATIONS_HINT = "generate_selected_tags.py --from-danbooru --implications writes it"
SIMILAR = 5  # artists that --similar tells of
SIMILAR_HINT = "--similar wants weights that train_pytorch.py --teach has written, and the prototypes beside them"
ARTIST_HINTS = Hints(path="name another folder or repository with --artist_model")
RUN_HINTS = taggers.RunHints(
    predictor=predictor.Hints(path="check --image_file", weights="name another checkpoint with --model_path"),
    engine=EngineHints(device="pass --device cpu", memory="halve --batch_size", precision="leave --precision out"),
)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.ArgumentParser(doc=__doc__ or "", separator="_")
    given = parser.add_argument_group("images")
    given.add_argument("--image_file", type=Path, nargs="+", metavar="PATH", default=[], help="images and folders")
    given.add_argument("--recursive", action="store_true", help="also what is in the folders' folders")
    given.add_argument(
        "--max_pixels",
        type=cli.positive_int,
        metavar="N",
        help="leave out larger images, which may be decompression bombs (default: 89 million)",
    )
    given.add_argument("--batch_size", type=cli.positive_int, default=8, help="images at a time")
    add_model_arguments(parser)
    thresholds = parser.add_argument_group("thresholds", "a tag passes when its probability is above")
    thresholds.add_argument(
        "--threshold_json",
        type=Path,
        help=f"(default: ./{THRESHOLDS_FILE}; where missing, the one beside the weights; where missing too, 0.35, and "
        "0.75 for characters and artists)",
    )
    for key in (*THRESHOLDS, *FURTHER_KEYS):
        flags = dict.fromkeys((f"--{SHORT_FLAGS.get(key, key)}", f"--{key}"))  # the long one is kohya's
        thresholds.add_argument(*flags, dest=key, type=cli.fraction, metavar="P", help=f"wins over {key} of the file")
    thresholds.add_argument(
        "--thresholds",
        choices=("json", "per_tag", "published"),
        default="json",
        help="per_tag: each tag's own, from the tag_metrics.csv beside the weights; published: those that a public "
        "tagger's authors publish",
    )
    thresholds.add_argument(
        "--mcut", action="store_true", help="each group's at the largest gap between its probabilities"
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output_format",
        choices=FORMATS,
        help="json: a list of objects; jsonl: an object a line (default: text; with --report alone nothing is printed)",
    )
    output.add_argument("--output", type=cli.file_path, metavar="FILE", help="instead of stdout")
    output.add_argument(
        "--report", type=cli.file_path, metavar="HTML", help="a page with all pictures, their tags, and sliders"
    )
    output.add_argument(
        "--export_onnx", type=cli.file_path, metavar="FILE", help="write the model as WD repositories ship it"
    )
    output.add_argument("--overwrite", action="store_true", help="replace what stands at these three, whatever it is")
    output.add_argument(
        "--translations",
        type=Path,
        metavar="CSV",
        help="names of tags in your language, tag,translation a line: beside the tags in JSON and in the report, never "
        "in captions",
    )
    add_caption_arguments(parser)
    add_artist_arguments(parser)
    arguments = parser.parse_args(argv)
    check_arguments(parser, arguments)
    return arguments


def add_model_arguments(parser: cli.ArgumentParser) -> None:
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model_path",
        type=Path,
        help="a folder with a tagger's files, or its weights (.pth, .safetensors, .onnx) with the rest beside them",
    )
    model.add_argument(
        "--model_repo",
        "--repo_id",
        metavar="ID",
        help="or a repository of the hub, owner/name[/folder][@revision]: SmilingWolf/wd-eva02-large-tagger-v3",
    )
    model.add_argument("--config_path", type=Path, help="its config.json (default: beside the weights)")
    model.add_argument(
        "--tags_csv",
        type=Path,
        help="its vocabulary; categories may be edited, names may not (default: selected_tags.csv beside the weights)",
    )
    model.add_argument(
        "--channel_order", choices=("rgb", "bgr"), help="in place of what its files say, or of what is assumed"
    )
    model.add_argument("--describe", action="store_true", help="tell what the model is and what it is shown, and stop")
    model.add_argument(
        "--device",
        choices=(*DEVICES, *GRAPH_DEVICES),
        default="auto",
        help="directml and coreml are for ONNX models, mps for others (default: a GPU where there is one)",
    )
    model.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="bfloat16: faster where the processor knows it, probabilities differ by a few thousandths; tf32: for CUDA "
        "GPUs, between the two",
    )
    model.add_argument("--no_cache", action="store_true", help="neither take nor keep probabilities")


def add_caption_arguments(parser: cli.ArgumentParser) -> None:
    captions = parser.add_argument_group("captions", "--write_captions writes a txt with the caption beside each image")
    captions.add_argument("--write_captions", action="store_true")
    captions.add_argument("--existing", choices=EXISTING, default="skip", help="what to do with a txt that is there")
    captions.add_argument("--dry_run", action="store_true", help="print what would be written, and write no txt")
    captions.add_argument(
        "--exclude_tags", "--undesired_tags", type=parse_tags, default=(), metavar="A,B", help="leave these out"
    )
    captions.add_argument(
        "--always_first", type=parse_tags, default=(), metavar="A,B", help="put these first where they are found"
    )
    captions.add_argument(
        "--prepend", type=parse_tags, default=(), metavar="TEXT", help="begin each caption with this, as it is written"
    )
    captions.add_argument(
        "--drop_constant",
        type=cli.positive_fraction,
        metavar="SHARE",
        help="leave out tags that at least this share of the run's captions hold, such as 0.9, but for those of "
        "--always_first; with --dry_run only these are told",
    )
    captions.add_argument("--rating", choices=RATING_PLACES, default="none", help="the likeliest rating in a caption")
    captions.add_argument(
        "--tag_order",
        choices=ORDERS,
        default="category",
        help="category: general, characters, artists; prompt: 1girl and the like, characters, copyrights, artists, "
        "the rest",
    )
    captions.add_argument(
        "--replace", type=Path, metavar="CSV", help="other texts for tags: columns old and new; an empty new drops it"
    )
    related = captions.add_mutually_exclusive_group()
    related.add_argument(
        "--prune",
        choices=("implied",),
        help=f"leave out what another tag implies, such as long_hair beside very_long_hair: by the {IMPLICATIONS_FILE} "
        "beside the vocabulary",
    )
    related.add_argument("--expand", choices=("implied",), help="or add what the tags imply")
    captions.add_argument(
        "--caption_extension", type=caption_suffix, default=CAPTION_SUFFIX, metavar="EXT", help="in place of txt"
    )
    captions.add_argument("--underscores", choices=("keep", "space"), default="keep", help="space: long hair, but ^_^")
    captions.add_argument(
        "--remove_underscore", dest="underscores", action="store_const", const="space", help="--underscores space"
    )
    captions.add_argument("--escape_parentheses", action="store_true", help="\\( and \\)")


def add_artist_arguments(parser: cli.ArgumentParser) -> None:
    artists = parser.add_argument_group("artists")
    artists.add_argument(
        "--artist_string", choices=SYNTAXES, help="the likeliest artists with weights, in the syntax of a prompt"
    )
    artists.add_argument(
        "--artist_model",
        metavar="PATH_OR_ID",
        help="another model that is asked for the artists, a folder or a repository; alone, with --artist_string, it "
        "needs no other",
    )
    artists.add_argument(
        "--top_artists", type=cli.positive_int, default=5, metavar="K", help="names in an artist string at most"
    )
    artists.add_argument(
        "--artist_weights",
        choices=ARTIST_WEIGHTS,
        default="prob",
        help="a weight by the probability, by the rank, equal for all, or relative to the likeliest",
    )
    artists.add_argument(
        "--weight_range", type=weight_range, default=(0.5, 1.5), metavar="LOW,HIGH", help="(default: 0.5,1.5)"
    )
    artists.add_argument(
        "--embedded_prompt",
        choices=EMBEDDED,
        help="the prompt that an image generator left in the file. first: its artists before the model's; only: without"
        " a model (default: first with --artist_string, else off)",
    )
    artists.add_argument(
        "--similar",
        type=cli.positive_int,
        nargs="?",
        const=SIMILAR,
        metavar="K",
        help=f"where no artist passes, the K taught artists that are closest, by similarity (K: {SIMILAR} where left "
        "out); for models of train_pytorch.py --teach",
    )
    artists.add_argument("--pool", action="store_true", help="one answer for all images, drawn with the same prompt")


def weight_range(text: str) -> tuple[float, float]:
    """An argparse type: two weights above 0, the lighter one first."""
    low, _, high = text.partition(",")
    lightest, heaviest = float(low), float(high)
    if not 0 < lightest <= heaviest < math.inf:
        raise cli.ArgumentTypeError(f"{text!r}: two numbers above 0, such as 0.5,1.5")
    return lightest, heaviest


def check_arguments(parser: cli.ArgumentParser, arguments: argparse.Namespace) -> None:
    """End with an error where flags do not go together."""
    only_artists = arguments.artist_model and not (arguments.model_path or arguments.model_repo)
    if arguments.model_path and arguments.model_repo:
        parser.error("name a model with --model_path or with --model_repo, not with both")
    if arguments.embedded_prompt == "only":
        if arguments.model_repo or arguments.artist_model or arguments.export_onnx or arguments.describe:
            parser.error("--embedded_prompt only asks no model; leave the flags out that name, describe or export one")
        if arguments.similar:
            parser.error("--similar is what a model sees; --embedded_prompt only asks none")
        if arguments.tag_order != "category":
            parser.error(
                "--tag_order is for a model's tags; with --embedded_prompt only they stay as the prompt has them"
            )
        if arguments.translations:
            parser.error("--translations are of a model's tags; --embedded_prompt only asks none")
        if arguments.drop_constant:
            parser.error("--drop_constant is for a model's tags; --embedded_prompt only asks none")
        if arguments.rating != "none":
            parser.error("--rating is what a model says; --embedded_prompt only asks none")
    elif not (arguments.model_path or arguments.model_repo or only_artists):
        parser.error("name a model with --model_path, or with --model_repo")
    if only_artists and not (arguments.artist_string or arguments.describe):
        parser.error("--artist_model alone answers with --artist_string; name a model with --model_path for the rest")
    if not (arguments.image_file or arguments.export_onnx or arguments.describe):
        parser.error("name one or more images with --image_file")
    if arguments.mcut and arguments.thresholds != "json":
        parser.error(f"--mcut and --thresholds {arguments.thresholds} both set the thresholds; pass one of them")
    if arguments.pool and (arguments.write_captions or arguments.report):
        parser.error("--pool gives one answer for all images, --write_captions and --report one for each; pass one")
    if arguments.pool and arguments.drop_constant:
        parser.error("--pool gives one answer for all images, and --drop_constant compares theirs; pass one")
    if arguments.report and (arguments.mcut or arguments.thresholds != "json"):
        parser.error("--report has sliders of its own; it goes neither with --mcut nor with --thresholds per_tag")
    if arguments.dry_run and not arguments.write_captions:
        parser.error("--dry_run belongs to --write_captions")


# --- settings -------------------------------------------------------------------------------------------------------


def make_settings(arguments: argparse.Namespace) -> Settings:
    """The command line's arguments, sorted; nothing else sees them."""
    keys = (*THRESHOLDS, *FURTHER_KEYS)
    given = {key: getattr(arguments, key) for key in keys if getattr(arguments, key) is not None}
    style = Style(
        order=arguments.tag_order,
        exclude=tuple(arguments.exclude_tags),
        first=tuple(arguments.always_first),
        spaces=arguments.underscores == "space",
        escape=arguments.escape_parentheses,
        prepend=tuple(arguments.prepend),
        replacements=read_replacements(arguments.replace, "check --replace") if arguments.replace else {},
        rating=arguments.rating,
        relation="prune" if arguments.prune else "expand" if arguments.expand else "none",
    )
    captions = CaptionSettings(
        style,
        write=arguments.write_captions,
        existing=arguments.existing,
        dry_run=arguments.dry_run,
        suffix=arguments.caption_extension,
        constant_share=arguments.drop_constant,
    )
    # A report, or what is constant, may be all that is asked for.
    told_otherwise = arguments.report or (captions.constant_share and captions.dry_run)
    only_told_otherwise = told_otherwise and not arguments.output_format
    return Settings(
        images=ImageSettings(tuple(arguments.image_file), arguments.recursive, arguments.max_pixels),
        model=ModelSettings(
            path=arguments.model_path,
            repository=arguments.model_repo,
            config=arguments.config_path,
            tags_csv=arguments.tags_csv,
            channel_order=arguments.channel_order and arguments.channel_order.upper(),
            artist_model=arguments.artist_model,
        ),
        engine=EngineSettings(arguments.device, arguments.precision),
        batch_size=arguments.batch_size,
        thresholds=ThresholdSettings(
            arguments.threshold_json, given, by_mcut=arguments.mcut, kind=arguments.thresholds
        ),
        output=OutputSettings(
            format=arguments.output_format or "text",
            file=arguments.output,
            prints=bool(arguments.output) or not (captions.writes or only_told_otherwise),
            report=arguments.report,
            onnx=arguments.export_onnx,
            overwrite=arguments.overwrite,
            translations=read_translations(arguments.translations, "check --translations")
            if arguments.translations
            else None,
        ),
        captions=captions,
        artists=ArtistSettings(
            syntax=arguments.artist_string,
            top=arguments.top_artists,
            weights=arguments.artist_weights,
            weight_range=arguments.weight_range,
            similar=arguments.similar or 0,
        ),
        describe=arguments.describe,
        embedded=arguments.embedded_prompt or ("first" if arguments.artist_string else "off"),
        pool=arguments.pool,
        use_cache=not arguments.no_cache,
    )


# --- the tagger -----------------------------------------------------------------------------------------------------


def load_module(config: Mapping[str, Any], weights: Path) -> "nn.Module":
    """The model of a config.json."""
    import models  # late: with torch it takes three seconds, which neither an ONNX model nor a cached answer needs

    return models.load(config, weights)


def open_models(settings: Settings, cache: Cache) -> Tagger:
    """See open_tagger; what has to be installed is said with the command that does it."""
    knows_all = settings.thresholds.kind != "published" and not settings.describe
    try:
        return open_tagger(settings.model, MODEL_HINTS, ARTIST_HINTS, cache if knows_all else None)
    except EngineMissing as error:
        raise UserError(f"{error}; {INSTALL[error.engine]}") from None


def warn_of_assumptions(tagger: Tagger) -> None:
    """What no file of a model says."""
    for model in tagger.models:
        for assumption in model.assumptions:
            advice = "; --channel_order bgr or rgb says otherwise" if "channels" in assumption else ""
            cli.warn(f"{model.weights}: assumed: {assumption}{advice}")


def make_rule(settings: ThresholdSettings, tagger: Tagger, candidates: int) -> SelectionRule:
    """What tags must pass.

    Args:
        candidates: see SelectionRule.

    Raises:
        UserError: a threshold.json is missing or unusable; or thresholds per tag are asked for, and there are none.
    """
    thresholds = base_thresholds(settings, tagger)
    per_tag = None
    if settings.kind != "json":
        hint = f"use the {TAG_METRICS_FILE} that train_pytorch.py wrote there"
        if settings.kind == "published":
            hint = "leave --thresholds published out"
        per_tag = taggers.tag_thresholds(tagger, settings.kind, {**thresholds, **settings.given}, hint)
        if per_tag is None:  # of categories alone; captions and tags take all that passes
            thresholds |= taggers.advised_thresholds(tagger) | {"caption_threshold": 0, "tags_threshold": 0}
    thresholds = {**thresholds, **settings.given}
    return SelectionRule(thresholds, settings.by_mcut, per_tag, tagger.main.inclusive, candidates)


def base_thresholds(settings: ThresholdSettings, tagger: Tagger) -> dict[str, float]:
    """The thresholds that flags win over. The first of these that is there has them:

    1. the file that was named,
    2. ./threshold.json, which people edit,
    3. the threshold.json beside the weights, which training has fitted,
    4. what a public tagger's authors advise,
    5. the built-in ones.

    Where a checkpoint's are passed over for a file that nobody has edited yet, or taken without being asked for, a line
    on stderr says so.
    """
    fitted = tagger.main.weights.with_name(THRESHOLDS_FILE)
    read = functools.partial(read_thresholds, categories=tagger.vocabulary.category_names)
    if settings.file:
        return read(settings.file, cli.warn, "check --threshold_json")
    no_matter = settings.by_mcut or settings.kind != "json" or settings.given.keys() >= THRESHOLDS.keys()
    local = Path(THRESHOLDS_FILE)
    if local.exists():
        thresholds = read(local, cli.warn)
        if fitted.exists() and is_shipped(thresholds) and not no_matter:
            with contextlib.suppress(UserError):  # what is wrong with a file that is not used is no matter
                offered = read(fitted, lambda message: None)
                if offered != thresholds:
                    cli.warn(
                        f"{local} is as it was shipped; the checkpoint has its own thresholds ({in_words(offered)}), "
                        f"which --threshold_json {fitted} takes"
                    )
        return thresholds
    if fitted.exists():
        thresholds = read(fitted, cli.warn)
        if not no_matter:
            held = in_words(thresholds)
            cli.warn(f"no ./{local}: the checkpoint's thresholds hold ({held}), as with --threshold_json {fitted}")
        return thresholds
    if advised := taggers.advised_thresholds(tagger):
        if not no_matter:
            cli.warn(f"no ./{local}: the thresholds that the model's authors advise hold ({in_words(advised)})")
        return advised
    return default_thresholds()


def is_shipped(thresholds: Mapping[str, float]) -> bool:
    """Whether thresholds are those of the file beside this script."""
    with contextlib.suppress(UserError):
        return thresholds == read_thresholds(SHIPPED_THRESHOLDS, lambda message: None)
    return False


def in_words(thresholds: Mapping[str, float]) -> str:
    """Thresholds in a line: `general 0.35, character 0.75, …`."""
    return ", ".join(f"{key.removesuffix('_threshold')} {value:.2f}" for key, value in thresholds.items())


def export(path: Path, tagger: Tagger) -> None:
    """Write the model as an ONNX file, and say so.

    Raises:
        UserError: it is one already; see also onnx_export.write.
    """
    model = tagger.main
    if model.config is None:
        raise UserError(f"{model.weights}: an ONNX graph already; copy it")
    from tagger.inference import onnx_export  # late, like models

    module = load_module(model.config, model.weights)
    cli.warn(onnx_export.write(path, module, model.preparation, model.output.activation))


def describe(tagger: Tagger, settings: EngineSettings) -> None:
    """Print what the models are; a graph is loaded for what it alone knows."""
    for number, model in enumerate(tagger.models):
        engine = None
        if model.config is None:
            engine = taggers.open_engine(model, settings, load_module, RUN_HINTS.engine)
        print(*([""] if number else []), *taggers.describe(model, engine), sep="\n")


# --- images ---------------------------------------------------------------------------------------------------------


def find_images(settings: ImageSettings) -> image_files.Found:
    """All images that are named or in folders.

    Raises:
        UserError: see image_files.find.
    """
    return image_files.find(
        settings.paths,
        settings.recursive,
        path_hint="check --image_file",
        folder_hint="name another folder, or pass --recursive",
    )


def choose_images(found: image_files.Found, captions: CaptionSettings) -> tuple[list[Path], int]:
    """The images to tag, and how many files and folders were left out, each with a word.

    Raises:
        Busy: another script is at work where captions are to be written.
    """
    chosen, errors, passed = found.images, list(found.unreadable), 0
    if captions.write:
        chosen, refused = owners_of_captions(chosen, captions.suffix)
        errors += refused
        if captions.existing == "skip":  # before the model is asked, which is what takes time
            needed = without_captions(chosen, captions.suffix)
            chosen, passed = needed, len(chosen) - len(needed)
    if captions.writes:
        chosen, refused = in_writable_folders(chosen)
        errors += refused
    for error in errors:
        cli.warn(f"error: {error}")
    if found.others:
        cli.warn(f"left out: {found.others_text()}: pictures in formats that are not read here; {image_files.ADVICE}")
    if passed:
        images = cli.counted(passed, "image")
        cli.warn(f"passed over: {images} with a txt; --existing overwrite or append changes that")
    return chosen, len(errors) + found.others.total()


# --- outputs --------------------------------------------------------------------------------------------------------


def outputs(settings: OutputSettings, images: int) -> Iterator[tuple[str, Path, Callable[[Path], bool]]]:
    """The files to write: flag, path, and whether a file that stands there looks like one of this script's."""
    if settings.file:
        yield "--output", settings.file, is_answers
    if settings.report:
        from tagger.inference import report  # late: it imports Pillow

        for number, page in enumerate(report.page_paths(settings.report, images), start=1):
            yield "--report", page, functools.partial(report.is_report, number=number)
    if settings.onnx:
        from tagger.inference import onnx_export  # late: it imports torch

        yield "--export_onnx", settings.onnx, onnx_export.is_export


def files_read(tagger: Tagger) -> list[Path]:
    """All files of the models that may be read."""
    weights = [model.weights for model in tagger.models]
    beside = [path.with_name(name) for path in weights for name in (THRESHOLDS_FILE, TAG_METRICS_FILE)]
    return [*tagger.files, *beside, tagger.main.labels.with_name(IMPLICATIONS_FILE)]


def check_outputs(settings: Settings, model: Sequence[Path], images: Sequence[Path]) -> None:
    """Refuse, before the first work, outputs that cannot be written, harm somebody's file, or meet each other.

    Args:
        model: files of the model that are read.
        images: so are these.

    Raises:
        UserError: the first of them.
    """
    inputs = [*images, *model, Path(THRESHOLDS_FILE)]
    inputs += [settings.thresholds.file] if settings.thresholds.file else []
    inputs += [settings.output.translations.path] if settings.output.translations else []
    captions = images if settings.captions.writes else ()
    written = {os.path.realpath(caption_path(path, settings.captions.suffix)): "a caption" for path in captions}
    for flag, path, is_ours in outputs(settings.output, len(images)):
        check_output(
            path,
            hint=f"name another file with {flag}",
            inputs=inputs,
            is_ours=is_ours,
            overwrite=settings.output.overwrite,
            overwrite_hint=f"name another file with {flag}, or pass --overwrite",
        )
        if (other := written.setdefault(os.path.realpath(path), flag)) != flag:
            raise UserError(f"{path}: {flag} and {other} would be one file; name another file with {flag}")


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
    results: Iterable[Results],
    images: Sequence[Path],
    tagger: Tagger,
    rule: SelectionRule,
    demands: Sequence[Demand],
    style: Style,
    settings: Settings,
    similar: "SimilarArtists | None" = None,
) -> Counts:
    """Print the answer of each image, and write its caption and the report where they are asked for.

    What the file itself says comes first where that is asked for.

    Args:
        images: all of them; several have titles.
        demands: what the results are enough for.
        style: of captions and tags, as `caption_style` gives it.
        similar: what knows the closest taught artists, where they are asked for.
    """
    output, rows = settings.output, tagger.vocabulary.rows
    ratings = list(map(tagger.vocabulary.name, tagger.vocabulary.indices(RATING)))
    captions = caption_files(settings.captions, Merging.of(style, TagReader(rows), ratings))
    prompts = open_prompts(settings, tagger.vocabulary, tagger.main.labels)
    counts = Counts()
    # The output is complete before the report, whose pictures are decoded once more.
    with open_report(images, tagger.vocabulary, rule, style, settings) as report, open_output(output.file) as file:
        groups = groups_of(tagger.vocabulary)
        columns = csv_columns(groups, with_prompts=prompts is not None, with_similar=similar is not None)
        writer = open_writer(file, columns, images, settings)
        for path, logits in results:
            counts.total += 1
            if isinstance(logits, UserError):
                counts.leave_out(logits)
                if report:
                    report.pass_over()
                continue
            probabilities = taggers.probabilities(logits, demands)
            tagging = select(path, probabilities, tagger.vocabulary, rule)
            prompt = prompt_beside(path, images, prompts, settings) if prompts else None
            closest = similar.closest(settings.artists.similar, None if settings.pool else path) if similar else None
            answer: Answer | None = replace(
                make_answer(tagging, rows, style, settings.artists, output.translations),
                prompt=prompt,
                similar={} if closest and tagging.artists else closest,
            )
            if answer and settings.captions.write:
                answer = with_caption(answer, path, captions, counts)
            if answer and writer:
                writer.add(answer)
            if report:
                report.add(path, probabilities, prompt, closest)
        if writer:
            writer.end()
    if settings.captions.write:
        cli.warn(captions.summary())
    tell_of_report(report)
    return counts


def caption_style(style: Style, reader: TagReader, tags_csv: Path | None) -> Style:
    """A style as a vocabulary spells its names, with the implications that lie beside it where they are asked for.

    Raises:
        UserError: they are missing or unusable.
    """
    style = style.read_by(reader)
    if style.relation == "none":
        return style
    path = (tags_csv or Path(VOCABULARY_FILE)).with_name(IMPLICATIONS_FILE)
    return replace(style, implications=read_implications(path, IMPLICATIONS_HINT).spelt_like(reader.known))


def without_constant_tags(
    results: Iterable[Results],
    tagger: Tagger,
    rule: SelectionRule,
    demands: Sequence[Demand],
    style: Style,
    settings: Settings,
) -> Style:
    """The style without the tags that nearly all captions share; which these are is said.

    Args:
        results: of all images; those that could not be read have no caption.
        demands: what they are enough for.
    """
    share = settings.captions.constant_share
    assert share is not None  # else nobody asks
    captions = (
        caption_names(
            select(path, taggers.probabilities(logits, demands), tagger.vocabulary, rule), tagger.vocabulary.rows, style
        )
        for path, logits in results
        if not isinstance(logits, UserError)
    )
    found = find_constant(captions, share, keep=style.first)
    tell_of_constant_tags(found, share, settings)
    return replace(style, constant=frozenset(found.uses))


def tell_of_constant_tags(found: ConstantTags, share: float, settings: Settings) -> None:
    """Say which tags are left out of all captions; in a dry run that is the result."""
    captions = cli.counted(found.captions, "caption")
    if not found.can_be_told:
        passes_over = settings.captions.write and settings.captions.existing == "skip"
        anew = ", or write all captions anew with --existing overwrite" if passes_over else ""
        cli.warn(
            f"warning: {captions}, and {LEAST_CAPTIONS} are needed to tell what is constant in them: --drop_constant "
            f"leaves none out; name tags with --exclude_tags{anew}"
        )
    elif not found.uses:
        cli.warn(f"no tag is in {100 * share:g}% of {captions}, so none is left out by --drop_constant")
    elif settings.captions.dry_run and not settings.output.prints:
        print(*found.lines(), sep="\n")
    else:
        cli.warn(f"left out of {captions}, for {100 * share:g}% share them: {', '.join(found.shares())}")


def caption_files(settings: CaptionSettings, merging: Merging) -> CaptionFiles:
    """What writes the captions of a run."""
    return CaptionFiles(settings.existing, merging, settings.dry_run, settings.suffix)


def open_writer(file: IO[str], columns: Sequence[str], images: Sequence[Path], settings: Settings) -> Writer | None:
    """What writes the answers to a file; None where nothing is printed. Several images have titles."""
    if not settings.output.prints:
        return None
    return FORMATS[settings.output.format](file, len(images) > 1 and not settings.pool, columns)


def tell_of_report(report: "report.Report | None") -> None:
    """Say where a report is, if one was written."""
    if report and report.count:
        pages = len(report.pages)
        further = f", and {cli.counted(pages - 1, 'page')} beside it" if pages > 1 else ""
        cli.warn(f"{report.pages[0]}: open it in a browser{further}")


def with_caption(answer: Said, image: Path, captions: CaptionFiles, counts: Counts) -> Said | None:
    """Write the caption of an image. In a dry run: the answer with its txt's whole text, None where the txt stays."""
    if answer.caption is None:  # there is no prompt that could be one
        return answer
    try:
        text = captions.put(image, answer.caption)
    except Busy:
        raise
    except UserError as error:
        counts.leave_out(error)
        text = None
    if not captions.dry_run:
        return answer
    return None if text is None else replace(answer, caption=text)


def open_output(path: Path | None) -> contextlib.AbstractContextManager[IO[str]]:
    """A file that appears when it is complete, or stdout, which is left open."""
    if path is None:
        return contextlib.nullcontext(sys.stdout)
    path.parent.mkdir(parents=True, exist_ok=True)
    return replacing(path)


def open_report(
    images: Sequence[Path], vocabulary: Vocabulary, rule: SelectionRule, style: Style, settings: Settings
) -> contextlib.AbstractContextManager["report.Report | None"]:
    """The report to be written, or None."""
    output = settings.output
    if output.report is None:
        return contextlib.nullcontext()
    from tagger.inference import report

    return report.writing(output.report, images, rule, vocabulary, style, settings.artists, output.translations)


def warn_of_no_effect(settings: Settings, tagger: Tagger) -> None:
    """Warn of flags that can have no effect."""
    known, labels = tagger.vocabulary.rows, tagger.main.labels
    style = settings.captions.style.read_by(TagReader(known))
    unknown = [name for name in dict.fromkeys((*style.exclude, *style.first)) if name not in known]
    if strange := [name for name in style.replacements if name not in known]:
        cli.warn(
            f"warning: {len(strange):,} of the {cli.counted(len(style.replacements), 'tag')} to replace are none of "
            f"{labels}, such as {strange[0]}"
        )
    meant = lookalikes(unknown, known) if unknown else {}
    for name in unknown:
        cli.warn(f"warning: {name} is no tag of {labels}" + (f"; is {meant[name]} meant?" if name in meant else ""))
    if (translations := settings.output.translations) and not translations.among(known):
        tags = cli.counted(translations.count, "tag")
        cli.warn(f"warning: {translations.path}: translations of {tags}, of which none is one of {labels}")
    told = settings.output.report or (settings.output.prints and settings.output.format in ("json", "jsonl"))
    if translations and not told:
        cli.warn("warning: --translations are told in JSON and in the report; neither is asked for")
    if settings.artists.syntax and "artist" not in tagger.vocabulary.category_names:
        cli.warn(f"warning: {labels} has no artists (category 1), so no image has an artist string")


def open_cache(wanted: bool) -> contextlib.AbstractContextManager[Cache]:
    """The cache of this user, or None."""
    if not wanted:
        return contextlib.nullcontext()
    if (path := default_path()) is None:
        cli.warn("you have no home folder, so nothing is kept for the next run; set XDG_CACHE_HOME to keep it")
        return contextlib.nullcontext()
    return contextlib.closing(PredictionCache(path))


# --- prompts in the files -------------------------------------------------------------------------------------------


def open_prompts(settings: Settings, vocabulary: Vocabulary | None, tags_csv: Path | None) -> "Prompts | None":
    """What reads the prompts of files, or None where that is not asked for.

    Args:
        vocabulary: to look names up, with the path that it was read from; None where there is none.
    """
    if settings.embedded == "off":
        return None
    from tagger.inference.embedded.answer import Prompts, make_lookup  # late: few runs need it

    return Prompts(make_lookup(vocabulary, tags_csv), settings.artists, cli.warn)


def prompt_beside(path: Path, images: Sequence[Path], prompts: "Prompts", settings: Settings) -> "PromptAnswer | None":
    """What an image's own prompt says beside the model, or those of all images where their answer is one."""
    try:
        return prompts.together(images, str(path)) if settings.pool else prompts.answer(path)
    except UserError as error:  # the model has seen it, so it has vanished since
        cli.warn(f"warning: {error}")
        return None


def vocabulary_for_prompts(settings: ModelSettings) -> tuple[Vocabulary | None, Path | None]:
    """The vocabulary that tells artists from other tags where no model is asked, and its path.

    It is the one that was named, that of the model that was named, or ./selected_tags.csv if there is one.

    Raises:
        UserError: the CSV that was named is missing, or one is unusable.
    """
    path = settings.tags_csv
    if path is None and settings.path:
        path = (settings.path if settings.path.is_dir() else settings.path.parent) / VOCABULARY_FILE
    if path is None:
        path = Path(VOCABULARY_FILE)
        if not path.exists():
            cli.warn(f"no ./{path}: only artists with a prefix are known; name a vocabulary with --tags_csv")
            return None, None
    vocabulary = read_vocabulary(path, hint="name a vocabulary with --tags_csv")
    if not vocabulary.indices(ARTIST):
        cli.warn(f"{path} has no artists (category 1): only artists with a prefix are known")
    return vocabulary, path


def tell_prompts(settings: Settings) -> int:
    """The run without a model: what the files themselves say. Returns the exit code."""
    vocabulary, tags_csv = vocabulary_for_prompts(settings.model)
    found = find_images(settings.images)
    check_outputs(settings, [tags_csv] if tags_csv else [], found.images)
    paths, left_out = choose_images(found, settings.captions)
    if not paths:
        return cli.INCOMPLETE if left_out else cli.DONE
    prompts = open_prompts(settings, vocabulary, tags_csv)
    assert prompts is not None  # they are all that is asked for
    counts = write_prompts(paths, prompts, vocabulary, tags_csv, settings)
    if counts.left_out == counts.total:
        return cli.UNUSABLE
    return cli.INCOMPLETE if counts.left_out or left_out else cli.DONE


def write_prompts(
    images: Sequence[Path], prompts: "Prompts", vocabulary: Vocabulary | None, tags_csv: Path | None, settings: Settings
) -> Counts:
    """Print what each file says of its prompt, and write its caption and the report where they are asked for."""
    reader = TagReader(vocabulary.index if vocabulary else ())
    style = caption_style(settings.captions.style, reader, tags_csv)
    captions = caption_files(settings.captions, Merging.of(style, reader))
    no_tags = Vocabulary((), ())  # for a page without a model's answers
    counts = Counts()
    with (
        open_report(images, no_tags, SelectionRule(default_thresholds()), style, settings) as report,
        open_output(settings.output.file) as file,
    ):
        writer = open_writer(file, ("image", *PROMPT_COLUMNS), images, settings)
        for path, answer in prompt_answers(images, prompts, style, settings):
            counts.total += 1
            if isinstance(answer, UserError):
                counts.leave_out(answer)
                if report:
                    report.pass_over()
                continue
            told = with_caption(answer, path, captions, counts) if settings.captions.write else answer
            if told and writer:
                writer.add(told)
            if report:
                report.add(path, {}, answer)
        if writer:
            writer.end()
    if settings.captions.write:
        cli.warn(captions.summary())
    tell_of_report(report)
    return counts


def prompt_answers(
    images: Sequence[Path], prompts: "Prompts", style: Style, settings: Settings
) -> Iterator[tuple[Path, "PromptAnswer | UserError"]]:
    """What each image's file says, or why it cannot be read; with --pool one answer for all that can."""
    pool = prompts.pool()
    for path in images:
        try:
            if settings.pool:
                pool.add(prompts.read(path))
            else:
                yield path, prompts.captioned(path, style) if settings.captions.write else prompts.answer(path)
        except UserError as error:
            yield path, error
    if pool.files:
        title = f"{cli.counted(pool.files, 'image')} together"
        yield Path(title), pool.answer(title)


# --- the run --------------------------------------------------------------------------------------------------------


def make_request(rule: SelectionRule, tagger: Tagger, settings: Settings) -> Request:
    """Which probabilities are enough for all that is asked for."""
    if settings.pool:  # the mean is taken of all of them
        return Request()
    least = rule.least(groups_of(tagger.vocabulary))
    if settings.output.report:
        from tagger.inference import report  # late: it imports Pillow

        least = min(least, report.LOWEST)
    return Request(least, rule.candidates)


def answer(paths: Sequence[Path], tagger: Tagger, rule: SelectionRule, settings: Settings, cache: Cache) -> Counts:
    """Run the models over images, and write all that is asked for. Of torchrun's processes the first alone writes.

    Raises:
        UserError: see open_similar and Taggers.
    """
    similar = taggers.open_similar(tagger, SIMILAR_HINT) if settings.artists.similar else None
    demands = tagger.demands(make_request(rule, tagger, settings))
    models = Taggers(tagger, demands, settings.engine, settings.batch_size, load_module, RUN_HINTS, similar)
    group = process_group()
    results: Iterable[Results]
    if similar:
        results = similar.unloaded(split(paths, lambda share: similar.loaded(models.predictions(share, cache)), group))
    else:
        results = split(paths, lambda share: models.predictions(share, cache), group)
    if group.rank:  # its answers go to the first
        count = sum(1 for _ in results)
        cli.warn(f"process {group.rank}: {models.summary()}")
        return Counts(total=count + 1)
    # A bar among results on the same terminal would be torn to pieces.
    if len(paths) > 1 and (settings.output.file or not settings.output.prints or not sys.stdout.isatty()):
        results = cli.with_progress(results, len(paths), "image")
    if settings.pool:
        results = pooled(results)
    style = caption_style(settings.captions.style, TagReader(tagger.vocabulary.rows), tagger.main.labels)
    with contextlib.ExitStack() as stack:
        if settings.captions.constant_share:  # all answers must be there before the first caption is written
            results = stack.enter_context(kept(results))
            style = without_constant_tags(results, tagger, rule, demands, style, settings)
        counts = write_answers(results, paths, tagger, rule, demands, style, settings, similar)
    left = f", {counts.left_out:,} left out" if counts.left_out else ""
    cli.warn(models.summary() + left)
    return counts


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    settings = make_settings(parse_arguments(argv))
    if settings.images.max_pixels:
        from tagger import images  # late: it imports Pillow, which an answer from the cache does not need

        images.limit_pixels(settings.images.max_pixels)
    if settings.embedded == "only":
        return tell_prompts(settings)
    with open_cache(settings.use_cache) as cache:
        tagger = open_models(settings, cache)
        if settings.describe:
            describe(tagger, settings.engine)
            return cli.DONE
        warn_of_assumptions(tagger)
        rule = make_rule(settings.thresholds, tagger, settings.artists.candidates)
        found = find_images(settings.images)
        check_outputs(settings, files_read(tagger), found.images)
        if settings.output.onnx:
            export(settings.output.onnx, tagger)
            if not settings.images.paths:
                return cli.DONE

        paths, left_out = choose_images(found, settings.captions)
        if not paths:
            return cli.INCOMPLETE if left_out else cli.DONE
        warn_of_no_effect(settings, tagger)
        if settings.captions.dry_run:
            for model in tagger.models:
                cli.warn(f"{model.weights}: pixels: {', '.join(model.preparation.lines())}")
        counts = answer(paths, tagger, rule, settings, cache)
    if counts.left_out == counts.total:
        return cli.UNUSABLE
    return cli.INCOMPLETE if counts.left_out or left_out else cli.DONE


if __name__ == "__main__":
    sys.exit(main())
