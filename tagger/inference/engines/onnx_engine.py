"""ONNX graphs, run by onnxruntime on the CPU, CUDA, DirectML or CoreML; torch is not needed.

    engine = OnnxEngine(open_folder("folder"), EngineSettings("cpu"))

What a family's files leave open is read from the graph: layout and size of the input, the names of the outputs. What
does not fit together is refused.
"""

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime

from tagger import images
from tagger.files import UserError, check_pointer
from tagger.formats.families.description import Description, InputShape
from tagger.inference.engines.protocol import NO_HINTS, PREPARATION_KEY, EngineHints, EngineSettings
from tagger.preparation import Preparation

PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}  # of an input
# Probabilities of 0 and 1 have no logits; these give the same ones back to the seventh digit.
LEAST, MOST = 1e-30, 1 - 2.0**-24
ERRORS_ALONE = 3  # onnxruntime's level of messages
LONGEST_REASON = 300  # characters of onnxruntime's own words


class OnnxEngine:
    """See Engine.

    Args:
        description: of the tagger; its weights are a graph.

    Raises:
        UserError: the device is not there, the graph cannot be read, or it does not fit its files.
    """

    def __init__(self, description: Description, settings: EngineSettings, hints: EngineHints = NO_HINTS) -> None:
        self.path, self.hints, self.output = description.weights, hints, description.output
        self.num_labels = len(description.vocabulary)
        if settings.precision != "float32":
            raise UserError(f"{self.path}: an ONNX graph has the precision that it was written in; {hints.precision}")
        for path in (self.path, *description.data):
            check_pointer(path)
        self._session = self._open(settings.device)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in TYPES:
            kinds = ", ".join(f"{each.name} ({each.type})" for each in inputs)
            raise UserError(f"{self.path}: its inputs are {kinds}; one of floats is what is known here")
        self._input, self._type = inputs[0].name, TYPES[inputs[0].type]
        self._batch = inputs[0].shape[0] if inputs[0].shape and isinstance(inputs[0].shape[0], int) else None
        self._output, self._kind = self._choose_output()
        self.preparation = self._prepare(description, InputShape.of(inputs[0].shape, self.path))

    @property
    def device(self) -> str:
        return f"onnxruntime, {self._session.get_providers()[0]}"

    # -- opening -----------------------------------------------------------------------------------------------------

    def _open(self, device: str) -> onnxruntime.InferenceSession:
        """The graph on a device; nothing falls back to the CPU silently."""
        available, asked = onnxruntime.get_available_providers(), device != "auto"
        if not asked:
            device = "cuda" if PROVIDERS["cuda"] in available else "cpu"
        provider = PROVIDERS.get(device)
        advice = f"{self.hints.device}, or install a build of onnxruntime that has it, and its driver"
        if provider not in available:
            there = ", ".join(available)
            raise UserError(f"device {device}: onnxruntime {onnxruntime.__version__} has {there}; {advice}")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS_ALONE
        rank = {"device_id": os.environ["LOCAL_RANK"]} if device == "cuda" and "LOCAL_RANK" in os.environ else {}
        providers = [(provider, rank), *([] if device == "cpu" else [(PROVIDERS["cpu"], {})])]
        try:
            session = onnxruntime.InferenceSession(str(self.path), options, providers=providers)
        except Exception as error:  # onnxruntime has a class for each of its codes, and none that they share
            raise UserError(f"{self.path}: onnxruntime cannot read it ({_words(error)}); fetch it again") from None
        if asked and session.get_providers()[0] != provider:
            raise UserError(f"device {device}: onnxruntime could not start it; {advice}")
        return session

    def _choose_output(self) -> tuple[str, str]:
        """The name of the output with the labels, and what it holds; see Output."""
        outputs = {each.name: each for each in self._session.get_outputs()}
        names, position = list(outputs), self.output.position
        name = next((name for name in self.output.names if name in outputs), None)
        kind = self.output.names[name] if name else self.output.kind
        if name is None:
            if position is None or position >= len(names):
                wanted = " or ".join(self.output.names) or f"number {position}"
                raise UserError(f"{self.path}: its outputs are {', '.join(names)}; {wanted} belongs there")
            name = names[position]
        width = outputs[name].shape[-1] if outputs[name].shape else None
        if isinstance(width, int) and width != self.num_labels:
            raise self._other_width(width)
        return name, kind

    def _other_width(self, width: object) -> UserError:
        return UserError(
            f"{self.path}: its answers have {width} numbers, its list of tags has {self.num_labels}; fetch the files "
            "that belong together"
        )

    def _prepare(self, description: Description, shape: InputShape) -> Preparation:
        """What the files say, in the graph's layout and size; a graph of ours brings its own description."""
        written = self._session.get_modelmeta().custom_metadata_map.get(PREPARATION_KEY)
        if written is None:
            return description.for_input(shape)
        try:
            return Preparation.from_json(json.loads(written), self.path)
        except (ValueError, RecursionError):
            raise UserError(f"{self.path}: damaged metadata; export it again") from None

    # -- running -----------------------------------------------------------------------------------------------------

    def logits(self, pixels: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        """See Engine."""
        values = images.to_input(pixels, self.preparation).astype(self._type, copy=False)
        size = self._batch or len(values)
        parts = [self._run(values[start : start + size], size) for start in range(0, len(values), size)]
        return self._as_logits(np.concatenate(parts).astype(np.float32, copy=False))

    def _run(self, values: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
        """The output for at most `size` images; a graph of a fixed batch is given blank ones beside them."""
        count = len(values)
        if count < size:
            values = np.concatenate([values, np.zeros((size - count, *values.shape[1:]), values.dtype)])
        try:
            found = np.asarray(self._session.run([self._output], {self._input: values})[0])
        except Exception as error:  # see _open
            raise UserError(f"{self.path}: onnxruntime failed ({_words(error)}); {self.hints.memory}") from None
        if found.shape != (size, self.num_labels):
            raise self._other_width(" x ".join(map(str, found.shape[1:])) or "no")
        return found[:count]

    def _as_logits(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Probabilities as the logits that give them back; what no number is stays so."""
        if self._kind == "logits":
            return rows
        inside = np.logical_not((rows < 0) | (rows > 1))  # NaN counts as inside
        are_probabilities = np.asarray(inside.all(axis=1))
        if self._kind == "probabilities":
            worst = rows[~inside]
            if len(worst) and not -1e-3 <= worst[0] <= 1 + 1e-3:
                raise UserError(f"{self.path}: its output {self._output} has {worst[0]:.3g}, which is no probability")
            are_probabilities[:] = True
        p = np.clip(rows.astype(np.float64), LEAST, MOST)
        logits = np.log(p) if self.output.activation == "softmax" else np.log(p) - np.log1p(-p)
        return np.where(are_probabilities[:, None], logits, rows).astype(np.float32)

    def broken(self) -> str | None:
        """See Engine. A graph's weights cannot be seen; what fails at a blank picture fails at all."""
        width, height = self.preparation.size
        blank = np.full((height, width, 3), 255, dtype=np.uint8)
        return None if np.isfinite(self.logits([blank])).all() else "a blank picture has no answer either"


def _words(error: Exception) -> str:
    """An error of onnxruntime in a line."""
    return " ".join(str(error).split())[:LONGEST_REASON]
