"""What a run is told, in groups; and on each field whether it decides about the weights.

train_pytorch.py builds `TrainingSettings` once from its flags, which have the names of the fields, and hands it down.
The defaults are the recipe that measured best from scratch (benchmarks/recipes.py):

    settings = TrainingSettings(recipe=RecipeSettings(lr=4e-3, epochs=3))
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

T = TypeVar("T")

# A field that decides about the weights: a run is resumed only with the value that it began with. Speed, memory, files
# and the moment to stop may change between the parts of a run.
DECISIVE = "decisive"
Decisive = Annotated[T, DECISIVE]
# A field that a run which goes on takes over where it is told nothing else, as it does with the decisive ones.
REMEMBERED = "remembered"
Remembered = Annotated[T, REMEMBERED]


@dataclass(frozen=True)
class DataSettings:
    """What is read, and how training images differ from the stored ones.

    Attributes:
        dataset_root: the folder that create_tfrecord.py wrote.
        image_size: side of the model's square input in pixels.
        hflip: probability of a horizontal flip, 0..1.
        crop_min: smallest side of a random square crop, as a share of the image's side, above 0 to 1; 1 = no crops.
        cutout: share of the area under a grey square, 0..1; 0 = none.
        val_images: validation images that an epoch is judged by, the same ones in every epoch; 0 = all.
        num_workers: decoding processes, 0 = decode in the training process; None leaves the choice to the device.
    """

    dataset_root: Remembered[Path] = Path("output-datasets")
    image_size: Decisive[int] = 224
    hflip: Decisive[float] = 0.5
    crop_min: Decisive[float] = 0.87
    cutout: Decisive[float] = 0.0
    val_images: Remembered[int] = 0
    num_workers: int | None = None


@dataclass(frozen=True)
class ModelSettings:
    """What is trained. The architecture is not among the decisive fields: a state holds its config.

    Attributes:
        model: a name of models.MODELS; None is the default, or what `pretrained` is.
        pretrained: a folder, a file or a repository of the hub to start from; None starts from scratch.
        drop_path: stochastic depth, the share of images that skip the last block, 0..1; it rises from 0 at the first.
        patch_dropout: share of the patches that training leaves out, 0 to below 1.
        freeze_backbone: train the head alone, on features that are computed once.
        unfreeze_last: train the head and so many blocks before it; None trains all.
        train_old_tags: with a frozen backbone, train the rows of the tags too that `pretrained` knows.
        grad_checkpointing: recompute activations in the backward pass instead of keeping them.
        compile: run the model through torch.compile, where that works; None: on CUDA.
    """

    model: str | None = None
    pretrained: Remembered[str | None] = None
    drop_path: Decisive[float] = 0.0
    patch_dropout: Decisive[float] = 0.75
    freeze_backbone: Decisive[bool] = False
    unfreeze_last: Decisive[int | None] = None
    train_old_tags: Decisive[bool] = False
    grad_checkpointing: Remembered[bool] = False
    compile: bool | None = None


@dataclass(frozen=True)
class RecipeSettings:
    """How it is trained. `batch_size` and `grad_accumulation` decide only by the images per step, which a state holds.

    Attributes:
        batch_size: images per batch and process.
        epochs: 0 only converts the weights that training would start from.
        grad_accumulation: batches per optimizer step and process.
        bf16_gradients: several processes send each other gradients as bfloat16.
        optimizer: a key of optimizer.OPTIMIZERS.
        lr: peak learning rate, above 0.
        head_lr: the head's rate as a multiple of `lr`, above 0.
        warmup: share of all steps in which the rate rises from 0 to its peak, 0..1.
        weight_decay: of matrices, decoupled from the gradient, 0 or more.
        layer_decay: each block's rate as a share of the rate of the block above, above 0 to 1; 1 = all alike.
        ema_decay: of the moving average that checkpoints hold instead of the weights, 0..1; 0 = off.
        loss: a key of loss.LOSSES.
        repeat_factor: share of the images below which an artist's images come more often, 0..1; 0 = off.
        frequency_weighting: power of (mean frequency / frequency) in the weights of the positives, 0..1; 0 = off.
        mixup: alpha of the Beta distribution of the shares in which two images are blended, 0 = off.
        patience: epochs without a better one after which training stops, 0 = never.
        early_stopping_metric: a key of evaluation.EARLY_STOPPING_METRICS.
        seed: of everything random.
    """

    batch_size: Remembered[int] = 32
    epochs: Decisive[int] = 10
    grad_accumulation: Remembered[int] = 1
    bf16_gradients: Decisive[bool] = False
    optimizer: Decisive[str] = "muon"
    lr: Decisive[float] = 1e-4
    head_lr: Decisive[float] = 1.0
    warmup: Decisive[float] = 0.1
    weight_decay: Decisive[float] = 0.05
    layer_decay: Decisive[float] = 1.0
    ema_decay: Decisive[float] = 0.0
    loss: Decisive[str] = "bce"
    repeat_factor: Decisive[float] = 0.0
    frequency_weighting: Decisive[float] = 0.0
    mixup: Decisive[float] = 0.0
    patience: Remembered[int] = 5
    early_stopping_metric: Decisive[str] = "loss"  # it decides which weights are the best ones
    seed: Decisive[int] = 0


@dataclass(frozen=True)
class RunSettings:
    """Where it computes, and what it writes.

    Attributes:
        device: one of tagger.device.DEVICES.
        output_dir: the folder of the checkpoints.
        overwrite: replace the checkpoints of an earlier run.
        resume: "last" goes on with the run in `output_dir`, "auto" begins where there is none, None always begins.
        save_every_steps: optimizer steps between two resume states within an epoch, 0 = only after every epoch.
        keep_checkpoints: epochs whose checkpoints are kept, besides the best; 0 = all.
        export_dir: the folder for timm and wdtagger that is written at the end, or None.
        dry_run: describe the run, and stop before it begins.
        teach: a folder of example pictures, whose artists become rows of `pretrained` without training, or None.
        unteach: taught artists that are forgotten.
    """

    device: str = "auto"
    output_dir: Path = Path("checkpoints")
    overwrite: bool = False
    resume: str | None = None
    save_every_steps: Remembered[int] = 0
    keep_checkpoints: Remembered[int] = 0
    export_dir: Path | None = None
    dry_run: bool = False
    teach: Path | None = None
    unteach: tuple[str, ...] = ()


Group = TypeVar("Group", DataSettings, ModelSettings, RecipeSettings, RunSettings)


@dataclass(frozen=True)
class TrainingSettings:
    """All settings of a run. No two groups have a field of the same name."""

    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    recipe: RecipeSettings = field(default_factory=RecipeSettings)
    run: RunSettings = field(default_factory=RunSettings)

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> "TrainingSettings":
        """Settings from values by field name, whatever group the field is in; the others keep their defaults.

        Raises:
            TypeError: there is no field of some name.
        """
        defaults = cls()
        if unknown := values.keys() - defaults.flat().keys():
            raise TypeError(f"no setting {', '.join(sorted(unknown))}")

        def filled(group: Group) -> Group:
            return replace(group, **{name: values[name] for name in vars(group) if name in values})

        return cls(filled(defaults.data), filled(defaults.model), filled(defaults.recipe), filled(defaults.run))

    def flat(self) -> dict[str, Any]:
        """Every value by its field's name."""
        return {name: value for group in fields(self) for name, value in vars(getattr(self, group.name)).items()}

    def decisive(self) -> dict[str, Any]:
        """The values that decide about the weights, by field name."""
        return self._marked(DECISIVE)

    def remembered(self) -> dict[str, Any]:
        """What a state keeps for a run that goes on, by field name: numbers, texts and None; a path is absolute."""
        values = self._marked(DECISIVE) | self._marked(REMEMBERED)
        return {name: str(value.resolve()) if isinstance(value, Path) else value for name, value in values.items()}

    @classmethod
    def recalled(cls, remembered: Mapping[str, Any]) -> dict[str, Any]:
        """The values of `remembered` that there are fields for, as these fields have them; for `from_flat`."""
        defaults = cls().flat()
        return {
            name: Path(value) if isinstance(defaults[name], Path) else value
            for name, value in remembered.items()
            if name in defaults
        }

    def _marked(self, mark: str) -> dict[str, Any]:
        values = self.flat()
        return {
            name: values[name]
            for group in fields(self)
            for name, hint in get_type_hints(type(getattr(self, group.name)), include_extras=True).items()
            if mark in getattr(hint, "__metadata__", ())
        }
