"""Train EVA-02 on the TFRecords of create_tfrecord.py, as a multi-label tagger.

    python train_pytorch.py --dataset_root ./output-datasets --output_dir ./checkpoints
    python train_pytorch.py --resume                                            # go on after a stop, bit for bit
    python train_pytorch.py --pretrained SmilingWolf/wd-eva02-large-tagger-v3 --image_size 448
    torchrun --nproc_per_node 8 train_pytorch.py                                # a process per GPU

Writes <model>_epoch_X.pth after every epoch, <model>_best.pth, config.json, the vocabulary, metrics.csv and curves.png,
and for the best epoch threshold.json and tag_metrics.csv. On stdout a line of validation metrics per epoch, on stderr
the progress.
"""

from tagger import cli  # first, so that an interrupt while the others are imported is one line

# isort: split

import argparse
import contextlib
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import models
from models import MODELS, make_config
from tagger.device import DEVICES, pick_device
from tagger.files import UserError, locked_folder, write_json, write_table
from tagger.formats.checkpoint import (
    CONFIG_FILE,
    HUB_WEIGHTS,
    PROTOTYPES_FILE,
    STATE_PATTERN,
    best_name,
    epoch_name,
    own_preparation,
)
from tagger.formats.prototypes import write_prototypes
from tagger.formats.records import ABOUT_FILE
from tagger.formats.tag_lists import TagReader, parse_tags
from tagger.formats.thresholds import THRESHOLDS_FILE
from tagger.formats.vocabulary import (
    ARTIST,
    CATEGORIES_FILE,
    VOCABULARY_FILE,
    Category,
    Vocabulary,
    read_categories,
    write_vocabulary,
)
from tagger.formats.weights import load_sound_weights, save_weights
from tagger.preparation import Preparation
from tagger.training import checkpoints, cost, curves, discriminant, distributed, export, features, pretrained
from tagger.training import teach as teaching
from tagger.training.checkpoints import DifferentSettings
from tagger.training.data import ImagesTooSmall, Split, TaggedRecords, load_splits, make_loader, open_records
from tagger.training.distributed import World
from tagger.training.evaluation import EARLY_STOPPING_METRICS, Evaluation
from tagger.training.frozen import FrozenHead, new_rows, unfreeze_last
from tagger.training.loss import LOSSES, start_head_at_log_odds, tag_frequency
from tagger.training.optimizer import OPTIMIZERS, static_bytes
from tagger.training.settings import RunSettings, TrainingSettings
from tagger.training.trainer import IMAGES_PER_STEP, NotFinite, OutOfMemory, Stopped, Trainer, fixed_settings

DEFAULT_MODEL = "eva02_large"
# What measured best from scratch (benchmarks/recipes.py), and what suits weights that know a lot already.
FROM_SCRATCH = TrainingSettings().flat()
FROM_PRETRAINED = {
    "optimizer": "adamw",
    "patch_dropout": 0.0,
    "layer_decay": 0.75,
    "head_lr": 100.0,  # of 1e-4: rows that begin at nothing have six epochs to learn (benchmarks/artists.py)
    "early_stopping_metric": "map",
}
BEST_START = "SmilingWolf/wd-eva02-large-tagger-v3"  # the best public weights for these tags


# --- flags ----------------------------------------------------------------------------------------------------------


def defaults_of(name: str) -> str:
    """The two defaults of a flag that depends on where the weights come from, for its help."""
    return f"(default: {FROM_SCRATCH[name]} from scratch, {FROM_PRETRAINED[name]} with --pretrained)"


def add_data_flags(parser: cli.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--dataset_root", type=Path, help="what create_tfrecord.py wrote")
    group.add_argument(
        "--image_size", type=cli.positive_int, help="side of the model's input in pixels, divisible by 14"
    )
    group.add_argument("--hflip", type=cli.fraction, help="probability of a horizontal flip in training")
    group.add_argument(
        "--crop_min",
        type=cli.positive_fraction,
        help="training sees random square crops of at least this side, 1 = none",
    )
    group.add_argument(
        "--cutout", type=cli.fraction, help="share of the area that a grey square hides in training, 0 = none"
    )
    group.add_argument(
        "--val_images",
        type=cli.non_negative_int,
        metavar="N",
        help="validate on N images of the validation split, the same ones in every epoch, 0 = all",
    )
    group.add_argument(
        "--num_workers",
        type=cli.non_negative_int,
        help="decoding processes (default: up to 8 with a GPU, none without)",
    )


def add_model_flags(parser: cli.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model", choices=MODELS, help=f"(default: {DEFAULT_MODEL}, or what --pretrained is)")
    group.add_argument(
        "--pretrained",
        metavar="PATH|ID",
        help="start from these weights: a folder or file with config.json and selected_tags.csv beside it, or a "
        "repository of the Hugging Face hub; the head is carried over by tag name",
    )
    group.add_argument(
        "--drop_path", type=cli.fraction, help="stochastic depth: share of blocks skipped, rising to this"
    )
    group.add_argument(
        "--patch_dropout",
        type=cli.proper_fraction,
        help="share of the patches that training leaves out, which saves as much time " + defaults_of("patch_dropout"),
    )
    group.add_argument(
        "--freeze_backbone",
        action="store_true",
        help="train the head alone, on features that are computed once; the rows of tags that --pretrained knows stay "
        "as they are",
    )
    group.add_argument(
        "--train_old_tags", action="store_true", help="with --freeze_backbone: these rows, too, are trained"
    )
    group.add_argument(
        "--unfreeze_last", type=cli.positive_int, metavar="N", help="train only the head and the last N blocks"
    )
    group.add_argument(
        "--grad_checkpointing", action="store_true", help="recompute activations: less memory, a third more time"
    )
    group.add_argument(
        "--compile",
        action="store_true",
        default=None,
        help="torch.compile: minutes to start, then faster steps (default: on a CUDA GPU, where it works)",
    )
    group.add_argument("--no_compile", action="store_false", dest="compile", default=None, help="start at once")


def add_recipe_flags(parser: cli.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--batch_size", type=cli.positive_int, help="per process")
    group.add_argument("--epochs", type=cli.non_negative_int, help="0: only convert --pretrained")
    group.add_argument(
        "--grad_accumulation",
        type=cli.positive_int,
        metavar="N",
        help="batches per step: N x batch_size images, in the memory of one batch",
    )
    group.add_argument(
        "--bf16_gradients",
        action="store_true",
        help="torchrun's processes send each other gradients as bfloat16: half the traffic between machines",
    )
    group.add_argument(
        "--optimizer",
        choices=OPTIMIZERS,
        help="muon: Muon for the blocks' matrices and AdamW for all else " + defaults_of("optimizer"),
    )
    group.add_argument(
        "--lr", type=cli.positive_float, help="peak learning rate; 4e-3 suits the tiny and small models from scratch"
    )
    group.add_argument(
        "--head_lr",
        type=cli.positive_float,
        metavar="FACTOR",
        help="the head's rate as a multiple of --lr " + defaults_of("head_lr"),
    )
    group.add_argument(
        "--warmup", type=cli.fraction, help="share of all steps in which the rate rises to its peak; then a cosine to 0"
    )
    group.add_argument("--weight_decay", type=cli.non_negative_float, help="of matrices; norms and biases have none")
    group.add_argument(
        "--layer_decay",
        type=cli.positive_fraction,
        help="rate of each block to the one above, 1 = all alike " + defaults_of("layer_decay"),
    )
    group.add_argument(
        "--ema_decay", type=cli.fraction, help="checkpoints hold an exponential moving average of the weights, 0 = off"
    )
    group.add_argument(
        "--loss",
        choices=LOSSES,
        help="binary cross-entropy; asymmetric loss; or binary cross-entropy and a logit-adjusted softmax over the "
        "artists",
    )
    group.add_argument(
        "--repeat_factor",
        type=cli.fraction,
        metavar="T",
        help="images by an artist who has a smaller share f of them than T come sqrt(T / f) times in an epoch, 0 = off",
    )
    group.add_argument(
        "--frequency_weighting",
        type=cli.fraction,
        metavar="POWER",
        help="weigh the positives of rare tags by (mean frequency / frequency) ** POWER",
    )
    group.add_argument(
        "--mixup",
        type=cli.non_negative_float,
        metavar="ALPHA",
        help="blend pairs of images by Beta(ALPHA, ALPHA), 0 = off",
    )
    group.add_argument(
        "--patience", type=cli.non_negative_int, help="stop after so many epochs without a better one, 0 = never"
    )
    group.add_argument(
        "--early_stopping_metric",
        choices=EARLY_STOPPING_METRICS,
        help="what makes an epoch better, on the validation split " + defaults_of("early_stopping_metric"),
    )
    group.add_argument("--seed", type=cli.non_negative_int, help="of everything random")
    group.add_argument(
        "--device", choices=DEVICES, help="auto: a GPU where there is one, and bfloat16 autocast on CUDA"
    )


def tag_names(text: str) -> tuple[str, ...]:
    """An argparse type: tags, separated by commas."""
    return tuple(parse_tags(text))


def add_teaching_flags(parser: cli.ArgumentParser) -> None:
    group = parser.add_argument_group("teaching", "artists from a few pictures each, in minutes and without training")
    group.add_argument(
        "--teach",
        type=Path,
        metavar="FOLDER",
        help="a folder for each artist, or pairs with artist tags; --pretrained learns to tell them from each other, "
        "and keeps all that it knows",
    )
    group.add_argument(
        "--unteach", type=tag_names, metavar="A,B", help="forget taught artists; the others are told apart anew"
    )


def add_output_flags(parser: cli.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--output_dir", type=Path, help="checkpoints and config.json")
    group.add_argument(
        "--overwrite", action="store_true", help="replace an earlier run, or other files that stand in the two folders"
    )
    group.add_argument(
        "--resume",
        nargs="?",
        const="last",
        choices=("last", "auto"),
        help="go on with the run in --output_dir, with its flags where they are left out; auto: or begin one",
    )
    group.add_argument(
        "--save_every_steps",
        type=cli.non_negative_int,
        metavar="N",
        help="write what --resume needs also every N steps; always after every epoch",
    )
    group.add_argument(
        "--keep_checkpoints",
        type=cli.non_negative_int,
        metavar="N",
        help="keep the checkpoints of the newest N epochs and the best, 0 = all",
    )
    group.add_argument(
        "--export_dir",
        type=Path,
        help="at the end, write the best model as a Hugging Face style folder for timm and wdtagger",
    )
    group.add_argument(
        "--dry_run", action="store_true", help="print model, classes, steps and a memory estimate, and stop"
    )


def parse_arguments(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """All flags with their defaults, and those alone that were given."""
    parser = cli.ArgumentParser(doc=__doc__ or "", separator="_")
    # Each flag is a field of the settings and has its default; None where the default depends on --pretrained.
    parser.set_defaults(**FROM_SCRATCH | dict.fromkeys(FROM_PRETRAINED))
    add_data_flags(parser)
    add_model_flags(parser)
    add_recipe_flags(parser)
    add_teaching_flags(parser)
    add_output_flags(parser)
    arguments = parser.parse_args(argv)
    if arguments.epochs == 0 and not arguments.pretrained:
        parser.error("--epochs 0 only converts; name what with --pretrained")
    if arguments.export_dir and arguments.export_dir.resolve() == arguments.output_dir.resolve():
        parser.error("--export_dir has a config.json of its own, for BGR; name another folder than --output_dir")
    if arguments.resume and arguments.overwrite:
        parser.error("--resume goes on and --overwrite begins anew; pass one of them")
    if arguments.freeze_backbone and not arguments.pretrained and not arguments.resume:
        parser.error("--freeze_backbone keeps what a model has learnt; name one with --pretrained")
    if arguments.freeze_backbone and arguments.unfreeze_last:
        parser.error("--freeze_backbone and --unfreeze_last exclude each other; pass one of them")
    if arguments.train_old_tags and not (arguments.freeze_backbone or arguments.resume):
        parser.error("--train_old_tags belongs to --freeze_backbone; else all rows are trained anyway")
    left_out = object()
    parser.set_defaults(**dict.fromkeys(FROM_SCRATCH, left_out))
    return arguments, {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not left_out}


def make_settings(given: Mapping[str, Any], state: Mapping[str, Any] | None = None) -> TrainingSettings:
    """The settings that flags ask for. What nobody asked for is as in the run that goes on, else it depends on where
    the weights come from.

    Args:
        given: the values of the flags that were given.
        state: that of the run that goes on.
    """
    values: dict[str, Any] = dict(FROM_PRETRAINED) if given.get("pretrained") else {}
    if state:
        values |= TrainingSettings.recalled(state.get("remembered") or state["settings"])  # up to 0.2, fewer were kept
    return TrainingSettings.from_flat(values | dict(given))


@contextlib.contextmanager
def naming_flags(settings: TrainingSettings, device: torch.device) -> Iterator[None]:
    """Add to the errors of a run the flags that help. Only this script knows them; the errors bring the facts."""
    batch_size = f"--batch_size {settings.recipe.batch_size}"
    try:
        yield
    except ImagesTooSmall as error:
        raise UserError(
            f"{error}; pass --image_size {error.stored} or run create_tfrecord.py --img-size {error.wanted}"
        ) from None
    except NotFinite as error:
        raise UserError(
            f"--lr: {error}; start again with a lower --lr and another --output_dir, perhaps with --pretrained from "
            "the last checkpoint"
        ) from None
    except DifferentSettings as error:
        flags = [each for each in error.differences if each.name in settings.flat()]
        others = [each for each in error.differences if each not in flags]
        if any(each.saved is None for each in flags):  # the state is older than the flag
            flags, others = [], [*flags, *others]
        hints = ["leave these flags out" if len(flags) > 1 else "leave the flag out"] if flags else []
        if any(each.name == IMAGES_PER_STEP for each in others):
            hints += ["leave --batch_size and --grad_accumulation out and start as many processes as it had"]
        elif others:
            hints += ["go on with what it began with, the version of the toolkit too"]
        told = "; ".join([*(f"--{each}" for each in flags), *map(str, others)])
        raise UserError(f"{told}; {' and '.join(hints)}, or begin another run with another --output_dir") from None
    except OutOfMemory as error:
        if error.fitting:
            batches = settings.recipe.grad_accumulation * (settings.recipe.batch_size // error.fitting)
            hint = (
                f"{error.fitting} {'fits' if error.tried else 'may fit'}: pass --batch_size {error.fitting} "
                f"--grad_accumulation {batches}, or --grad_checkpointing"
            )
        else:
            hint = "not even 1 fits; pass --grad_checkpointing, a smaller --image_size or a smaller --model"
        raise UserError(f"{batch_size}: {error}; {hint}") from None
    except torch.OutOfMemoryError:  # not in a training step, which knows what would fit
        raise UserError(
            f"{batch_size}: out of memory on {device}; halve it, or pass a smaller --image_size or --model"
        ) from None


# --- the run --------------------------------------------------------------------------------------------------------


def open_checked(settings: TrainingSettings) -> TaggedRecords:
    """The records, with all that this run needs of them.

    Raises:
        UserError: see `open_records`; or epochs shall be judged by a validation split that is not there.
    """
    root = settings.data.dataset_root
    hint = "make it with create_tfrecord.py, or name another folder with --dataset_root"
    repair_hint = "repair the folder with create_tfrecord.py --verify and the flags that it was made with"
    records = open_records(root, settings.data.image_size, hint, repair_hint)
    metric = settings.recipe.early_stopping_metric
    if EARLY_STOPPING_METRICS[metric].needs_validation and not len(records.val):
        raise UserError(
            f"--early_stopping_metric {metric}: {root} has no validation split; leave the flag out, or run "
            "create_tfrecord.py with a lower --split-ratio"
        )
    return records


def find_state(settings: TrainingSettings) -> dict[str, Any] | None:
    """The state of the run that shall go on, or None where a run begins.

    Raises:
        UserError: --resume is given, and there is none that can be read.
    """
    folder = settings.run.output_dir
    if not settings.run.resume:
        return None
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: not a folder; name that of the run with --output_dir")
    state = checkpoints.newest_state(folder, hint="start again with --overwrite")
    if state is None and settings.run.resume == "last":
        raise UserError(f"{folder}: no {STATE_PATTERN} of an earlier run; leave --resume out to begin")
    return state


def check_same_run(settings: TrainingSettings, state: dict[str, Any], records: TaggedRecords, world: World) -> None:
    """Before the model is built: the run that goes on must not change on its way, though it may become longer.

    Raises:
        DifferentSettings: it has other records or other flags than it began with.
    """
    now = fixed_settings(settings, records.vocabulary, len(records.train), world.size)
    # A setting that an older version did not have counts with its default, with which all is as it was before it.
    checkpoints.check_same(TrainingSettings().decisive() | state["settings"], now)
    if checkpoints.is_longer(state["settings"], now):
        before, step = state["settings"]["epochs"], state["progress"]["step"]
        world.print(
            f"--epochs {now['epochs']}: planned for {before}; from step {step} on the learning rate follows the longer "
            "schedule, so the weights will not be those of a run that was this long from the beginning",
            file=sys.stderr,
        )


def check_outputs(settings: TrainingSettings, goes_on: bool) -> None:
    """Before any work: refuse folders that cannot be written to, and files that are not of a run or an export.

    Raises:
        UserError: the message names the first of them.
    """
    run, root = settings.run, settings.data.dataset_root
    inputs = [root / name for name in (ABOUT_FILE, VOCABULARY_FILE)]
    if settings.model.pretrained and (source := Path(settings.model.pretrained)).exists():
        inputs += [source] if source.is_file() else list(source.iterdir())
        inputs += [source.with_name(name) for name in (CONFIG_FILE, VOCABULARY_FILE)] if source.is_file() else []
    if not goes_on:
        hint = "name another --output_dir"
        checkpoints.check_folder(
            run.output_dir,
            inputs,
            run.overwrite,
            hint=hint,
            overwrite_hint=f"{hint}, or pass --overwrite",
            resume_hint="pass --resume to go on with it, --overwrite or another --output_dir",
        )
    if run.export_dir:
        hint = "name another --export_dir"
        names, ours = (HUB_WEIGHTS, CONFIG_FILE, VOCABULARY_FILE), checkpoints.is_ours(run.export_dir)
        overwrite_hint = f"{hint}, or pass --overwrite"
        checkpoints.check_files(run.export_dir, names, ours, inputs, run.overwrite, hint, overwrite_hint)


def check_teaching(settings: TrainingSettings) -> None:
    """Before any work: refuse a folder for a taught model that holds what is not of one.

    Raises:
        UserError: the message names the file.
    """
    run, hint = settings.run, "name another --output_dir"
    # A run that was killed early has left its examples alone; what else has their name is found when they are read.
    taught = (run.output_dir / teaching.EXAMPLES_FILE).exists()
    ours = taught or checkpoints.is_ours(run.output_dir)
    source = Path(settings.model.pretrained or run.output_dir)
    is_same = source.resolve() == run.output_dir.resolve()
    if is_same and settings.model.pretrained and source.exists() and not (taught or run.overwrite):
        raise UserError(f"{source}: would be replaced by itself with more tags; {hint}")
    inputs = [] if is_same else [source / name for name in checkpoints.OUTPUTS]
    names = (CONFIG_FILE, VOCABULARY_FILE, teaching.EXAMPLES_FILE, teaching.REPORT_FILE, PROTOTYPES_FILE)
    overwrite_hint = f"{hint}, or pass --overwrite"
    checkpoints.check_files(run.output_dir, names, ours, inputs, run.overwrite, hint, overwrite_hint)


def make_model(
    settings: TrainingSettings, vocabulary: Vocabulary, frequency: Tensor, state: dict[str, Any] | None, world: World
) -> tuple[nn.Module, dict[str, Any], Vocabulary | None]:
    """The model at the start of a run, its config and the tags that it knew: from --pretrained, else from scratch.

    Args:
        frequency: the share of the training images that has each tag, (C,) in 0..1.
        state: that of the run that goes on, whose weights come later.

    Raises:
        UserError: --pretrained cannot be read, or is another model than --model.
    """
    asked_for, image_size = settings.model.model, settings.data.image_size
    regularisation = {"drop_path_rate": settings.model.drop_path}
    if settings.model.patch_dropout:  # an argument that timm's ConvNeXt and Swin do not have
        regularisation["patch_drop_rate"] = settings.model.patch_dropout
    torch.manual_seed(settings.recipe.seed)
    if state:
        config = state["config"]
        check_name(asked_for, config, "the run that shall go on")
        if not settings.model.freeze_backbone:  # of whose model a state has a few rows alone
            return models.build(config, **regularisation), config, None
    if not settings.model.pretrained:
        world.print(
            f"from scratch: it takes a hundred thousand images to learn to see; --pretrained {BEST_START} starts from "
            "what a public tagger knows",
            file=sys.stderr,
        )
        config = make_config(asked_for or DEFAULT_MODEL, image_size, len(vocabulary), tags_sha256=vocabulary.sha256)
        model = models.build(config, **regularisation)
        start_head_at_log_odds(model, frequency)
        return model, config, None
    source = pretrained.read(settings.model.pretrained)
    for assumption in source.assumptions:
        world.print(f"{source.name}: assumed: {assumption}", file=sys.stderr)
    config = pretrained.adapt_config(source, models.model_name(source.config), image_size, vocabulary)
    check_name(asked_for, config, f"--pretrained {source.name}")
    model = models.build(config, **regularisation)
    tally = pretrained.load_into(model, source, vocabulary, frequency)
    world.print(
        f"{source.name}: {tally.carried} tags carried over, {tally.new} new, {tally.dropped} dropped", file=sys.stderr
    )
    return model, config, source.vocabulary


def unfreeze(model: nn.Module, blocks: int) -> None:
    """Let the head and the last blocks learn, and nothing else.

    Raises:
        UserError: the model has no such blocks.
    """
    try:
        unfreeze_last(model, blocks)
    except ValueError as error:
        raise UserError(f"--unfreeze_last {blocks}: {error}; pass a smaller number, or leave the flag out") from None


def freeze(
    model: nn.Module,
    records: TaggedRecords,
    splits: tuple[Split, Split],
    known: Vocabulary | None,
    preparation: Preparation,
    settings: TrainingSettings,
    world: World,
) -> tuple[FrozenHead, tuple[Split, Split]]:
    """The head of a model, and in place of the images what the rest of it sees in them, which is computed or found.

    Args:
        splits: the images.
        known: the tags whose rows stay as they are.

    Raises:
        UserError: a record cannot be read, or there is nothing to learn.
    """
    rows = new_rows(records.vocabulary, None if settings.model.train_old_tags else known)
    if not len(rows):
        raise UserError(
            f"{settings.data.dataset_root}: no tag that {settings.model.pretrained} does not know; pass "
            "--train_old_tags, or add artists with create_tfrecord.py"
        )
    data, recipe = settings.data, settings.recipe
    bfloat16 = features.runs_bfloat16(world.device)
    extract = features.extractor(model, preparation, world.device, bfloat16)
    made_by = (features.backbone_digest(model), preparation.to_json(), bfloat16)
    loaders = []
    for name, split, images, hflip in (
        ("train", splits[0], records.train, data.hflip),
        ("val", splits[1], records.val, 0.0),
    ):
        key = features.key_of(*made_by, features.records_digest(images))
        views = features.VIEWS if hflip else features.VIEWS[:1]
        store = features.FeatureStore(settings.run.output_dir / features.FOLDER / f"{name}-{key}", len(images), views)
        features.fill(store, images, extract, preparation, recipe.batch_size, data.num_workers or 0, name, world)
        dataset = features.TaggedFeatures(images, store, hflip, recipe.seed)
        loaders.append(Split(split.batches, make_loader(dataset, split.batches, 0, world.device)))
    return FrozenHead(model, rows), (loaders[0], loaders[1])


def check_name(asked_for: str | None, config: dict[str, Any], origin: str) -> None:
    """Refuse a --model that is not the one in a config.

    Args:
        origin: where the config comes from.
    """
    if asked_for not in (None, name := models.model_name(config)):
        raise UserError(f"--model {asked_for}: {origin} is {name}; leave --model out")


def describe(trainer: Trainer) -> str:
    """One line: model, parameters, classes, images, steps."""
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    processes = f" in {trainer.world.size} processes" if trainer.world.size > 1 else ""
    return (
        f"{models.model_name(trainer.config)}: {parameters / 1e6:.1f} M parameters, "
        f"{len(trainer.vocabulary)} tags, {trainer.train_split.batches.length} + {trainer.val_split.batches.length} "
        f"images, {trainer.steps_per_epoch} steps an epoch, on {trainer.device}{processes}"
    )


def estimate_memory(trainer: Trainer) -> str:
    """One line: bytes for weights and optimizer, and for activations."""
    data, recipe = trainer.settings.data, trainer.settings.recipe
    with trainer.autocast():
        once, per_image = cost.activation_bytes(trainer.model.train(), data.image_size)
    static = static_bytes(trainer.model, recipe) + once
    total = static + per_image * recipe.batch_size
    return (
        f"memory: about {total / 2**30:.1f} GiB: {static / 2**30:.1f} for weights and optimizer, "
        f"{recipe.batch_size} x {per_image / 2**20:.0f} MiB for activations; less with torch.compile"
    )


def check_alone(run: RunSettings, world: World) -> None:
    """Before the model is built, which takes a while: refuse a folder in which another run is at work.

    Raises:
        UserError: it is.
    """
    if run.output_dir.exists():
        with alone_in(run, world):
            pass


@contextlib.contextmanager
def alone_in(run: RunSettings, world: World) -> Iterator[None]:
    """Have the output folder to oneself; the first process of several has the lock for all of them.

    Raises:
        UserError: another run is at work there.
    """
    if run.dry_run or not world.is_first:
        yield
        return
    with locked_folder(run.output_dir, "wait for it, or name another --output_dir"):
        yield


def begin_or_go_on(trainer: Trainer, state: dict[str, Any] | None) -> None:
    """Load the state of the run that goes on, or make the folder of a new one.

    Raises:
        UserError: the processes find different states.
    """
    world, run = trainer.world, trainer.settings.run
    if not world.agree(state["progress"]["step"] if state else -1):
        raise UserError(
            f"{run.output_dir}: not every process finds the same state in it; name a folder that all machines share"
        )
    if state:
        trainer.load_state(state)
        state.clear()  # gigabytes that nobody needs any more
        progress = trainer.progress
        world.print(f"going on at epoch {progress.epoch}, step {progress.step}", file=sys.stderr)
        return
    if world.is_first:
        checkpoints.prepare_output(run.output_dir, trainer.config, trainer.vocabulary)
    world.wait()
    if trainer.settings.recipe.epochs:
        trainer.save_state()  # or a kill after the first checkpoint would leave nothing to go on from


def run_epoch(trainer: Trainer) -> str:
    """Train and validate one epoch and write its files; the line that sums it up."""
    progress, world = trainer.progress, trainer.world
    started, images_before = time.monotonic(), progress.images
    train_loss = trainer.train_epoch()
    images_per_second = (progress.images - images_before) * world.size / (time.monotonic() - started)
    learning_rate = trainer.learning_rate
    evaluation = trainer.validate() if trainer.val_split.batches.length else None
    metrics = evaluation.metrics() if evaluation else {"loss": train_loss, "mAP": math.nan}
    speed = {"images_per_s": images_per_second, **utilisation(trainer, images_per_second)}
    row = {"epoch": progress.epoch, "step": progress.step, "lr": learning_rate, "train_loss": train_loss}
    trainer.history.append(row | metrics | speed)
    trainer.check_weights()
    metric = EARLY_STOPPING_METRICS[trainer.settings.recipe.early_stopping_metric]
    better = trainer.rate_epoch(metric.score(metrics))
    if world.is_first:
        write_epoch(trainer, evaluation, better)
    if better and evaluation:
        trainer.report = evaluation.report()
    line = (
        f"epoch {progress.epoch}: train_loss {train_loss:.4f}, {images_per_second:.1f} images/s, "
        f"{format_metrics(metrics | {name: value for name, value in speed.items() if name == 'MFU'})}"
    )
    trainer.finish_epoch()
    return line


def utilisation(trainer: Trainer, images_per_second: float) -> dict[str, float]:
    """Model FLOPs utilisation, the share of the GPUs' peak that a run reaches; empty where either is not known."""
    settings = trainer.settings
    peak = cost.peak_flops(trainer.device)
    if not peak:
        return {}
    flops = cost.training_flops(trainer.model, settings.data.image_size, settings.model.patch_dropout)
    return {"MFU": images_per_second / trainer.world.size * flops / peak} if flops else {}


def write_epoch(trainer: Trainer, evaluation: Evaluation | None, better: bool) -> None:
    """Write what an epoch adds to the output folder.

    Args:
        evaluation: that of the validation split, where there is one.
        better: this is the best epoch so far.
    """
    run, epoch, name = trainer.settings.run, trainer.progress.epoch, models.model_name(trainer.config)
    if isinstance(trainer.averaged, FrozenHead):  # an epoch takes less time than writing the model
        if better:
            trainer.best_rows = {part: tensor.clone() for part, tensor in trainer.averaged.state_dict().items()}
    else:
        save_weights(run.output_dir / epoch_name(name, epoch), trainer.averaged)
        if better:
            save_weights(run.output_dir / best_name(name), trainer.averaged)
    if better and evaluation:
        evaluation.write(run.output_dir)
    write_table(run.output_dir / checkpoints.METRICS_FILE, trainer.history)
    curves.draw(trainer.history, run.output_dir / checkpoints.CURVES_FILE)
    checkpoints.prune_checkpoints(run.output_dir, name, run.keep_checkpoints)


def format_metrics(metrics: dict[str, float]) -> str:
    """The metrics that there are; F1 by category is in metrics.csv alone."""
    shown = {name: value for name, value in metrics.items() if not name.startswith(("macro_F1_", "micro_F1_"))}
    return ", ".join(f"{name} {value:.4f}" for name, value in shown.items() if not math.isnan(value))


def train(trainer: Trainer) -> None:
    """All epochs that are left, or until --patience is over.

    Raises:
        Stopped: on SIGTERM.
    """
    world, recipe = trainer.world, trainer.settings.recipe
    while (epoch := trainer.progress.epoch) <= recipe.epochs:
        waited = epoch - 1 - trainer.progress.best_epoch
        if recipe.patience and waited >= recipe.patience:
            world.print(f"stopped: no better epoch since epoch {trainer.progress.best_epoch}", file=sys.stderr)
            break
        world.print(run_epoch(trainer))
    best = EARLY_STOPPING_METRICS[recipe.early_stopping_metric].describe(trainer.progress.best)
    path = trainer.settings.run.output_dir / best_name(models.model_name(trainer.config))
    if isinstance(trainer.averaged, FrozenHead) and world.is_first:
        save_weights(path, trainer.averaged.whole(trainer.best_rows))
    world.print(f"best: epoch {trainer.progress.best_epoch}, {best}, {path}")
    for line in trainer.report:
        world.print(f"  {line}")


def tell_how_to_tag(run: RunSettings) -> None:
    """Name the command that uses what was trained, with the thresholds that were fitted to it."""
    fitted = run.output_dir / THRESHOLDS_FILE
    script = Path(__file__).with_name("wdv3_pytorch.py")
    with contextlib.suppress(ValueError):  # it is on another drive of Windows
        script = Path(os.path.relpath(script))
    words = ["python", str(script), "--image_file", "PICTURE", "--model_path", str(run.output_dir)]
    words += ["--threshold_json", str(fitted)] if fitted.exists() else []
    print(f"tag with it: {cli.command_line(words)}", file=sys.stderr)


def convert(trainer: Trainer) -> None:
    """Write the weights that training would start from, as the checkpoint of epoch 0."""
    if trainer.world.is_first:
        path = trainer.settings.run.output_dir / epoch_name(models.model_name(trainer.config), 0)
        save_weights(path, trainer.model)
        print(f"converted: {path}")


def export_best(trainer: Trainer, folder: Path) -> None:
    """Write the best epoch's weights, or the converted ones, as a folder for timm and wdtagger."""
    if trainer.world.is_first:
        name = models.model_name(trainer.config)
        best = best_name(name) if trainer.settings.recipe.epochs else epoch_name(name, 0)
        weights = load_sound_weights(trainer.settings.run.output_dir / best)
        export.write_folder(folder, trainer.model, weights, trainer.config, trainer.vocabulary)
        usual = own_preparation(trainer.config, CONFIG_FILE).is_white_square
        print(f"exported: {folder}" + ("" if usual else ", whose config.json says how its pixels are made"))


# --- teaching -------------------------------------------------------------------------------------------------------


def teach(settings: TrainingSettings, device: torch.device) -> int:
    """Give a model rows for artists of example pictures, or take some away; the exit code.

    Raises:
        UserError: the model or the pictures cannot be used, or nothing would be left to tell apart.
    """
    run, folder = settings.run, settings.run.output_dir
    hint = "name a tagger with --pretrained"
    with locked_folder(folder, "wait for it, or name another --output_dir"):
        path = folder / teaching.EXAMPLES_FILE
        if run.unteach and not path.exists():
            raise UserError(f"{folder}: no artist was taught there; name the folder of the teaching with --output_dir")
        if not settings.model.pretrained:
            if not (folder / CONFIG_FILE).exists():  # nothing was taught there, or the first run was killed early
                raise UserError(f"{folder}: no taught model there yet; {hint}")
            teaching.complete(folder)
        source = pretrained.read(settings.model.pretrained or str(folder))
        if source.vocabulary is None:
            raise UserError(f"{source.name}: no tags beside it; {hint}")
        model = pretrained.load_as_it_is(source, models.build)
        bfloat16 = features.runs_bfloat16(device)
        made_by = features.key_of(features.backbone_digest(model), source.shown.to_json(), bfloat16)
        examples = teaching.Examples.read(path, made_by, "name another --output_dir")
        base = known_tags(source.vocabulary, examples)
        problems: list[str] = []
        if run.teach:
            categories = categories_for(run.teach, source.vocabulary)
            found = teaching.find_pictures(run.teach, categories, "name one with --teach")
            problems = found.problems
            for name in [name for name in found.pictures if name in source.vocabulary.names[:base]]:
                problems.append(f"{name}: the model knows it already; leave it out of {run.teach}")
                del found.pictures[name]
            if not found.pictures:
                raise UserError(f"{run.teach}: {source.name} knows all artists in it already; add others")
            extract = features.extractor(model, source.shown, device, bfloat16)
            problems += teaching.look_at(examples, found.pictures, extract, source.shown, lambda: examples.write(path))
            examples.write(path)  # before the head has their rows, or a killed run would leave rows that nobody taught
        forgotten = set(map(TagReader(set(examples.names)).name, run.unteach))
        problems += [f"{name}: not among the taught artists" for name in sorted(forgotten - set(examples.names))]
        examples.keep(row for row, name in enumerate(examples.names) if name not in forgotten)
        write_taught(model, source, base, examples, settings)
        examples.write(path)
    for problem in problems:
        cli.warn(f"left out: {problem}")
    tell_how_to_tag(run)
    return cli.INCOMPLETE if problems else cli.DONE


def known_tags(vocabulary: Vocabulary, examples: teaching.Examples) -> int:
    """How many tags a model knew before any was taught: all, but for taught ones at the end."""
    taught, base = set(examples.names), len(vocabulary)
    while base and vocabulary.categories[base - 1] == ARTIST and vocabulary.names[base - 1] in taught:
        base -= 1
    return base


def categories_for(folder: Path, vocabulary: Vocabulary) -> Mapping[str, Category]:
    """What is known of the tags in a folder of pairs: its tag_categories.csv, then the model's vocabulary."""
    known: dict[str, Category] = dict(zip(vocabulary.names, vocabulary.categories, strict=True))
    csv_path = folder / CATEGORIES_FILE
    return known | dict(read_categories(csv_path)) if csv_path.exists() else known


def write_taught(
    model: nn.Module, source: pretrained.Source, base: int, examples: teaching.Examples, settings: TrainingSettings
) -> None:
    """Write the model with its taught rows, and print how well each artist is known.

    Raises:
        UserError: a single artist is left.
    """
    assert source.vocabulary is not None  # see teach
    folder, name = settings.run.output_dir, models.model_name(source.config)
    names: list[str] = []
    rows = discriminant.Rows(torch.zeros(0, 0), torch.zeros(0))
    told: list[teaching.Taught] = []
    if examples.names:
        try:
            names, rows, told = teaching.make_rows(examples)
        except ValueError as error:
            raise UserError(f"{folder}: {error}; name more with --teach") from None
    vocabulary = teaching.extended(source.vocabulary, base, names, Counter(examples.names))
    # The weights first, for they take the longest: the others follow at once.
    weights, prototypes = folder / best_name(name), folder / PROTOTYPES_FILE
    save_weights(weights, teaching.with_rows(model, base, rows))
    if names:
        write_prototypes(prototypes, teaching.make_prototypes(examples), weights)
    else:
        prototypes.unlink(missing_ok=True)
    write_vocabulary(folder / VOCABULARY_FILE, vocabulary)
    write_json(folder / CONFIG_FILE, pretrained.same_config(source, name, vocabulary))
    teaching.write_report(folder, told)
    for line in teaching.lines_of(told) if told else ["no artist is taught any more"]:
        print(line)
    for each in told:
        if each.pictures < teaching.WARN_BELOW:
            cli.warn(f"{each.name}: {cli.counted(each.pictures, 'picture')}; ten or more make it surer")


# --- training -------------------------------------------------------------------------------------------------------


def run(settings: TrainingSettings, state: dict[str, Any] | None, world: World) -> None:
    """Train, from the beginning or from a state, or only describe or convert.

    Raises:
        UserError: see the functions that it calls.
    """
    torch.set_float32_matmul_precision("high")  # TF32 for what autocast leaves in float32
    records = open_checked(settings)
    frequency = tag_frequency(records.vocabulary.counts or (), len(records.train))
    if state:
        check_same_run(settings, state, records, world)
    check_alone(settings.run, world)

    # Where the weights come from, first match wins:
    # 1. --resume, or --resume auto with a state in --output_dir: from there, whatever --pretrained says.
    # 2. --pretrained: from there, the head by tag name.
    # 3. from scratch.
    model, config, known = make_model(settings, records.vocabulary, frequency, state, world)
    if settings.model.unfreeze_last:
        unfreeze(model, settings.model.unfreeze_last)

    with alone_in(settings.run, world):
        preparation = own_preparation(config, CONFIG_FILE)
        splits = load_splits(records, settings, preparation, world)
        if settings.model.freeze_backbone and not settings.run.dry_run:
            model, splits = freeze(model, records, splits, known, preparation, settings, world)
        trainer = Trainer(model, config, records.vocabulary, splits, frequency, world, settings)
        world.print(describe(trainer), file=sys.stderr)
        if settings.run.dry_run:
            world.print(f"{describe(trainer)}\n{estimate_memory(trainer)}")
            return
        begin_or_go_on(trainer, state)
        if settings.recipe.epochs:
            trainer.compile()
            try:
                train(trainer)
            except Stopped:
                step = trainer.progress.step
                world.print(f"stopped at step {step}; the same command with --resume goes on", file=sys.stderr)
                return
        else:
            convert(trainer)
        if settings.run.export_dir:
            export_best(trainer, settings.run.export_dir)
    if world.is_first:
        tell_how_to_tag(settings.run)


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    _, given = parse_arguments(argv)
    settings = make_settings(given)
    if settings.run.teach or settings.run.unteach:
        check_teaching(settings)
        return teach(settings, pick_device(settings.run.device, hint="pass --device cpu"))
    state = find_state(settings)
    if state:
        settings = make_settings(given, state)
    world = distributed.join(settings.run.device, hint="pass --device cpu")
    with world, naming_flags(settings, world.device):
        if world.is_first and not settings.run.dry_run:
            check_outputs(settings, goes_on=state is not None)
        run(settings, state, world)
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
