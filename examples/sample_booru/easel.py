"""Shapes in the hand of one of five artists. The coordinates are those of the face: (0, 0) is its middle, 1 is about
half its width, y points down.

    python -c "from examples.sample_booru.easel import star; print(star(0, 0, 1))"
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Point = tuple[float, float]

SUPERSAMPLING = 2  # everything is drawn at twice its size and scaled down, which smooths the edges
DARK: RGB = (45, 32, 40)


class Easel:
    """A canvas, the place of the face on it, and the artist's way to draw a shape."""

    def __init__(self, width: int, height: int, style: "Style", *, transparent: bool = False) -> None:
        self.style = style
        size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
        self.image = Image.new("RGBA", size, (255, 255, 255, 0)) if transparent else Image.new("RGB", size)
        self.pen = ImageDraw.Draw(self.image)
        self.place_face(0, 0, 1)

    def place_face(self, dx: float, dy: float, scale: float) -> None:
        """Move the face from the middle of the canvas, by shares of its size, and scale it."""
        width, height = self.image.size
        self.side = min(1.2 * width, height)  # a figure is slimmer than it is high
        self.x, self.y = width / 2 + dx * self.side, height / 2 + dy * self.side
        self.unit = self.side * 0.275 * scale

    def at(self, x: float, y: float) -> Point:
        """The pixel of a point."""
        return self.x + x * self.unit, self.y + y * self.unit

    def colour(self, colour: RGB) -> RGB:
        """The colour as this artist mixes it."""
        return mix(colour, self.style.tint, self.style.tint_share)

    def shape(self, points: Iterable[Point], colour: RGB) -> None:
        """A filled polygon, with an outline and a shadow where the style has them."""
        outline = [self.at(*point) for point in points]
        if self.style.shadow:
            shift = 0.08 * self.unit
            self.pen.polygon([(x + shift, y + shift) for x, y in outline], self.style.shadow)
        self.pen.polygon(outline, self.colour(colour))
        if self.style.outline:
            width = round(self.style.line_width * self.unit)
            self.pen.line([*outline, *outline[:2]], self.style.outline, width, joint="curve")

    def blob(self, points: Sequence[Point], colour: RGB) -> None:
        """A `shape` with a smooth edge through the points."""
        self.shape(smooth(points), colour)

    def patch(self, points: Iterable[Point], colour: RGB) -> None:
        """A polygon of nothing but its colour."""
        self.pen.polygon([self.at(*point) for point in points], self.colour(colour))

    def disc(self, x: float, y: float, width: float, height: float, colour: RGB) -> None:
        """An ellipse with these radii, of nothing but its colour."""
        self.pen.ellipse((*self.at(x - width, y - height), *self.at(x + width, y + height)), self.colour(colour))

    def stroke(self, points: Sequence[Point], width: float, colour: RGB = DARK) -> None:
        """An open line with round ends."""
        self.pen.line([self.at(*point) for point in points], self.colour(colour), round(width * self.unit), "curve")
        for x, y in (points[0], points[-1]):
            self.disc(x, y, width / 2, width / 2, colour)

    def finished(self) -> Image.Image:
        """The picture in its own size. What the style lays over it leaves transparent parts transparent."""
        if self.style.finish:
            alpha = self.image.getchannel("A") if self.image.mode == "RGBA" else None
            self.style.finish(self)
            if alpha:
                self.image.putalpha(alpha)
        return self.image.reduce(SUPERSAMPLING)


# --- the five artists -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Style:
    """An artist's hand: how colours are mixed, what surrounds every shape, and what lies over the finished picture."""

    tint: RGB = (255, 255, 255)
    tint_share: float = 0.0  # of the tint in every colour
    outline: RGB | None = None
    line_width: float = 0.0
    shadow: RGB | None = None  # thrown to the lower right
    finish: Callable[[Easel], None] | None = None


def hatch(easel: Easel) -> None:
    """Wide diagonal pen strokes over everything."""
    width, height = easel.image.size
    step = easel.side / 11
    mask = Image.new("L", (width, height))
    pen = ImageDraw.Draw(mask)
    for i in range(math.ceil((width + height) / step)):
        pen.line([(i * step, 0), (i * step - height, height)], 125, round(step * 0.24))
    easel.image.paste((50, 34, 110), mask=mask)


def side_light(easel: Easel) -> None:
    """Night falls over the right of the picture, along a slanting edge through the face."""
    width, height = easel.image.size
    mask = Image.new("L", (width, height), 45)
    edge = easel.x + 0.12 * easel.unit
    slant = 0.25 * height
    ImageDraw.Draw(mask).polygon([(edge + slant, 0), (width, 0), (width, height), (edge - slant, height)], 145)
    easel.image.paste((16, 10, 44), mask=mask)


def mount(easel: Easel) -> None:
    """A border of brown paper around the picture."""
    width, height = easel.image.size
    easel.pen.rectangle((0, 0, width - 1, height - 1), outline=(176, 136, 92), width=round(easel.side * 0.035))


STYLES = {
    "inkwell_mori": Style(outline=(12, 10, 14), line_width=0.11),
    "pastel_haru": Style(tint=(255, 246, 240), tint_share=0.42),
    "crosshatch_vey": Style(outline=(60, 48, 92), line_width=0.04, finish=hatch),
    "noir_tanaka": Style(finish=side_light),
    "papercut_lund": Style((214, 190, 150), 0.14, (255, 252, 240), 0.1, shadow=(98, 76, 62), finish=mount),
}


# --- geometry -------------------------------------------------------------------------------------------------------


def mix(colour: RGB, other: RGB, share: float) -> RGB:
    """The first colour with a share of the other."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def smooth(points: Sequence[Point], steps: int = 8) -> list[Point]:
    """A closed Catmull-Rom spline through the points."""
    curve = []
    for i, (x1, y1) in enumerate(points):
        (x0, y0), (x2, y2), (x3, y3) = (points[(i + k) % len(points)] for k in (-1, 1, 2))
        for step in range(steps):
            t = step / steps
            a, b, c, d = -t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2
            curve.append(((a * x0 + b * x1 + c * x2 + d * x3) / 2, (a * y0 + b * y1 + c * y2 + d * y3) / 2))
    return curve


def arc(x: float, y: float, width: float, height: float, start: float = 0, end: float = 360) -> list[Point]:
    """Points on the ellipse with these radii, from one angle to another, in degrees clockwise from the right."""
    angles = [math.radians(start + (end - start) * i / 24) for i in range(25)]
    return [(x + width * math.cos(angle), y + height * math.sin(angle)) for angle in angles]


def mirrored(right: Sequence[Point]) -> list[Point]:
    """The outline whose right half runs from top to bottom through these points."""
    return [*right, *((-x, y) for x, y in reversed(right) if x)]


def moved(points: Iterable[Point], dx: float, dy: float, scale: float = 1) -> list[Point]:
    """The points scaled about (0, 0), then moved."""
    return [(dx + x * scale, dy + y * scale) for x, y in points]


def star(x: float, y: float, radius: float, depth: float = 0.45) -> list[Point]:
    """The corners of a five-pointed star; `depth` is its inner radius as a share of the outer."""
    turns = [math.pi * (i / 5 - 0.5) for i in range(10)]
    radii = [radius, radius * depth] * 5
    return [(x + r * math.cos(turn), y + r * math.sin(turn)) for r, turn in zip(radii, turns, strict=True)]
