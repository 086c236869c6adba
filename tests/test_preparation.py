"""preparation.py and what images.py makes of it: stages of preprocess.json against torchvision, and strangers' files.

python -m pytest tests/test_preparation.py
"""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from tagger import images
from tagger.device import normalise
from tagger.files import UserError
from tagger.preparation import (
    FILTERS,
    STAGES,
    CenterCrop,
    Fit,
    Pad,
    Preparation,
    Resize,
    ResizeShorter,
    from_stages,
    from_timm,
    on_white_square,
)

SIDE = st.integers(1, 70)
SIZES = st.one_of(st.tuples(SIDE, SIDE), st.tuples(st.just(1), st.integers(300, 500)), st.just((600, 40)))


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


@st.composite
def listed_stages(draw: st.DrawFn) -> tuple[list[dict[str, Any]], Any]:
    """Stages as a preprocess.json has them, and torchvision's transforms for the same."""
    stages: list[dict[str, Any]] = []
    theirs: list[Any] = []
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(FILTERS))
        mode = InterpolationMode(name)
        kind = draw(st.sampled_from(("shorter", "limited", "both", "crop")))
        if kind == "crop":
            height, width = draw(SIDE), draw(SIDE)
            stages.append({"type": "center_crop", "size": [height, width]})
            theirs.append(transforms.CenterCrop((height, width)))
            continue
        stage: dict[str, Any] = {"type": "resize", "interpolation": name, "antialias": draw(st.booleans())}
        size: Any = draw(SIDE) if kind != "both" else [draw(SIDE), draw(SIDE)]
        longest = size + draw(st.integers(1, 90)) if kind == "limited" else None
        stages.append(stage | {"size": size, "max_size": longest})
        theirs.append(transforms.Resize(size, interpolation=mode, max_size=longest))
    last = draw(SIDE)
    stages.append({"type": "center_crop", "size": last})
    theirs.append(transforms.CenterCrop(last))
    mean, std = (draw(st.lists(st.floats(0.1, 0.9), min_size=3, max_size=3)) for _ in range(2))
    stages += [{"type": "maybe_to_tensor"}, {"type": "normalize", "mean": mean, "std": std}]
    theirs += [transforms.ToTensor(), transforms.Normalize(torch.tensor(mean), torch.tensor(std))]
    return stages, transforms.Compose(theirs)


@given(listed_stages(), SIZES, st.integers(0, 9))
def test_stages_do_what_torchvision_does(drawn: Any, size: tuple[int, int], seed: int) -> None:
    stages, compose = drawn
    image = noise(size, seed)
    try:
        expected = compose(image)
    except ValueError:  # Pillow makes no picture without a width; ours has one pixel there
        return
    preparation = from_stages(json.loads(json.dumps(stages)), "preprocess.json")
    pixels = images.to_pixels(image, preparation)
    given_pixels = images.to_input([pixels], preparation)[0]
    torch.testing.assert_close(torch.from_numpy(given_pixels), expected, atol=1e-6, rtol=0)


@given(SIZES, st.integers(3, 60), st.sampled_from(("RGB", "BGR")))
def test_the_white_square_is_bit_for_bit_what_it_always_was(size: tuple[int, int], side: int, order: str) -> None:
    preparation = on_white_square(side, channel_order=order)
    image = noise(size)
    usual = images.to_array(
        images.pad_to_square(image).resize((side, side), Image.Resampling.BICUBIC), channel_order=order
    )
    pixels = images.to_pixels(image, preparation)
    assert pixels.dtype == np.uint8 and np.array_equal(pixels, usual) and preparation.is_white_square
    on_device = normalise(torch.from_numpy(pixels.copy())[None], preparation).numpy()
    assert np.array_equal(on_device, images.to_input([pixels], preparation))
    mean_and_std = ((usual.astype(np.float32) / 255 - np.float32(0.5)) / np.float32(0.5)).transpose(2, 0, 1)
    assert np.array_equal(on_device[0], mean_and_std)


def test_a_strip_that_would_fill_the_memory_is_an_unreadable_image() -> None:
    preparation = Preparation((ResizeShorter(512, "bicubic"), CenterCrop((448, 448))))
    with pytest.raises(images.UnreadableImage, match=r"1 x 9000 pixels would become 512 x 4608000; cut it into parts"):
        images.to_pixels(noise((1, 9000)), preparation)
    assert images.to_pixels(noise((2, 500)), preparation).shape == (448, 448, 3)


def test_timms_numbers() -> None:
    cfg = {
        "input_size": [3, 448, 448],
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    assert from_timm(cfg).stages == (ResizeShorter(512, "bicubic"), CenterCrop((448, 448)))
    squash = from_timm(cfg | {"crop_mode": "squash", "crop_pct": 1.0})
    assert squash.stages == (Resize((448, 448), "bicubic"), CenterCrop((448, 448)))
    for wrong in ({"crop_mode": "border"}, {"interpolation": "random"}, {"input_size": [1, 8, 8]}, {"crop_pct": 0}):
        if wrong != {"crop_pct": 0}:  # timm takes its default for it
            with pytest.raises(ValueError):
                from_timm(cfg | wrong)


def test_another_size_in_proportion() -> None:
    preparation = Preparation((Fit((512, 512), "bilinear", "nearest"), Pad((512, 512), (255, 255, 255)),
                               Resize((448, 448), "bicubic")))  # fmt: skip
    assert preparation.with_side(224).stages == (
        Fit((256, 256), "bilinear", "nearest"), Pad((256, 256), (255, 255, 255)), Resize((224, 224), "bicubic"),
    )  # fmt: skip


# --- strangers' files -----------------------------------------------------------------------------------------------

NORMALISED = [{"type": "to_tensor"}, {"type": "normalize", "mean": 0.5, "std": 0.5}]


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([{"type": "resize", "size": [8, 8]}], "none that makes a tensor"),
        ([*NORMALISED], "leave the input's size open"),
        ([{"type": "swirl"}, *NORMALISED], "swirl as number 1"),
        ([{"type": "resize", "size": [8, 8], "angle": 3}, *NORMALISED], "resize with angle"),
        ([{"type": "resize", "size": [8, 8], "interpolation": "magic"}, *NORMALISED], "the filter magic"),
        ([{"type": "resize", "size": 10**9}, *NORMALISED], "a length of 1000000000"),
        ([{"type": "resize", "size": [8, -8]}, *NORMALISED], "a length of -8"),
        ([{"type": "resize", "size": 8, "max_size": 4}, *NORMALISED], "resize to 8 with max_size 4"),
        ([{"type": "pad_to_size", "size": 8, "background_color": "mauve"}, *NORMALISED], "the colour mauve"),
        ([*NORMALISED, {"type": "center_crop", "size": 8}], "center_crop as number 3"),
        ([{"type": "center_crop", "size": 8}, *NORMALISED, NORMALISED[1]], "normalize as number 4"),
        ([{"type": "center_crop", "size": 8}, NORMALISED[0], {"type": "normalize", "mean": 0, "std": 0}], "nothing"),
        ([{"size": 8}], "no entry 'type'"),
        ("stages", "no list of them"),
        ([3], "3 is no object"),
    ],
)
def test_stages_that_are_not_known_are_refused(stages: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        from_stages(stages, "preprocess.json")
    assert str(caught.value).startswith("preprocess.json: ") and "\n" not in str(caught.value)


KEYS = st.sampled_from(
    ("type", "stage", "size", "colour", "filter", "rounding", "side", "stages", "mean", "std", "layout")
)
NUMBERS = st.one_of(st.none(), st.booleans(), st.integers(-9, 999), st.floats())
LEAVES = st.one_of(NUMBERS, st.text(max_size=9), st.sampled_from([*STAGES]))
JSON_VALUES = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner)), max_leaves=12
)


@given(JSON_VALUES)
def test_any_json_is_a_preparation_or_an_error_of_one_line(value: Any) -> None:
    for read in (from_stages, Preparation.from_json):
        try:
            found = read(value, "x.json")
        except UserError as error:
            assert "\n" not in str(error)
        else:
            found.check()
    whole = on_white_square(8).to_json()
    for key in whole:
        try:
            Preparation.from_json(whole | {key: value}, "x.json").check()
        except UserError as error:
            assert "\n" not in str(error)
