"""From the tags of a dataset to labels: which tags get a row of the vocabulary, and which stay without one.

python create_tfrecord.py --dataset-folder ./dataset --min-count 5
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tagger.formats.tag_lists import TagReader, is_usable, lookalikes
from tagger.formats.vocabulary import GENERAL, RATING, RATINGS, Vocabulary, write_vocabulary

UNKNOWN_TAGS_FILE = "unknown_tags.csv"  # beside the records


@dataclass(frozen=True)
class Labels:
    """What the tags of a dataset become.

    Attributes:
        vocabulary: the labels, new ones at the end.
        new: name and category of each of these new ones.
        counts: uses of each tag in the dataset.
        names: each tag by how it is written in the dataset: escaped, with blanks or weights.
        weights: of what was written with a weight, the tag that was read.
        lookalikes: of new general tags that are probably misspelt, the known one.
    """

    vocabulary: Vocabulary
    new: tuple[tuple[str, int], ...]
    counts: Counter[str]
    names: Mapping[str, str]
    weights: Mapping[str, str]
    lookalikes: Mapping[str, str]

    @cached_property
    def index(self) -> dict[str, int]:
        """Label index by tag as it is written in the dataset."""
        rows = self.vocabulary.index
        return {written: rows[name] for written, name in self.names.items() if name in rows}

    @cached_property
    def unknown(self) -> list[str]:
        """The tags that have no label, by falling frequency, ties by name."""
        return _missing(self.counts, self.vocabulary)


def _missing(counts: Counter[str], vocabulary: Vocabulary) -> list[str]:
    missing = [name for name in counts if name not in vocabulary.index]
    return sorted(missing, key=lambda name: (-counts[name], name))


def assign_labels(
    written: Counter[str], vocabulary: Vocabulary, known: Mapping[str, int], min_count: int | None
) -> Labels:
    """Extend a vocabulary by the tags that it lacks, by falling frequency, ties by name.

    Args:
        written: uses by tag in the dataset, as it is written there.
        known: category by tag, from the dataset's tag_categories.csv; other new tags but ratings are general.
        min_count: rarer tags get no label; None gives none to any new tag.
    """
    reader = TagReader({**vocabulary.index, **known})
    names = {tag: reader.name(tag) for tag in written}
    counts: Counter[str] = Counter()
    for tag, uses in written.items():
        if is_usable(names[tag]):
            counts[names[tag]] += uses
    categories = {**known, **dict.fromkeys(RATINGS.values(), RATING)}
    chosen = [name for name in _missing(counts, vocabulary) if min_count is not None and counts[name] >= min_count]
    new = tuple((name, categories.get(name, GENERAL)) for name in chosen)
    extended = Vocabulary(
        vocabulary.names + tuple(name for name, _ in new),
        vocabulary.categories + tuple(category for _, category in new),
    )
    unknown_kind = [name for name, _ in new if name not in categories]
    similar = lookalikes(unknown_kind, vocabulary.names)
    return Labels(extended, new, counts, names, reader.weights, similar)


def write_unknown_tags(path: Path, labels: Labels) -> None:
    """Write the CSV of tags that have no label, with their uses; or remove an earlier run's where there is none."""
    if not labels.unknown:
        path.unlink(missing_ok=True)
        return
    names = tuple(labels.unknown)
    counts = tuple(labels.counts[name] for name in names)
    write_vocabulary(path, Vocabulary(names, (GENERAL,) * len(names), counts))
