"""A vocabulary as bytes that are read in a thousandth of its CSV's time: a name is only decoded when it is asked for.

    python -c "from tagger.formats.packed_vocabulary import pack, unpack; from tagger.formats.vocabulary import *; \\
        print(unpack(pack(read_vocabulary('selected_tags.csv'))).name(4))"

Bytes are a line of JSON; for each label the number of its category, one byte; where each name begins, uint32 in the
machine's own byte order; and the names, a line each. They are for a cache, and trusted: it has a checksum of them.
"""

import json
from array import array
from functools import cached_property

from tagger.formats.vocabulary import Category, Vocabulary, category_of

CODES = 256  # categories at most


class PackedVocabulary(Vocabulary):
    """A vocabulary without counts, made by `unpack`. Lists of all names or categories are made when they are asked for.

    Args:
        kinds: the categories, by their numbers in `codes`.
        named: those of them that have a label with a name.
        codes: C numbers.
        starts: C + 1 places in `text`.
        text: C names in UTF-8, each with a line end behind it.
    """

    def __init__(
        self, kinds: list[Category], named: list[Category], codes: bytes, starts: "array[int]", text: bytes
    ) -> None:
        vars(self).update(_all_kinds=kinds, _named=named, _codes=codes, _starts=starts, _text=text)

    _all_kinds: list[Category]
    _named: list[Category]
    _codes: bytes
    _starts: "array[int]"
    _text: bytes

    def __len__(self) -> int:
        return len(self._codes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(self._text.decode("utf-8", "surrogatepass").split("\n")[:-1])

    @cached_property
    def categories(self) -> tuple[Category, ...]:
        return tuple(map(self._all_kinds.__getitem__, self._codes))

    def name(self, label: int) -> str:
        return self._text[self._starts[label] : self._starts[label + 1] - 1].decode("utf-8", "surrogatepass")

    def category(self, label: int) -> Category:
        return self._all_kinds[self._codes[label]]

    def _kinds(self) -> list[Category]:
        return self._named

    def indices(self, category: Category) -> list[int]:
        if category not in self._named:
            return []
        code, find, starts = self._all_kinds.index(category), self._codes.find, self._starts
        labels, label = [], find(code)
        while label >= 0:  # a search for each, because what is asked for most is four ratings among 200,000 labels
            if starts[label + 1] - starts[label] > 1:  # it has a name
                labels.append(label)
            label = find(code, label + 1)
        return labels


def pack(vocabulary: Vocabulary) -> bytes | None:
    """All but the counts; None where that cannot be: a name is several lines, or there are very many categories."""
    kinds = list(dict.fromkeys(vocabulary.categories))
    names = [name.encode("utf-8", "surrogatepass") for name in vocabulary.names]
    if len(kinds) > CODES or any(b"\n" in name for name in names):
        return None
    number = {kind: place for place, kind in enumerate(kinds)}
    starts = array("I", [0])
    for name in names:
        starts.append(starts[-1] + len(name) + 1)
    named = list(map(category_of, vocabulary.category_names))
    head = json.dumps({"kinds": kinds, "named": named, "labels": len(vocabulary)}).encode()
    codes = bytes(map(number.__getitem__, vocabulary.categories))
    return b"".join((head, b"\n", codes, starts.tobytes(), *(name + b"\n" for name in names)))


def unpack(data: bytes) -> PackedVocabulary:
    """What `pack` made.

    Raises:
        KeyError, ValueError: of other bytes.
    """
    end = data.index(b"\n")
    head = json.loads(data[:end])
    codes_at = end + 1
    starts_at = codes_at + head["labels"]
    text_at = starts_at + 4 * (head["labels"] + 1)
    starts = array("I", data[starts_at:text_at])
    return PackedVocabulary(head["kinds"], head["named"], data[codes_at:starts_at], starts, data[text_at:])
