"""Train EVA-02 on the TFRecords of create_tfrecord.py, as a multi-label tagger.

    python train_pytorch.py --dataset_root ./output-datasets --output_dir ./checkpoints
    python train_pytorch.py --resume                                            # go on after a stop, bit for bit
    python train_pytorch.py --pretrained SmilingWolf/wd-eva02-large-tagger-v3 --image_size 448
    torchrun --nproc_per_node 8 train_pytorch.py                                # a process per GPU

Writes <model>_epoch_X.pth after every epoch, <model>_best.pth, config.json, the vocabulary, metrics.csv and curves.png,
and for the best epoch threshold.json and tag_metrics.csv. On stdout a line of validation metrics per epoch, on stderr
the progress.
"""

import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import models
from models import MODELS, make_config
from tagger import cli
from tagger.files import UserError, write_json, write_table
from tagger.formats.vocabulary import VOCABULARY_FILE, Vocabulary, write_vocabulary
from tagger.formats.weights import load_weights, save_weights
from tagger.training import checkpoints, cost, curves, distributed, export, pretrained
from tagger.training.data import EpochBatches, TaggedImages, TaggedRecords, make_loader, open_records
from tagger.training.distributed import World
from tagger.training.loss import LOSSES, start_head_at_log_odds, tag_frequency
from tagger.training.optimizer import OPTIMIZERS, static_bytes
from tagger.training.trainer import Progress, Stopped, Trainer

DEFAULT_MODEL = "eva02_large"
# What measured best from scratch (benchmarks/recipes.py), and what suits weights that know a lot already.
FROM_SCRATCH = {"optimizer": "muon", "patch_dropout": 0.75, "layer_decay": 1.0}
FROM_PRETRAINED = {"optimizer": "adamw", "patch_dropout": 0.0, "layer_decay": 0.75}
BEST_START = "SmilingWolf/wd-eva02-large-tagger-v3"  # the best public weights for these tags


def parse_arguments(argv: Sequence[str] | None) -> Any:
    parser = cli.ArgumentParser(doc=__doc__ or "", separator="_")
    data = parser.add_argument_group("data")
    data.add_argument("--dataset_root", type=Path, default="output-datasets", help="what create_tfrecord.py wrote")
    data.add_argument(
        "--image_size", type=cli.positive_int, default=224, help="side of the model's input in pixels, divisible by 14"
    )
    data.add_argument("--hflip", type=cli.fraction, default=0.5, help="probability of a horizontal flip in training")
    data.add_argument(
        "--crop_min",
        type=cli.positive_fraction,
        default=0.87,
        help="training sees random square crops of at least this side, 1 = none",
    )
    data.add_argument(
        "--cutout",
        type=cli.fraction,
        default=0.0,
        help="share of the area that a grey square hides in training, 0 = none",
    )
    data.add_argument(
        "--num_workers",
        type=cli.non_negative_int,
        help="decoding processes (default: up to 8 with a GPU, none without)",
    )
    model = parser.add_argument_group("model")
    model.add_argument("--model", choices=MODELS, help=f"(default: {DEFAULT_MODEL}, or what --pretrained is)")
    model.add_argument(
        "--pretrained",
        metavar="PATH|ID",
        help="start from these weights: a folder or file with config.json and selected_tags.csv beside it, or a "
        "repository of the Hugging Face hub; the head is carried over by tag name",
    )
    model.add_argument(
        "--drop_path", type=cli.fraction, default=0.0, help="stochastic depth: share of blocks skipped, rising to this"
    )
    model.add_argument(
        "--patch_dropout",
        type=cli.proper_fraction,
        help="share of the patches that training leaves out, which saves as much time (default: 0.75 from scratch, "
        "0 with --pretrained)",
    )
    model.add_argument(
        "--grad_checkpointing", action="store_true", help="recompute activations: less memory, a third more time"
    )
    model.add_argument("--compile", action="store_true", help="torch.compile: minutes to start, faster steps on a GPU")
    training = parser.add_argument_group("training")
    training.add_argument("--batch_size", type=cli.positive_int, default=32, help="per process")
    training.add_argument("--epochs", type=cli.non_negative_int, default=10, help="0: only convert --pretrained")
    training.add_argument(
        "--grad_accumulation",
        type=cli.positive_int,
        default=1,
        metavar="N",
        help="batches per step: N x batch_size images, in the memory of one batch",
    )
    training.add_argument(
        "--optimizer",
        choices=OPTIMIZERS,
        help="muon: Muon for the blocks' matrices and AdamW for all else (default: muon from scratch, adamw with "
        "--pretrained)",
    )
    training.add_argument(
        "--lr",
        type=cli.positive_float,
        default=1e-4,
        help="peak learning rate; 4e-3 suits the tiny and small models from scratch",
    )
    training.add_argument(
        "--warmup",
        type=cli.fraction,
        default=0.1,
        help="share of all steps in which the rate rises to its peak; then a cosine to 0",
    )
    training.add_argument(
        "--weight_decay", type=cli.non_negative_float, default=0.05, help="of matrices; norms and biases have none"
    )
    training.add_argument(
        "--layer_decay",
        type=cli.positive_fraction,
        help="rate of each block to the one above, 1 = all alike (default: 1 from scratch, 0.75 with --pretrained)",
    )
    training.add_argument(
        "--ema_decay",
        type=cli.fraction,
        default=0.0,
        help="checkpoints hold an exponential moving average of the weights, 0 = off",
    )
    training.add_argument("--loss", choices=LOSSES, default="bce", help="binary cross-entropy or asymmetric loss")
    training.add_argument(
        "--frequency_weighting",
        type=cli.fraction,
        default=0.0,
        metavar="POWER",
        help="weigh the positives of rare tags by (mean frequency / frequency) ** POWER",
    )
    training.add_argument(
        "--mixup",
        type=cli.non_negative_float,
        default=0.0,
        metavar="ALPHA",
        help="blend pairs of images by Beta(ALPHA, ALPHA), 0 = off",
    )
    training.add_argument(
        "--patience",
        type=cli.non_negative_int,
        default=5,
        help="stop after so many epochs without a better one, 0 = never",
    )
    training.add_argument(
        "--early_stopping_metric",
        choices=("loss", "map"),
        default="loss",
        help="what makes an epoch better, on the validation split",
    )
    training.add_argument("--seed", type=cli.non_negative_int, default=0, help="of everything random")
    training.add_argument(
        "--device",
        choices=("auto", "cuda", "cpu", "mps"),
        default="auto",
        help="auto: a GPU where there is one, and bfloat16 autocast on CUDA",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--output_dir", type=Path, default="checkpoints", help="checkpoints and config.json")
    output.add_argument("--overwrite", action="store_true", help="replace the checkpoints of an earlier run")
    output.add_argument(
        "--resume",
        nargs="?",
        const="last",
        choices=("last", "auto"),
        help="go on with the run in --output_dir; auto: or begin where there is none",
    )
    output.add_argument(
        "--save_every_steps",
        type=cli.non_negative_int,
        default=0,
        metavar="N",
        help="write what --resume needs also every N steps; always after every epoch",
    )
    output.add_argument(
        "--keep_checkpoints",
        type=cli.non_negative_int,
        default=0,
        metavar="N",
        help="keep the checkpoints of the newest N epochs and the best, 0 = all",
    )
    output.add_argument(
        "--export_dir",
        type=Path,
        help="at the end, write the best model as a Hugging Face style folder for timm and wdtagger",
    )
    output.add_argument(
        "--dry_run", action="store_true", help="print model, classes, steps and a memory estimate, and stop"
    )
    arguments = parser.parse_args(argv)
    for name, value in (FROM_PRETRAINED if arguments.pretrained else FROM_SCRATCH).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    if arguments.epochs == 0 and not arguments.pretrained:
        parser.error("--epochs 0 only converts; name what with --pretrained")
    if arguments.export_dir and arguments.export_dir.resolve() == arguments.output_dir.resolve():
        parser.error("--export_dir has a config.json of its own, for BGR; name another folder than --output_dir")
    if arguments.resume and arguments.overwrite:
        parser.error("--resume goes on and --overwrite begins anew; pass one of them")
    return arguments


# --- the run --------------------------------------------------------------------------------------------------------


def make_model(
    arguments: Any, vocabulary: Vocabulary, frequency: Tensor, going_on: dict[str, Any] | None
) -> tuple[nn.Module, dict[str, Any]]:
    """The model at the start of a run, and its config: from --pretrained, else from scratch.

    Args:
        going_on: the config of the run that is resumed, whose weights come later.

    Raises:
        UserError: --pretrained cannot be read, or is another model than --model.
    """
    regularisation = {"drop_path_rate": arguments.drop_path}
    if arguments.patch_dropout:
        regularisation["patch_drop_rate"] = arguments.patch_dropout
    torch.manual_seed(arguments.seed)
    if going_on:
        check_name(arguments.model, going_on, "the run that shall go on")
        return models.build(going_on, **regularisation), going_on
    if not arguments.pretrained:
        config = make_config(
            arguments.model or DEFAULT_MODEL, arguments.image_size, len(vocabulary), tags_sha256=vocabulary.sha256
        )
        model = models.build(config, **regularisation)
        start_head_at_log_odds(model, frequency)
        return model, config
    source = pretrained.read(arguments.pretrained)
    config = pretrained.adapt_config(source, arguments.image_size, vocabulary)
    check_name(arguments.model, config, f"--pretrained {source.name}")
    model = models.build(config, **regularisation)
    tally = pretrained.load_into(model, source, vocabulary, frequency)
    print(
        f"{source.name}: {tally.carried} tags carried over, {tally.new} new, {tally.dropped} dropped", file=sys.stderr
    )
    return model, config


def check_name(asked: str | None, config: dict[str, Any], of: str) -> None:
    """Refuse a --model that is not the one in a config.

    Args:
        of: where the config comes from.
    """
    if asked not in (None, name := pretrained.model_name(config)):
        raise UserError(f"--model {asked}: {of} is {name}; leave --model out")


def prepare_output(arguments: Any, config: dict[str, Any], vocabulary: Vocabulary) -> None:
    """Everything that inference needs but the weights, before the first epoch, so that any checkpoint is complete.

    Raises:
        UserError: the folder holds checkpoints of an earlier run.
    """
    output: Path = arguments.output_dir
    output.mkdir(parents=True, exist_ok=True)
    earlier = sorted([*output.glob("*_epoch_*.pth"), *output.glob("*_best.pth"), *output.glob("resume_*.pt")])
    worth_keeping = [path for path in earlier if path != checkpoints.path_of(output, 0)]
    if worth_keeping and not arguments.overwrite:
        raise UserError(
            f"{output}: holds {worth_keeping[0].name} of an earlier run; pass --resume to go on with it, --overwrite "
            "or another --output_dir"
        )
    for path in earlier:  # a shorter run must not end among the later epochs of another
        path.unlink()
    write_vocabulary(output / VOCABULARY_FILE, vocabulary)
    write_json(output / "config.json", config)


def describe(trainer: Trainer, dataset: TaggedRecords) -> str:
    """One line: model, parameters, classes, images, steps."""
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    together = f" in {trainer.world.size} processes" if trainer.world.size > 1 else ""
    return (
        f"{pretrained.model_name(trainer.config)}: {parameters / 1e6:.1f} M parameters, "
        f"{len(trainer.vocabulary)} tags, {len(dataset.train)} + {len(dataset.val)} images, "
        f"{trainer.batches.steps} steps an epoch, on {trainer.device}{together}"
    )


def estimate_memory(trainer: Trainer, arguments: Any) -> str:
    """One line: bytes for weights and optimizer, and for activations."""
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    static = static_bytes(parameters, ema=bool(arguments.ema_decay))
    each = cost.activation_bytes(trainer.model.train(), arguments.image_size)
    if trainer.device.type == "cuda":
        each //= 2
    total = static + each * arguments.batch_size
    return (
        f"memory: about {total / 2**30:.1f} GiB: {static / 2**30:.1f} for weights and optimizer, "
        f"{arguments.batch_size} x {each / 2**20:.0f} MiB for activations"
    )


def run_epoch(trainer: Trainer, dataset: TaggedRecords, arguments: Any, name: str) -> str:
    """Train and validate one epoch and write its files; the line that sums it up."""
    at, output = trainer.progress, arguments.output_dir
    started, before = time.monotonic(), at.images
    train_loss = trainer.train_epoch()
    images_per_second = (at.images - before) * trainer.world.size / (time.monotonic() - started)
    rate = trainer.rate
    evaluation = trainer.validate() if len(dataset.val) else None
    metrics = evaluation.metrics() if evaluation else {"loss": train_loss, "mAP": math.nan}
    speed = {"images_per_s": images_per_second}
    peak = cost.peak_flops(trainer.device)
    if peak and (flops := cost.training_flops(trainer.model, arguments.image_size, arguments.patch_dropout)):
        speed["MFU"] = images_per_second / trainer.world.size * flops / peak
    row = {"epoch": at.epoch, "step": at.step, "lr": rate, "train_loss": train_loss, **metrics, **speed}
    trainer.history.append(row)

    score = -metrics["mAP"] if arguments.early_stopping_metric == "map" else metrics["loss"]
    better = score < at.best or at.best_epoch == 0
    if better:
        at.best, at.best_epoch = score, at.epoch
    if trainer.world.is_first:
        save_weights(output / f"{name}_epoch_{at.epoch}.pth", trainer.averaged)
        if better:
            save_weights(output / f"{name}_best.pth", trainer.averaged)
            if evaluation:
                evaluation.write(output)
        write_table(output / "metrics.csv", trainer.history)
        curves.draw(trainer.history, output / "curves.png")
        checkpoints.prune_checkpoints(output, name, arguments.keep_checkpoints)
    line = (
        f"epoch {at.epoch}: train_loss {train_loss:.4f}, {images_per_second:.1f} images/s, "
        f"{format_metrics(metrics | {key: value for key, value in speed.items() if key == 'MFU'})}"
    )
    if better and evaluation:
        trainer.report = evaluation.report()
    trainer.progress = Progress(at.epoch + 1, step=at.step, best=at.best, best_epoch=at.best_epoch)
    trainer.loss_sum.zero_()
    trainer.save_state()
    return line


def format_metrics(metrics: dict[str, float]) -> str:
    """The metrics that there are; F1 by category is in metrics.csv alone."""
    shown = {name: value for name, value in metrics.items() if not name.startswith(("macro_F1_", "micro_F1_"))}
    return ", ".join(f"{name} {value:.4f}" for name, value in shown.items() if not math.isnan(value))


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    world = distributed.join(arguments.device, "pass --device cpu")
    try:
        return run(arguments, world)
    except torch.OutOfMemoryError:  # not in a training step, which knows what would fit
        raise UserError(
            f"--batch_size {arguments.batch_size}: out of memory on {world.device}; halve it, or pass a smaller "
            "--image_size or --model"
        ) from None
    finally:
        world.stop()


def run(arguments: Any, world: World) -> int:
    """Train, in this process, as the arguments say; the exit code."""
    num_workers = arguments.num_workers
    if num_workers is None:
        num_workers = min(8, os.cpu_count() or 1) if world.device.type == "cuda" else 0
    torch.set_float32_matmul_precision("high")  # TF32 for what autocast leaves in float32
    dataset = open_records(arguments.dataset_root, arguments.image_size)
    vocabulary, output = dataset.vocabulary, arguments.output_dir
    frequency = tag_frequency(vocabulary.counts or (), len(dataset.train))
    say = print if world.is_first else lambda *_, **__: None

    # Where the weights come from, first match wins:
    # 1. --resume, or --resume auto with a state in --output_dir: from there, whatever --pretrained says.
    # 2. --pretrained: from there, the head by tag name.
    # 3. from scratch.
    state = checkpoints.newest(output) if arguments.resume else None
    if state is None and arguments.resume == "last":
        raise UserError(f"{output}: no resume_*.pt of an earlier run; leave --resume out to begin")
    if state is None and not arguments.pretrained:
        say(
            f"from scratch: it takes a hundred thousand images to learn to see; --pretrained {BEST_START} starts from "
            "what a public tagger knows",
            file=sys.stderr,
        )
    model, config = make_model(arguments, vocabulary, frequency, state and state["config"])
    name = pretrained.model_name(config)
    order = config["tagger"]["channel_order"]
    train_images = TaggedImages(
        dataset.train,
        arguments.image_size,
        order,
        hflip=arguments.hflip,
        crop_min=arguments.crop_min,
        cutout=arguments.cutout,
        seed=arguments.seed,
    )
    shares = {"rank": world.rank, "world_size": world.size}
    batches = EpochBatches(
        len(dataset.train),
        arguments.batch_size,
        shuffle=True,
        seed=arguments.seed,
        accumulation=arguments.grad_accumulation,
        **shares,
    )
    val_batches = EpochBatches(len(dataset.val), arguments.batch_size, shuffle=False, **shares)
    val_images = TaggedImages(dataset.val, arguments.image_size, order)
    loaders = (
        make_loader(train_images, batches, num_workers, world.device),
        make_loader(val_images, val_batches, num_workers, world.device),
    )
    if not batches.steps:
        raise UserError(f"{arguments.dataset_root}: fewer training images than processes; start fewer")
    if arguments.early_stopping_metric == "map" and not len(dataset.val):
        raise UserError(
            f"--early_stopping_metric map: {arguments.dataset_root} has no validation split; leave the flag out, or "
            "run create_tfrecord.py with a lower --split-ratio"
        )
    trainer = Trainer(model, config, vocabulary, loaders, frequency, world, arguments)
    say(describe(trainer, dataset), file=sys.stderr)
    if arguments.dry_run:
        say(f"{describe(trainer, dataset)}\n{estimate_memory(trainer, arguments)}")
        return cli.DONE
    if not world.agree(state["progress"]["step"] if state else -1):
        raise UserError(
            f"{output}: not every process finds the same state in it; name a folder that all machines share"
        )
    if state:
        trainer.load_state(state)
        del state  # gigabytes
        say(f"going on at epoch {trainer.progress.epoch}, step {trainer.progress.step}", file=sys.stderr)
    else:
        if world.is_first:
            prepare_output(arguments, config, vocabulary)
        world.wait()
        if arguments.epochs:
            trainer.save_state()  # or a kill after the first checkpoint would leave nothing to go on from

    if arguments.epochs == 0:
        best_path = output / f"{name}_epoch_0.pth"
        if world.is_first:
            save_weights(best_path, model)
            print(f"converted: {best_path}")
    else:
        try:
            train(trainer, dataset, arguments, name, say)
        except Stopped:
            say(f"stopped at step {trainer.progress.step}; the same command with --resume goes on", file=sys.stderr)
            return cli.DONE
        best_path = output / f"{name}_best.pth"
    if arguments.export_dir and world.is_first:
        export.write_folder(arguments.export_dir, load_weights(best_path), config, vocabulary)
        print(f"exported: {arguments.export_dir}")
    return cli.DONE


def train(trainer: Trainer, dataset: TaggedRecords, arguments: Any, name: str, say: Any) -> None:
    """All epochs that are left, or until --patience is over."""
    while (epoch := trainer.progress.epoch) <= arguments.epochs:
        waited = epoch - 1 - trainer.progress.best_epoch
        if arguments.patience and waited >= arguments.patience:
            say(f"stopped: no better epoch since epoch {trainer.progress.best_epoch}", file=sys.stderr)
            break
        say(run_epoch(trainer, dataset, arguments, name), flush=True)
    at = trainer.progress
    what = f"mAP {-at.best:.4f}" if arguments.early_stopping_metric == "map" else f"loss {at.best:.4f}"
    say(f"best: epoch {at.best_epoch}, {what}, {arguments.output_dir / name}_best.pth")
    for line in trainer.report:
        say(f"  {line}")


if __name__ == "__main__":
    sys.exit(main())
