"""The logits of an image: all of them, or those of its likeliest labels, which are what the cache keeps.

    python -c "from tagger.inference.logits import likeliest; print(likeliest([0.5, -9.0, 2.0, 1.0], most=2))"

Of 200,000 labels a picture has a few dozen. Those that are left out are all less likely than a floor that is known, so
whoever asks for less likely ones can tell that they are missing.
"""

import math
import struct
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

ENTRY_BYTES = 60_000  # of an image in the cache: up to 15,000 labels are kept whole, else the 7,500 likeliest

# Of an entry: what it is, the checksum of what follows, C, how many labels are kept, the floor, and the sum for softmax
# (NaN where there is none). Then, where not all labels are kept, their numbers as uint32; and their logits as float32.
# In the machine's own byte order, for a cache stays where it was made.
MARK = b"lgt2"
HEAD, NUMBERS = struct.Struct("=4sI"), struct.Struct("=IIdd")


@dataclass(frozen=True)
class Logits:
    """What a model said of one image.

    Attributes:
        count: C, how many labels the model has.
        labels: the indices of those that are here, rising; range(C) where all are.
        values: their logits.
        floor: the logits of all other labels are below it.
        total: see `softmax_total`, over all C; None where that is not needed or where all labels are here.
    """

    count: int
    labels: Sequence[int]
    values: "array[float]"
    floor: float = -math.inf
    total: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Logits":
        """All C logits."""
        return cls(len(values), range(len(values)), values if isinstance(values, array) else array("f", values))

    @property
    def is_complete(self) -> bool:
        return len(self.labels) == self.count

    def __len__(self) -> int:
        """How many labels are here."""
        return len(self.labels)


def likeliest(
    values: Sequence[float], always: Sequence[int] = (), with_total: bool = False, most: int | None = None
) -> Logits:
    """The likeliest labels of one image.

    Args:
        values: its C logits, finite.
        always: indices of labels that are kept however unlikely they are.
        with_total: whether the answer's probabilities add up to 1, see `softmax_total`.
        most: how many to keep besides them; by default all where they fit into ENTRY_BYTES, else as many as do.
            Where many are equally likely there may be fewer.
    """
    complete = Logits.of(values)
    if most is None:
        most = complete.count
        if _size(most, complete.count) > ENTRY_BYTES:
            most = max(1, (ENTRY_BYTES - _size(0, complete.count)) // 8 - len(always))
    if most >= complete.count:
        return complete
    import numpy as np  # late: where a model has just run, it is there; an answer from the cache does without

    row = np.asarray(complete.values)
    floor = np.partition(row, complete.count - most)[complete.count - most]
    if np.count_nonzero(row >= floor) > most:  # all that are as likely as the last one stay out
        floor = row[row > floor].min(initial=np.inf)
    kept = row >= floor
    kept[list(always)] = True
    labels = np.flatnonzero(kept)
    return Logits(
        complete.count,
        array("I", labels.astype(np.uint32).tobytes()),
        array("f", row[labels].tobytes()),
        float(floor),
        softmax_total(complete.values) if with_total else None,
    )


def softmax_total(values: Sequence[float]) -> float:
    """What softmax divides by: the sum of exp(logit - highest logit) over all C labels."""
    highest = max(values, default=0.0)
    return sum(math.exp(x - highest) for x in values)


# --- entries of the cache -------------------------------------------------------------------------------------------


def _size(kept: int, count: int) -> int:
    """Bytes of an entry."""
    return HEAD.size + NUMBERS.size + kept * (4 if kept == count else 8)


def packed(logits: Logits) -> bytes:
    """Logits as bytes, from which `unpacked` makes the same to the bit."""
    total = math.nan if logits.total is None else logits.total
    numbers = NUMBERS.pack(logits.count, len(logits), logits.floor, total)
    labels = b"" if logits.is_complete else array("I", logits.labels).tobytes()
    rest = numbers + labels + logits.values.tobytes()
    return HEAD.pack(MARK, zlib.crc32(rest)) + rest


def unpacked(data: bytes, count: int) -> Logits | None:
    """What `packed` made of C = `count` logits; None of anything else, be it damaged or of an earlier version."""
    if len(data) < _size(0, count):
        return None
    mark, checksum = HEAD.unpack_from(data)
    found, kept, floor, total = NUMBERS.unpack_from(data, HEAD.size)
    rest = memoryview(data)[HEAD.size :]
    if (
        mark != MARK
        or found != count
        or kept > count
        or len(data) != _size(kept, count)
        or zlib.crc32(rest) != checksum
    ):
        return None
    values = array("f", rest[len(rest) - 4 * kept :].tobytes())
    if kept == count:
        return Logits(count, range(count), values)
    labels = array("I", rest[NUMBERS.size : NUMBERS.size + 4 * kept].tobytes())
    return Logits(count, labels, values, floor, None if math.isnan(total) else total)
