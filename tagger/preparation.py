"""How a model's pixels are made, as data: what its files say, what config.json carries, what `images` carries out.

    python -c "from tagger.preparation import on_white_square; print(*on_white_square(448).lines(), sep='\n')"

A model that is shown other pixels than it learnt from answers plausible nonsense without an error. So nothing of it is
left to a default: colour under transparency, geometry, order of the channels, scale and layout stand here.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from tagger.files import UserError

Colour = tuple[int, int, int]  # red, green, blue in 0..255
Size = tuple[int, int]  # width, height in pixels
Values = tuple[float, float, float]  # of the channels, in the model's order

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
IMAGENET_MEAN: Values = (0.485, 0.456, 0.406)
IMAGENET_STD: Values = (0.229, 0.224, 0.225)
HALF: Values = (0.5, 0.5, 0.5)

FILTERS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")  # Pillow's
ORDERS = ("RGB", "BGR")
LAYOUTS = ("NCHW", "NHWC")
MAX_SIDE = 8192  # pixels that a file may ask for; the largest public tagger wants 1008


# --- geometry -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PadToSquare:
    """The picture in the middle of a square as large as its longer side; half of an odd rest is rounded down."""

    colour: Colour = WHITE

    def line(self) -> str:
        return f"padded to a square with {_colour_words(self.colour)}"


@dataclass(frozen=True)
class Pad:
    """The picture in the middle of a canvas; half of an odd rest is rounded down."""

    size: Size
    colour: Colour

    def line(self) -> str:
        return f"padded to {_size_words(self.size)} with {_colour_words(self.colour)}"


@dataclass(frozen=True)
class Fit:
    """Scaled up or down, in its own proportions, until it just fits into a size.

    Attributes:
        rounding: of the other side: "floor", or "nearest" with halves to the even number.
    """

    size: Size
    filter: str
    rounding: str

    def line(self) -> str:
        return f"scaled to fit into {_size_words(self.size)}, {self.filter}"


@dataclass(frozen=True)
class Resize:
    """Stretched to a size."""

    size: Size
    filter: str

    def line(self) -> str:
        return f"resized to {_size_words(self.size)}, {self.filter}"


@dataclass(frozen=True)
class ResizeShorter:
    """Scaled, in its own proportions, until its shorter side has a length; the other is rounded down.

    Attributes:
        longest: what the longer side may have at most; then the shorter one has less.
    """

    side: int
    filter: str
    longest: int | None = None

    def line(self) -> str:
        longest = f", the longer one at most {self.longest}" if self.longest else ""
        return f"resized until the shorter side has {self.side} pixels{longest}, {self.filter}"


@dataclass(frozen=True)
class CenterCrop:
    """What lies in the middle; a smaller picture is padded with black first.

    Half of an odd rest is rounded to the even number, as torchvision does it.
    """

    size: Size

    def line(self) -> str:
        return f"cropped to {_size_words(self.size)} in the middle"


Stage = PadToSquare | Pad | Fit | Resize | ResizeShorter | CenterCrop
STAGES: dict[str, type[Stage]] = {
    "pad_to_square": PadToSquare,
    "pad": Pad,
    "fit": Fit,
    "resize": Resize,
    "resize_shorter": ResizeShorter,
    "center_crop": CenterCrop,
}
STAGE_NAMES = {kind: name for name, kind in STAGES.items()}


# --- the whole ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preparation:
    """From a decoded, upright picture to a model's input: every step, in this order.

    Attributes:
        stages: geometry; the last one that is not PadToSquare gives the input's size.
        background: what transparent pixels lie on; None where transparency is dropped and their colour counts.
        floats: whether the geometry is computed with floats, as on a tensor, and not with 8 bits, as on a picture.
        channel_order: one of ORDERS; all that follows is in this order.
        divisor: what values of 0..255 are divided by: 255, or 1 for a model that scales them itself.
        mean, std: what is then subtracted, and what it is then divided by.
        layout: one of LAYOUTS, of float32.
    """

    stages: tuple[Stage, ...]
    background: Colour | None = WHITE
    floats: bool = False
    channel_order: str = "RGB"
    divisor: float = 255.0
    mean: Values = HALF
    std: Values = HALF
    layout: str = "NCHW"

    KEYS: ClassVar = ("background", "floats", "channel_order", "divisor", "mean", "std", "layout")

    @property
    def size(self) -> Size:
        """Width and height of the input.

        Raises:
            UserError: the stages end without giving one.
        """
        for stage in reversed(self.stages):
            if isinstance(stage, (Pad, Resize, CenterCrop)):
                return stage.size
            if not isinstance(stage, PadToSquare):
                break
        raise UserError("a preparation whose stages leave the input's size open")

    @property
    def is_white_square(self) -> bool:
        """Whether the geometry is that of the WD taggers, which this toolkit's own models share."""
        return self.stages == on_white_square(self.size[0]).stages and self.background == WHITE and not self.floats

    def in_order(self, channel_order: str) -> "Preparation":
        """The same with the channels in an order; mean and std stay with their places."""
        return replace(self, channel_order=channel_order)

    def unscaled(self) -> "Preparation":
        """The same for a model that scales values of 0..255 itself."""
        return replace(self, divisor=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def with_side(self, side: int) -> "Preparation":
        """The same for a square input of another size: all lengths in proportion, the last one exactly `side`."""
        old = self.size[0]

        def scaled(stage: Stage) -> Stage:
            if isinstance(stage, PadToSquare):
                return stage
            if isinstance(stage, ResizeShorter):
                longest = None if stage.longest is None else round(stage.longest * side / old)
                return replace(stage, side=round(stage.side * side / old), longest=longest)
            width, height = stage.size
            return replace(stage, size=(round(width * side / old), round(height * side / old)))

        return replace(self, stages=tuple(map(scaled, self.stages)))

    def lines(self) -> list[str]:
        """What is done, a line for each step."""
        under = "transparency dropped" if self.background is None else f"on {_colour_words(self.background)}"
        scale = f"divided by {self.divisor:g}, " if self.divisor != 1 else ""
        shift = f"minus {_values_words(self.mean)}, divided by {_values_words(self.std)}"
        unscaled = self.divisor == 1 and self.mean == (0, 0, 0) and self.std == (1, 1, 1)
        return [
            f"upright, {under}" + (", computed with floats" if self.floats else ""),
            *(stage.line() for stage in self.stages),
            f"channels {self.channel_order}",
            "values 0 to 255" if unscaled else scale + shift,
            f"layout {self.layout}",
        ]

    # -- JSON --------------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` takes."""
        stages = [{"stage": STAGE_NAMES[type(stage)], **dataclasses.asdict(stage)} for stage in self.stages]
        return {"stages": stages} | {key: getattr(self, key) for key in self.KEYS}

    @classmethod
    def from_json(cls, value: object, origin: object) -> "Preparation":
        """Read what `to_json` made, from a stranger's file.

        Args:
            origin: the file, for errors.

        Raises:
            UserError: it is no such object, or has an entry that is not known here.
        """
        try:
            given = dict(_mapping(value))
            stages = tuple(map(_read_stage, given.pop("stages")))
            if unknown := given.keys() - set(cls.KEYS):
                raise ValueError(f"no entry is called {min(unknown)}")
            if given.get("background") is not None:
                given["background"] = _colour(given["background"])
            given |= {key: _values(given[key]) for key in ("mean", "std") if key in given}
            preparation = cls(stages, **given)
            preparation.check()
        except (AttributeError, KeyError, TypeError, ValueError, UserError) as error:
            raise UserError(f"{origin}: not a preparation of pixels ({error}); fetch the file again") from None
        return preparation

    def check(self) -> None:
        """Refuse what cannot be carried out.

        Raises:
            UserError, ValueError: why.
        """
        for side in self.size:
            if not 1 <= side <= MAX_SIDE:
                raise ValueError(f"an input of {side} pixels")
        for stage in self.stages:
            _check_stage(stage)
        if self.channel_order not in ORDERS or self.layout not in LAYOUTS or not isinstance(self.floats, bool):
            raise ValueError("channels or layout of no known kind")
        if not (math.isfinite(self.divisor) and self.divisor > 0 and min(self.std) > 0):
            raise ValueError("a division by nothing")


def on_white_square(side: int, **rest: Any) -> Preparation:
    """SmilingWolf's: padded to a white square, resized with bicubic. Ours is the same with the channels as RGB.

    Args:
        side: of the input, in pixels.
        **rest: other attributes of a Preparation.
    """
    return Preparation((PadToSquare(WHITE), Resize((side, side), "bicubic")), **rest)


def from_timm(cfg: Mapping[str, Any]) -> Preparation:
    """What timm's transform for evaluation does with a `pretrained_cfg`, on white (timm.data.create_transform).

    Raises:
        ValueError: no such configuration, or a way to crop that is not known here.
    """
    channels, height, width = cfg["input_size"]
    filter_name, mode = cfg.get("interpolation") or "bicubic", cfg.get("crop_mode") or "center"
    share = _number(cfg.get("crop_pct") or 0.875)
    if channels != 3 or filter_name not in FILTERS or mode not in ("center", "squash") or not 0 < share <= 1:
        raise ValueError(f"{channels} channels, {filter_name}, crop_mode {mode}, crop_pct {share}")
    scaled = (math.floor(_length(width) / share), math.floor(_length(height) / share))
    if mode == "center" and width != height:
        raise ValueError("an input that is no square, and is cropped")
    resize: Stage = Resize(scaled, filter_name) if mode == "squash" else ResizeShorter(scaled[0], filter_name)
    mean, std = _values(cfg.get("mean", IMAGENET_MEAN)), _values(cfg.get("std", IMAGENET_STD))
    preparation = Preparation((resize, CenterCrop((width, height))), mean=mean, std=std)
    preparation.check()
    return preparation


# --- preprocess.json ------------------------------------------------------------------------------------------------


def from_stages(listed: object, origin: object) -> Preparation:
    """What a list of stages in a preprocess.json says, as torchvision and imgutils carry it out.

    The stages are imgutils' (imgutils/preprocess): `pad_to_size` takes [width, height], `resize` and `center_crop` take
    [height, width]. On a picture `antialias` makes no difference: Pillow always filters.

    Args:
        origin: the file, for errors.

    Raises:
        UserError: a stage, or an argument of one, that is not known here; nothing is guessed.
    """
    try:
        preparation = _from_stages(listed)
        preparation.check()
    except (AttributeError, KeyError, TypeError, ValueError, UserError) as error:
        reason = f"no entry {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{origin}: stages that are not known here ({reason}); use the model's own tools") from None
    return preparation


def _from_stages(listed: object) -> Preparation:
    stages: list[Stage] = []
    background, divisor, mean, std = WHITE, 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if not isinstance(listed, list):
        raise ValueError("no list of them")
    for position, entry in enumerate(listed):
        given = dict(_mapping(entry))
        kind = given.pop("type")
        on_picture, normalised = divisor == 1, std != (1, 1, 1)
        if kind == "convert_rgb" and position == 0:
            background = _named_colour(given.pop("force_background", "white"))
        elif kind == "pad_to_size" and on_picture:
            size = _two(given.pop("size"))
            filter_name = _filter(given.pop("interpolation", "bilinear"))
            colour = _named_colour(given.pop("background_color", "white"))
            stages += [Fit(size, filter_name, "nearest"), Pad(size, colour)]
        elif kind == "resize" and on_picture:
            stages.append(_resize(given))
        elif kind == "center_crop" and on_picture:
            height, width = _two(given.pop("size"))
            stages.append(CenterCrop((width, height)))
        elif kind in ("to_tensor", "maybe_to_tensor") and on_picture:
            divisor = 255.0
        elif kind == "rescale" and on_picture:
            divisor = round(1 / _number(given.pop("rescale_factor", 1 / 255)), 9)
        elif kind == "normalize" and not on_picture and not normalised:
            mean, std = _values(given.pop("mean")), _values(given.pop("std"))
            given.pop("inplace", None)
        else:
            raise ValueError(f"{kind} as number {position + 1}")
        if given:
            raise ValueError(f"{kind} with {min(given)}")
    if divisor == 1:
        raise ValueError("none that makes a tensor")
    return Preparation(tuple(stages), background=background, divisor=divisor, mean=mean, std=std)


def _resize(given: dict[str, Any]) -> Stage:
    """A `resize` of preprocess.json; what it takes is removed from `given`."""
    size, filter_name = given.pop("size"), _filter(given.pop("interpolation", "bilinear"))
    longest = given.pop("max_size", None)
    if given.pop("antialias", True) not in (True, False, None, "warn"):
        raise ValueError("resize with another antialias")
    if isinstance(size, int) or len(size) == 1:
        side = _length(size if isinstance(size, int) else size[0])
        if longest is not None and _length(longest) <= side:
            raise ValueError(f"resize to {side} with max_size {longest}")
        return ResizeShorter(side, filter_name, longest)
    if longest is not None:
        raise ValueError("resize of both sides with max_size")
    height, width = _two(size)
    return Resize((width, height), filter_name)


# --- reading strangers' values --------------------------------------------------------------------------------------

PILLOW_NUMBERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # a filter's place is its number
COLOURS: dict[object, Colour] = {"white": WHITE, "black": BLACK}


def _read_stage(value: object) -> Stage:
    given = dict(_mapping(value))
    kind = STAGES[given.pop("stage")]
    if "colour" in given:
        given["colour"] = _colour(given["colour"])
    if "size" in given:
        given["size"] = _two(given["size"])
    return kind(**given)


def _check_stage(stage: Stage) -> None:
    filter_name, rounding = getattr(stage, "filter", FILTERS[0]), getattr(stage, "rounding", "floor")
    if filter_name not in FILTERS or rounding not in ("floor", "nearest"):
        raise ValueError(f"{STAGE_NAMES[type(stage)]} with another filter or rounding")
    lengths: Sequence[int] = getattr(stage, "size", ())
    if isinstance(stage, ResizeShorter):
        lengths = (stage.side,) if stage.longest is None else (stage.side, stage.longest)
    for length in lengths:
        _length(length)


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{str(value)[:40]} is no object")
    return value


def _length(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIDE:
        raise ValueError(f"a length of {str(value)[:40]}")
    return value


def _two(value: Any) -> tuple[int, int]:
    """A size: one number for both sides, or two."""
    first, second = (value, value) if isinstance(value, int) else value
    return _length(first), _length(second)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{str(value)[:40]} is no number")
    return float(value)


def _values(value: Any) -> Values:
    """One number for all channels, or three."""
    first, second, third = (value, value, value) if isinstance(value, (int, float)) else value
    return _number(first), _number(second), _number(third)


def _colour(value: Any) -> Colour:
    red, green, blue = value
    for part in (red, green, blue):
        if isinstance(part, bool) or not isinstance(part, int) or not 0 <= part <= 255:
            raise ValueError(f"a colour of {str(value)[:40]}")
    return red, green, blue


def _named_colour(value: Any) -> Colour:
    if isinstance(value, str):
        if value not in COLOURS:
            raise ValueError(f"the colour {value[:40]}")
        return COLOURS[value]
    return _colour((value, value, value) if isinstance(value, int) else value[:3])


def _filter(value: object) -> str:
    if isinstance(value, int) and 0 <= value < len(PILLOW_NUMBERS):
        return PILLOW_NUMBERS[value]
    if isinstance(value, str) and value.lower() in FILTERS:
        return value.lower()
    raise ValueError(f"the filter {str(value)[:40]}")


def _size_words(size: Size) -> str:
    return f"{size[0]} × {size[1]}"


def _colour_words(colour: Colour) -> str:
    return next((str(name) for name, known in COLOURS.items() if known == colour), f"colour {colour}")


def _values_words(values: Values) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else " / ".join(f"{value:g}" for value in values)
