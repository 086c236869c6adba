r"""Prompts into weighted pieces: the brackets and numbers by which NovelAI, A1111, ComfyUI and InvokeAI weigh words.

    python -c "from tagger.inference.embedded.grammar import segments as s; print(s('1girl, {{hat}}', 'nai'))"

| dialect | up | down | a number | within each other | letters |
|---|---|---|---|---|---|
| nai | `{x}` 1.05 | `[x]` 1/1.05 | `1.2::x, y::` | brackets multiply, a number sets | `( )` |
| sd | `(x)` 1.1 | `[x]` 1/1.1 | `(x:1.2)` | multiply | `\(` `\)` `\[` `\]` `{ }` |
| comfy | `(x)` 1.1 | | `(x:0.8)` | brackets multiply, a number sets | `\(` `\)` `[ ]` `{ }` |
| compel | `x+` `(x)+` 1.1 each | `x-` 0.9 each | `(x)1.2` | multiply | `\(` `\)` |

Sources: NovelAI's documentation as public clients carry it out (sdwebui-nai-api, nai-cli-ts), prompt_parser.py of
stable-diffusion-webui, sd1_clip.py of ComfyUI, and the package compel. All of it is one pass over the text with
stacks, so a million brackets take no longer than a million letters.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

MAX_PROMPT = 100_000  # characters that are read; the longest real ones have some thousand
MAX_WEIGHT = 100.0  # beyond it, brackets without an end have multiplied

NAI_STEP, SD_STEP, COMPEL_DOWN = 1.05, 1.1, 0.9
# A whole number this large behind a colon is no weight: `(artist:904)` and `vertin_(reverse:1999)` are names.
SMALLEST_NAME, MAX_NAI_WEIGHT = 20, 20.0

NUMBER = r"[+-]?(?:\d{1,6}(?:\.\d{0,12})?|\.\d{1,12})"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
EXTRA_NETWORK = re.compile(r"<[A-Za-z]{1,40}:[^<>\n]{0,500}>")  # <lora:name:0.8> and its kin
KEYWORDS = re.compile(r"\b(?:BREAK|AND|ADDCOMM|ADDBASE|ADDROW|ADDCOL)\b")
# Between the tags of a prompt. A semicolon only where a blank or a prefix follows: `steins;gate` is a tag.
SEPARATOR = re.compile(r"[,、\n|\x00]|;(?=\s|$|artist:|@)")
ARTISTS_BEGIN, ARTISTS_END = "\x01", "\x02"  # stand for <artist> and </artist>


class Piece(NamedTuple):
    """Text of one weight. A piece that `splits` begins a new segment."""

    text: str
    weight: float
    splits: bool = False


@dataclass(frozen=True)
class Segment:
    """What stands between two separators: a tag, as a rule.

    Attributes:
        pieces: its text, by weight.
        in_artists: whether it stands in an <artist> block, in which everything is an artist.
    """

    pieces: tuple[Piece, ...]
    in_artists: bool = False

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def weight(self) -> float:
        """The weight of its first letter."""
        return self.weight_at(len(self.text) - len(self.text.lstrip()))

    def weight_at(self, place: int) -> float:
        """The weight of the letter at a place of the text."""
        for piece in self.pieces:
            if place < len(piece.text):
                return piece.weight
            place -= len(piece.text)
        return self.pieces[-1].weight if self.pieces else 1.0


def segments(prompt: str, dialect: str) -> list[Segment]:
    """The segments of a prompt in their order; text beyond MAX_PROMPT characters is not read.

    Args:
        dialect: a key of DIALECTS.
    """
    text = unicodedata.normalize("NFKC", CONTROL.sub("", prompt[:MAX_PROMPT].replace("\r\n", "\n")))[:MAX_PROMPT]
    text = KEYWORDS.sub("\x00", _mark_blocks(EXTRA_NETWORK.sub("", text)))
    found: list[Segment] = []
    pieces: list[Piece] = []
    in_artists = False

    def end() -> None:
        if any(piece.text.strip() for piece in pieces):
            found.append(Segment(tuple(pieces), in_artists))
        pieces.clear()

    for piece in DIALECTS[dialect](text):
        if piece.splits:
            end()
        for number, part in enumerate(_split(piece.text)):
            if number:
                end()
            for mark in re.split(f"([{ARTISTS_BEGIN}{ARTISTS_END}])", part):
                if mark in (ARTISTS_BEGIN, ARTISTS_END):
                    end()
                    in_artists = mark == ARTISTS_BEGIN
                elif mark:
                    pieces.append(Piece(mark.replace(LITERAL_COMMA, ","), piece.weight))
    end()
    return found


def _mark_blocks(text: str) -> str:
    """With <artist>...</artist> as two control characters; a block without an end is none."""
    lower = text.lower()
    parts, at = [], 0
    if len(lower) != len(text):  # a letter whose small form is longer
        return text
    while (begin := lower.find("<artist>", at)) >= 0 and (end := lower.find("</artist>", begin)) >= 0:
        parts += [text[at:begin], ARTISTS_BEGIN, text[begin + len("<artist>") : end], ARTISTS_END]
        at = end + len("</artist>")
    return "".join([*parts, text[at:]])


LITERAL_COMMA = "\x03"  # an escaped comma, which does not separate


def _split(text: str) -> list[str]:
    return SEPARATOR.split(text.replace("\\,", LITERAL_COMMA))


def bounded(weight: float) -> float:
    """A weight within ±MAX_WEIGHT."""
    return max(-MAX_WEIGHT, min(MAX_WEIGHT, weight))


# --- NovelAI --------------------------------------------------------------------------------------------------------

# A number is a weight at the start and behind what cannot belong to a name; other `::` end all weights.
NAI_TOKEN = re.compile(rf"(?<![^\s,{{}}\[\]|:\x01\x02])({NUMBER})::|(::)|([{{}}\[\]])")


def _nai(text: str) -> Iterator[Piece]:
    weight = 1.0
    opened: list[tuple[str, float]] = []  # the closing bracket, and the weight before the opening one
    at, splits = 0, False
    for token in NAI_TOKEN.finditer(text):
        number, end, bracket = token.groups()
        if number and abs(float(number)) > MAX_NAI_WEIGHT:  # `artist:904::`: a name that is glued to the end
            number, end = None, "::"
            stop = token.end() - 2
        else:
            stop = token.start()
        yield Piece(text[at:stop], bounded(weight), splits)
        at, splits = token.end(), not bracket
        if number:
            weight = float(number)
            opened.clear()
        elif end:
            weight = 1.0
            opened.clear()
        elif bracket in "{[":
            opened.append(("}" if bracket == "{" else "]", weight))
            weight = weight * NAI_STEP if bracket == "{" else weight / NAI_STEP
        elif opened and opened[-1][0] == bracket:
            weight = opened.pop()[1]
    yield Piece(text[at:], bounded(weight), splits)


# --- brackets of the others -----------------------------------------------------------------------------------------


class _Token(NamedTuple):
    """A bracket, a colon or a bar that is not escaped, and its place in the text."""

    kind: str
    begin: int
    end: int


@dataclass
class _Group:
    """What stands between two brackets.

    Attributes:
        factor: by which the weight is multiplied.
        number: the weight that is given, or None.
        is_schedule: `[a:b:0.4]` or `[a|b]`, which weighs nothing and whose colons separate.
        tail: where the number, which is no text, begins.
        end: where the text goes on behind it.
    """

    factor: float
    number: float | None = None
    is_schedule: bool = False
    tail: int = 0
    end: int = 0


COLON_NUMBER = re.compile(rf"\s*:\s*({NUMBER})\s*$")
TAIL_REACH = 40  # characters before a closing bracket in which its number stands


def _is_weight(number: str) -> bool:
    return "." in number or abs(int(number)) < SMALLEST_NAME


def _number_before(text: str, begin: int, close: int, is_weight: Callable[[str], bool]) -> tuple[float, int] | None:
    """The number behind a colon that ends a group, and the colon's place."""
    reach = max(begin, close - TAIL_REACH)
    match = COLON_NUMBER.search(text[reach:close])
    if match and is_weight(match[1]):
        return float(match[1]), reach + match.start()
    return None


def _tokens(text: str, characters: str) -> list[_Token]:
    r"""The characters of a set that have no backslash before them; `\\` is a backslash."""
    pattern = re.compile(rf"\\.|[{re.escape(characters)}]", re.DOTALL)
    return [_Token(m[0], m.start(), m.end()) for m in pattern.finditer(text) if m[0][0] != "\\"]


# --- A1111 ----------------------------------------------------------------------------------------------------------

SD_CLOSERS = {")": "(", "]": "["}


def _sd(text: str) -> Iterator[Piece]:
    tokens = _tokens(text, "()[]:|")
    groups = _sd_groups(text, tokens)
    weights = [1.0]
    schedules = [False]
    at = 0
    for token in tokens:
        if token.begin < at:  # within a number that was passed over
            continue
        group = groups.get(token.begin)
        if token.kind in "([":
            # An opening bracket without an end acts to the end of the text, as one in the original parser does.
            yield Piece(text[at : token.begin], bounded(weights[-1]))
            assert group is not None  # every opening bracket has a group
            weights.append(weights[-1] * (group.factor if group.number is None else group.number))
            schedules.append(group.is_schedule)
            at = token.end
        elif token.kind in ")]" and group is not None:
            yield Piece(text[at : group.tail], bounded(weights[-1]))
            weights.pop()
            schedules.pop()
            at = group.end
        elif token.kind == ":" and schedules[-1] and not _ends_in_prefix(text, at, token.begin):
            yield Piece(text[at : token.begin] + "\x00", bounded(weights[-1]))
            at = token.end
    yield Piece(text[at:], bounded(weights[-1]))


def _ends_in_prefix(text: str, at: int, colon: int) -> bool:
    return text[max(at, colon - 10) : colon].rstrip().lower().endswith("artist")


def _sd_groups(text: str, tokens: list[_Token]) -> dict[int, _Group]:
    """The group that each bracket opens or closes, by the bracket's place; a stray closing bracket has none."""
    groups: dict[int, _Group] = {}
    opened: list[tuple[_Token, list[bool]]] = []  # and whether a bar stands directly within
    for token in tokens:
        if token.kind in "([":
            opened.append((token, [False]))
            groups[token.begin] = _Group(SD_STEP if token.kind == "(" else 1 / SD_STEP)
        elif token.kind == "|" and opened:
            opened[-1][1][0] = True
        elif token.kind in ")]" and opened and opened[-1][0].kind == SD_CLOSERS[token.kind]:
            opener, (has_bar,) = opened.pop()
            group = groups[opener.begin]
            group.tail, group.end = token.begin, token.end
            # The step at which a schedule begins may be any number, a weight only a small one.
            found = _number_before(text, opener.end, token.begin, _is_weight if token.kind == ")" else lambda _: True)
            if found and token.kind == ")":
                group.number, group.tail = found
            elif found and not _ends_in_prefix(text, opener.end, found[1]):
                group.factor, group.is_schedule, group.tail = 1.0, True, found[1]
            elif has_bar and token.kind == "]":
                group.factor, group.is_schedule = 1.0, True
            groups[token.begin] = group
    return groups


# --- ComfyUI and compel ---------------------------------------------------------------------------------------------


def _partners(tokens: list[_Token]) -> tuple[dict[int, int], int | None]:
    """The closing parenthesis of each opening one by their places, and the first that has no other, or None."""
    partners: dict[int, int] = {}
    opened: list[int] = []
    stray: list[int] = []
    for token in tokens:
        if token.kind == "(":
            opened.append(token.begin)
        elif opened:
            partners[opened.pop()] = token.begin
        else:
            stray.append(token.begin)
    return partners, min(opened + stray, default=None)


def _comfy(text: str) -> Iterator[Piece]:
    tokens = _tokens(text, "()")
    partners, literal_from = _partners(tokens)
    ends: dict[int, int] = {}  # where the text of a group ends, by the place of its closing parenthesis
    weights = [1.0]
    at = 0
    for token in tokens:
        if literal_from is not None and token.begin >= literal_from:
            break  # as ComfyUI has it: brackets without their other half leave the text as it is
        if token.kind == "(":
            yield Piece(text[at : token.begin], bounded(weights[-1]))
            close = partners[token.begin]
            found = _number_before(text, token.end, close, _is_weight)
            weights.append(found[0] if found else weights[-1] * SD_STEP)
            ends[close] = found[1] if found else close
        else:
            yield Piece(text[at : ends[token.begin]], bounded(weights.pop()))
        at = token.end
    yield Piece(text[at:], bounded(weights[0]))


COMPEL_SUFFIX = re.compile(rf"\+{{1,60}}|-{{1,60}}|{NUMBER}")
COMPEL_WORD = re.compile(r"(?<=[^\s+\-,(])(\+{1,60}|-{1,60})(?=[\s,)]|$)")


def _compel_factor(suffix: str) -> float:
    if suffix.strip("+-"):
        return float(suffix)
    return SD_STEP ** len(suffix) if suffix[0] == "+" else COMPEL_DOWN ** len(suffix)


def _compel(text: str) -> Iterator[Piece]:
    tokens = _tokens(text, "()")
    partners, _ = _partners(tokens)
    closing = {close: opening for opening, close in partners.items()}
    weights = [1.0]
    at = 0
    for token in tokens:
        yield from _compel_words(text[at : token.begin], weights[-1])
        at = token.end
        if token.begin in partners:
            suffix = COMPEL_SUFFIX.match(text, partners[token.begin] + 1)
            weights.append(weights[-1] * (_compel_factor(suffix[0]) if suffix else 1.0))
        elif token.begin in closing:
            weights.pop()
            if suffix := COMPEL_SUFFIX.match(text, at):
                at = suffix.end()
    yield from _compel_words(text[at:], weights[-1])


def _compel_words(text: str, weight: float) -> Iterator[Piece]:
    """A tag with `+` or `-` behind it has a weight of its own."""
    at = 0
    for match in COMPEL_WORD.finditer(text):
        begin = max(text.rfind(",", at, match.start()), text.rfind("\n", at, match.start())) + 1 or at
        yield Piece(text[at:begin], bounded(weight))
        yield Piece(text[begin : match.start()], bounded(weight * _compel_factor(match[1])))
        at = match.end()
    yield Piece(text[at:], bounded(weight))


# --- all ------------------------------------------------------------------------------------------------------------

DIALECTS: dict[str, Callable[[str], Iterator[Piece]]] = {"nai": _nai, "sd": _sd, "comfy": _comfy, "compel": _compel}
