"""Run the model over images: batches, decoding beside the model, and nothing twice that the cache knows.

torch is imported at the first image that the cache does not know.

    for path, logits in predictions(paths, Model(files.weights, config, "auto", "float32"), cache, key, 8): ...
"""

import hashlib
import os
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from files import UserError
from prediction_cache import PredictionCache

PRECISIONS = ("float32", "bfloat16")
DEVICES = ("auto", "cuda", "cpu", "mps")

Result = tuple[Path, array | UserError]  # an image and its C logits, or why there are none


class Model:
    """A tagger that is loaded when it is first asked.

    Args:
        weights: .safetensors or .pth.
        config: the content of its config.json.
        device: one of DEVICES; auto is CUDA, then Apple's MPS, then the CPU.
        precision: "bfloat16" is autocast: faster, and probabilities differ in the third digit.
    """

    def __init__(self, weights: Path, config: Mapping[str, Any], device: str, precision: str) -> None:
        self.weights, self.config, self.precision = weights, config, precision
        self.device_name = device
        self.size: int = config["pretrained_cfg"]["input_size"][1]
        self.images = 0
        self.seconds = 0.0
        self._world: Any = None
        self._module: Any = None

    @property
    def world(self) -> Any:
        """This process's place among those of torchrun, and its device; see processes.World."""
        if self._world is None:
            import processes

            self._world = processes.join(self.device_name)
        return self._world

    def prepare(self, data: bytes) -> Any:
        """The pixels of an image file: uint8 (H, W, 3) in the model's channel order.

        Raises:
            UnreadableImage: see images.open_image.
        """
        import images

        return images.to_array(images.prepare(data, self.size), self.config["tagger"]["channel_order"])

    def __call__(self, pixels: Sequence[Any]) -> list[array]:
        """The logits of N images, each C float32.

        Raises:
            UserError: the device is not there, or the weights cannot be loaded.
        """
        import torch

        import models

        device = self.world.device
        if self._module is None:
            self._module = models.load(self.config, self.weights).to(device)
        started = time.perf_counter()
        with torch.inference_mode():
            batch = torch.stack([torch.from_numpy(each.copy()) for each in pixels]).to(device)  # (N, H, W, 3)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
                logits = self._module(models.normalise(batch, self.config))
            rows = [array("f", row.tobytes()) for row in logits.float().cpu().numpy()]
        self.seconds += time.perf_counter() - started
        self.images += len(rows)
        return rows

    def summary(self, total: int) -> str:
        """One line: device, precision, speed, and how many images the cache knew."""
        if not self.images:
            return f"{total} images from the cache"
        rate = f"{self.images / self.seconds:.1f} images/s"
        known = f", {total - self.images} more from the cache" if total > self.images else ""
        return f"{self.world.device}, {self.precision}: {self.images} images, {rate}{known}"


def predictions(
    paths: Sequence[Path], model: Model, cache: PredictionCache | None, key: bytes, batch_size: int
) -> Iterator[Result]:
    """For each image in turn its logits, or why it could not be read.

    Args:
        key: what the probabilities depend on besides the image, see prediction_cache.fingerprint.
    """
    pending: deque[tuple[Path, bytes, array | UserError | Future]] = deque()
    waiting = 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for path in paths:
            try:
                data = path.read_bytes()
            except OSError as error:
                pending.append((path, b"", UserError(f"{path}: {error.strerror}; check --image_file")))
                continue
            image_key = hashlib.sha256(key + hashlib.sha256(data).digest()).digest()
            known = cache.get(image_key) if cache else None
            pending.append((path, image_key, array("f", known) if known else pool.submit(model.prepare, data)))
            waiting += known is None
            if waiting >= 2 * batch_size:  # one batch is decoded while the other is in the model
                yield from _finish(pending, model, cache, batch_size)
                waiting -= batch_size
            elif not waiting:
                yield from _finish(pending, model, cache, batch_size)
        while pending:
            yield from _finish(pending, model, cache, batch_size)


def _finish(
    pending: deque[tuple[Path, bytes, array | UserError | Future]],
    model: Model,
    cache: PredictionCache | None,
    batch_size: int,
) -> Iterator[Result]:
    """The images at the front of the queue, up to the end of one batch of those that need the model."""
    taken, futures = [], 0
    while pending and (futures < batch_size or not isinstance(pending[0][2], Future)):
        taken.append(pending.popleft())
        futures += isinstance(taken[-1][2], Future)
    pixels: list[Any] = []
    results: list[tuple[Path, bytes, array | UserError | None]] = []
    for path, image_key, item in taken:
        if isinstance(item, Future):
            try:
                pixels.append(item.result())
                results.append((path, image_key, None))
            except UserError as error:
                results.append((path, image_key, UserError(f"{path}: {str(error).removeprefix('image: ')}")))
        else:
            results.append((path, image_key, item))
    computed = iter(model(pixels) if pixels else ())
    for path, image_key, found in results:
        if found is None:
            found = next(computed)
            if cache:
                cache.put(image_key, found.tobytes())
        yield path, found


def shared_out(
    paths: Sequence[Path], model: Model, cache: PredictionCache | None, key: bytes, batch_size: int
) -> Iterator[Result] | None:
    """`predictions`, shared out among the processes of torchrun; None in all of them but the first."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return predictions(paths, model, cache, key, batch_size)
    import torch.distributed as dist

    world = model.world
    own = list(predictions(paths[world.rank :: world.size], model, cache, key, batch_size))
    everything: list[list[Result]] | None = [[] for _ in range(world.size)] if world.is_first else None
    dist.gather_object(own, everything)
    print(f"process {world.rank}: {model.summary(len(own))}", file=sys.stderr)
    world.stop()
    if everything is None:
        return None
    return (everything[number % world.size][number // world.size] for number in range(len(paths)))
