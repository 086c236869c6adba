"""The tag list beside an image (<stem>.txt): splitting it, and reading a tag in any spelling that people write.

    python -c "from tagger.formats.tag_lists import TagReader; print(TagReader().read('(long hair:1.2), 1girl'))"

Danbooru's spelling is the one that the toolkit works with: lower case, underscores for blanks, no escapes.
"""

import re
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from pathlib import Path

from tagger.files import UserError, read_text
from tagger.formats.pairs import CAPTION_SUFFIX, folders_of

# Semicolons separate where a blank or the line's end follows: `;d` and `steins;gate` are tags.
SEPARATOR = re.compile(r"[,，、\r\n]|\|\|\||(?<=[^\s,，、;]);+(?=\s|$)", re.MULTILINE)
MAX_TAG_LENGTH = 255  # characters; Danbooru's limit is 170
# Control characters, and the invisible ones that come along from web pages and from files joined together.
INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff\ud800-\udfff]")

# Danbooru's emoticons, whose underscores are faces and no blanks (the list of the wd-tagger Space).
KAOMOJI = frozenset(
    (
        *("0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3", "6_9"),
        *(">_o", "@_@", "^_^", "o_o", "u_u", "x_x", "|_|", "||_||"),
    )
)

# --- lists ----------------------------------------------------------------------------------------------------------


def parse_tags(text: str) -> list[str]:
    """Tags in their order and as they are written: blanks around them stripped, empty ones and repetitions dropped.

    Commas (also Chinese and Japanese ones), line ends, `|||` and a semicolon with a blank behind it separate.
    """
    parts = (part.strip().strip("\ufeff").strip() for part in SEPARATOR.split(text))
    return list(dict.fromkeys(part for part in parts if part))


def format_tags(names: Iterable[str]) -> str:
    """The content of a txt file: `general,1girl,whiskey`, without a line end."""
    return ",".join(names)


def read_tags(path: Path | str, encoding_hint: str = "save it as UTF-8") -> list[str]:
    """The tags of one txt file (UTF-8), as they are written; see `parse_tags`.

    Args:
        encoding_hint: ends the error for text in another encoding.

    Raises:
        UserError: missing, unreadable or not UTF-8.
    """
    return parse_tags(read_text(path, "write its tags, separated by commas", encoding_hint))


def tag_files(folder: Path | str, hint: str = "name another folder", recursive: bool = False) -> list[Path]:
    """The txt files of a dataset folder, by name.

    Args:
        hint: ends the error where there are none.
        recursive: those of the folders below it, too.

    Raises:
        UserError: there is no such folder, or no txt file in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {hint}")
    paths = (path for each in folders_of(folder, recursive) for path in each.glob(f"*{CAPTION_SUFFIX}"))
    found = sorted(path for path in paths if not path.name.startswith("."))
    if not found:
        raise UserError(f"{folder}: no .txt files; {hint}")
    return found


def is_usable(name: str) -> bool:
    """Whether a tag can stand in a CSV and on a screen: not endless, and without control or invisible characters."""
    return 0 < len(name) <= MAX_TAG_LENGTH and not INVISIBLE.search(name)


def usable_tags(written: Iterable[str]) -> list[str]:
    """Of tags as they are written those whose name is usable, however it is read; tabs and the like are blanks.

    A list that is not written with commas, as in JSON, may hold tags with a comma in them: no caption could.
    """
    return [tag for tag in written if is_usable(danbooru_spelling(tag)) and "," not in tag]


# --- spelling -------------------------------------------------------------------------------------------------------


def danbooru_spelling(name: str) -> str:
    """`long hair` as Danbooru writes it."""
    return "_".join(name.split())


def spell(name: str, *, spaces: bool = False, escape: bool = False) -> str:
    """A tag as it stands in a caption or a prompt."""
    if spaces and name not in KAOMOJI:
        name = name.replace("_", " ")
    if escape:
        name = name.replace("(", "\\(").replace(")", "\\)")
    return name


def unescaped(name: str) -> str:
    r"""Without the backslashes before parentheses; a name with a bare parenthesis beside an escaped one is no escape.

    So `saber_\(fate\)` loses them, and the emoticons `\(^o^)/` and `\m/` are left as they are.
    """
    if re.search(r"(?<!\\)[()]", name):
        return name
    return re.sub(r"\\([()])", r"\1", name)


WORD = re.compile(r"[^\W_]{2,}")  # what an emoticon has not got
NUMBER = r"-?(?:\d{1,2}(?:\.\d*)?|\.\d+)"  # of a weight: `vertin_(reverse:1999)` is a character
NOVELAI_WEIGHT = re.compile(rf"{NUMBER}::(.+?)(?:::)?|([^:].*)::")
COLON_WEIGHT = re.compile(rf"(.+?)\s*:\s*{NUMBER}\s*(\)+)")
BRACKETS = {"(": ")", "[": "]", "{": "}"}


def unweighted(name: str) -> str:
    """Without the weight that a prompt gives it: `(smile:1.2)`, `((smile))`, `[hat]`, `{hat}`, `1.2::hat::`.

    A tag within a group, such as `(long hair` of `(long hair, blue eyes:1.2)`, loses its half of the brackets. What is
    left must hold a word, so that `:)`, `(9)` and `(o)_(o)` stay.
    """
    inner = name
    while True:
        if match := NOVELAI_WEIGHT.fullmatch(inner):
            inner = match[1] or match[2]
        elif match := COLON_WEIGHT.fullmatch(inner):
            inner = match[1] + match[2]
        partners = _bracket_partners(inner)
        last = len(inner) - 1
        begin = 1 if 0 in partners and partners[0] in (None, last) else 0
        end = last if last in partners and partners[last] in (None, 0) else last + 1
        shorter = inner[begin:end].strip()
        if not WORD.search(shorter):
            return name
        if shorter == inner:
            return inner
        inner = shorter


def _bracket_partners(text: str) -> dict[int, int | None]:
    """Where each bracket's other half stands; None where it has none. Escaped brackets are none."""
    partners: dict[int, int | None] = {}
    open_at: list[int] = []
    for at, character in enumerate(text):
        if at and text[at - 1] == "\\":
            continue
        if character in BRACKETS:
            partners[at] = None
            open_at.append(at)
        elif character in BRACKETS.values():
            opener = open_at.pop() if open_at and BRACKETS[text[open_at[-1]]] == character else None
            partners[at] = opener
            if opener is not None:
                partners[opener] = at
    return partners


NO_NAMES: Mapping[str, str] = {}


class TagReader:
    """Reads tags in every spelling that people and this toolkit write, and gives them as Danbooru spells them.

    Blanks become underscores, escapes and weights are undone. A name that is known as it stands is never changed, and
    of several ways to read one the known one wins, whether it has blanks (in a vocabulary of its own) or underscores.
    Of a tag with several names, one is used.

    Args:
        known: names to go by, such as a vocabulary's; without any, the rules alone decide.
        canonical: the names that are used, by other names in Danbooru's spelling; see tag_relations.canonical_names.

    Attributes:
        names: what was read so far, by what stood there.
        weights: those of them that had weights; for a word to the user.
        renamed: the names that were read as others, with these; for another word.
    """

    def __init__(self, known: Container[str] = (), canonical: Mapping[str, str] = NO_NAMES) -> None:
        self.known, self.canonical = known, canonical
        self.names: dict[str, str] = {}
        self.weights: dict[str, str] = {}
        self.renamed: dict[str, str] = {}

    def read(self, text: str) -> list[str]:
        """The tags of a list in their order, without repetitions."""
        return list(dict.fromkeys(map(self.name, parse_tags(text))))

    def name(self, written: str) -> str:
        """One tag, as it is spelt in `known`, or else by Danbooru."""
        if written not in self.names:
            name = self._name(written)
            used = self.canonical.get(danbooru_spelling(name), name) if self.canonical else name
            if used != name:
                self.renamed[name] = used
            self.names[written] = used
        return self.names[written]

    def weights_in_words(self) -> str:
        """`3 different tags had weights, such as (hat:1.2) for hat`; empty where none had."""
        if not self.weights:
            return ""
        written, bare = next(iter(self.weights.items()))
        number = f"{len(self.weights)} different tags" if len(self.weights) > 1 else "1 tag"
        return f"{number} had weights, such as {written} for {self.names.get(written, bare)}"

    def renamed_in_words(self) -> str:
        """`3 tags read under another name, such as headgear_hat as hat`; empty where there was none."""
        if not self.renamed:
            return ""
        name, used = next(iter(self.renamed.items()))
        number = f"{len(self.renamed):,} tags" if len(self.renamed) > 1 else "1 tag"
        return f"{number} read under another name, such as {name} as {used}"

    def _name(self, written: str) -> str:
        bare = unweighted(written)
        readings = [written, danbooru_spelling(written), unescaped(written), danbooru_spelling(unescaped(written))]
        known = next((reading for reading in readings if reading in self.known), None)
        if known is None and bare != written:
            self.weights[written] = bare
            plain = unescaped(bare)
            readings = [bare, danbooru_spelling(bare), plain, danbooru_spelling(plain)]
            known = next((reading for reading in readings if reading in self.known), None)
        if known is not None:
            return known
        plainest = readings[-1]
        # What is left may be written in a way of its own: `\(smile\)` is the weight `(smile)`, escaped.
        return plainest if plainest == written else self._name(plainest)


SHORTEST_LOOKALIKE = 5  # letters; among shorter names nearly every one has a neighbour


def lookalikes(new: Collection[str], known: Collection[str]) -> dict[str, str]:
    """For each new name that is probably a misspelling of a known one, that one.

    Two names are close where one letter can be taken from each so that the rests are equal (the symmetric delete
    algorithm): a letter more, less, other, or exchanged with its neighbour. Case and punctuation do not count. Digits
    do: `1girl` and `2girls` are two tags.
    """
    few, many = (new, known) if len(new) < len(known) else (known, new)  # the rests of the few are kept in memory
    by_rest: dict[str, list[str]] = {}
    for name in few:
        for rest in _rests(name):
            by_rest.setdefault(rest, []).append(name)
    found: dict[str, str] = {}
    for name in many:
        for rest in _rests(name):
            for other in by_rest.get(rest, ()):
                misspelt, right = (other, name) if few is new else (name, other)
                if misspelt != right and re.sub(r"\D", "", misspelt) == re.sub(r"\D", "", right):
                    found.setdefault(misspelt, right)
    return found


def lookalikes_in_words(found: Mapping[str, str], uses: Mapping[str, int], limit: int = 10) -> str:
    """`1gril for 1girl (2 uses), ...`: what `lookalikes` found, by falling number of uses."""
    names = sorted(found, key=lambda name: (-uses[name], name))
    words = [f"{name} for {found[name]} ({uses[name]} use{'' if uses[name] == 1 else 's'})" for name in names[:limit]]
    return ", ".join(words) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _rests(name: str) -> Iterator[str]:
    """A name's letters, and what is left of them without each one."""
    letters = re.sub(r"[\W_]", "", name.casefold())
    if len(letters) >= SHORTEST_LOOKALIKE:
        yield letters
        for at in range(len(letters)):
            yield letters[:at] + letters[at + 1 :]
