"""What the rest of inference knows of an engine: it is shown pixels and gives logits.

from tagger.inference.engines.onnx_engine import OnnxEngine
engine: Engine = OnnxEngine(description, EngineSettings("cpu"))
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tagger.preparation import Preparation

if TYPE_CHECKING:
    import numpy as np

PREPARATION_KEY = "tagger.preparation"  # in the metadata of the graphs that this toolkit exports
PRECISIONS = ("float32", "tf32", "bfloat16")


@dataclass(frozen=True)
class EngineSettings:
    """How a model is run.

    Attributes:
        device: one of DEVICES or GRAPH_DEVICES; auto is a GPU where there is one.
        precision: one of PRECISIONS; "bfloat16" is faster, and probabilities differ in the third digit;
            "tf32" is float32 whose products a CUDA GPU takes of numbers with 10 bits after the point.
    """

    device: str = "auto"
    precision: str = "float32"


@dataclass(frozen=True)
class EngineHints:
    """How errors end: what the user of this program can do about a device, its memory, or a precision."""

    device: str = "choose another device"
    memory: str = "choose a smaller batch"
    precision: str = "choose float32"


NO_HINTS = EngineHints()


class Engine(Protocol):
    """A model that is loaded."""

    @property
    def preparation(self) -> Preparation:
        """How its pixels are made."""

    @property
    def device(self) -> str:
        """Where it runs and with which numbers, for the user."""

    def logits(self, pixels: Sequence["np.ndarray[Any, Any]"]) -> "np.ndarray[Any, Any]":
        """The logits of N images, float32 (N, C); of a picture that is too much for the model they may be no numbers.

        Args:
            pixels: as images.pixels gives them.

        Raises:
            UserError: the memory is too small, or the model's answer has another form than its files say.
        """

    def broken(self) -> str | None:
        """Why no picture can have an answer, where an answer was no number; None where it is the picture's fault."""


@runtime_checkable
class FeatureEngine(Engine, Protocol):
    """An engine that also shows what its model's head is given."""

    def logits_and_features(
        self, pixels: Sequence["np.ndarray[Any, Any]"]
    ) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
        """The logits, bit for bit those of `logits`, and the features that they were made of, float32 (N, D).

        Raises:
            UserError: see `logits`.
        """
