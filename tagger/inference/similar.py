"""The taught artists that are closest to a picture: for one that nobody was taught, whom no row of the head knows.

    python wdv3_pytorch.py --image_file picture.png --model_path ./taught --similar

Similarities are cosines between the picture and the prototypes that teaching left beside the weights. They are made
while the model looks at the picture anyway, and kept in the cache beside its logits, so that an answer from there needs
neither the model nor numpy.
"""

import hashlib
import heapq
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagger.files import UserError
from tagger.formats.checkpoint import PROTOTYPES_FILE
from tagger.formats.families.description import Description
from tagger.formats.prototypes import read_header, read_prototypes
from tagger.inference.cache import PredictionCache
from tagger.inference.engines.protocol import Engine, FeatureEngine
from tagger.inference.predictor import Results
from tagger.preparation import Preparation

if TYPE_CHECKING:
    import numpy as np

Similarities = Sequence[float]  # to the K artists, -1..1


class SimilarArtists:
    """How close pictures are to the artists that a model was taught. One run of `predictions` at a time fills it.

    Args:
        model: with weights that torch runs, and prototypes beside them.
        hint: ends the errors.

    Attributes:
        names: of the artists.

    Raises:
        UserError: the model is an ONNX graph, or its prototypes are missing, damaged or of other artists.
    """

    def __init__(self, model: Description, hint: str) -> None:
        if model.config is None:
            raise UserError(f"{model.weights}: an ONNX graph answers with logits alone, without features; {hint}")
        self.model, self.hint = model, hint
        self._path = model.weights.with_name(PROTOTYPES_FILE)
        header = read_header(self._path, hint)
        self.names, self._digest = header.names, header.digest
        known = model.vocabulary.index
        if unknown := [name for name in self.names if name not in known]:
            raise UserError(f"{self._path}: {unknown[0]} is no tag in {model.labels.name}; {hint}")
        self._seen: list[Similarities] = []  # of the model's last batch, the first picture last
        self._found: dict[Path, Similarities] = {}

    # -- while the model looks ---------------------------------------------------------------------------------------

    def watching(self, open_engine: Callable[[], Engine]) -> Callable[[], Engine]:
        """What opens an engine that shows what it sees to this one."""

        def opened() -> Engine:
            prototypes = read_prototypes(self._path, self.model.weights, self.hint)  # sooner than the model is loaded
            engine = open_engine()
            assert isinstance(engine, FeatureEngine)  # for the model has a config
            return _Watched(engine, lambda features: self._see(prototypes.similarities(features)))

        return opened

    def _see(self, rows: "np.ndarray[Any, Any]") -> None:
        self._seen = [array("f", row.tobytes()) for row in rows[::-1]]

    def keep(self, path: Path, image_key: bytes, cache: PredictionCache | None, answered: bool) -> None:
        """Take over what was seen of the next picture of the batch; see Beside."""
        row = self._seen.pop()
        if answered and all(map(math.isfinite, row)):
            self._found[path] = row
            if cache:
                cache.put(self._key(image_key), array("f", row).tobytes())

    def recall(self, path: Path, image_key: bytes, cache: PredictionCache | None) -> bool:
        """Whether the cache knows a picture; see Beside."""
        data = cache.get(self._key(image_key)) if cache else None
        if data is None or len(data) != array("f").itemsize * len(self.names):
            return False
        self._found[path] = array("f", data)
        return all(-1 <= similarity <= 1 for similarity in self._found[path])

    def _key(self, image_key: bytes) -> bytes:
        return hashlib.sha256(b"similar" + image_key + self._digest).digest()

    # -- from process to process -------------------------------------------------------------------------------------

    def loaded(self, results: Iterable[Results]) -> Iterator[tuple[Results, Similarities]]:
        """Results with what was found beside them, so that both can go to another process."""
        for result in results:
            yield result, self._found.pop(result[0], ())

    def unloaded(self, results: Iterable[tuple[Results, Similarities]]) -> Iterator[Results]:
        """The results of `loaded`, and what came with them taken over."""
        for result, row in results:
            if row:
                self._found[result[0]] = row
            yield result

    # -- answers -----------------------------------------------------------------------------------------------------

    def closest(self, count: int, path: Path | None = None) -> dict[str, float]:
        """The closest artists by falling similarity, and forget the picture.

        Args:
            path: of a picture that has an answer; None for the mean over all of those that were not asked for.
        """
        row: Similarities
        if path is not None:
            row = self._found.pop(path, ())  # none where the features are too large for a cosine
        else:
            row = [math.fsum(each) / len(self._found) for each in zip(*self._found.values(), strict=True)]
            self._found.clear()
        best = heapq.nlargest(count, range(len(row)), key=lambda i: row[i])
        return {self.names[i]: row[i] for i in best}


class _Watched:
    """An Engine whose features somebody sees.

    Args:
        see: is given the features of each batch, (N, D).
    """

    def __init__(self, engine: FeatureEngine, see: "Callable[[np.ndarray[Any, Any]], None]") -> None:
        self._engine, self._see = engine, see

    @property
    def preparation(self) -> Preparation:
        return self._engine.preparation

    @property
    def device(self) -> str:
        return self._engine.device

    def logits(self, pixels: "Sequence[np.ndarray[Any, Any]]") -> "np.ndarray[Any, Any]":
        logits, features = self._engine.logits_and_features(pixels)
        self._see(features)
        return logits

    def broken(self) -> str | None:
        return self._engine.broken()
