"""The training loop: steps, validation, and the state from which a killed run goes on.

trainer = Trainer(model, config, vocabulary, loaders, frequency, world, arguments)
train_loss, evaluation = trainer.train_epoch(), trainer.validate()
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from tagger.device import normalise
from tagger.files import UserError
from tagger.formats.vocabulary import Vocabulary
from tagger.training import checkpoints, cost
from tagger.training.data import Batch, EpochBatches, mixup, seed_step, to_device
from tagger.training.distributed import World
from tagger.training.evaluation import Evaluation
from tagger.training.loss import TaggingLoss, positive_weights
from tagger.training.optimizer import make_optimizer, warmup_and_cosine

CLIP_NORM = 1.0
READ_LOSS_EVERY = 10  # steps; reading it waits for the device

# The flags that decide about the weights: a run goes on only with the values that it began with.
DECISIVE = (
    "image_size", "hflip", "crop_min", "cutout", "mixup", "epochs", "optimizer", "lr", "warmup", "weight_decay",
    "layer_decay", "drop_path", "patch_dropout", "ema_decay", "loss", "frequency_weighting", "seed",
    "early_stopping_metric",
)  # fmt: skip


class Stopped(Exception):
    """SIGTERM came; what is needed to go on has been written."""


@dataclass
class Progress:
    """Where a run stands. With the weights, the optimizer and the average, all that --resume needs."""

    epoch: int = 1
    step_in_epoch: int = 0
    step: int = 0  # of the whole run
    loss_sum: float = 0.0  # over this epoch's images so far
    images: int = 0
    best: float = math.inf  # validation loss, or -mAP
    best_epoch: int = 0


class Trainer:
    """The model, its optimizer and its schedule on this process's device."""

    def __init__(
        self,
        model: nn.Module,
        config: dict[str, Any],
        vocabulary: Vocabulary,
        loaders: tuple[DataLoader, DataLoader],
        frequency: Tensor,
        world: World,
        arguments: Any,
    ) -> None:
        self.model, self.config, self.vocabulary = model.to(world.device), config, vocabulary
        self.train_loader, self.val_loader = loaders
        self.batches: EpochBatches = self.train_loader.batch_sampler  # type: ignore[assignment]
        self.world, self.device, self.arguments = world, world.device, arguments
        if arguments.grad_checkpointing:
            model.set_grad_checkpointing()  # type: ignore[operator]
        self.optimizer = make_optimizer(
            arguments.optimizer, self.model, arguments.lr, arguments.weight_decay, arguments.layer_decay
        )
        self.schedule = warmup_and_cosine(self.optimizer, self.batches.steps * arguments.epochs, arguments.warmup)
        self.ema = ModelEmaV3(model, decay=arguments.ema_decay, use_warmup=True) if arguments.ema_decay else None
        self.loss = TaggingLoss(arguments.loss, positive_weights(frequency, arguments.frequency_weighting)).to(
            self.device
        )
        # What is trained: the same parameters, seen through DDP and the compiler. Validation uses them as they are.
        self.network: Any = model
        if world.size > 1:
            self.network = DistributedDataParallel(model, [self.device] if self.device.type == "cuda" else None)
        if arguments.compile:
            # Not dynamic: an epoch's last batch, which is smaller, would make all later ones run a slower graph.
            self.network = torch.compile(self.network, dynamic=False)
        self.progress = Progress()
        self.history: list[dict[str, float]] = []  # metrics.csv
        self.report: list[str] = []  # how the best epoch's thresholds do
        self.stop = checkpoints.StopRequest()
        self.loss_sum = torch.zeros((), device=self.device)
        self.first_bad_step = torch.full((), -1, device=self.device)

    @property
    def averaged(self) -> nn.Module:
        """The weights that checkpoints hold and validation sees."""
        return self.ema.module if self.ema else self.model

    def targets_of(self, batch: Batch) -> Tensor:
        """0/1 float (N, C), built on the device from label indices."""
        pixels, rows, columns = batch
        targets = torch.zeros(len(pixels), self.config["num_classes"], device=self.device)
        targets[rows, columns] = 1
        return targets

    def autocast(self) -> torch.autocast:
        # RoPE tables and the loss stay float32: autocast, never model.to(bfloat16).
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda")

    def train_epoch(self) -> float:
        """What is left of an epoch's pass over the training split; the mean loss per image.

        Raises:
            UserError: the loss is not a finite number any more, or a batch does not fit into memory.
            Stopped: on SIGTERM.
        """
        at = self.progress
        self.batches.epoch, self.batches.first_step = at.epoch, at.step_in_epoch
        self.loss_sum.fill_(at.loss_sum)
        self.model.train()
        incoming = to_device(self.train_loader, self.device)
        total = self.batches.length
        title = f"epoch {at.epoch}/{self.arguments.epochs}"
        with tqdm(
            total=total,
            initial=at.images * self.world.size,
            desc=title,
            unit="img",
            dynamic_ncols=True,
            disable=not self.world.is_first,
        ) as bar:
            while at.step_in_epoch < self.batches.steps:
                images = self.batches.images_of(at.step_in_epoch)
                batches = [next(incoming) for _ in range(math.ceil(images / self.batches.batch_size))]
                loss = None
                with contextlib.suppress(torch.OutOfMemoryError):
                    loss = self.train_step(batches, images)
                if loss is None:  # outside: the error holds the tensors of the step that raised it
                    raise self._out_of_memory()
                at.step, at.step_in_epoch, at.images = at.step + 1, at.step_in_epoch + 1, at.images + images
                look = at.step % READ_LOSS_EVERY == 0 or at.step_in_epoch == self.batches.steps
                if look:
                    self._check_finite()
                    bar.set_postfix(loss=f"{loss.item():.2f}", lr=f"{self.rate:.1e}")
                bar.update(images * self.world.size)
                self._stop_if_asked(look)
                if self.arguments.save_every_steps and at.step % self.arguments.save_every_steps == 0:
                    self.save_state()
        seen = torch.tensor(float(at.images), device=self.device)
        loss_sum = self.loss_sum.clone()
        self.world.sum(loss_sum, seen)
        return (loss_sum / seen).item()

    def train_step(self, batches: Sequence[Batch], images: int) -> Tensor:
        """One optimizer step on `images` images, in one batch or several; their mean loss. Waits for nothing."""
        self.schedule.step_update(self.progress.step)
        random = seed_step(self.arguments.seed, self.progress.step, self.world.rank)
        mean_loss = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches, start=1):
            # Gradients are summed over processes with the last batch alone.
            alone = self.world.size > 1 and number < len(batches)
            with self.network.no_sync() if alone else contextlib.nullcontext():
                pixels, targets = normalise(batch[0], self.config), self.targets_of(batch)
                pixels, targets = mixup(pixels, targets, self.arguments.mixup, random)
                with self.autocast():
                    logits = self.network(pixels)
                loss = self.loss(logits, targets) * (len(targets) / images)
                loss.backward()
            mean_loss += loss.detach()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(self.model, step=self.progress.step)
        self.loss_sum += mean_loss * images
        bad = ~torch.isfinite(mean_loss + norm) & (self.first_bad_step < 0)
        self.first_bad_step.masked_fill_(bad, self.progress.step + 1)
        return mean_loss

    @property
    def rate(self) -> float:
        """The learning rate of the head, which is the highest."""
        return max(group["lr"] for group in self.optimizer.param_groups)

    def _check_finite(self) -> None:
        if (step := int(self.first_bad_step.item())) >= 0:
            raise UserError(
                f"--lr: the loss or its gradient is not a finite number at step {step}; start again with a lower --lr "
                "and another --output_dir, perhaps with --pretrained from the last checkpoint"
            )

    def _out_of_memory(self) -> UserError:
        """The error that names the batch size that would fit, found by trying. The weights are lost in it."""
        self.optimizer.zero_grad(set_to_none=True)
        size = self.arguments.image_size

        def step(images: int) -> None:
            with self.autocast():
                logits = self.model(torch.zeros(images, 3, size, size, device=self.device))
            logits.float().sum().backward()
            self.optimizer.step()  # its moments take memory from the first step on
            self.optimizer.zero_grad(set_to_none=True)

        fitting: int | None = self.arguments.batch_size // 2  # DDP's hooks cannot stop in mid-step and try less
        if self.world.size == 1:
            fitting = cost.largest_fitting(self.arguments.batch_size, step)
        if not fitting:
            hint = "not even 1 fits; pass --grad_checkpointing, a smaller --image_size or a smaller --model"
        else:
            again = self.arguments.grad_accumulation * (self.arguments.batch_size // fitting)
            fits = "fits" if self.world.size == 1 else "may fit"
            hint = f"{fitting} {fits}: pass --batch_size {fitting} --grad_accumulation {again}, or --grad_checkpointing"
        return UserError(f"--batch_size {self.arguments.batch_size}: out of memory on {self.device}; {hint}")

    def _stop_if_asked(self, together: bool) -> None:
        """Write a state and leave, on SIGTERM. Several processes agree on it only now and then: asking costs a wait."""
        if (self.world.size == 1 or together) and self.world.any(self.stop.asked):
            self._check_finite()
            self.save_state()
            raise Stopped

    @torch.inference_mode()
    def validate(self) -> Evaluation:
        """Count over the validation split, each process over its share.

        Raises:
            Stopped: on SIGTERM; going on then starts with the validation.
        """
        model = self.averaged.eval()
        evaluation = Evaluation(self.vocabulary, self.device)
        batches = tqdm(
            to_device(self.val_loader, self.device),
            total=len(self.val_loader),
            desc="validation",
            unit="batch",
            leave=False,
            dynamic_ncols=True,
            disable=not self.world.is_first,
        )
        sampler: EpochBatches = self.val_loader.batch_sampler  # type: ignore[assignment]
        for done, (keys, batch) in enumerate(zip(sampler, batches, strict=True), start=1):
            targets = self.targets_of(batch)
            with self.autocast():
                logits = model(normalise(batch[0], self.config))
            evaluation.update([number for _, number in keys], logits, targets, self.loss(logits, targets))
            # In the last step some processes may have no images, and ask no more.
            self._stop_if_asked(together=done % READ_LOSS_EVERY == 0 and done < sampler.steps)
        evaluation.sum_over(self.world)
        return evaluation

    # --- going on ---

    def save_state(self) -> None:
        """Write what --resume needs; a state with a loss that is not finite would be of no use."""
        self._check_finite()
        losses = self.loss_sum.clone()
        self.world.sum(losses)
        if not self.world.is_first:
            return
        state = {
            "settings": self.settings(),
            "config": self.config,
            "progress": vars(self.progress) | {"loss_sum": losses.item() / self.world.size},
            "history": self.history,
            "report": self.report,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
        }
        checkpoints.save(self.arguments.output_dir, self.progress.step, state)

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where a state was written.

        Raises:
            UserError: it was written by a run with other settings.
        """
        checkpoints.check_same(state["settings"], self.settings())
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.module.load_state_dict(state["ema"])
        self.progress = Progress(**state["progress"])
        self.history, self.report = state["history"], state["report"]

    def settings(self) -> dict[str, Any]:
        """What must not change between the parts of a run."""
        return {
            "the vocabulary": self.vocabulary.sha256,
            "the number of training images": self.batches.length,
            "the number of images per step": self.batches.step_size,
            **{f"--{name}": getattr(self.arguments, name) for name in DECISIVE},
        }
