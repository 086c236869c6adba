"""Pictures with the tags that a model gave them, side by side, for the README and for the end of the demo.

python -m examples.demo      # writes demo/result.png with this
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from tagger.images import prepare

SIDE = 300  # pixels of one picture
LINE = 21
COLUMNS = 3
INK, GREY, RED = (30, 34, 42), (130, 136, 146), (190, 40, 50)
FOOT = 40
BARS = {"artist": (213, 94, 0), "character": (0, 114, 178), "general": (0, 135, 100)}  # Okabe and Ito's colours


def draw_result(
    images: Sequence[Path], truths: Sequence[Mapping[str, Sequence[str]]], results: Sequence[Mapping[str, Any]]
) -> Image.Image:
    """A sheet of pictures; beside each its tags with bars as long as their probabilities, and at its foot a key.

    Args:
        truths: the true tags of each picture by category.
        results: what wdv3_pytorch.py said of each, as its JSON records.
    """
    panels = [draw_panel(*given) for given in zip(images, truths, results, strict=True)]
    width, height = panels[0].size
    rows = -(-len(panels) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width, rows * height + FOOT), "white")
    draw_key(sheet, rows * height + 8)
    for number, panel in enumerate(panels):
        sheet.paste(panel, (number % COLUMNS * width, number // COLUMNS * height))
    return sheet


def draw_key(sheet: Image.Image, top: int) -> None:
    """A line that says what colours mean."""
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    left = 15.0
    for category, colour in BARS.items():
        draw.rectangle((left, top + 3, left + 30, top + 15), colour)
        draw.text((left + 38, top), category, INK, font)
        left += 62 + draw.textlength(category, font)
    bars = "a bar is as long as the tag's probability"
    draw.text((left, top), bars, GREY, font)
    draw.text((left + 24 + draw.textlength(bars, font), top), "red: the drawing does not have this tag", RED, font)


def draw_panel(image: Path, truth: Mapping[str, Sequence[str]], result: Mapping[str, Any]) -> Image.Image:
    panel = Image.new("RGB", (2 * SIDE + 30, SIDE + 40), "white")
    panel.paste(prepare(image, SIDE), (15, 20))
    draw, font = ImageDraw.Draw(panel), ImageFont.load_default(15)
    rating = next(iter(result["ratings"]))
    left, top = SIDE + 30, 20
    draw.text((left, top), f"rating: {rating}", INK if rating in truth["rating"] else RED, font)
    for category, shown in (("artist", 1), ("character", 1), ("general", 10)):
        for name, probability in list(result[category].items())[:shown]:
            top += LINE
            right = name in truth.get(category, ())
            draw.rectangle((left, top + 3, left + round(60 * probability), top + 15), BARS[category])
            draw.text((left + 66, top), f"{probability:.2f}", GREY, font)
            draw.text((left + 106, top), name, INK if right else RED, font)
    return panel
