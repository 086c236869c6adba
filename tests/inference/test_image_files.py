"""image_files.py: which files of a folder are images, and what is said of the others.

python -m pytest tests/inference/test_image_files.py
"""

import os
from pathlib import Path

import pytest

from tagger.files import UserError
from tagger.formats.pairs import IMAGE_SUFFIXES
from tagger.inference.image_files import find


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(folder: Path, *paths: Path, recursive: bool = False) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find(paths or [folder], recursive).images]


def test_folders_and_files_in_their_order(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.png", "b/10.JPG", "b/c/1.webp", "a.png", "odd", "b/.hidden.png", "b/notes.md", "b/no_suffix")
    assert names(tmp_path, tmp_path / "odd", tmp_path / "b", tmp_path / "a.png", tmp_path / "b" / "2.png") == [
        *("odd", "b/10.JPG", "b/2.png", "a.png")
    ]
    assert names(tmp_path, recursive=True) == ["a.png", "b/10.JPG", "b/2.png", "b/c/1.webp"]


def test_every_suffix_of_the_toolkit(tmp_path: Path) -> None:
    touch(tmp_path, *(f"a{suffix}" for suffix in IMAGE_SUFFIXES))
    assert len(names(tmp_path)) == len(IMAGE_SUFFIXES)


def test_other_pictures_are_counted_by_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.heic", "c.HEIC", "d.psd", "e/f.jxl", "g.txt", ".h.psd")
    assert find([tmp_path]).others_text() == "2 .heic, 1 .psd"
    assert find([tmp_path], recursive=True).others_text() == "2 .heic, 1 .jxl, 1 .psd"


def test_where_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no images in it; hint"):
        find([tmp_path], folder_hint="hint")
    touch(tmp_path, "a.heic")
    with pytest.raises(UserError, match=r"no images in it that are read here, but 1 \.heic; convert them"):
        find([tmp_path])
    with pytest.raises(UserError, match=r"gone\.png: no such file; hint"):
        find([tmp_path / "gone.png"], path_hint="hint")
    assert find([]).images == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "folder.png/b.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "gone.png")
    found = find([tmp_path])
    assert [path.name for path in found.images] == ["a.png", "broken.png"]
    assert sorted(str(error).split(": ")[0] for error in found.unreadable) == [
        *(str(tmp_path / name) for name in ("link.png", "pipe.png"))
    ]


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.png", "closed/b.png")
    scandir = os.scandir

    def closed(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    found = find([tmp_path], recursive=True)
    assert [path.name for path in found.images] == ["a.png"]
    assert [str(error) for error in found.unreadable] == [
        f"{tmp_path / 'closed'}: Permission denied; check its permissions"
    ]
    with pytest.raises(UserError, match="closed: Permission denied"):
        find([tmp_path / "closed"])
