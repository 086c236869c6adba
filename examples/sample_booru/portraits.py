"""What each post of the sample booru shows, and so its tags, decided by its number alone.

    python -c "from examples.sample_booru.portraits import Portrait; print(Portrait.of(7).general)"

Nothing is drawn here, so the tags of a thousand posts cost no time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

ARTISTS = ("inkwell_mori", "pastel_haru", "crosshatch_vey", "noir_tanaka", "papercut_lund")
COPYRIGHT = "sample_original"

HAIR = ("blonde", "brown", "black", "blue", "red", "green")
EYES = ("blue", "red", "green", "yellow")
MOUTHS = ("smile", "open_mouth", "frown")
BACKGROUND_COLOURS = ("blue", "green", "pink")

# Rating -> share in percent. A sticker in the upper left corner shows it: g is green with a disc, s amber with a star,
# q violet with a diamond, e red with a heart.
RATINGS = {"g": 40, "s": 30, "q": 15, "e": 15}

# Kind of file -> share in percent. Crawlers keep the first six and pass over the others.
KINDS = {
    "jpg": 66,
    "png": 7,
    "transparent png": 9,
    "palette png": 4,
    "webp": 6,
    "gif": 5,
    "animated gif": 1,
    "mp4": 1,
    "zip": 1,
}
STATIC_KINDS = tuple(KINDS)[:6]

# Each has looks of their own and one mark that nobody else wears; whatever is not named here varies.
CHARACTER_SHARE = 0.36
CHARACTERS: dict[str, dict[str, Any]] = {
    "mika_(sample)": {"girl": True, "hair": "blonde", "long_hair": True, "eyes": "blue", "mark": "halo"},
    "captain_rook_(sample)": {"girl": False, "hair": "black", "eyes": "green", "headwear": "hat", "mark": "eyepatch"},
    "o'hara_(sample)": {"girl": True, "hair": "red", "long_hair": True, "eyes": "green", "mark": "clover"},
    "nyx_(sample)": {"girl": True, "hair": "blue", "long_hair": False, "eyes": "red", "mark": "horns"},
    "king_juno_(sample)": {"girl": False, "hair": "brown", "long_hair": True, "eyes": "yellow", "mark": "crown"},
}


@dataclass(frozen=True)
class Portrait:
    """Everything that is visible in one post. `dx` to `cloth` vary the picture and have no tags."""

    number: int
    kind: str
    width: int
    height: int
    hidden: bool
    rating: str
    artist: str
    girl: bool
    hair: str
    long_hair: bool
    eyes: str
    mouth: str
    headwear: str  # "hat", "cat_ears" or ""
    glasses: bool
    hair_bow: bool
    scarf: bool
    blush: bool
    background: str  # a colour, "gradient", or "transparent" where the kind is "transparent png"
    dx: float
    dy: float
    scale: float
    skin: int
    cloth: int
    character: str = ""
    mark: str = ""

    @classmethod
    def of(cls, number: int, **fixed: Any) -> "Portrait":
        """The portrait of a number, the same on every machine; `fixed` fields replace what it has drawn by lot."""
        lot = Random(number)
        girl = lot.random() < 0.55
        kind = pick(lot, KINDS)
        width, height = canvas_size(lot)
        portrait = cls(
            number=number,
            kind=kind,
            width=width,
            height=height,
            hidden=lot.random() < 0.02,
            rating=pick(lot, RATINGS),
            artist=pick(lot, ARTISTS),
            girl=girl,
            hair=pick(lot, HAIR),
            long_hair=lot.random() < (0.65 if girl else 0.3),
            eyes=pick(lot, EYES),
            mouth=pick(lot, MOUTHS),
            headwear=pick(lot, {"hat": 28, "cat_ears": 22, "": 50}),
            glasses=lot.random() < 0.3,
            hair_bow=girl and lot.random() < 0.45,
            scarf=lot.random() < 0.3,
            blush=lot.random() < 0.35,
            background=pick(lot, {**dict.fromkeys(BACKGROUND_COLOURS, 20), "gradient": 40}),
            dx=lot.uniform(-0.03, 0.03),
            dy=lot.uniform(-0.02, 0.02),
            scale=lot.uniform(0.95, 1.04),
            skin=int(lot.random() * 3),
            cloth=int(lot.random() * 3),
        )
        if lot.random() < CHARACTER_SHARE:
            name = pick(lot, tuple(CHARACTERS))
            bare = {"headwear": "", "hair_bow": False, "glasses": False}  # room for the mark
            portrait = replace(portrait, **{**bare, **CHARACTERS[name], "character": name})
        portrait = replace(portrait, **fixed)
        return replace(portrait, background="transparent") if portrait.kind == "transparent png" else portrait

    @property
    def general(self) -> tuple[str, ...]:
        """The general tags in Danbooru's spelling, by name."""
        tags = {
            "solo",
            "1girl" if self.girl else "1boy",
            f"{self.hair}_hair",
            "long_hair" if self.long_hair else "short_hair",
            f"{self.eyes}_eyes",
            self.mouth,
            self.headwear,
            self.mark,
            f"{self.background}_background",
        }
        tags |= {name for name in ("glasses", "hair_bow", "scarf", "blush") if getattr(self, name)}
        if self.background in BACKGROUND_COLOURS:
            tags.add("simple_background")
        return tuple(sorted(tags - {""}))

    @property
    def meta(self) -> tuple[str, ...]:
        """The meta tags; among canvases of 300 to 480 pixels, those from 460 on count as large."""
        tags = {"animated gif": ["animated"], "mp4": ["animated", "video"], "zip": ["animated", "ugoira"]}
        return (*tags.get(self.kind, []), *(["highres"] if max(self.width, self.height) >= 460 else []))


def pick(lot: Random, options: Mapping[str, int] | Sequence[str]) -> str:
    """One option, by its weight where there are weights."""
    weights = list(options.values()) if isinstance(options, Mapping) else None
    return lot.choices(list(options), weights)[0]


def canvas_size(lot: Random) -> tuple[int, int]:
    """Width and height: square, portrait or landscape, 300 to 480 pixels a side."""
    long, shape = lot.uniform(370, 480), pick(lot, {"square": 40, "portrait": 35, "landscape": 25})
    short = long if shape == "square" else long / lot.uniform(1.08, 1.22)
    return (round(long), round(short)) if shape == "landscape" else (round(short), round(long))
