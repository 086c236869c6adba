"""What a backbone sees in images, once for all epochs: the features before the head, as float16 on the disk.

    python train_pytorch.py --pretrained ./checkpoints --freeze_backbone --output_dir ./checkpoints-head

They lie in chunks below `<output folder>/features`, each whole or not there, so that a killed run goes on where it was.
A folder's name says what they were made of: the weights below the head, how pixels are made, and the records.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from tagger.device import normalise
from tagger.files import replacing
from tagger.formats.records import RecordFile, RecordFiles
from tagger.preparation import Preparation
from tagger.training.data import Sample, TaggedImages, in_order, make_loader, to_device
from tagger.training.distributed import World

FOLDER = "features"  # in the output folder
CHUNK = 256  # images a file: what a kill costs at most
VIEWS = (0, 1)  # as the records have it, and flipped


def pooled(model: nn.Module, pixels: Tensor) -> Tensor:
    """The features that a model's head sees: float (N, 3, H, W) -> (N, D). Any of timm's classifiers has these two."""
    features: Tensor = model.forward_head(model.forward_features(pixels), pre_logits=True)  # type: ignore[operator]
    return features


def backbone_digest(model: nn.Module) -> str:
    """SHA-256 of a model's weights but for those of its head."""
    head = {id(tensor) for tensor in model.get_classifier().parameters()}  # type: ignore[operator]
    digest = hashlib.sha256()
    for name, tensor in model.named_parameters():
        if id(tensor) not in head:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def records_digest(records: RecordFile | RecordFiles) -> str:
    """SHA-256 of the checksums of a split's records."""
    return hashlib.sha256(records.checksums()).hexdigest()


def runs_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 rather than imitates it: four times as fast as float32 on such CPUs."""
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported())
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


class FeatureStore:
    """The features of a split's N images in each of VIEWS, in chunks.

    Args:
        folder: of this split.
        count: N.
        views: those of VIEWS that are kept.
    """

    def __init__(self, folder: Path, count: int, views: Sequence[int] = VIEWS) -> None:
        self.folder, self.count, self.views = folder, count, views
        self._maps: dict[Path, np.ndarray] = {}

    def path(self, view: int, first: int) -> Path:
        """The chunk that begins with an image."""
        return self.folder / f"{view}-{first:09}.npy"

    def missing(self) -> Iterator[tuple[int, int, int]]:
        """(view, first, last + 1) of the chunks that are not there."""
        for view in self.views:
            for first in range(0, self.count, CHUNK):
                if not self.path(view, first).is_file():
                    yield view, first, min(first + CHUNK, self.count)

    def write(self, view: int, first: int, features: Tensor) -> None:
        """Write a chunk: (n, D)."""
        with replacing(self.path(view, first), "wb") as file:
            np.save(file, features.half().cpu().numpy())

    def row(self, view: int, number: int) -> np.ndarray:
        """The features of an image, (D,) float16."""
        first = number - number % CHUNK
        path = self.path(view, first)
        if path not in self._maps:
            self._maps[path] = np.load(path, mmap_mode="r")
        row: np.ndarray = self._maps[path][number - first]
        return row


class TaggedFeatures(Dataset[Sample]):
    """Features and label indices by (epoch, number), in place of TaggedImages: half of the epochs see an image flipped.

    Args:
        records: whose labels count.
        store: the features of the same images.
        hflip: probability of the flipped view.
        seed: of the flips.
    """

    def __init__(self, records: RecordFile | RecordFiles, store: FeatureStore, hflip: float, seed: int) -> None:
        self.store, self.hflip, self.seed = store, hflip, seed
        self.labels = [tuple(records[number].labels) for number in range(len(records))]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, number = key
        flipped = np.random.default_rng((self.seed, epoch, number)).random() < self.hflip
        image = number % len(self.labels)  # beyond N it comes again, see EpochBatches
        return torch.from_numpy(np.array(self.store.row(int(flipped), image))), list(self.labels[image])


def fill(
    store: FeatureStore,
    records: RecordFile | RecordFiles,
    extract: Callable[[Tensor], Tensor],
    preparation: Preparation,
    batch_size: int,
    num_workers: int,
    name: str,
    world: World,
) -> None:
    """Compute what a store lacks, each process its share.

    Args:
        extract: pixels, uint8 (n, H, W, 3), to features (n, D).
        batch_size: images at a time.
        num_workers: processes that decode.
        name: of the split, for the bar.

    Raises:
        UserError: a record cannot be read.
    """
    if world.is_first:
        store.folder.mkdir(parents=True, exist_ok=True)
    world.wait()
    todo = list(store.missing())[world.rank :: world.size]
    world.wait()  # nobody writes before everybody has seen what is missing
    total = sum(last - first for _, first, last in todo)
    with tqdm(
        total=total, desc=f"features of {name}", unit="img", dynamic_ncols=True, disable=not (world.is_first and total)
    ) as bar:
        for view in store.views:
            chunks = [(first, last) for each, first, last in todo if each == view]
            batches = [
                [(0, number) for number in range(start, min(start + batch_size, last))]
                for first, last in chunks
                for start in range(first, last, batch_size)
            ]
            images = TaggedImages(records, preparation, hflip=float(view))
            loader = make_loader(images, batches, num_workers, world.device)
            pixels = to_device(loader, world.device)
            for first, last in chunks:
                parts: list[Tensor] = []
                while sum(map(len, parts)) < last - first:
                    parts.append(extract(in_order(next(pixels)[0], preparation)))
                    bar.update(len(parts[-1]))
                store.write(view, first, torch.cat(parts))
    world.wait()


def extractor(
    model: nn.Module, preparation: Preparation, device: torch.device, bfloat16: bool
) -> Callable[[Tensor], Tensor]:
    """What makes features of pixels: uint8 (n, H, W, 3), in the model's order of channels, to float32 (n, D)."""
    model = model.to(device).eval()

    @torch.inference_mode()
    def extract(pixels: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
            return pooled(model, normalise(pixels.to(device), preparation)).float()

    return extract


def key_of(*parts: Any) -> str:
    """A short name for what features depend on."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
