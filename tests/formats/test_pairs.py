"""pairs.py: which folders belong to a dataset.

python -m pytest tests/formats/test_pairs.py
"""

from pathlib import Path

import pytest

from tagger.formats.pairs import folders_of


def walk(root: Path, **given: Path) -> list[str]:
    return [folder.relative_to(root).as_posix() for folder in folders_of(root, True, **given)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("b/deep/er", "10_a", "B", ".hidden/x", "out/record_shards_train"):
        (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "set" / "c").touch()
    return tmp_path / "set"


def test_each_folder_comes_before_its_own_and_by_name(root: Path) -> None:
    assert walk(root) == [".", "10_a", "B", "b", "b/deep", "b/deep/er", "out", "out/record_shards_train"]


def test_one_folder_without_recursion(root: Path) -> None:
    assert list(folders_of(root, False)) == [root]


def test_the_folder_that_is_left_out_and_those_below_it(root: Path) -> None:
    assert "out" not in walk(root, left_out=root / "b" / ".." / "out")
    assert "out/record_shards_train" not in walk(root, left_out=root / "out")
    assert walk(root, left_out=root) == walk(root)


def test_links_in_a_circle_are_not_followed(root: Path) -> None:
    expected = walk(root)
    (root / "b" / "again").symlink_to(root, target_is_directory=True)
    assert walk(root) == expected
