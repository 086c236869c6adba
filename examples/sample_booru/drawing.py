"""The sample booru's posts, drawn with Pillow: cartoon portraits with the tags that portraits.py decides on.

    python -m examples.sample_booru draw --output-dir ./portraits --posts 40

A tiny model must learn every tag from pictures of 84 x 84 pixels, so features are large and each has its own colour.
"""

import io
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageOps

from examples.sample_booru.easel import RGB, STYLES, Easel, arc, mirrored, mix, moved, smooth, star
from examples.sample_booru.portraits import COPYRIGHT, STATIC_KINDS, Portrait

WHITE: RGB = (255, 255, 255)
GOLD: RGB = (255, 200, 30)
SCARLET: RGB = (235, 40, 50)
HAIR: dict[str, RGB] = {
    "blonde": (252, 213, 80),
    "brown": (146, 84, 40),
    "black": (26, 26, 38),
    "blue": (45, 92, 214),
    "red": (216, 46, 36),
    "green": (36, 164, 74),
}
EYES: dict[str, RGB] = {"blue": (36, 120, 245), "red": (225, 30, 45), "green": (30, 170, 75), "yellow": (250, 190, 20)}
BACKGROUNDS: dict[str, RGB] = {"blue": (140, 192, 242), "green": (150, 212, 150), "pink": (248, 168, 198)}
SUNSET: tuple[RGB, RGB] = (118, 78, 190), (255, 186, 96)
SKINS: tuple[RGB, ...] = (255, 225, 200), (243, 200, 165), (216, 162, 120)
CLOTHES: tuple[RGB, ...] = (92, 98, 122), (236, 230, 216), (150, 112, 160)
STICKERS: dict[str, RGB] = {"g": (40, 175, 80), "s": (252, 176, 0), "q": (140, 60, 220), "e": SCARLET}
HEART = smooth(mirrored([(0.0, -0.55), (0.35, -0.95), (0.85, -0.85), (0.98, -0.3), (0.6, 0.35), (0.0, 0.95)]))


@dataclass(frozen=True)
class Post:
    """One post of the booru: its tags by category, and its file."""

    number: int
    rating: str
    general: tuple[str, ...]
    artist: tuple[str, ...]
    character: tuple[str, ...]
    copyright: tuple[str, ...]
    meta: tuple[str, ...]
    file_ext: str
    width: int
    height: int
    data: bytes
    is_static: bool
    hidden: bool


def draw_post(number: int, **fixed: Any) -> Post:
    """The post of a number, always the same with one version of Pillow; `fixed` are fields of Portrait to force."""
    portrait = Portrait.of(number, **fixed)
    return Post(
        number=number,
        rating=portrait.rating,
        general=portrait.general,
        artist=(portrait.artist,),
        character=(portrait.character,) if portrait.character else (),
        copyright=(COPYRIGHT,),
        meta=portrait.meta,
        file_ext=portrait.kind.split()[-1],
        width=portrait.width,
        height=portrait.height,
        data=encode(portrait),
        is_static=portrait.kind in STATIC_KINDS,
        hidden=portrait.hidden,
    )


def encode(portrait: Portrait) -> bytes:
    """The bytes of the post's file."""
    if portrait.kind == "mp4":
        return b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"no film, post %d" % portrait.number
    if portrait.kind == "zip":
        return b"PK\x05\x06" + bytes(18) + b"no frames, post %d" % portrait.number
    image = draw_portrait(portrait)
    out = io.BytesIO()
    match portrait.kind:
        case "jpg":
            image.save(out, "JPEG", quality=92)
        case "png" | "transparent png":
            image.save(out, "PNG", compress_level=3)
        case "palette png":
            image.quantize(128, Image.Quantize.FASTOCTREE).save(out, "PNG")
        case "webp":
            image.save(out, "WEBP", quality=90, method=0)
        case "gif":
            image.quantize(128, Image.Quantize.FASTOCTREE).save(out, "GIF")
        case "animated gif":
            frames = [frame.quantize(16) for frame in (image, ImageOps.mirror(image))]
            frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=400, loop=0)
    return out.getvalue()


def draw_portrait(portrait: Portrait) -> Image.Image:
    """The picture, RGBA where its background is transparent and RGB elsewhere. From back to front."""
    style = STYLES[portrait.artist]
    easel = Easel(portrait.width, portrait.height, style, transparent=portrait.background == "transparent")
    draw_background(easel, portrait)
    easel.place_face(portrait.dx, portrait.dy + 0.03, portrait.scale)
    draw_behind_the_head(easel, portrait)
    draw_shoulders(easel, portrait)
    draw_face(easel, portrait)
    draw_eyes(easel, portrait)
    draw_fringe(easel, portrait)
    draw_on_the_head(easel, portrait)
    easel.place_face(0, 0, 1)
    draw_sticker(easel, portrait)
    return easel.finished()


def draw_background(easel: Easel, portrait: Portrait) -> None:
    if portrait.background == "gradient":
        ramp = Image.linear_gradient("L").resize(easel.image.size)
        above, below = (Image.new("RGB", ramp.size, easel.colour(colour)) for colour in SUNSET)
        easel.image.paste(Image.composite(below, above, ramp))
    elif portrait.background in BACKGROUNDS:
        easel.image.paste(easel.colour(BACKGROUNDS[portrait.background]), (0, 0, *easel.image.size))


def draw_behind_the_head(easel: Easel, portrait: Portrait) -> None:
    """What the head hides in part: halo, horns, ears, and the back of the hair."""
    hair = HAIR[portrait.hair]
    if portrait.mark == "halo":
        easel.shape(arc(0, -0.75, 1.45, 1.0), GOLD)
        easel.disc(0, -0.75, 1.2, 0.78, mix(GOLD, WHITE, 0.75))
    for side in (-1, 1):
        if portrait.mark == "horns":
            horn = [(0.45, -1.0), (0.95, -1.35), (1.0, -1.72), (1.35, -1.3), (1.25, -0.85), (0.9, -0.5)]
            easel.blob([(x * side, y) for x, y in horn], (170, 20, 40))
        if portrait.headwear == "cat_ears":
            easel.shape([(0.15 * side, -1.15), (1.02 * side, -1.78), (1.2 * side, -0.5)], hair)
            easel.shape([(0.42 * side, -1.18), (0.93 * side, -1.57), (1.03 * side, -0.8)], (255, 120, 165))
    if portrait.long_hair:
        back = [(0.0, -1.28), (0.75, -1.1), (1.2, -0.4), (1.28, 0.5), (1.5, 1.5), (1.25, 2.1), (0.6, 2.0)]
    else:
        back = [(0.0, -1.28), (0.75, -1.1), (1.18, -0.4), (1.16, 0.3), (0.85, 0.75)]
    easel.blob(mirrored(back), mix(hair, (20, 10, 30), 0.2))


def draw_shoulders(easel: Easel, portrait: Portrait) -> None:
    skin = SKINS[portrait.skin]
    easel.shape(mirrored([(0.3, 0.8), (0.32, 1.5)]), mix(skin, (150, 60, 50), 0.2))
    below = easel.image.height / easel.unit  # surely past the lower edge
    easel.shape(mirrored([(0.0, 1.52), (0.38, 1.36), (0.85, 1.5), (1.15, 1.8), (1.25, below)]), CLOTHES[portrait.cloth])
    if portrait.scarf:
        orange = (255, 122, 20)
        easel.shape([(0.25, 1.4), (0.8, 1.4), (0.9, 2.2), (0.4, 2.25)], mix(orange, WHITE, 0.3))
        easel.blob(mirrored([(0.0, 1.14), (0.65, 1.04), (0.98, 1.3), (0.7, 1.6), (0.0, 1.7)]), orange)


def draw_face(easel: Easel, portrait: Portrait) -> None:
    skin = SKINS[portrait.skin]
    for side in (-1, 1):
        easel.blob([(x * side, y) for x, y in [(0.85, -0.05), (1.08, -0.02), (1.06, 0.3), (0.85, 0.38)]], skin)
    jaw = [(0.95, 0.1), (0.88, 0.6), (0.5, 1.02), (0.0, 1.16)]
    easel.blob(mirrored([(0.0, -1.0), (0.6, -0.85), (0.92, -0.4), *jaw]), skin)
    if not portrait.girl:
        inner, outer = [(0.0, 1.06), (0.36, 1.02), (0.66, 0.72), (0.8, 0.3)], [(1.02, 0.2), (0.95, 0.85), (0.55, 1.28)]
        easel.blob(mirrored([*inner, *outer, (0.0, 1.4)]), HAIR[portrait.hair])
    if portrait.blush:
        for x in (-0.64, 0.64):
            easel.disc(x, 0.58, 0.31, 0.21, mix(skin, (250, 60, 85), 0.7))
    easel.stroke([(-0.03, 0.38), (0.05, 0.42)], 0.06, mix(skin, (150, 60, 50), 0.5))
    match portrait.mouth:
        case "smile":
            grin = arc(0, 0.62, 0.46, 0.38, 0, 180)
            easel.patch(grin, WHITE)
            easel.stroke([*grin, grin[0]], 0.08)
        case "frown":
            easel.stroke(arc(0, 1.0, 0.42, 0.34, 190, 350), 0.17)
        case "open_mouth":
            easel.disc(0, 0.76, 0.28, 0.26, (140, 16, 40))
            easel.disc(0, 0.88, 0.17, 0.11, (245, 110, 120))


def draw_eyes(easel: Easel, portrait: Portrait) -> None:
    iris = EYES[portrait.eyes]
    for side in (-1, 1):
        x = 0.46 * side
        if portrait.mark == "eyepatch" and side == 1:
            easel.stroke([(-0.9, -0.62), (0.5, 0.1), (1.0, 0.25)], 0.09, (20, 20, 24))
            easel.blob([(0.12, -0.16), (0.8, -0.16), (0.78, 0.28), (0.46, 0.5), (0.14, 0.28)], (20, 20, 24))
            continue
        if portrait.glasses:
            easel.disc(x, 0.12, 0.46, 0.46, (205, 240, 255))
        easel.disc(x, 0.1, 0.33, 0.35, WHITE)
        easel.disc(x, 0.11, 0.26, 0.3, mix(iris, (0, 0, 0), 0.3))
        easel.disc(x, 0.15, 0.23, 0.24, iris)
        easel.disc(x, 0.1, 0.09, 0.13, (20, 16, 26))
        easel.disc(x - 0.09, -0.01, 0.08, 0.09, WHITE)
        if portrait.girl:
            easel.stroke(arc(x, 0.12, 0.35, 0.38, 200, 340), 0.11)
            easel.stroke([(x + 0.3 * side, 0.0), (x + 0.48 * side, -0.12)], 0.09)
        else:
            easel.stroke(arc(x, 0.12, 0.34, 0.37, 215, 325), 0.06)
        if portrait.glasses:
            easel.stroke(arc(x, 0.12, 0.45, 0.45), 0.09, (40, 40, 60))
    if portrait.glasses:
        easel.stroke([(-0.05, 0.08), (0.05, 0.08)], 0.09, (40, 40, 60))


def draw_fringe(easel: Easel, portrait: Portrait) -> None:
    """Locks over the forehead; long hair also falls beside the face."""
    hair = HAIR[portrait.hair]
    if portrait.long_hair:
        for side in (-1, 1):
            lock = [(0.75, -0.8), (1.12, -0.3), (1.2, 0.5), (1.28, 1.35), (1.02, 1.55), (0.92, 0.8), (0.88, 0.0)]
            easel.blob([(x * side, y) for x, y in lock], hair)
    tips = [(1.0, 0.0), (0.74, -0.52), (0.45, -0.36), (0.2, -0.58), (-0.12, -0.36), (-0.4, -0.6), (-0.66, -0.38)]
    easel.blob(
        [(0.0, -1.3), (0.72, -1.12), (1.12, -0.5), *tips, (-0.84, -0.5), (-1.0, 0.0), (-1.12, -0.5), (-0.72, -1.12)],
        hair,
    )
    easel.stroke(arc(0, -0.45, 0.72, 0.45, 205, 265), 0.1, mix(hair, WHITE, 0.35))


def draw_on_the_head(easel: Easel, portrait: Portrait) -> None:
    if portrait.headwear == "hat":
        teal = (0, 128, 132)
        easel.blob(mirrored([(0.0, -1.72), (0.6, -1.62), (0.88, -1.2), (0.92, -0.72), (0.0, -0.62)]), teal)
        easel.shape(mirrored([(0.91, -1.02), (0.93, -0.72)]), GOLD)
        easel.blob(mirrored([(0.0, -0.82), (0.9, -0.82), (1.5, -0.68), (0.9, -0.55), (0.0, -0.52)]), teal)
    if portrait.mark == "crown":
        crown = [(0.0, -1.72), (0.3, -1.3), (0.78, -1.7), (0.82, -0.8)]
        easel.shape(mirrored(crown), GOLD)
        for x in (-0.45, 0.0, 0.45):
            easel.disc(x, -1.0, 0.12, 0.12, SCARLET if x else (40, 90, 220))
    if portrait.mark == "clover":
        for x, y in ((-0.22, -0.22), (0.22, -0.22), (-0.22, 0.22), (0.22, 0.22)):
            easel.shape(arc(0.78 + x, -0.85 + y, 0.25, 0.25), (20, 200, 90))
        easel.disc(0.78, -0.85, 0.14, 0.14, (190, 250, 150))
    if portrait.hair_bow:
        pink = (255, 70, 160)
        for side in (-1, 1):
            wing = [(0.0, -0.08), (0.58, -0.45), (0.64, 0.4), (0.0, 0.1)]
            easel.blob([(0.85 + x * side, -0.75 + y) for x, y in wing], pink)
        easel.shape(arc(0.85, -0.75, 0.16, 0.18), mix(pink, WHITE, 0.4))


def draw_sticker(easel: Easel, portrait: Portrait) -> None:
    """The rating, in the upper left corner: a green sticker with a disc, amber with a star, violet with a diamond, or
    red with a heart.
    """
    width, height = easel.image.size
    x, y = 0.5 - width / 2 / easel.unit, 0.5 - height / 2 / easel.unit
    easel.disc(x, y, 0.44, 0.44, WHITE)
    easel.disc(x, y, 0.38, 0.38, STICKERS[portrait.rating])
    match portrait.rating:
        case "g":
            easel.disc(x, y, 0.19, 0.19, WHITE)
        case "s":
            easel.patch(star(x, y, 0.31), WHITE)
        case "q":
            easel.patch([(x, y - 0.28), (x + 0.24, y), (x, y + 0.28), (x - 0.24, y)], WHITE)
        case "e":
            easel.patch(moved(HEART, x, y + 0.02, 0.25), WHITE)
