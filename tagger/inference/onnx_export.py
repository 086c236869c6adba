"""The model as an ONNX file with the input and output of those in the WD repositories, checked by onnxruntime.

pip install onnx onnxscript onnxruntime
python wdv3_pytorch.py --model_path checkpoints --export_onnx model.onnx
"""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tagger.files import UserError, replacing_path
from tagger.inference.engines.protocol import PREPARATION_KEY
from tagger.preparation import Preparation

TOLERANCE = 1e-4  # in probability, between PyTorch and onnxruntime
PRODUCER = "EVA-02 tagger toolkit"  # what the file says of its origin, near its beginning
BEGINNING = 200  # bytes


class FromPixels(nn.Module):
    """What the file holds: float32 (N, H, W, 3) BGR in 0..255 -> probabilities (N, C)."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, preparation: Preparation, activation: str) -> None:
        super().__init__()
        self.model = model
        self.rgb, self.divisor = preparation.channel_order == "RGB", preparation.divisor
        self.softmax = activation == "softmax"
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(preparation, name)).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        pixels = pixels.permute(0, 3, 1, 2)
        if self.rgb:
            pixels = pixels.flip(1)
        logits = self.model((pixels / self.divisor - self.mean) / self.std)
        return torch.softmax(logits, 1) if self.softmax else torch.sigmoid(logits)


def of_graph(preparation: Preparation) -> Preparation:
    """How pixels are made for the file: as for the model, but for what the graph does itself."""
    return replace(preparation.unscaled(), channel_order="BGR", layout="NHWC")


def write(path: Path, module: nn.Module, preparation: Preparation, activation: str = "sigmoid") -> str:
    """Write an ONNX file, whole or not at all.

    Args:
        path: .onnx; its folder is made where it is missing.
        module: the model, on the CPU and in evaluation mode.
        preparation: of its pixels; that of the file is written into its metadata.
        activation: "sigmoid" or "softmax", what makes probabilities of the model's logits.

    Returns:
        A line about it.

    Raises:
        UserError: a package is missing, the model's answers are no numbers, or onnxruntime's are not PyTorch's.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401, the exporter of torch needs it
    except ImportError as error:
        raise UserError(f"{path}: writing it needs {error.name}; pip install onnx onnxscript onnxruntime") from None
    model = FromPixels(module, preparation, activation).eval()
    width, height = preparation.size
    pixels = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (2, height, width, 3)).astype(np.float32))
    # For every block of the model it says that it leaves a node as it is.
    logging.getLogger("onnxscript.optimizer").setLevel(logging.ERROR)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_path(path) as part:
        program = torch.onnx.export(
            model,
            (pixels,),
            dynamo=True,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
        assert program is not None
        program.model.producer_name = PRODUCER
        program.model.metadata_props[PREPARATION_KEY] = json.dumps(of_graph(preparation).to_json())
        program.save(part, external_data=False)  # one file, as in the WD repositories
        session = onnxruntime.InferenceSession(str(part), providers=["CPUExecutionProvider"])
        worst = 0.0
        for count in (1, 2):  # a batch size that the exporter took for a constant would fail with the other
            with torch.inference_mode():
                expected = model(pixels[:count]).numpy()
            if not np.isfinite(expected).all():
                raise UserError(f"{path}: the model's answers are no numbers (NaN or infinity); name another model")
            (given,) = session.run(None, {session.get_inputs()[0].name: pixels[:count].numpy()})
            worst = max(worst, float(np.abs(given - expected).max()))
        del session  # Windows does not rename a file that is open
        if not worst <= TOLERANCE:
            raise UserError(f"{path}: onnxruntime's probabilities differ by {worst:.1e} from PyTorch's; report this")
    return f"{path}: written; onnxruntime's probabilities are within {worst:.0e} of PyTorch's"


def is_export(path: Path) -> bool:
    """Whether a file was written by `write`."""
    with open(path, "rb") as file:
        return PRODUCER.encode() in file.read(BEGINNING)
