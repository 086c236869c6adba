"""The training loop: steps, validation, and the state from which a killed run goes on.

splits = load_splits(records, settings, preparation, world)
trainer = Trainer(model, config, vocabulary, splits, frequency, world, settings)
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
from tqdm import tqdm

from tagger.device import normalise
from tagger.files import UserError
from tagger.formats.checkpoint import CONFIG_FILE, own_preparation
from tagger.formats.vocabulary import ARTIST, Vocabulary
from tagger.formats.weights import first_not_finite
from tagger.training import checkpoints, cost, distributed
from tagger.training.compiling import compiled
from tagger.training.data import Batch, Split, in_order, mixup, seed_step, to_device
from tagger.training.distributed import World
from tagger.training.evaluation import Evaluation
from tagger.training.frozen import FrozenHead
from tagger.training.loss import Labels, TaggingLoss, positive_weights
from tagger.training.optimizer import make_optimizer, warmup_and_cosine
from tagger.training.settings import TrainingSettings

CLIP_NORM = 1.0
IMAGES_PER_STEP = "the number of images per step"  # of all processes, as a state holds it
READ_LOSS_EVERY = 10  # steps; reading it waits for the device


class Stopped(Exception):
    """SIGTERM came; what is needed to go on has been written."""


class NotFinite(UserError):
    """The loss, its gradient or the weights are infinite or not a number, first at `step`."""

    def __init__(self, step: int, what: str = "the loss or its gradient") -> None:
        super().__init__(f"{what} is not a finite number at step {step}")
        self.step = step


class OutOfMemory(UserError):
    """A training step does not fit into the device's memory.

    Attributes:
        fitting: a batch size that fits, or None where not even 1 does.
        tried: whether it was tried, or is a guess.
    """

    def __init__(self, device: torch.device, fitting: int | None, tried: bool) -> None:
        super().__init__(f"out of memory on {device}")
        self.fitting, self.tried = fitting, tried


@dataclass
class Progress:
    """Where a run stands. With the weights, the optimizer and the average, all that is needed to go on."""

    epoch: int = 1
    step_in_epoch: int = 0
    step: int = 0  # of the whole run
    loss_sum: float = 0.0  # over this epoch's images so far
    images: int = 0  # of this epoch and this process, so far
    best: float = math.inf  # the lowest score of an EarlyStoppingMetric
    best_epoch: int = 0  # 0 = none is over


class Trainer:
    """The model, its optimizer and its schedule on this process's device.

    Args:
        model: what is trained, moved to the device.
        config: its config.json.
        vocabulary: its C tags.
        splits: this process's share of the training and of the validation images.
        frequency: the share of the training images that has each tag, (C,) in 0..1.
        world: the processes of the run.
        settings: the run's.
    """

    def __init__(
        self,
        model: nn.Module,
        config: dict[str, Any],
        vocabulary: Vocabulary,
        splits: tuple[Split, Split],
        frequency: Tensor,
        world: World,
        settings: TrainingSettings,
    ) -> None:
        self.model, self.config, self.vocabulary = model.to(world.device), config, vocabulary
        self.preparation = own_preparation(config, CONFIG_FILE)
        self.train_split, self.val_split = splits
        self.world, self.device, self.settings = world, world.device, settings
        recipe = settings.recipe
        if settings.model.grad_checkpointing:
            model.set_grad_checkpointing()  # type: ignore[operator]
        self.optimizer = make_optimizer(self.model, recipe)
        self.schedule = warmup_and_cosine(self.optimizer, self.steps_per_epoch * recipe.epochs, recipe.warmup)
        self.ema = ModelEmaV3(model, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
        artists = torch.tensor(vocabulary.indices(ARTIST), dtype=torch.int64)
        labels = Labels(positive_weights(frequency, recipe.frequency_weighting), artists, frequency[artists])
        self.loss = TaggingLoss(recipe.loss, labels).to(self.device)
        # What is trained: the same parameters, seen through DDP and the compiler. Validation uses them as they are.
        self.network: Any = model
        if world.size > 1:
            self.network = distributed.shared(model, self.device, recipe.bf16_gradients)
        self.progress = Progress()
        self.history: list[dict[str, float]] = []  # the rows of metrics.csv
        self.report: list[str] = []  # how the best epoch's thresholds do
        self.best_rows: dict[str, Tensor] | None = None  # of a FrozenHead, in the best epoch
        self.stop = checkpoints.StopRequest()
        # These two stay on the device: reading them in every step would make the host wait for it.
        self.loss_sum = torch.zeros((), device=self.device)
        self.first_bad_step = torch.full((), -1, device=self.device)

    @property
    def steps_per_epoch(self) -> int:
        return self.train_split.batches.steps

    @property
    def averaged(self) -> nn.Module:
        """The weights that checkpoints hold and validation sees."""
        return self.ema.module if self.ema else self.model

    @property
    def learning_rate(self) -> float:
        """That which the schedule gives, before the groups' own factors."""
        group = self.optimizer.param_groups[0]
        return float(group["lr"]) / float(group.get("lr_scale", 1.0))

    def targets_of(self, batch: Batch) -> Tensor:
        """0/1 float (N, C), built on the device from label indices."""
        pixels, rows, columns = batch
        targets = torch.zeros(len(pixels), self.config["num_classes"], device=self.device)
        targets[rows, columns] = 1
        return targets

    def inputs_of(self, batch: Batch) -> Tensor:
        """What the model is fed: float32 pixels (N, 3, H, W), or for a frozen backbone its features (N, D)."""
        if isinstance(self.model, FrozenHead):
            return batch[0].float()
        return normalise(in_order(batch[0], self.preparation), self.preparation)

    def autocast(self) -> torch.autocast:
        # RoPE tables and the loss stay float32: autocast, never model.to(bfloat16).
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda")

    def compile(self) -> None:
        """Run the steps that follow through torch.compile, if the settings or the device ask for it and it works.

        Takes minutes on a GPU. The run is the same with it and without, but for rounding.
        """
        wanted = self.settings.model.compile
        if isinstance(self.model, FrozenHead) or not (self.device.type == "cuda" if wanted is None else wanted):
            return
        size, images = self.settings.data.image_size, self.train_split.batches.batch_size
        kept = {name: buffer.clone() for name, buffer in self.model.named_buffers()}  # what a BatchNorm counts

        def trial(network: Any) -> None:
            # DDP's sums would wait for a process in which it failed.
            with self.network.no_sync() if self.world.size > 1 else contextlib.nullcontext():
                with self.autocast():
                    logits = network(torch.zeros(images, 3, size, size, device=self.device))
                logits.float().sum().backward()

        self.model.train()
        self.network = compiled(self.network, trial, self.world)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():
                buffer.copy_(kept[name])

    def train_epoch(self) -> float:
        """What is left of an epoch's pass over the training split; the mean loss per image.

        Raises:
            NotFinite: the loss or its gradient is not a finite number any more.
            OutOfMemory: a batch does not fit into memory.
            UserError: a record cannot be read.
            Stopped: on SIGTERM.
        """
        progress, batches = self.progress, self.train_split.batches
        batches.epoch, batches.first_step = progress.epoch, progress.step_in_epoch
        self.loss_sum.fill_(progress.loss_sum)
        self.model.train()
        incoming = to_device(self.train_split.loader, self.device)
        with tqdm(
            total=batches.drawn,
            initial=progress.images * self.world.size,
            desc=f"epoch {progress.epoch}/{self.settings.recipe.epochs}",
            unit="img",
            dynamic_ncols=True,
            disable=not self.world.is_first,
        ) as bar:
            while progress.step_in_epoch < batches.steps:
                images = batches.images_of(progress.step_in_epoch)
                parts = [next(incoming) for _ in range(math.ceil(images / batches.batch_size))]
                loss = None
                with contextlib.suppress(torch.OutOfMemoryError):
                    loss = self.train_step(parts, images)
                if loss is None:  # not within the block: the error there holds on to the tensors of the failed step
                    raise self._out_of_memory()
                progress.step, progress.step_in_epoch = progress.step + 1, progress.step_in_epoch + 1
                progress.images += images
                read_loss = progress.step % READ_LOSS_EVERY == 0 or progress.step_in_epoch == batches.steps
                if read_loss:
                    self._check_finite()
                    bar.set_postfix(loss=f"{loss.item():.2f}", lr=f"{self.learning_rate:.1e}")
                bar.update(images * self.world.size)
                self._stop_if_asked(all_here=read_loss)
                save_every = self.settings.run.save_every_steps
                if save_every and progress.step % save_every == 0:
                    self.save_state()
        seen = torch.tensor(float(progress.images), device=self.device)
        loss_sum = self.loss_sum.clone()  # the state that is written next holds this process's own
        self.world.sum(loss_sum, seen)
        return (loss_sum / seen).item()

    def train_step(self, batches: Sequence[Batch], images: int) -> Tensor:
        """One optimizer step on `images` images, in one batch or several; their mean loss. Waits for nothing."""
        self.schedule.step_update(self.progress.step)
        random = seed_step(self.settings.recipe.seed, self.progress.step, self.world.rank)
        mean_loss = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches, start=1):
            # Gradients are summed over processes once, with the last batch.
            keep_local = self.world.size > 1 and number < len(batches)
            with self.network.no_sync() if keep_local else contextlib.nullcontext():
                inputs, targets = self.inputs_of(batch), self.targets_of(batch)
                inputs, targets = mixup(inputs, targets, self.settings.recipe.mixup, random)
                with self.autocast():
                    logits = self.network(inputs)
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

    def _check_finite(self) -> None:
        if (step := int(self.first_bad_step.item())) >= 0:
            raise NotFinite(step)

    def check_weights(self) -> None:
        """Before weights are written: a step may make them infinite whose loss was a number yet.

        Raises:
            NotFinite: they are.
        """
        for module in (self.model, self.ema.module) if self.ema else (self.model,):
            if name := first_not_finite(module.state_dict()):
                raise NotFinite(self.progress.step, name)

    def _out_of_memory(self) -> OutOfMemory:
        """The error that names the batch size that would fit, found by trying. The weights are lost in it."""
        self.optimizer.zero_grad(set_to_none=True)
        size, batch_size = self.settings.data.image_size, self.settings.recipe.batch_size

        def try_step(images: int) -> None:
            with self.autocast():
                logits = self.model(torch.zeros(images, 3, size, size, device=self.device))
            logits.float().sum().backward()
            self.optimizer.step()  # its moments take memory from the first step on
            self.optimizer.zero_grad(set_to_none=True)

        if self.world.size > 1:  # DDP's hooks cannot stop in the middle of a step and try less
            return OutOfMemory(self.device, batch_size // 2 or None, tried=False)
        return OutOfMemory(self.device, cost.largest_fitting(batch_size, try_step), tried=True)

    def _stop_if_asked(self, *, all_here: bool) -> None:
        """On SIGTERM, write a state and leave.

        Args:
            all_here: every process calls this now. Several must agree on stopping, and since that waits for the device
                they ask each other only then; one process alone looks at every call.
        """
        if (self.world.size == 1 or all_here) and self.world.any(self.stop.asked):
            self._check_finite()
            self.save_state()
            raise Stopped

    @torch.inference_mode()
    def validate(self) -> Evaluation:
        """Count over the validation split, each process over its share.

        Raises:
            UserError: a record cannot be read.
            NotFinite: the model gives no numbers, from which no threshold can be fitted.
            Stopped: on SIGTERM; going on then starts with the validation.
        """
        model = self.averaged.eval()
        evaluation = Evaluation(self.vocabulary, self.device)
        keys, loader = self.val_split.batches, self.val_split.loader
        batches = tqdm(
            to_device(loader, self.device),
            total=len(loader),
            desc="validation",
            unit="batch",
            leave=False,
            dynamic_ncols=True,
            disable=not self.world.is_first,
        )
        for done, (batch_keys, batch) in enumerate(zip(keys, batches, strict=True), start=1):
            targets = self.targets_of(batch)
            with self.autocast():
                logits = model(self.inputs_of(batch))
            evaluation.update([number for _, number in batch_keys], logits, targets, self.loss(logits, targets))
            # Not in the last step: some processes may have no images in it, and would not be asked.
            self._stop_if_asked(all_here=done % READ_LOSS_EVERY == 0 and done < keys.steps)
        evaluation.sum_over(self.world)
        if not math.isfinite(evaluation.loss_sum.item()):  # weights that are numbers may overflow on the way, too
            raise NotFinite(self.progress.step, "the loss on the validation split")
        return evaluation

    def rate_epoch(self, score: float) -> bool:
        """Whether this epoch's score is the best so far; if so, remember it."""
        progress = self.progress
        better = score < progress.best or progress.best_epoch == 0  # the first one also where it is NaN
        if better:
            progress.best, progress.best_epoch = score, progress.epoch
        return better

    def finish_epoch(self) -> None:
        """Go on to the next epoch, and write the state that begins it."""
        progress = self.progress
        self.progress = Progress(
            progress.epoch + 1, step=progress.step, best=progress.best, best_epoch=progress.best_epoch
        )
        self.loss_sum.zero_()
        self.save_state()

    # --- states from which a run goes on ---

    def save_state(self) -> None:
        """Write what going on needs.

        Raises:
            NotFinite: a state with a loss or weights that are not finite would be of no use.
        """
        self._check_finite()
        self.check_weights()
        loss_sum = self.loss_sum.clone()
        self.world.sum(loss_sum)
        if not self.world.is_first:
            return
        state = {
            "settings": fixed_settings(
                self.settings, self.vocabulary, self.train_split.batches.length, self.world.size
            ),
            "remembered": self.settings.remembered(),
            "config": self.config,
            # Every process that goes on takes an equal share of the sum.
            "progress": vars(self.progress) | {"loss_sum": loss_sum.item() / self.world.size},
            "history": self.history,
            "report": self.report,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
            "best_rows": self.best_rows,
        }
        checkpoints.save_state(self.settings.run.output_dir, self.progress.step, state)

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where a state was written, by a run with the same `fixed_settings`.

        Raises:
            UserError: it was not written by this version, which groups parameters or counts progress in another way.
        """
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.ema:
                self.ema.module.load_state_dict(state["ema"])
            self.progress = Progress(**state["progress"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self.settings.run.output_dir}: its state does not fit ({reason}); go on with the version of the "
                "toolkit that wrote it, or begin again"
            ) from None
        self.history, self.report = state["history"], state["report"]
        self.best_rows = state.get("best_rows")


def fixed_settings(settings: TrainingSettings, vocabulary: Vocabulary, images: int, processes: int) -> dict[str, Any]:
    """What must not change between the parts of a run: by words for what is measured, and by a setting's name.

    Args:
        images: of the training split.
        processes: of the run.
    """
    recipe = settings.recipe
    return {
        "the vocabulary": vocabulary.sha256,
        "the number of training images": images,
        IMAGES_PER_STEP: recipe.batch_size * recipe.grad_accumulation * processes,
        **settings.decisive(),
    }
