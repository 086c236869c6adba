"""Run the model over images: batches, decoding beside the model, and nothing twice that the cache knows.

torch is imported at the first image that the cache does not know.

    for path, logits in predictions(paths, Predictor(files.weights, config, "auto", "float32"), cache, key, 8): ...
"""

import hashlib
import os
import time
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tagger.files import UserError
from tagger.inference.cache import PredictionCache

PRECISIONS = ("float32", "bfloat16")

FLOAT = 4  # bytes

Result = tuple[Path, array | UserError]  # an image and its C logits, or why there are none


class Predictor:
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
        self.device: Any = None
        self._module: Any = None

    def _load(self) -> None:
        import torch

        import models
        from tagger.device import pick_device

        self.device = pick_device(self.device_name, "pass --device cpu")
        self._module = models.load(self.config, self.weights)
        if self.precision == "bfloat16":
            for module in self._module.modules():
                if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
                    module.to(torch.bfloat16)  # once, where autocast would do it for every batch
        self._module.to(self.device)

    def prepare(self, data: bytes) -> Any:
        """The pixels of an image file: uint8 (H, W, 3) in the model's channel order.

        Raises:
            UnreadableImage: see images.open_image.
        """
        from tagger import images

        return images.to_array(images.prepare(data, self.size), self.config["tagger"]["channel_order"])

    def __call__(self, pixels: Sequence[Any]) -> list[array]:
        """The logits of N images, each C float32.

        Raises:
            UserError: the device is not there, its memory is too small, or the weights cannot be loaded.
        """
        if self._module is None:
            self._load()
        import torch

        from tagger.device import normalise

        started = time.perf_counter()
        batch = torch.stack([torch.from_numpy(each.copy()) for each in pixels])  # (N, H, W, 3)
        # Autocast, and not a model of bfloat16: norms, softmax and RoPE's tables stay float32.
        reduced = torch.autocast(self.device.type, torch.bfloat16, self.precision == "bfloat16")
        try:
            with torch.inference_mode(), reduced:
                logits = self._module(normalise(batch.to(self.device), self.config)).float().cpu().numpy()
        except torch.OutOfMemoryError:
            raise UserError(
                f"--batch_size {len(pixels)}: more than the memory of {self.device} holds; halve it"
            ) from None
        rows = [array("f", row.tobytes()) for row in logits]
        self.seconds += time.perf_counter() - started
        self.images += len(rows)
        return rows

    def summary(self, total: int) -> str:
        """One line: device, precision, speed, and how many images the cache knew."""
        if not self.images:
            return f"{total} images from the cache"
        rate = f"{self.images / self.seconds:.1f} images/s"
        known = f", {total - self.images} more from the cache" if total > self.images else ""
        return f"{self.device}, {self.precision}: {self.images} images, {rate}{known}"


def predictions(
    paths: Iterable[Path], model: Predictor, cache: PredictionCache | None, key: bytes, batch_size: int
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
            if known and len(known) != FLOAT * model.config["num_classes"]:
                known = None
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
    model: Predictor,
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
