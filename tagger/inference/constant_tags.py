"""Tags that nearly all captions of a run share, and the answers of a run, kept until these tags are known.

    python wdv3_pytorch.py --image_file dataset --model_path checkpoints --drop_constant 0.9 --write_captions --dry_run

What all pictures of a character show (its hair, its eyes) is what the trigger word should come to mean; a caption that
names it teaches the tag instead.
"""

import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tagger.files import UserError
from tagger.inference.logits import packed, unpacked
from tagger.inference.predictor import Results

# Nine in ten cannot be told among fewer, and everything that is said of a single picture is constant.
LEAST_CAPTIONS = 10


# --- which tags -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConstantTags:
    """The tags that many captions share.

    Attributes:
        uses: in how many captions each one is, by falling number, ties by name.
        captions: how many there are.
    """

    uses: dict[str, int]
    captions: int

    @property
    def can_be_told(self) -> bool:
        """Whether there are enough captions to tell what is constant in them."""
        return self.captions >= LEAST_CAPTIONS

    def shares(self) -> list[str]:
        """`1girl 100%`, `solo 98%`: rounded down, so that 100% is all of them."""
        return [f"{name} {100 * uses // self.captions}%" for name, uses in self.uses.items()]

    def lines(self) -> list[str]:
        """`1girl: 1.000 (40 of 40 captions)`, a line for each tag."""
        return [
            f"{name}: {uses / self.captions:.3f} ({uses:,} of {self.captions:,} captions)"
            for name, uses in self.uses.items()
        ]


def find_constant(captions: Iterable[Collection[str]], share: float, keep: Collection[str] = ()) -> ConstantTags:
    """The tags that at least a share of all captions hold; none where there are fewer than LEAST_CAPTIONS.

    Args:
        captions: the names of the tags in each, without repetitions.
        share: above 0, and at most 1.
        keep: tags that are not asked about.
    """
    uses: Counter[str] = Counter()
    count = 0
    for names in captions:
        uses.update(names)
        count += 1
    found = {name: number for name, number in uses.items() if number / count >= share and name not in keep}
    if count < LEAST_CAPTIONS:
        found = {}
    return ConstantTags(dict(sorted(found.items(), key=lambda item: (-item[1], item[0]))), count)


# --- the answers, twice ---------------------------------------------------------------------------------------------


class KeptResults:
    """Results that can be gone through again: see `kept`."""

    def __init__(self, file: IO[bytes], folder: str) -> None:
        self._file, self._folder = file, folder
        # For each image how many labels each model has and how many bytes of them are in the file, or why it has none.
        self._outcomes: list[tuple[Path, list[tuple[int, int]] | UserError]] = []

    def add(self, result: Results) -> None:
        """Keep one.

        Raises:
            UserError: the disk for temporary files is full.
        """
        path, logits = result
        if isinstance(logits, UserError):
            self._outcomes.append((path, logits))
            return
        try:
            sizes = [(each.count, self._file.write(packed(each))) for each in logits]
            self._file.flush()
        except OSError as error:
            hint = "make room there, or set TMPDIR to another folder"
            raise UserError(f"{self._folder}: {error.strerror}; {hint}") from None
        self._outcomes.append((path, sizes))

    def __iter__(self) -> Iterator[Results]:
        """All of them, in their order, to the last bit as they were given. One reader at a time."""
        self._file.seek(0)
        for path, outcome in self._outcomes:
            if isinstance(outcome, UserError):
                yield path, outcome
                continue
            logits = [unpacked(self._file.read(size), count) for count, size in outcome]
            yield path, tuple(each for each in logits if each is not None)  # as it was written a moment ago


@contextmanager
def kept(results: Iterable[Results]) -> Iterator[KeptResults]:
    """The results of a run, all at once, in a file without a name that the system removes however the run ends.

    The cache would not do for a second pass: it may be off, full, or cleared by another run at any time, a picture may
    change between the two, and of several processes only the first is told the answers. With WD v3's 10,861 tags a
    picture takes 43 kB, and with 200,000 at most 60, of the disk for temporary files.

    Raises:
        UserError: that disk is full.
    """
    folder = tempfile.gettempdir()
    with tempfile.TemporaryFile(dir=folder) as file:
        answers = KeptResults(file, folder)
        for result in results:
            answers.add(result)
        yield answers
