"""Public taggers in miniature: each family's own files with invented content, and a model that is small and real.

from tests.families import MINIATURES
folder = tmp_path / "kaloscope"
MINIATURES["Kaloscope ONNX"].make(folder)

What is expected of a picture goes another way than the toolkit: Pillow, torchvision and timm, as the publishers' own
code does it, and the graph's arithmetic in torch.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.torch
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageOps
from timm.data import create_transform, resolve_data_config
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F  # noqa: N812

GRID = 8  # what the graphs average the picture to, before their only layer


# --- graphs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Graph:
    """A linear tagger as ONNX: average pooling to a few pixels, one layer, and what else a family's graph has.

    Attributes:
        side: of its input.
        labels: C.
        layout: "NCHW" or "NHWC".
        raw: whether it scales values of 0..255 itself.
        outputs: its outputs in their order, each one of "logits", "sigmoid", "softmax", "embedding", "other".
        names: of these outputs.
        batch: a fixed batch size; None is any.
        fixed_size: whether the input says its size.
        external: whether the tensors lie in a file beside the graph.
        half: whether the input is float16.
        channels: of the input; others than 3 make a graph that no picture fits.
    """

    side: int
    labels: int
    layout: str = "NCHW"
    raw: bool = False
    outputs: tuple[str, ...] = ("logits",)
    names: tuple[str, ...] = ("output",)
    batch: int | None = None
    fixed_size: bool = True
    external: bool = False
    half: bool = False
    channels: int = 3

    @property
    def weight(self) -> np.ndarray[Any, Any]:
        random = np.random.default_rng(self.labels)
        return random.normal(0, 0.25, (self.channels * GRID * GRID, self.labels)).astype(np.float32)

    def write(self, path: Path) -> None:
        """Write the graph."""
        float_type = TensorProto.FLOAT16 if self.half else TensorProto.FLOAT
        side = self.side if self.fixed_size else None
        dims: list[Any] = [self.batch or "batch", self.channels, side or "height", side or "width"]
        if self.layout == "NHWC":
            dims = [dims[0], *dims[2:], 3]
        nodes, name = [], "input"
        constants = [numpy_helper.from_array(self.weight, "weight")]
        if self.half:
            nodes.append(helper.make_node("Cast", [name], ["float"], to=TensorProto.FLOAT))
            name = "float"
        if self.layout == "NHWC":
            nodes.append(helper.make_node("Transpose", [name], ["nchw"], perm=[0, 3, 1, 2]))
            name = "nchw"
        if self.raw:
            constants += [numpy_helper.from_array(np.float32(v), n) for n, v in (("scale", 127.5), ("one", 1.0))]
            nodes += [
                helper.make_node("Div", [name, "scale"], ["scaled"]),
                helper.make_node("Sub", ["scaled", "one"], ["x"]),
            ]
            name = "x"
        step = self.side // GRID
        nodes.append(
            helper.make_node("AveragePool", [name], ["pooled"], kernel_shape=[step, step], strides=[step, step])
        )
        nodes.append(helper.make_node("Flatten", ["pooled"], ["embedding"]))
        nodes.append(helper.make_node("MatMul", ["embedding", "weight"], ["logits"]))
        outputs = []
        for kind, output in zip(self.outputs, self.names, strict=True):
            width = self.labels
            if kind == "sigmoid":
                nodes.append(helper.make_node("Sigmoid", ["logits"], [output]))
            elif kind == "softmax":
                nodes.append(helper.make_node("Softmax", ["logits"], [output], axis=1))
            elif kind == "other":  # something that looks like an answer
                nodes.append(helper.make_node("Neg", ["logits"], [output]))
            else:
                width = self.labels if kind == "logits" else 3 * GRID * GRID
                if output != kind:
                    nodes.append(helper.make_node("Identity", [kind], [output]))
            outputs.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, [dims[0], width]))
        given = helper.make_tensor_value_info("input", float_type, dims)
        graph = helper.make_graph(nodes, "tagger", [given], outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, path, save_as_external_data=self.external, location=f"{path.name}.data", size_threshold=0)

    def logits(self, pixels: Tensor) -> Tensor:
        """The same in torch, of float (3, H, W)."""
        step = self.side // GRID
        pooled = torch.nn.functional.avg_pool2d(pixels[None], step)
        return (pooled.flatten(1) @ torch.from_numpy(self.weight))[0]


# --- the publishers' own ways with a picture ------------------------------------------------------------------------


def on_white(path: Path) -> Image.Image:
    """RGBA on white; other modes to RGB."""
    image = ImageOps.exif_transpose(Image.open(path))
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        white.alpha_composite(rgba)
        return white.convert("RGB")
    return image.convert("RGB")


def without_alpha(path: Path) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


def white_square(path: Path, side: int) -> Image.Image:
    """SmilingWolf's."""
    image = on_white(path)
    longest = max(image.size)
    square = Image.new("RGB", (longest, longest), (255, 255, 255))
    square.paste(image, ((longest - image.size[0]) // 2, (longest - image.size[1]) // 2))
    return square.resize((side, side), Image.Resampling.BICUBIC)


def normalised(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    return transforms.Normalize(mean, std)(transforms.ToTensor()(image))


def wd_pixels(path: Path, side: int) -> Tensor:
    """BGR in -1..1."""
    return normalised(white_square(path, side), [0.5] * 3, [0.5] * 3).flip(0)


def padded_to(image: Image.Image, side: int, resample: Image.Resampling, colour: Any, rounding: Any) -> Image.Image:
    """Fitted into a square and padded."""
    ratio = min(side / image.width, side / image.height)
    width, height = max(1, rounding(image.width * ratio)), max(1, rounding(image.height * ratio))
    canvas = Image.new("RGB", (side, side), colour)
    canvas.paste(image.resize((width, height), resample), ((side - width) // 2, (side - height) // 2))
    return canvas


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758))


# --- families -------------------------------------------------------------------------------------------------------

TAGS = [
    "general",
    "sensitive",
    "questionable",
    "explicit",
    "1girl",
    "long_hair",
    "null",
    "hatsune_miku",
    "null_(artist)",
]
CATEGORIES = [9, 9, 9, 9, 0, 0, 0, 4, 1]
WORDS = {9: "rating", 0: "general", 4: "character", 1: "artist", 3: "copyright", 5: "meta"}


@dataclass(frozen=True)
class Miniature:
    """A family in miniature.

    Attributes:
        make: writes its files into a folder.
        expect: the logits of a picture.
        labels: name and category of each.
        activation: what makes probabilities of them.
        onnx: whether onnxruntime runs it.
        wanted: what the toolkit should call it.
    """

    make: Callable[[Path], None]
    expect: Callable[[Path, Path], Tensor]
    labels: list[tuple[str, Any]]
    activation: str = "sigmoid"
    onnx: bool = True
    wanted: str = ""


def csv_text(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()


def write_wd_csv(folder: Path, tags: Sequence[str] = TAGS[:8], categories: Sequence[int] = CATEGORIES[:8]) -> None:
    rows = [(9999999 - i, tag, category, 7) for i, (tag, category) in enumerate(zip(tags, categories, strict=True))]
    (folder / "selected_tags.csv").write_text(csv_text(("tag_id", "name", "category", "count"), rows), encoding="utf-8")


def numbered(tags: Sequence[str], categories: Sequence[Any]) -> list[tuple[str, Any]]:
    return list(zip(tags, categories, strict=True))


WD_LABELS = numbered(TAGS[:8], CATEGORIES[:8])


def wd_graph(**options: Any) -> Miniature:
    """WD's ONNX form; `options` of its graph."""
    graph = Graph(**{"side": 64, "labels": 8, **options})

    def make(folder: Path) -> None:
        graph.write(folder / "model.onnx")
        write_wd_csv(folder)

    return Miniature(make, lambda folder, path: graph.logits(wd_pixels(path, 64)), WD_LABELS, wanted="WD tagger, ONNX")


def timm_model(folder: Path, labels: int) -> torch.nn.Module:
    """A real timm architecture with random weights, written as timm's hub form has it."""
    torch.manual_seed(labels)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=labels).eval()
    torch.nn.init.normal_(model.head.weight, std=0.5)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    return model


def timm_config(labels: int, mean: Sequence[float], std: Sequence[float], **more: Any) -> dict[str, Any]:
    cfg = {
        "input_size": [3, 64, 64], "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center",
        "mean": list(mean), "std": list(std), "num_classes": labels, "first_conv": "patch_embed.proj",
        "classifier": "head",
    }  # fmt: skip
    return {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": labels,
        "num_features": 192,
        "model_args": {"img_size": 64, "depth": 2},
        "pretrained_cfg": cfg,
        **more,
    }


def load_timm(folder: Path, labels: int) -> torch.nn.Module:
    """timm's own way to a model of a folder."""
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def timm_logits(folder: Path, pixels: Tensor) -> Tensor:
    with torch.inference_mode():
        return load_timm(folder, 0)(pixels[None])[0]


def make_wd_weights(folder: Path) -> None:
    timm_model(folder, 8)
    (folder / "config.json").write_text(json.dumps(timm_config(8, [0.5] * 3, [0.5] * 3)))
    write_wd_csv(folder)


def make_timm_tags(folder: Path) -> None:
    timm_model(folder, 8)
    (folder / "config.json").write_text(json.dumps(timm_config(8, *IMAGENET, tags=TAGS[:8])))


def timm_tags_expected(folder: Path, path: Path) -> Tensor:
    model = load_timm(folder, 8)
    transform = create_transform(**resolve_data_config(model.pretrained_cfg, model=model))
    return timm_logits(folder, transform(on_white(path)))


PREPROCESS: list[dict[str, Any]] = [
    {"type": "pad_to_size", "size": 96, "interpolation": "bilinear", "background_color": "white"},
    {"type": "resize", "size": 72, "interpolation": "bicubic", "max_size": None, "antialias": True},
    {"type": "center_crop", "size": [64, 64]},
    {"type": "maybe_to_tensor"},
    {"type": "normalize", "mean": list(CLIP[0]), "std": list(CLIP[1])},
]


def write_animetimm_files(folder: Path, stages_key: str = "test") -> None:
    (folder / "preprocess.json").write_text(json.dumps({stages_key: PREPROCESS, "pre": PREPROCESS[:1]}))
    named = [{"category": number, "name": word} for number, word in WORDS.items()]
    (folder / "categories.json").write_text(json.dumps(named))
    rows = [(i, i, tag, c, 5, 0.1 + i / 20) for i, (tag, c) in enumerate(zip(TAGS, CATEGORIES, strict=True))]
    header = ("id", "tag_id", "name", "category", "count", "best_threshold")
    (folder / "selected_tags.csv").write_text(csv_text(header, rows), encoding="utf-8")
    rows_of = [(c, word, 1.0, 0.3 + c / 100, 0.5, 0.5, 0.5) for c, word in WORDS.items()]
    columns = ("category", "name", "alpha", "threshold", "f1", "precision", "recall")
    (folder / "thresholds.csv").write_text(csv_text(columns, rows_of))


def animetimm_pixels(path: Path) -> Tensor:
    image = padded_to(on_white(path), 96, Image.Resampling.BILINEAR, (255, 255, 255), round)
    transform = transforms.Compose(
        [
            transforms.Resize(72, interpolation=InterpolationMode.BICUBIC),
            transforms.CenterCrop(64),
            transforms.ToTensor(),
            transforms.Normalize(torch.tensor(CLIP[0]), torch.tensor(CLIP[1])),
        ]
    )
    return transform(image)


def make_animetimm(folder: Path) -> None:
    timm_model(folder, 9)
    # timm's own numbers are those of the backbone, and preprocess.json wins over them.
    (folder / "config.json").write_text(json.dumps(timm_config(9, *IMAGENET, tags=TAGS)))
    write_animetimm_files(folder)


ANIMETIMM_GRAPH = Graph(
    64, 9, outputs=("embedding", "logits", "sigmoid"), names=("embedding", "logits", "prediction"), fixed_size=False
)


def make_animetimm_onnx(folder: Path) -> None:
    ANIMETIMM_GRAPH.write(folder / "model.onnx")
    write_animetimm_files(folder)


PIXAI_V09_STAGES = [
    {"type": "resize", "size": [64, 64], "interpolation": "bilinear", "max_size": None, "antialias": True},
    {"type": "to_tensor"},
    {"type": "normalize", "mean": [0.5] * 3, "std": [0.5] * 3},
]
PIXAI_V09_GRAPH = Graph(64, 4, outputs=("embedding", "logits", "sigmoid"), names=("embedding", "logits", "prediction"))
PIXAI_V09_LABELS = numbered(["1girl", "null", "nan", "hatsune_miku"], [0, 0, 0, 4])


def make_pixai_v09(folder: Path) -> None:
    PIXAI_V09_GRAPH.write(folder / "model.onnx")
    (folder / "preprocess.json").write_text(json.dumps({"stages": PIXAI_V09_STAGES}))
    named = [{"category": 0, "name": "general"}, {"category": 4, "name": "character"}]
    (folder / "categories.json").write_text(json.dumps(named))
    rows = [(i, -1, tag, category, -1, '["vocaloid"]') for i, (tag, category) in enumerate(PIXAI_V09_LABELS)]
    text = csv_text(("id", "tag_id", "name", "category", "count", "ips"), rows)
    (folder / "selected_tags.csv").write_text(text, encoding="utf-8")
    (folder / "thresholds.csv").write_text("category,name,threshold\n0,general,0.3\n4,character,0.85\n")


def pixai_v09_expected(folder: Path, path: Path) -> Tensor:
    resize = transforms.Resize((64, 64), interpolation=InterpolationMode.BILINEAR, antialias=True)
    return PIXAI_V09_GRAPH.logits(normalised(resize(on_white(path)), [0.5] * 3, [0.5] * 3))


PIXAI_V1_TAGS = ["1girl", "solo", "hatsune_miku", "vocaloid", "wlop", "highres", "rating:s", "rating:g"]
PIXAI_V1_CATEGORIES = [0, 0, 4, 3, 1, 5, 9, 9]
PIXAI_V1_LABELS = numbered([*PIXAI_V1_TAGS[:6], "sensitive", "general"], PIXAI_V1_CATEGORIES)
PIXAI_V1_GRAPH = Graph(72, 8, names=("logits",))
PIXAI_V1_WORDS = {0: "general", 4: "character", 3: "copyright", 1: "style", 5: "meta", 9: "rating"}


def pixai_v1_expected(folder: Path, path: Path) -> Tensor:
    """On tensors: scaled without rounding to 8 bits, black before the values are shifted."""
    image = F.to_tensor(on_white(path))
    _, height, width = image.shape
    ratio = min(72 / height, 72 / width)
    height, width = max(1, int(height * ratio)), max(1, int(width * ratio))
    if image.shape[2] == 1:  # torch (2.15) scales a tensor of one column wrongly; of three equal ones it does not
        image = image.expand(-1, -1, 3).contiguous()
        small = F.resize(image, [height, 3], interpolation=InterpolationMode.BILINEAR, antialias=True)[..., :width]
    else:
        small = F.resize(image, [height, width], interpolation=InterpolationMode.BILINEAR, antialias=True)
    canvas = torch.zeros(3, 72, 72)
    top, left = (72 - height) // 2, (72 - width) // 2
    canvas[:, top : top + height, left : left + width] = small
    return PIXAI_V1_GRAPH.logits((canvas - 0.5) / 0.5)


def make_pixai_v1_csv(folder: Path) -> None:
    PIXAI_V1_GRAPH.write(folder / "model.onnx")
    rows = [(i, tag, c, 1) for i, (tag, c) in enumerate(zip(PIXAI_V1_TAGS, PIXAI_V1_CATEGORIES, strict=True))]
    (folder / "selected_tags.csv").write_text(csv_text(("tag_id", "name", "category", "count"), rows))


def blocks() -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for tag, category in zip(PIXAI_V1_TAGS, PIXAI_V1_CATEGORIES, strict=True):
        word = PIXAI_V1_WORDS[category]
        if not found or found[-1][0] != word:
            found.append((word, []))
        found[-1][1].append(tag)
    return found


def make_pixai_v1_config(folder: Path) -> None:
    PIXAI_V1_GRAPH.write(folder / "pixai-tagger-v1.0.onnx")
    split = [[word, len(tags)] for word, tags in blocks()]
    (folder / "config.json").write_text(json.dumps({"tags": PIXAI_V1_TAGS, "tags_split": split}))


def make_pixai_v1_blocks(folder: Path) -> None:
    Graph(72, 8, names=("logits",), external=True).write(folder / "model.onnx")
    listed, offset = [], 0
    for word, tags in blocks():
        listed.append({"name": word, "offset": offset, "tags": tags})
        offset += len(tags)
    (folder / "tags.json").write_text(json.dumps({"categories": listed}))


CL_TAGS = ["general", "best quality", "1girl", "hatsune_miku", "vocaloid", "highres", "sd_xl"]
CL_WORDS = ["Rating", "Quality", "General", "Character", "Copyright", "Meta", "Model"]
CL_LABELS = numbered(["general", "best_quality", *CL_TAGS[2:]], [9, "quality", 0, 4, 3, 5, "model"])
CL_GRAPH = Graph(64, 7, outputs=("logits", "other"), names=("first", "second"))


def make_cl_v1(folder: Path) -> None:
    CL_GRAPH.write(folder / "model_optimized.onnx")
    CL_GRAPH.write(folder / "model.onnx")
    pairs = zip(CL_TAGS, CL_WORDS, strict=True)
    mapping = {str(i): {"tag": tag, "category": word} for i, (tag, word) in enumerate(pairs)}
    (folder / "tag_mapping.json").write_text(json.dumps(mapping))


def make_cl_v1_maps(folder: Path) -> None:
    CL_GRAPH.write(folder / "model.onnx")
    mapping: Mapping[str, Any] = {
        "idx_to_tag": {str(i): tag for i, tag in enumerate(CL_TAGS)},
        "tag_to_category": dict(zip(CL_TAGS, CL_WORDS, strict=True)),
    }
    (folder / "tag_mapping.json").write_text(json.dumps(mapping))


CL2_GRAPH = Graph(64, 5, outputs=("embedding", "logits"), names=("pooler_output", "logits"), fixed_size=True)
CL2_TAGS = ["general", "best_quality", "1girl", "hatsune_miku", "vocaloid"]
CL2_CATEGORIES = ["Rating", "Quality", "General", "Character", "Copyright"]
CL2_THRESHOLDS = [0.5, 0.4, 0.3, 0.2, 0.1]


def make_cl_v2(folder: Path) -> None:
    Graph(64, 5, outputs=("embedding", "logits"), names=("pooler_output", "logits"), external=True).write(
        folder / "model.onnx"
    )
    vocabulary = {
        "idx_to_tag": {str(i): tag for i, tag in enumerate(CL2_TAGS)},
        "tag_to_idx": {tag: i for i, tag in enumerate(CL2_TAGS)},
        "tag_to_category": {tag: i for i, tag in enumerate(CL2_TAGS)},
        "categories": CL2_CATEGORIES,
    }
    (folder / "model_vocabulary.json").write_text(json.dumps(vocabulary))
    np.savez(folder / "model_tag_metrics.npz", best_thr=np.array(CL2_THRESHOLDS), n_bins=100)


def cl_v2_expected(folder: Path, path: Path) -> Tensor:
    image = on_white(path).resize((64, 64), Image.Resampling.BICUBIC)
    return CL2_GRAPH.logits(normalised(image, [0.5] * 3, [0.5] * 3))


CAMIE_TAGS = ["1girl", "hatsune_miku", "vocaloid", "wlop", "highres", "rating_general", "year_2024"]
CAMIE_WORDS = ["general", "character", "copyright", "artist", "meta", "rating", "year"]
CAMIE_GRAPH = Graph(
    64, 7, outputs=("other", "logits"), names=("initial_predictions", "refined_predictions"), fixed_size=True
)


def make_camie(folder: Path) -> None:
    CAMIE_GRAPH.write(folder / "camie-tagger-v2.onnx")
    mapping = {
        "idx_to_tag": {str(i): tag for i, tag in enumerate(CAMIE_TAGS)},
        "tag_to_category": dict(zip(CAMIE_TAGS, CAMIE_WORDS, strict=True)),
    }
    metadata = {"dataset_info": {"tag_mapping": mapping}, "model_info": {"img_size": 64}}
    (folder / "camie-tagger-v2-metadata.json").write_text(json.dumps(metadata))


def camie_expected(folder: Path, path: Path) -> Tensor:
    image = padded_to(without_alpha(path), 64, Image.Resampling.LANCZOS, (124, 116, 104), int)
    return CAMIE_GRAPH.logits(normalised(image, *IMAGENET))


KALOSCOPE_TAGS = ["wlop", "ke-ta_(artist)", "null", "nan", "初音"]
KALOSCOPE_GRAPH = Graph(56, 5, names=("anything",), batch=1)


def make_kaloscope(folder: Path) -> None:
    KALOSCOPE_GRAPH.write(folder / "kaloscope_2-0.onnx")
    rows = [(i, f"'{tag}'" if i == 1 else tag) for i, tag in enumerate(KALOSCOPE_TAGS)]
    text = "\ufeff" + csv_text(("class_id", "class_name"), rows)
    (folder / "class_mapping.csv").write_text(text, encoding="utf-8")


def kaloscope_expected(folder: Path, path: Path) -> Tensor:
    """The model wants 448 of 512; 56 of 64 is the same in miniature."""
    transform = transforms.Compose(
        [
            transforms.Resize(64, interpolation=InterpolationMode.BICUBIC),
            transforms.CenterCrop(56),
            transforms.ToTensor(),
            transforms.Normalize(*IMAGENET),
        ]
    )
    return KALOSCOPE_GRAPH.logits(transform(without_alpha(path)))


SMILING_WOLF = {"layout": "NHWC", "raw": True, "outputs": ("sigmoid",)}
MINIATURES: dict[str, Miniature] = {
    "WD v3": Miniature(
        make_wd_weights,
        lambda folder, path: timm_logits(folder, wd_pixels(path, 64)),
        WD_LABELS,
        onnx=False,
        wanted="WD tagger",
    ),
    "any timm repository with tags": Miniature(
        make_timm_tags, timm_tags_expected, [*WD_LABELS[:7], ("hatsune_miku", 0)], onnx=False, wanted="timm"
    ),
    "animetimm": Miniature(
        make_animetimm,
        lambda folder, path: timm_logits(folder, animetimm_pixels(path)),
        numbered(TAGS, CATEGORIES),
        onnx=False,
        wanted="animetimm (deepghs)",
    ),
    "animetimm ONNX": Miniature(
        make_animetimm_onnx,
        lambda folder, path: ANIMETIMM_GRAPH.logits(animetimm_pixels(path)),
        numbered(TAGS, CATEGORIES),
        wanted="animetimm (deepghs)",
    ),
    "WD v3 ONNX": wd_graph(**SMILING_WOLF),
    "WD v2 ONNX": wd_graph(**SMILING_WOLF, batch=1, names=("predictions_sigmoid",)),
    "canary ONNX with logits": wd_graph(),
    "canary ONNX with probabilities": wd_graph(outputs=("sigmoid",)),
    "PixAI v0.9 ONNX": Miniature(make_pixai_v09, pixai_v09_expected, PIXAI_V09_LABELS, wanted="animetimm (deepghs)"),
    "PixAI v1.0 ONNX, CSV": Miniature(
        make_pixai_v1_csv, pixai_v1_expected, PIXAI_V1_LABELS, wanted="PixAI tagger v1.0, ONNX"
    ),
    "PixAI v1.0 ONNX, config.json": Miniature(
        make_pixai_v1_config, pixai_v1_expected, PIXAI_V1_LABELS, wanted="PixAI tagger v1.0, ONNX"
    ),
    "PixAI v1.0 ONNX, tags.json": Miniature(
        make_pixai_v1_blocks, pixai_v1_expected, PIXAI_V1_LABELS, wanted="PixAI tagger v1.0, ONNX"
    ),
    "cl_tagger v1": Miniature(
        make_cl_v1, lambda folder, path: CL_GRAPH.logits(wd_pixels(path, 64)), CL_LABELS, wanted="cl_tagger"
    ),
    "cl_tagger v1, two maps": Miniature(
        make_cl_v1_maps, lambda folder, path: CL_GRAPH.logits(wd_pixels(path, 64)), CL_LABELS, wanted="cl_tagger"
    ),
    "cl_tagger v2": Miniature(
        make_cl_v2, cl_v2_expected, numbered(CL2_TAGS, [9, "quality", 0, 4, 3]), wanted="cl_tagger v2"
    ),
    "Camie v2": Miniature(
        make_camie, camie_expected, numbered(CAMIE_TAGS, [0, 4, 3, 1, 5, 9, "year"]), wanted="Camie tagger v2"
    ),
    "Kaloscope ONNX": Miniature(
        make_kaloscope,
        kaloscope_expected,
        numbered(KALOSCOPE_TAGS, [1] * 5),
        activation="softmax",
        wanted="Kaloscope, ONNX",
    ),
}
