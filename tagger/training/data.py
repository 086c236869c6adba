"""Training images from TFRecords: which one comes when, and how it is cut, are pure functions of numbers.

The order follows from (seed, epoch), an image's augmentation from (seed, epoch, index). So a run that was killed
goes on at any step as if nothing had happened, whatever the number of decoding processes:

    batches = EpochBatches(len(records), 32, shuffle=True)
    loader = make_loader(TaggedImages(records, preparation), batches, num_workers=4, device=torch.device("cpu"))
"""

import atexit
import math
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from tqdm import tqdm

from tagger import images
from tagger.files import UserError
from tagger.formats.records import ABOUT_FILE, WRITE_AGAIN, About, RecordFile, RecordFiles, shard_paths
from tagger.formats.vocabulary import ARTIST, VOCABULARY_FILE, Vocabulary, read_vocabulary
from tagger.preparation import Preparation
from tagger.training.distributed import World
from tagger.training.settings import TrainingSettings

GREY = 128  # a cut-out, about 0 after normalisation
MAX_DEFAULT_WORKERS = 8  # decoding processes beside a GPU, where nobody asks for another number

Sample = tuple[Tensor, list[int]]  # pixels uint8 (H, W, 3), label indices
Batch = tuple[Tensor, Tensor, Tensor]  # pixels uint8 (N, H, W, 3), and the rows and columns of the ones in (N, C)
Loader = DataLoader[Sample | UserError]  # yields Batch | UserError


@dataclass(frozen=True)
class TaggedRecords:
    """What create_tfrecord.py wrote: the vocabulary and the two splits."""

    vocabulary: Vocabulary
    train: RecordFiles
    val: RecordFiles


class ImagesTooSmall(UserError):
    """The stored images are smaller than the model's input.

    Attributes:
        stored, wanted: sides in pixels.
    """

    def __init__(self, path: Path, stored: int, wanted: int) -> None:
        super().__init__(f"{path}: its images are {stored} pixels wide, the model's input is {wanted}")
        self.stored, self.wanted = stored, wanted


def open_records(root: Path, image_size: int, hint: str, repair_hint: str = WRITE_AGAIN) -> TaggedRecords:
    """Open a dataset folder and check that its parts belong together.

    Args:
        image_size: side of the model's input in pixels.
        hint: ends the errors, as in "name another folder".
        repair_hint: ends the errors for damaged files, also those that reading the records finds later.

    Raises:
        ImagesTooSmall: the folder holds images smaller than `image_size`.
        UserError: a part is missing or does not match the others.
    """
    about = About.read(root, hint)
    csv_path = root / VOCABULARY_FILE
    vocabulary = read_vocabulary(csv_path, repair_hint)
    if vocabulary.sha256 != about.tags_sha256:
        raise UserError(f"{csv_path}: its names are not those of the records (only categories may be edited); {hint}")
    if vocabulary.counts is None:
        raise UserError(f"{csv_path}: no column count; {hint}")
    if about.image_size < image_size:
        raise ImagesTooSmall(root / ABOUT_FILE, about.image_size, image_size)
    train = RecordFiles(shard_paths(root, "train", about.train_shards), repair_hint)
    val = RecordFiles(shard_paths(root, "val", about.val_shards), repair_hint)
    for split, samples in ((train, about.train_samples), (val, about.val_samples)):
        if len(split) != samples:
            raise UserError(f"{split.path}: {len(split)} records, {ABOUT_FILE} says {samples}; {hint}")
    if not len(train):
        raise UserError(f"{train.path}: no records; {hint}")
    return TaggedRecords(vocabulary, train, val)


class TaggedImages(Dataset[Sample | UserError]):
    """Pixels in RGB and label indices by (epoch, number); what it yields is a pure function of these and the seed.

    Args:
        records: N records by number.
        preparation: how a model's pixels are made of a picture; that of a square one, as the records hold it.
        hflip: probability of a horizontal flip.
        crop_min: a random square of at least this share of the side is cut out and scaled back; 1 = none.
        cutout: a random square of this share of the area is painted grey; 0 = none.
        seed: of flips, crops and cut-outs.
    """

    def __init__(
        self,
        records: RecordFile | RecordFiles,
        preparation: Preparation,
        *,
        hflip: float = 0.0,
        crop_min: float = 1.0,
        cutout: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.records, self.preparation, self.image_size = records, preparation, preparation.size[0]
        self._only_scaled = preparation.is_white_square
        self.hflip, self.crop_min, self.cutout, self.seed = hflip, crop_min, cutout, seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> Sample | UserError:
        try:
            return self._sample(*key)
        except UserError as error:
            return error  # a worker process would wrap it into a traceback: `to_device` raises it

    def _sample(self, epoch: int, number: int) -> Sample:
        record = self.records[number % len(self.records)]  # beyond N it comes again, see EpochBatches
        pixels = decode(record.image)
        random = np.random.default_rng((self.seed, epoch, number))
        flip = random.random() < self.hflip
        side = round(pixels.shape[1] * random.uniform(self.crop_min, 1.0))
        left, top = random.integers(0, pixels.shape[1] - side, size=2, endpoint=True)
        if not self._only_scaled:
            image = Image.fromarray(pixels[top : top + side, left : left + side].numpy())
            pixels = torch.from_numpy(images.to_pixels(image, self.preparation.in_order("RGB")).copy())
        elif side < pixels.shape[1]:
            pixels = scale(pixels[top : top + side, left : left + side], self.image_size)
        elif side != self.image_size:  # not cropped: scaled by Pillow, as inference does it
            size = (self.image_size, self.image_size)
            image = Image.fromarray(pixels.numpy()).resize(size, Image.Resampling.BICUBIC)
            pixels = torch.from_numpy(np.array(image))
        if flip:
            pixels = pixels.flip(1)
        if self.cutout:
            hole = round(self.image_size * math.sqrt(self.cutout))
            x, y = random.integers(0, self.image_size - hole, size=2, endpoint=True)
            pixels[y : y + hole, x : x + hole] = GREY
        return pixels, list(record.labels)


def decode(data: bytes) -> Tensor:
    """The pixels of an image, uint8 (H, W, 3) in RGB: those of images.open_image.

    The JPEGs of create_tfrecord.py take a shorter way from the decoder to the pixels than Pillow's.

    Raises:
        UserError: see images.open_image.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours == "YCbCr" and height * width <= images.MAX_PIXELS and b"Exif" not in data:
            return torch.from_numpy(simplejpeg.decode_jpeg(data))
    except ValueError:
        pass  # Pillow tells what is wrong with it
    return torch.from_numpy(np.array(images.open_image(data)))


def scale(pixels: Tensor, size: int) -> Tensor:
    """A square of uint8 pixels (H, W, 3), scaled to `size`; in a third of Pillow's time."""
    scaled = F.interpolate(pixels[None].permute(0, 3, 1, 2), (size, size), mode="bicubic", antialias=True)
    return scaled[0].permute(1, 2, 0)


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, number) keys; the order is a pure function of (seed, epoch). Set `epoch` before iterating.

    One optimizer step takes `batch_size` images in each of `accumulation` batches of each of `world_size` processes;
    the last step of an epoch takes what is left, in equal numbers per process (fewer than `world_size` images may be
    left out, others in every epoch). The step's images do not depend on how the three share it, so 2 x 16 sees in
    every step what 1 x 32 sees.

    Args:
        length: the number of images, N.
        batch_size: images per batch and process.
        shuffle: a new order in every epoch; else by number, and nothing is left out.
        subset: (N,) int64, the numbers of the images where they are not 0..N-1.
        repeats: (N,) float, how often each image comes in an epoch on average, from 1; each comes that often rounded
            up or down. A second time it is number + N, so that it is cut in another way. None: once.

    Attributes:
        drawn: images of an epoch, the same number in every one: N, or the sum of `repeats`, rounded up so that none is
            missed.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        accumulation: int = 1,
        rank: int = 0,
        world_size: int = 1,
        subset: np.ndarray | None = None,
        repeats: np.ndarray | None = None,
    ) -> None:
        self.subset, self.repeats = subset, repeats
        self.drawn = length if repeats is None else math.ceil(repeats.sum())
        self.length, self.batch_size, self.shuffle, self.seed = length, batch_size, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.step_size = batch_size * accumulation * world_size  # images
        self.epoch = 0
        self.first_step = 0  # of this epoch, when resuming within it

    @property
    def steps(self) -> int:
        """Optimizer steps in a whole epoch."""
        usable = self.drawn if not self.shuffle else self.drawn - self.drawn % self.world_size
        return math.ceil(usable / self.step_size)

    def _share(self, step: int) -> tuple[int, int]:
        """Where in the order this process's images of a step begin and end."""
        start = step * self.step_size
        size = min(self.step_size, self.drawn - start)
        if self.shuffle:
            each = size // self.world_size
            return start + self.rank * each, start + (self.rank + 1) * each
        return start + self.rank * size // self.world_size, start + (self.rank + 1) * size // self.world_size

    def images_of(self, step: int) -> int:
        """How many images this process sees in a step of an epoch."""
        start, end = self._share(step)
        return end - start

    def __len__(self) -> int:
        return sum(math.ceil(self.images_of(step) / self.batch_size) for step in range(self.first_step, self.steps))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        random = np.random.default_rng((self.seed, self.epoch))
        numbers = np.arange(self.length) if self.repeats is None else repeated(self.repeats, self.drawn, random)
        order = random.permutation(numbers) if self.shuffle else numbers
        if self.subset is not None:
            order = self.subset[order]
        for step in range(self.first_step, self.steps):
            start, end = self._share(step)
            for first in range(start, end, self.batch_size):
                batch = order[first : min(first + self.batch_size, end)]
                yield [(self.epoch, int(number)) for number in batch]


def repeated(repeats: np.ndarray, total: int, random: np.random.Generator) -> np.ndarray:
    """The images of an epoch, (total,) int64 rising: image i of N is i, then i + N and so on where it comes again.

    Systematic sampling: points at even distances, of which the first is random, on a line of which each image has its
    share; the images lie on it in a random order, or neighbours would be rounded up by turns.

    Args:
        repeats: (N,), in proportion to how often each comes.
    """
    count = len(repeats)
    order = random.permutation(count)
    ends = np.cumsum(repeats[order])
    points = (np.arange(total) + random.random()) * (ends[-1] / total)
    chosen = np.sort(order[np.minimum(np.searchsorted(ends, points, side="right"), count - 1)])
    again = np.arange(total) - np.searchsorted(chosen, chosen)  # how often the same image came before
    return np.sort(chosen + count * again)


def repeat_factors(records: RecordFile | RecordFiles, frequency: np.ndarray, threshold: float) -> np.ndarray:
    """How often an epoch should show each image, (N,) from 1: as its rarest label wants it.

    Gupta et al., LVIS (arXiv:1908.03195), section 4.1: r(label) = max(1, sqrt(threshold / frequency)), and of an image
    the highest of its labels'. Reads all N records.

    Args:
        frequency: share of the images that has each label, (C,) in 0..1; infinity for labels that do not count.
        threshold: labels of a lower frequency are repeated, 0..1.

    Raises:
        UserError: a record cannot be read.
    """
    of_label = np.sqrt(np.maximum(1.0, threshold / np.maximum(frequency, np.finfo(float).tiny)))
    numbers = tqdm(range(len(records)), desc="looking for rare artists", unit="img", dynamic_ncols=True, leave=False)
    return np.array([max((of_label[label] for label in records[number].labels), default=1.0) for number in numbers])


def collate(loaded: list[Sample | UserError]) -> Batch | UserError:
    """Stack pixels; labels stay sparse, so that 100,000 classes cost nothing until they reach the device."""
    samples = [sample for sample in loaded if not isinstance(sample, UserError)]
    if len(samples) < len(loaded):
        return next(error for error in loaded if isinstance(error, UserError))
    pixels = default_collate([pixels for pixels, _ in samples])  # in a worker process, at once into shared memory
    rows = torch.tensor([row for row, (_, labels) in enumerate(samples) for _ in labels], dtype=torch.int64)
    columns = torch.tensor([label for _, labels in samples for label in labels], dtype=torch.int64)
    return pixels, rows, columns


def make_loader(
    dataset: Dataset[Any], batches: Iterable[list[tuple[int, int]]], num_workers: int, device: torch.device
) -> Loader:
    """A loader that decodes the batches in `num_workers` processes (0: in this one) and yields them in their order.

    Args:
        dataset: samples by (epoch, number).
        batches: lists of these.
    """
    if num_workers:
        atexit.register(_kill_workers)
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        worker_init_fn=_leave_stopping_to_the_trainer,
        persistent_workers=num_workers > 0,
        pin_memory=device.type == "cuda",
    )


def _leave_stopping_to_the_trainer(worker: int) -> None:
    """torchrun and Slurm send SIGTERM to all processes; without its workers the trainer could not end its step."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _kill_workers() -> None:
    """At the end of a process that an error ends, Python sends its workers a SIGTERM, and would wait for ever."""
    for worker in multiprocessing.active_children():
        worker.kill()


@dataclass(frozen=True)
class Split:
    """The training or the validation images: which come when, and what decodes them."""

    batches: EpochBatches
    loader: Loader


def load_splits(
    records: TaggedRecords, settings: TrainingSettings, preparation: Preparation, world: World
) -> tuple[Split, Split]:
    """This process's share of the training and of the validation split.

    Args:
        preparation: of the model's pixels.

    Raises:
        UserError: some processes would have nothing to do.
    """
    data, recipe = settings.data, settings.recipe
    num_workers = default_workers(world.device) if data.num_workers is None else data.num_workers
    train_images = TaggedImages(
        records.train, preparation, hflip=data.hflip, crop_min=data.crop_min, cutout=data.cutout, seed=recipe.seed
    )
    repeats = None
    if recipe.repeat_factor:
        frequency = np.full(len(records.vocabulary), np.inf)
        artists = records.vocabulary.indices(ARTIST)
        frequency[artists] = np.array(records.vocabulary.counts or ())[artists] / len(records.train)
        repeats = repeat_factors(records.train, frequency, recipe.repeat_factor)
    train_batches = EpochBatches(
        len(records.train),
        recipe.batch_size,
        shuffle=True,
        seed=recipe.seed,
        accumulation=recipe.grad_accumulation,
        rank=world.rank,
        world_size=world.size,
        repeats=repeats,
    )
    if not train_batches.steps:
        raise UserError(f"{data.dataset_root}: fewer training images than processes; start fewer")
    val_images = TaggedImages(records.val, preparation)
    chosen = validation_subset(len(records.val), data.val_images)
    val_batches = EpochBatches(
        len(chosen), recipe.batch_size, shuffle=False, rank=world.rank, world_size=world.size, subset=chosen
    )
    return (
        Split(train_batches, make_loader(train_images, train_batches, num_workers, world.device)),
        Split(val_batches, make_loader(val_images, val_batches, num_workers, world.device)),
    )


def validation_subset(length: int, size: int) -> np.ndarray:
    """The numbers of the validation images that epochs are judged by, rising, (N,) int64.

    They depend on nothing but the two numbers, so that runs with other seeds are judged by the same images.

    Args:
        length: of the validation split.
        size: how many of them; 0, or more than there are, takes all.
    """
    if not 0 < size < length:
        return np.arange(length)
    return np.sort(np.random.default_rng(0).choice(length, size, replace=False))


def default_workers(device: torch.device) -> int:
    """Decoding processes: beside a GPU a core has time for them, while a model on the CPU uses all cores itself."""
    return min(MAX_DEFAULT_WORKERS, os.cpu_count() or 1) if device.type == "cuda" else 0


def to_device(batches: Iterable[Batch | UserError], device: torch.device) -> Iterator[Batch]:
    """The batches on the device; on CUDA each is copied, on a stream of its own, while the one before is computed.

    Raises:
        UserError: a record of a batch could not be read.
    """
    if device.type != "cuda":
        for batch in batches:
            yield _move(batch, device)
        return
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call, unused-ignore]
    ready: Batch | None = None
    for batch in batches:
        with torch.cuda.stream(copying):
            coming = _move(batch, device)
        if ready is not None:
            yield ready
        torch.cuda.current_stream(device).wait_stream(copying)
        for tensor in coming:
            tensor.record_stream(torch.cuda.current_stream(device))
        ready = coming
    if ready is not None:
        yield ready


def in_order(pixels: Tensor, preparation: Preparation) -> Tensor:
    """Batches of TaggedImages (N, H, W, 3) in the model's order of channels.

    Done where the model computes: for a decoding process it is a quarter of its work, for a GPU nothing.
    """
    return pixels.flip(3) if preparation.channel_order == "BGR" else pixels


def _move(batch: Batch | UserError, device: torch.device) -> Batch:
    if isinstance(batch, UserError):
        raise batch
    pixels, rows, columns = (tensor.to(device, non_blocking=True) for tensor in batch)
    return pixels, rows, columns


def seed_step(seed: int, step: int, rank: int) -> np.random.Generator:
    """Make all that is random on the device a function of (seed, step, rank), so that no generator need be saved.

    Returns:
        a generator for what is drawn on the host.
    """
    random = np.random.default_rng((seed, step, rank))
    torch.manual_seed(int(random.integers(2**62)))  # of the CPU and of all GPUs: drop path
    return random


def mixup(pixels: Tensor, targets: Tensor, alpha: float, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Blend each image with another of the batch, and their targets alike (arXiv:1710.09412).

    Args:
        pixels: float (N, 3, H, W).
        targets: float (N, C).
        alpha: of Beta(alpha, alpha), from which the share of the first image is drawn; 0 = off.
    """
    if not alpha:
        return pixels, targets
    share = random.beta(alpha, alpha)
    return torch.lerp(pixels.flip(0), pixels, share), torch.lerp(targets.flip(0), targets, share)
