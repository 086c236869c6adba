"""Weights, run by torch on CUDA, Apple's MPS or the CPU.

engine = TorchEngine(lambda: models.load(config, path), preparation, EngineSettings("cpu"))
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from tagger.cli import counted
from tagger.device import normalise, pick_device
from tagger.files import UserError
from tagger.inference.engines.protocol import NO_HINTS, EngineHints, EngineSettings
from tagger.preparation import Preparation


class TorchEngine:
    """See Engine.

    Args:
        load: gives the model: float (N, 3, H, W) to logits (N, C), on the CPU and in evaluation mode.
        preparation: of its pixels.

    Raises:
        UserError: the device or its precision is not there, or the weights cannot be loaded.
    """

    def __init__(
        self,
        load: Callable[[], nn.Module],
        preparation: Preparation,
        settings: EngineSettings,
        hints: EngineHints = NO_HINTS,
    ) -> None:
        self.preparation, self.hints, self.precision = preparation, hints, settings.precision
        self._device = pick_device(settings.device, hints.device)
        if self.precision == "tf32":
            if self._device.type != "cuda":
                raise UserError(f"tf32: only CUDA GPUs know it, not {self._device}; {hints.precision}")
            torch.set_float32_matmul_precision("high")
        module = load()
        if self.precision == "bfloat16":
            for layer in module.modules():
                if isinstance(layer, (nn.Linear, nn.Conv2d)):
                    layer.to(torch.bfloat16)  # once, where autocast would do it for every batch
        self._module = module.to(self._device)

    @property
    def device(self) -> str:
        return f"{self._device}, {self.precision}"

    def logits(self, pixels: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        """See Engine."""
        batch = torch.stack([torch.from_numpy(each.copy()) for each in pixels])  # (N, H, W, 3)
        # Autocast, and not a model of bfloat16: norms, softmax and RoPE's tables stay float32.
        autocast = torch.autocast(self._device.type, torch.bfloat16, self.precision == "bfloat16")
        try:
            with torch.inference_mode(), autocast:
                logits = self._module(normalise(batch.to(self._device), self.preparation)).float().cpu()
        except torch.OutOfMemoryError:
            batch_size = counted(len(pixels), "image")
            raise UserError(
                f"a batch of {batch_size}: more than the memory of {self._device} holds; {self.hints.memory}"
            ) from None
        array: np.ndarray[Any, Any] = logits.numpy()
        return array

    def logits_and_features(
        self, pixels: Sequence[np.ndarray[Any, Any]]
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """See FeatureEngine."""
        seen: list[torch.Tensor] = []
        head = self._module.get_classifier()  # type: ignore[operator]
        watching = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float().cpu()))
        try:
            logits = self.logits(pixels)
        finally:
            watching.remove()
        features: np.ndarray[Any, Any] = seen[0].numpy()
        return logits, features

    def broken(self) -> str | None:
        """See Engine."""
        tensors = self._module.state_dict()
        found = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
        if not found:
            return None
        return f"{len(found)} of {len(tensors)} tensors, such as {found[0]}, hold NaN or infinity"
