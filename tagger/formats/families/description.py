"""What the files of a tagger say of it, in the same words whoever published them.

A module of this folder makes a Description of a folder's files; what runs the model asks nothing else:

    python wdv3_pytorch.py --model_path checkpoints --describe
"""

import json
import struct
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tagger.files import UserError
from tagger.formats.packed_vocabulary import pack, unpack
from tagger.formats.vocabulary import Vocabulary
from tagger.preparation import Preparation

Files = Mapping[str, Path]  # by the name that a file has in its folder


@dataclass(frozen=True)
class InputShape:
    """What an ONNX graph says of its input.

    Attributes:
        layout: "NCHW" or "NHWC".
        width, height: in pixels; None where the graph takes any.
    """

    layout: str
    width: int | None
    height: int | None

    @classmethod
    def of(cls, shape: Sequence[object], origin: object) -> "InputShape":
        """Read the four sides of a graph's input; those that are no positive numbers are free.

        Raises:
            UserError: no batch of pictures with three channels.
        """
        sides = [side if isinstance(side, int) and side > 0 else None for side in shape]
        if len(sides) == 4 and sides[1] == 3 and sides[3] != 3:
            return cls("NCHW", width=sides[3], height=sides[2])
        if len(sides) == 4 and sides[3] == 3 and sides[1] != 3:
            return cls("NHWC", width=sides[2], height=sides[1])
        raise UserError(f"{origin}: its input is {list(shape)}, where a batch of pictures with 3 channels belongs")


@dataclass(frozen=True)
class Output:
    """Which output of a model has the labels, and what its numbers are.

    Attributes:
        names: of an ONNX graph's outputs the first of these that is there is taken, with what it holds: "logits" or
            "probabilities".
        position: which one is taken where none of them is there; None where one of them must be.
        kind: what that one holds; "values" leaves it to the numbers, for probabilities are never outside of 0..1.
        activation: what makes probabilities of logits, "sigmoid" or "softmax".
    """

    names: Mapping[str, str] = field(default_factory=dict)
    position: int | None = 0
    kind: str = "logits"
    activation: str = "sigmoid"

    def line(self) -> str:
        """What is taken for an answer, for the user."""
        words = {
            "logits": f"logits, then {self.activation}",
            "probabilities": "probabilities",
            "values": f"probabilities, or logits and then {self.activation}, as its values tell",
        }
        ways = [f"output {name} ({words[kind]})" for name, kind in self.names.items()]
        if self.position is not None:
            number = f"output number {self.position + 1}" if self.names or self.position else "the first output"
            ways.append(f"{number} ({words[self.kind]})")
        return ", else ".join(ways)


PER_TAG = Callable[[], Sequence[float]]  # C thresholds, read when they are asked for


@dataclass(frozen=True)
class Description:
    """A tagger: its files, its labels, what it is shown and what it answers.

    Attributes:
        family: whose form it has, for the user.
        weights: .safetensors, .pth or .onnx.
        labels: the file that names its C labels, and vocabulary: what is in it.
        preparation: of its pixels. An ONNX graph's input shape decides about layout and, with `any_side`, about size.
        output: see Output.
        config: the content of config.json for weights that torch runs; None for ONNX.
        files: what was read besides the weights.
        data: the files beside a graph that hold its tensors.
        any_side: whether the graph may want another size than `preparation` has.
        raw_nhwc: whether a graph that wants NHWC scales the pixels itself, so that it is given 0..255.
        inclusive: whether a tag whose probability equals its threshold passes.
        advised: thresholds that its authors advise, by key of threshold.json.
        per_tag: thresholds of every tag that its authors publish.
        assumptions: what no file says, a sentence each.
    """

    family: str
    weights: Path
    labels: Path
    vocabulary: Vocabulary
    preparation: Preparation
    output: Output = Output()
    config: dict[str, Any] | None = None
    files: tuple[Path, ...] = ()
    data: tuple[Path, ...] = ()
    any_side: bool = False
    raw_nhwc: bool = False
    inclusive: bool = True
    advised: Mapping[str, float] = field(default_factory=dict)
    per_tag: PER_TAG | None = None
    assumptions: tuple[str, ...] = ()

    def in_order(self, channel_order: str) -> "Description":
        """The same with the channels in another order, and nothing assumed of it."""
        return replace(self, preparation=self.preparation.in_order(channel_order), assumptions=())

    def for_input(self, shape: InputShape) -> Preparation:
        """What an ONNX graph's input is to be given.

        Raises:
            UserError: the graph wants another size than the files say.
        """
        preparation = replace(self.preparation, layout=shape.layout)
        if shape.layout == "NHWC" and self.raw_nhwc:
            preparation = preparation.unscaled()
        width, height = preparation.size
        wanted = (shape.width or width, shape.height or height)
        if wanted == (width, height):
            return preparation
        if self.any_side and wanted[0] == wanted[1]:
            return preparation.with_side(wanted[0])
        raise UserError(
            f"{self.weights}: its input is {wanted[0]} x {wanted[1]} pixels, its files make {width} x {height}; fetch "
            "the files that belong together"
        )

    def identity(self) -> dict[str, Any]:
        """What its answers depend on besides the weights, as JSON."""
        preparation, output = self.preparation.to_json(), asdict(self.output)
        return {"family": self.family, "preparation": preparation, "output": output, "config": self.config}


# --- kept for the next run ------------------------------------------------------------------------------------------

PATHS, LISTS_OF_PATHS = ("weights", "labels"), ("files", "data")
CHECKSUM = struct.Struct("=I")
KEPT = ("family", "config", "any_side", "raw_nhwc", "inclusive", "advised", "assumptions")


def packed(description: Description) -> bytes | None:
    """All but thresholds of every tag and counts, as bytes that `unpacked` reads in a fraction of a file's time.

    A checksum, a line of JSON, and the vocabulary. None where that one cannot be packed.
    """
    vocabulary = pack(description.vocabulary)
    if vocabulary is None:
        return None
    head = {key: getattr(description, key) for key in KEPT}
    head |= {key: str(getattr(description, key)) for key in PATHS}
    head |= {key: list(map(str, getattr(description, key))) for key in LISTS_OF_PATHS}
    head |= {"preparation": description.preparation.to_json(), "output": asdict(description.output)}
    rest = b"\n".join((json.dumps(head).encode(), vocabulary))
    return CHECKSUM.pack(zlib.crc32(rest)) + rest


def unpacked(data: bytes) -> Description | None:
    """What `packed` made; None of other bytes."""
    try:
        (checksum,) = CHECKSUM.unpack_from(data)
        if zlib.crc32(memoryview(data)[CHECKSUM.size :]) != checksum:
            return None
        end = data.index(b"\n", CHECKSUM.size)
        head = json.loads(data[CHECKSUM.size : end])
        head |= {key: Path(head[key]) for key in PATHS}
        head |= {key: tuple(map(Path, head[key])) for key in LISTS_OF_PATHS}
        head |= {"preparation": Preparation.from_json(head["preparation"], "cache"), "output": Output(**head["output"])}
        return Description(vocabulary=unpack(data[end + 1 :]), **head | {"assumptions": tuple(head["assumptions"])})
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, UserError, struct.error):
        return None


# --- how a family is known ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Needed:
    """The files of a folder that a family reads, by name.

    Attributes:
        weights: the file of weights.
        others: what must be there.
        further: what is there and need not be.
    """

    weights: str
    others: tuple[str, ...] = ()
    further: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hints:
    """How errors end: what a user of this program can do about a path, a config.json, a list of tags.

    `tags` is None where a model without tags is welcome too, such as one to start training from.
    """

    path: str = "check the path"
    config: str = "check the path"
    tags: str | None = "name another CSV"


NO_HINTS = Hints()


@dataclass(frozen=True)
class Family:
    """A form in which taggers are published.

    Attributes:
        title: what the user is told.
        engine: "torch" or "onnx", which runs its weights.
        choose: the files that it needs among the names in a folder, or None where that is another family's folder. The
            second argument is the file of weights that the user named, or None.
        read: the description of the files, by name and without the weights, and of the weights, which may still have
            to be fetched; None where the files' content says that it is another family's after all.
    """

    title: str
    engine: str
    choose: Callable[[Collection[str], str | None], Needed | None]
    read: Callable[[Files, Path, Hints], Description | None]


def one_onnx(names: Collection[str], named: str | None, preferred: Sequence[str] = ("model.onnx",)) -> str | None:
    """The ONNX graph of a folder: the named one, else a preferred one, else the only one."""
    if named is not None:
        return named if named.endswith(".onnx") and named in names else None
    graphs = sorted(name for name in names if name.endswith(".onnx"))
    first = next((name for name in preferred if name in graphs), None)
    return first or (graphs[0] if len(graphs) == 1 else None)


def data_of(graph: str, names: Collection[str]) -> tuple[str, ...]:
    """The files beside an ONNX graph that hold its tensors: model.onnx.data, model.onnx_data and the like."""
    return tuple(sorted(name for name in names if name.startswith((f"{graph}.", f"{graph}_"))))


def choose_onnx(
    names: Collection[str],
    named: str | None,
    others: Sequence[str],
    further: Sequence[str] = (),
    preferred: Sequence[str] = ("model.onnx",),
) -> Needed | None:
    """An ONNX graph and the files that must lie beside it."""
    graph = one_onnx(names, named, preferred)
    if graph is None or not set(others) <= set(names):
        return None
    present = tuple(name for name in further if name in names)
    return Needed(graph, tuple(others), present)
