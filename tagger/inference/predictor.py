"""Run the model over images: in batches, decoding beside the model, and nothing twice that the cache knows.

The model is loaded, and what runs it imported, at the first image that the cache does not know:

    predictor = Predictor(lambda: OnnxEngine(description, EngineSettings()), len(description.vocabulary))
    for path, logits in predictions(paths, predictor, cache, key, demand): ...
"""

import contextlib
import hashlib
import os
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tagger.cli import counted
from tagger.files import UserError
from tagger.inference.cache import PredictionCache
from tagger.inference.engines.protocol import Engine
from tagger.inference.logits import Logits, packed, unpacked
from tagger.inference.selection import Demand
from tagger.preparation import Preparation

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future, ThreadPoolExecutor

    import numpy as np

THREADS = 8  # that decode images; more wait for each other

Result = tuple[Path, Logits | UserError]  # an image and its logits, or why there are none
# The same of several models: the logits of each.
Results = tuple[Path, tuple[Logits, ...] | UserError]
WHOLE = Demand()


@dataclass(frozen=True)
class Hints:
    """How errors end: what the user of this program can do about a path, or broken weights."""

    path: str = "check the path"
    weights: str = "choose another checkpoint"


NO_HINTS = Hints()


class Predictor:
    """A tagger that is loaded when it is first asked.

    Args:
        open_engine: loads the model.
        num_labels: C.
        batch_size: images at a time.
        preparation: of its pixels; None where only the loaded model knows.
        hints: ends the errors for paths and weights.
        name: of the model, for errors.

    Attributes:
        images, seconds: that the model has seen, and that it took.
        known: images that the cache knew.
    """

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        num_labels: int,
        batch_size: int = 8,
        preparation: Preparation | None = None,
        hints: Hints = NO_HINTS,
        name: str = "the model",
    ) -> None:
        self.num_labels, self.batch_size, self.hints, self.name = num_labels, batch_size, hints, name
        self.images, self.known = 0, 0
        self.seconds = 0.0
        self._open_engine, self._preparation = open_engine, preparation
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The loaded model.

        Raises:
            UserError: the device is not there, or the weights cannot be loaded.
        """
        if self._engine is None:
            self._engine = self._open_engine()
        return self._engine

    @property
    def preparation(self) -> Preparation:
        """How pixels are made. The first call may load the model, and must not come from several threads."""
        if self._preparation is None:
            self._preparation = self.engine.preparation
        return self._preparation

    def prepare(self, data: bytes) -> "np.ndarray[Any, Any]":
        """The pixels of an image file: (H, W, 3) in the model's channel order.

        Raises:
            UnreadableImage: see images.pixels.
        """
        from tagger import images

        return images.pixels(data, self.preparation)

    def __call__(self, pixels: Sequence["np.ndarray[Any, Any]"]) -> list["array[float]"]:
        """The logits of N images, each C float32; of a picture that is too much for the model they may be no numbers.

        Args:
            pixels: as `prepare` gives them.

        Raises:
            UserError: see `engine` and Engine.logits; or broken weights.
        """
        engine = self.engine
        started = time.perf_counter()
        rows = [array("f", row.tobytes()) for row in engine.logits(pixels)]
        if not all(map(is_finite, rows)) and (reason := engine.broken()):
            raise UserError(f"{self.name}: {reason}, so its answers are no probabilities; {self.hints.weights}")
        self.seconds += time.perf_counter() - started
        self.images += len(rows)
        return rows

    def summary(self) -> str:
        """One line: device, speed, and how many images the cache knew."""
        if not self.images:
            return f"{counted(self.known, 'image')} from the cache"
        rate = f"{self.images / self.seconds:.1f} images/s"
        known = f", {self.known:,} more from the cache" if self.known else ""
        return f"{self.engine.device}: {counted(self.images, 'image')}, {rate}{known}"


def is_finite(logits: "array[float]") -> bool:
    """Whether all of them are numbers, and none is infinite."""
    import numpy as np  # late: it has been imported when a model has run, and only then there is something to check

    return bool(np.isfinite(np.asarray(logits)).all())


# --- many images ----------------------------------------------------------------------------------------------------


class Beside(Protocol):
    """What is made of images beside their logits, such as SimilarArtists."""

    def recall(self, path: Path, image_key: bytes, cache: PredictionCache | None) -> bool:
        """Whether the cache has it of an image, whose logits have this key there."""

    def keep(self, path: Path, image_key: bytes, cache: PredictionCache | None, answered: bool) -> None:
        """Called for each image of a batch in turn, after the model has seen it; unanswered, it is left out."""


class _Pending(NamedTuple):
    """An image on its way through the queue: with what is known of it, or with pixels that the model must see."""

    path: Path
    key: bytes  # in the cache
    known: Logits | UserError | None = None
    pixels: "Future[np.ndarray[Any, Any]] | None" = None


def predictions(
    paths: Iterable[Path],
    predictor: Predictor,
    cache: PredictionCache | None,
    key: bytes,
    demand: Demand = WHOLE,
    beside: Beside | None = None,
) -> Iterator[Result]:
    """For each image in turn its logits, or why it could not be read.

    Args:
        key: what the logits depend on besides the image, see cache.fingerprint.
        demand: what they must be enough for. Where what the cache keeps is not, the model is asked again.
        beside: told of every image that has an answer; what only this does not know goes to the model, too.
    """
    batch_size = predictor.batch_size
    queue: deque[_Pending] = deque()
    decoding = 0  # images in the queue that need the model
    with contextlib.ExitStack() as stack:
        pool: Executor | None = None
        for path in paths:
            try:
                data = path.read_bytes()
            except OSError as error:
                queue.append(_Pending(path, b"", UserError(f"{path}: {error.strerror}; {predictor.hints.path}")))
                continue
            image_key = hashlib.sha256(key + hashlib.sha256(data).digest()).digest()
            entry = cache.get(image_key) if cache else None
            cached = unpacked(entry, predictor.num_labels) if entry else None
            is_enough = cached is not None and demand.is_met_by(cached)
            if is_enough and (beside is None or beside.recall(path, image_key, cache)):
                predictor.known += 1
                queue.append(_Pending(path, image_key, cached))
            else:
                if pool is None:
                    _ = predictor.preparation  # for a graph it has to be loaded, before several threads ask for it
                    pool = stack.enter_context(_threads())
                queue.append(_Pending(path, image_key, pixels=pool.submit(predictor.prepare, data)))
                decoding += 1
            if decoding >= 2 * batch_size:  # one batch is decoded while the other is in the model
                yield from _finish(queue, predictor, cache, demand, beside)
                decoding -= batch_size
            elif not decoding:  # what the cache knows is not kept waiting
                yield from _finish(queue, predictor, cache, demand, beside)
        while queue:
            yield from _finish(queue, predictor, cache, demand, beside)


def _threads() -> "ThreadPoolExecutor":
    """What decodes images; Pillow does it outside the interpreter's lock."""
    # Late: it imports logging, and 6 ms are much for an answer from the cache.
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1))


def _finish(
    queue: deque[_Pending], predictor: Predictor, cache: PredictionCache | None, demand: Demand, beside: Beside | None
) -> Iterator[Result]:
    """The images at the front of the queue, up to the end of one batch of those that need the model."""
    taken: list[_Pending] = []
    decoding = 0
    while queue and (decoding < predictor.batch_size or not queue[0].pixels):
        taken.append(queue.popleft())
        decoding += taken[-1].pixels is not None
    batch: list[np.ndarray[Any, Any]] = []
    outcomes: list[Logits | UserError | None] = []  # None: the model's next row
    for path, _, known, pixels in taken:
        if pixels:
            try:
                batch.append(pixels.result())
            except UserError as error:  # it was decoded from bytes, so the error does not know the file
                known = UserError(f"{path}: {str(error).removeprefix('image: ')}")
        outcomes.append(known)
    rows = iter(predictor(batch) if batch else ())
    for (path, image_key, _, _), outcome in zip(taken, outcomes, strict=True):
        if outcome is None:
            outcome = _kept(next(rows), path, image_key, cache, demand)
            if beside:
                beside.keep(path, image_key, cache, not isinstance(outcome, UserError))
        yield path, outcome


def _kept(
    values: "array[float]", path: Path, key: bytes, cache: PredictionCache | None, demand: Demand
) -> Logits | UserError:
    """The model's answer to an image, which the cache is given; reduced where that is enough for what is asked."""
    if not is_finite(values):
        reason = "the model's answer is no number (NaN or infinity)"
        return UserError(f"{path}: {reason}; remove the image, or name another model")
    logits = demand.kept(values)
    if cache:
        cache.put(key, packed(logits))
    return logits if demand.is_met_by(logits) else Logits.of(values)


def pooled(results: Iterable[Results]) -> Iterator[Results]:
    """One result for images that were drawn with the same prompt: the mean of their logits. Errors are passed on.

    Args:
        results: with all logits of every model.
    """
    totals: list[list[float]] = []  # of each model
    count = 0
    for path, models in results:
        if isinstance(models, UserError):
            yield path, models
            continue
        if totals:
            pairs = zip(totals, models, strict=True)
            totals = [[a + b for a, b in zip(total, logits.values, strict=True)] for total, logits in pairs]
        else:
            totals = [list(logits.values) for logits in models]
        count += 1
    if count:
        means = (Logits.of(array("f", (x / count for x in total))) for total in totals)
        yield Path(f"{count} image{'s' if count > 1 else ''} together"), tuple(means)
