"""labels.py: which tags get a row of the vocabulary.

python -m pytest tests/tfrecord/test_labels.py
"""

from collections import Counter
from pathlib import Path

from tagger.formats.vocabulary import Vocabulary, read_vocabulary
from tagger.tfrecord.labels import assign_labels, write_unknown_tags

STANDING = Vocabulary(("general", "solo"), (9, 4), (1, 1))
COUNTS = Counter({"solo": 9, "b": 2, "a": 2, "hat": 3, "ke-ta": 1, "sensitive": 1})


def test_new_tags_follow_by_falling_frequency_then_name() -> None:
    labels = assign_labels(COUNTS, STANDING, {"ke-ta": 1, "sensitive": 0, "solo": 0}, min_count=1)
    assert labels.new == (("hat", 0), ("a", 0), ("b", 0), ("ke-ta", 1), ("sensitive", 9))
    assert labels.vocabulary.names == ("general", "solo", "hat", "a", "b", "ke-ta", "sensitive")
    assert labels.vocabulary.categories == (9, 4, 0, 0, 0, 1, 9)
    assert labels.unknown == []


def test_rare_tags_stay_without() -> None:
    labels = assign_labels(COUNTS, STANDING, {}, min_count=2)
    assert [name for name, _ in labels.new] == ["hat", "a", "b"]
    assert labels.unknown == ["ke-ta", "sensitive"]


def test_no_new_tags_at_all() -> None:
    labels = assign_labels(COUNTS, STANDING, {}, min_count=None)
    assert labels.new == () and labels.vocabulary.names == STANDING.names
    assert labels.unknown == ["hat", "a", "b", "ke-ta", "sensitive"]


def test_the_list_of_unknown_tags_goes_when_there_are_none(tmp_path: Path) -> None:
    path = tmp_path / "unknown_tags.csv"
    write_unknown_tags(path, assign_labels(COUNTS, STANDING, {}, min_count=2))
    written = read_vocabulary(path)
    assert (written.names, written.counts) == (("ke-ta", "sensitive"), (1, 1))
    write_unknown_tags(path, assign_labels(COUNTS, STANDING, {}, min_count=1))
    assert not path.exists()
