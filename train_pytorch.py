"""Train EVA-02 on the TFRecords of create_tfrecord.py, as a multi-label tagger.

    python train_pytorch.py --dataset_root ./output-datasets --output_dir ./checkpoints

Writes <model>_epoch_X.pth after every epoch, <model>_best.pth at the lowest validation loss, config.json and the
vocabulary. On stdout a line of validation metrics per epoch, on stderr the progress.
"""

import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

import cli
import images
import models
import tags
from files import UserError, read_json, write_json
from metrics import LabelHistograms, TopOne, threshold_of
from model_config import MODELS, make_config
from records import RecordFiles, shard_paths

CLIP_NORM = 1.0
READ_LOSS_EVERY = 10  # steps; reading it waits for the device

Sample = tuple[np.ndarray, list[int]]  # pixels uint8 (H, W, 3), label indices
Batch = tuple[Tensor, Tensor, Tensor]  # pixels uint8 (N, H, W, 3), and the rows and columns of the ones in (N, C)


def parse_arguments(argv: Sequence[str] | None) -> Any:
    parser = cli.ArgumentParser(doc=__doc__ or "", separator="_")
    data = parser.add_argument_group("data")
    data.add_argument("--dataset_root", type=Path, default="output-datasets", help="what create_tfrecord.py wrote")
    data.add_argument(
        "--image_size",
        type=cli.positive_int,
        default=224,
        help="side of the model's input in pixels, divisible by 14 (default: %(default)s)",
    )
    data.add_argument(
        "--hflip",
        type=cli.fraction,
        default=0.5,
        help="probability of a horizontal flip in training (default: %(default)s)",
    )
    data.add_argument(
        "--crop_min",
        type=cli.positive_fraction,
        default=0.87,
        help="training sees random square crops of at least this side, 1 = none (default: %(default)s)",
    )
    data.add_argument(
        "--num_workers",
        type=cli.non_negative_int,
        help="decoding processes (default: up to 8 with a GPU, none without)",
    )
    model = parser.add_argument_group("model")
    model.add_argument("--model", choices=MODELS, default="eva02_large", help="(default: %(default)s)")
    training = parser.add_argument_group("training")
    training.add_argument("--batch_size", type=cli.positive_int, default=32, help="(default: %(default)s)")
    training.add_argument("--epochs", type=cli.positive_int, default=10, help="(default: %(default)s)")
    training.add_argument(
        "--lr",
        type=cli.positive_float,
        default=1e-4,
        help="AdamW's peak learning rate; 5e-4 suits the tiny and small models from scratch (default: %(default)s)",
    )
    training.add_argument(
        "--warmup",
        type=cli.fraction,
        default=0.1,
        help="share of all steps in which the rate rises to its peak; then a cosine to 0 (default: %(default)s)",
    )
    training.add_argument(
        "--weight_decay",
        type=cli.non_negative_float,
        default=0.05,
        help="of matrices; norms and biases have none (default: %(default)s)",
    )
    training.add_argument(
        "--patience",
        type=cli.non_negative_int,
        default=5,
        help="stop after so many epochs without a lower validation loss, 0 = never (default: %(default)s)",
    )
    training.add_argument("--seed", type=cli.non_negative_int, default=0, help="(default: %(default)s)")
    training.add_argument(
        "--device",
        choices=("auto", "cuda", "cpu", "mps"),
        default="auto",
        help="auto: a GPU where there is one, and bfloat16 autocast on CUDA (default: %(default)s)",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--output_dir", type=Path, default="checkpoints", help="checkpoints and config.json")
    output.add_argument("--overwrite", action="store_true", help="replace the checkpoints of an earlier run")
    return parser.parse_args(argv)


# --- data -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaggedRecords:
    """What create_tfrecord.py wrote: the vocabulary and the two splits."""

    vocabulary: tags.Vocabulary
    train: RecordFiles
    val: RecordFiles


def open_records(root: Path, image_size: int) -> TaggedRecords:
    """Open a dataset folder and check that its parts belong together.

    Raises:
        UserError: a part is missing, does not match the others, or holds images smaller than `image_size`.
    """
    mend = "make it with create_tfrecord.py, or name another folder with --dataset_root"
    about = read_json(root / "aibooru.json", mend)
    if missing := {"num_classes", "train_samples", "val_samples", "image_size", "tags_sha256"} - about.keys():
        raise UserError(f"{root / 'aibooru.json'}: no key {', '.join(sorted(missing))}; {mend}")
    about = {"train_shards": 1, "val_shards": 1} | about
    for key in ("image_size", "train_shards", "val_shards"):
        if type(about[key]) is not int or about[key] < 1:
            raise UserError(
                f"{root / 'aibooru.json'}: {key} must be a whole number above 0, not {about[key]!r}; {mend}"
            )
    csv_path = root / "selected_tags.csv"
    vocabulary = tags.read_vocabulary(csv_path)
    if vocabulary.sha256 != about["tags_sha256"]:
        raise UserError(f"{csv_path}: its names are not those of the records (only categories may be edited); {mend}")
    if vocabulary.counts is None:
        raise UserError(f"{csv_path}: no column count; {mend}")
    if about["image_size"] < image_size:
        raise UserError(
            f"{root / 'aibooru.json'}: its images are {about['image_size']} pixels wide, --image_size is {image_size}; "
            f"pass --image_size {about['image_size']} or run create_tfrecord.py --img-size {image_size}"
        )
    train = RecordFiles(shard_paths(root, "train", about["train_shards"]))
    val = RecordFiles(shard_paths(root, "val", about["val_shards"]))
    for split, name in ((train, "train_samples"), (val, "val_samples")):
        if len(split) != about[name]:
            raise UserError(f"{split.path}: {len(split)} records, aibooru.json says {about[name]}; {mend}")
    if not len(train):
        raise UserError(f"{train.path}: no records; {mend}")
    return TaggedRecords(vocabulary, train, val)


class TaggedImages(Dataset[Sample | UserError]):
    """Pixels and label indices by (epoch, number); what it yields is a pure function of these and the seed."""

    def __init__(
        self,
        records: RecordFiles,
        image_size: int,
        channel_order: str,
        *,
        hflip: float = 0.0,
        crop_min: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.records, self.image_size, self.channel_order = records, image_size, channel_order
        self.hflip, self.crop_min, self.seed = hflip, crop_min, seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> Sample | UserError:
        try:
            return self._sample(*key)
        except UserError as error:
            return error  # a worker process would wrap it into a traceback: the training loop raises it

    def _sample(self, epoch: int, number: int) -> Sample:
        record = self.records[number]
        image = images.open_image(record.image)
        random = np.random.default_rng((self.seed, epoch, number))
        side = image.width * random.uniform(self.crop_min, 1.0)
        left, top = random.uniform(0, image.width - side, size=2)
        if side < image.width or image.width != self.image_size:
            size = (self.image_size, self.image_size)
            image = image.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
        if random.random() < self.hflip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return images.to_array(image, self.channel_order), list(record.labels)


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, number) keys; the order is a pure function of (seed, epoch). Set `epoch` before iterating."""

    def __init__(self, length: int, batch_size: int, *, shuffle: bool, seed: int = 0) -> None:
        self.length, self.batch_size, self.shuffle, self.seed = length, batch_size, shuffle, seed
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(self.length / self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(self.length) if self.shuffle else np.arange(self.length)
        for start in range(0, self.length, self.batch_size):
            yield [(self.epoch, int(number)) for number in order[start : start + self.batch_size]]


def collate(loaded: list[Sample | UserError]) -> Batch | UserError:
    """Stack pixels; labels stay sparse, so that 100,000 classes cost nothing until they reach the device."""
    samples = [sample for sample in loaded if not isinstance(sample, UserError)]
    if len(samples) < len(loaded):
        return next(error for error in loaded if isinstance(error, UserError))
    pixels = torch.from_numpy(np.stack([pixels for pixels, _ in samples]))
    rows = torch.tensor([row for row, (_, labels) in enumerate(samples) for _ in labels], dtype=torch.int64)
    columns = torch.tensor([label for _, labels in samples for label in labels], dtype=torch.int64)
    return pixels, rows, columns


def make_loader(dataset: TaggedImages, batches: EpochBatches, num_workers: int, device: torch.device) -> DataLoader:
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=device.type == "cuda",
    )


# --- model and optimizer --------------------------------------------------------------------------------------------


def pick_device(name: str) -> torch.device:
    """auto: CUDA, then Apple's MPS, then the CPU.

    Raises:
        UserError: a device was asked for that is not there; nothing falls back to the CPU in silence.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device in available if available[device])
    if not available[name]:
        raise UserError(
            f"--device {name}: torch {torch.__version__} sees no such device; pass --device cpu, or "
            "install a driver and a build of torch that match"
        )
    return torch.device(name)


def start_head_at_log_odds(model: nn.Module, vocabulary: tags.Vocabulary, train_samples: int) -> None:
    """Let every tag start at its own frequency instead of at p = 0.5, where thousands of rare tags drown the loss."""
    frequency = (torch.tensor(vocabulary.counts, dtype=torch.float64) + 0.5) / (train_samples + 1)
    with torch.no_grad():
        model.head.bias.copy_(torch.logit(frequency))  # type: ignore[operator, union-attr]


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy summed over the C labels, averaged over the N images.

    Averaged over labels as well, the gradient shrinks with the vocabulary and nothing is learnt.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="sum") / len(logits)


class Trainer:
    """The model, its optimizer and its schedule on one device."""

    def __init__(
        self, model: nn.Module, config: dict[str, Any], device: torch.device, total_steps: int, arguments: Any
    ) -> None:
        self.model, self.config, self.device = model.to(device), config, device
        groups = param_groups_weight_decay(model, arguments.weight_decay, no_weight_decay_list=model.no_weight_decay())  # type: ignore[operator]
        self.optimizer = torch.optim.AdamW(groups, lr=arguments.lr, fused=device.type == "cuda")
        warmup = round(total_steps * arguments.warmup)
        self.schedule = CosineLRScheduler(
            self.optimizer,
            t_initial=max(1, total_steps - warmup),
            warmup_t=warmup,
            warmup_prefix=True,
            t_in_epochs=False,
        )
        self.steps = 0

    def _forward(self, batch: Batch | UserError) -> tuple[Tensor, Tensor]:
        """Logits and targets, both (N, C).

        Raises:
            UserError: a record of this batch could not be read.
        """
        if isinstance(batch, UserError):
            raise batch
        pixels, rows, columns = (tensor.to(self.device, non_blocking=True) for tensor in batch)
        targets = torch.zeros(len(pixels), self.config["num_classes"], device=self.device)
        targets[rows, columns] = 1
        # RoPE tables and the loss stay float32: autocast, never model.to(bfloat16).
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            return self.model(models.normalise(pixels, self.config)), targets

    def train_epoch(self, loader: DataLoader, title: str) -> float:
        """One pass over the training split; the mean loss per image.

        Raises:
            UserError: the loss is not a finite number any more.
        """
        self.model.train()
        total, seen = torch.zeros((), device=self.device), 0
        with tqdm(total=len(loader.dataset), desc=title, unit="img", dynamic_ncols=True) as bar:  # type: ignore[arg-type]
            for step, batch in enumerate(loader):
                self.schedule.step_update(self.steps)
                loss = loss_of(*self._forward(batch))
                loss.backward()
                nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                self.steps += 1
                total += loss.detach() * len(batch[0])
                seen += len(batch[0])
                if step % READ_LOSS_EVERY == 0 or step == len(loader) - 1:
                    self._check(loss.item())
                    bar.set_postfix(loss=f"{loss.item():.2f}", lr=f"{self.optimizer.param_groups[0]['lr']:.1e}")
                bar.update(len(batch[0]))
        return (total / seen).item()

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise UserError(f"--lr: the loss is {loss} at step {self.steps}; start again with a lower --lr")

    @torch.inference_mode()
    def validate(self, loader: DataLoader, vocabulary: tags.Vocabulary) -> dict[str, float]:
        """Loss and metrics over the validation split.

        Returns:
            `loss` (per image), `mAP` (mean over labels that occur), `mAP_<category>`, `macro_F1` and `micro_F1` at
            `threshold` (the one at which precision and recall over all decisions are equal), and `top1_rating` and
            `top1_artist`, each in 0..1; NaN where the split has no such label.
        """
        self.model.eval()
        histograms = LabelHistograms(len(vocabulary), self.device)
        labels = {
            name: torch.tensor(vocabulary.indices(number), dtype=torch.int64, device=self.device)
            for name, number in tags.CATEGORY_NUMBERS.items()
        }
        top1 = {name: TopOne(labels[name]) for name in ("rating", "artist")}
        total, seen = torch.zeros((), device=self.device), 0
        for batch in tqdm(loader, desc="validation", unit="batch", leave=False, dynamic_ncols=True):
            logits, targets = self._forward(batch)
            total += loss_of(logits, targets) * len(targets)
            seen += len(targets)
            histograms.update(logits, targets)
            for counter in top1.values():
                counter.update(logits, targets)
        precision = histograms.average_precision()
        balanced = histograms.balanced_bin()
        macro_f1, micro_f1 = histograms.f1(balanced)
        return {
            "loss": (total / seen).item(),
            "mAP": precision.nanmean().item(),
            **{f"mAP_{name}": precision[indices].nanmean().item() for name, indices in labels.items()},
            "macro_F1": macro_f1,
            "micro_F1": micro_f1,
            "threshold": threshold_of(balanced),
            **{f"top1_{name}": counter.accuracy() for name, counter in top1.items()},
        }


# --- the run --------------------------------------------------------------------------------------------------------


def prepare_output(arguments: Any, config: dict[str, Any], vocabulary: tags.Vocabulary) -> None:
    """Everything that inference needs but the weights, before the first epoch, so that any checkpoint is complete.

    Raises:
        UserError: the folder holds checkpoints of an earlier run.
    """
    output: Path = arguments.output_dir
    output.mkdir(parents=True, exist_ok=True)
    earlier = [path for name in MODELS for path in sorted(output.glob(f"{name}_*.pth"))]
    if earlier and not arguments.overwrite:
        raise UserError(
            f"{output}: holds {earlier[0].name} of an earlier run; pass --overwrite or another --output_dir"
        )
    for path in earlier:  # a shorter run must not end among the later epochs of another
        path.unlink()
    tags.write_vocabulary(output / "selected_tags.csv", vocabulary)
    write_json(output / "config.json", config)


def format_metrics(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if not math.isnan(value))


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    device = pick_device(arguments.device)
    num_workers = arguments.num_workers
    if num_workers is None:
        num_workers = min(8, os.cpu_count() or 1) if device.type == "cuda" else 0
    dataset = open_records(arguments.dataset_root, arguments.image_size)
    vocabulary = dataset.vocabulary
    config = make_config(arguments.model, arguments.image_size, len(vocabulary), tags_sha256=vocabulary.sha256)
    prepare_output(arguments, config, vocabulary)

    torch.manual_seed(arguments.seed)
    model = models.build(config)
    start_head_at_log_odds(model, vocabulary, len(dataset.train))
    order = config["tagger"]["channel_order"]
    train_images = TaggedImages(
        dataset.train,
        arguments.image_size,
        order,
        hflip=arguments.hflip,
        crop_min=arguments.crop_min,
        seed=arguments.seed,
    )
    batches = EpochBatches(len(dataset.train), arguments.batch_size, shuffle=True, seed=arguments.seed)
    train_loader = make_loader(train_images, batches, num_workers, device)
    val_loader = make_loader(
        TaggedImages(dataset.val, arguments.image_size, order),
        EpochBatches(len(dataset.val), arguments.batch_size, shuffle=False),
        num_workers,
        device,
    )
    trainer = Trainer(model, config, device, len(batches) * arguments.epochs, arguments)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{arguments.model}: {parameters / 1e6:.1f} M parameters, {len(vocabulary)} tags, {len(dataset.train)} + "
        f"{len(dataset.val)} images, {len(batches)} steps an epoch, on {device}",
        file=sys.stderr,
    )

    best, best_epoch = math.inf, 0
    for epoch in range(1, arguments.epochs + 1):
        started = time.monotonic()
        batches.epoch = epoch
        train_loss = trainer.train_epoch(train_loader, f"epoch {epoch}/{arguments.epochs}")
        rate = len(dataset.train) / (time.monotonic() - started)
        metrics = trainer.validate(val_loader, vocabulary) if len(dataset.val) else {"loss": train_loss}
        print(f"epoch {epoch}: train_loss {train_loss:.4f}, {rate:.1f} images/s, {format_metrics(metrics)}", flush=True)
        models.save_weights(arguments.output_dir / f"{arguments.model}_epoch_{epoch}.pth", model)
        if metrics["loss"] < best:
            best, best_epoch = metrics["loss"], epoch
            models.save_weights(arguments.output_dir / f"{arguments.model}_best.pth", model)
        if arguments.patience and epoch - best_epoch >= arguments.patience:
            print(f"stopped: no lower validation loss since epoch {best_epoch}", file=sys.stderr)
            break
    print(f"best: epoch {best_epoch}, loss {best:.4f}, {arguments.output_dir / arguments.model}_best.pth")
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
