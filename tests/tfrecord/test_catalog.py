"""catalog.py: which pictures a dataset has, in which order they are written, and what is read again.

python -m pytest tests/tfrecord/test_catalog.py
"""

import hashlib
import io
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagger.formats.post_tables import Posts
from tagger.formats.tag_lists import TagReader
from tagger.tfrecord import pairs
from tagger.tfrecord.catalog import Catalog, UnusableOutput, labels_of, opened_catalog
from tagger.tfrecord.pairs import Scanned
from tests.helpers import write_pair, write_txts

PAIRS = 12
INDEX = {"general": 0, "solo": 1}
as_written = str  # a tag's name by what is written


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names of pairs; the tests say what is in them."""
    root = tmp_path_factory.mktemp("dataset")
    for number in range(PAIRS):
        (root / f"{number:02}.jpg").touch()
        (root / f"{number:02}.txt").touch()
    return root


def reading(contents: Sequence[bytes]) -> Callable[[Iterator[list]], Iterator[tuple]]:
    """A `read` for Catalog.scan: the first pairs hold `contents`, the others nothing."""

    def result(image: str) -> Scanned | str:
        number = int(image[:2])
        if number >= len(contents):
            return "nothing in it"
        return Scanned(hashlib.sha256(contents[number]).digest(), "general", 0)

    return lambda batches: ((batch, [result(image) for image, *_ in batch]) for batch in batches)


def divided(folder: Path, contents: Sequence[bytes], ratio: float, seed: int = 0) -> tuple[list[bytes], list[bytes]]:
    """The digests of train and of val."""
    path = folder.parent / "catalog.sqlite"
    path.unlink(missing_ok=True)
    with closing(Catalog(path, folder)) as each:
        each.list_folder()
        assert each.images() == PAIRS
        assert sum(each.scan(reading(contents))) == PAIRS
        count, border = each.put_in_order(INDEX, as_written, seed), each.border(ratio)
        assert count == each.count() == len(contents)
        assert len(list(each.problems())) == PAIRS - count
        return [row.digest for row in each.rows(0, border)], [row.digest for row in each.rows(border, count)]


contents = st.lists(st.binary(max_size=2), max_size=PAIRS)


@settings(max_examples=30)
@given(contents.filter(lambda given: len(set(given)) == len(given)), st.floats(0, 1))
def test_the_split_takes_the_smallest_digests(folder: Path, contents: list[bytes], ratio: float) -> None:
    ordered = sorted(hashlib.sha256(data).digest() for data in contents)
    border = round(len(contents) * ratio)
    assert divided(folder, contents, ratio) == (ordered[:border], ordered[border:])


@settings(max_examples=30)
@given(contents, st.floats(0, 1), st.integers(0, 3), st.randoms(use_true_random=False))
def test_neither_order_nor_names_change_the_split(
    folder: Path, contents: list[bytes], ratio: float, seed: int, random: Any
) -> None:
    shuffled = random.sample(contents, len(contents))
    assert divided(folder, contents, ratio, seed) == divided(folder, shuffled, ratio, seed)


@settings(max_examples=30)
@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=PAIRS), st.floats(0, 1), st.integers(0, 3))
def test_equal_pictures_are_never_on_both_sides(folder: Path, contents: list[bytes], ratio: float, seed: int) -> None:
    train, val = divided(folder, contents, ratio, seed)
    assert not set(train) & set(val)
    assert len(train) >= round(len(contents) * ratio)


def test_another_seed_gives_another_division_and_order(folder: Path) -> None:
    different = [b"%d" % number for number in range(PAIRS)]
    divisions = [divided(folder, different, 0.5, seed) for seed in range(4)]
    assert len({frozenset(train) for train, _ in divisions}) == 4
    assert len({tuple(train + val) for train, val in divisions}) == 4


# --- the folder -----------------------------------------------------------------------------------------------------


def read_pairs(each: Catalog, folder: Path) -> list[str]:
    """Scan, and say which images were read."""
    found: list[str] = []

    def read(batches: Iterator[list]) -> Iterator[tuple]:
        for batch in batches:
            found.extend(image for image, *_ in batch)
            yield batch, pairs.scan_pairs(folder, batch)

    each.list_folder()
    list(each.scan(read))
    return found


def test_only_what_is_new_or_changed_is_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    for name in ("a", "b", "c", "gone"):
        write_pair(folder, f"{name}.png", ["general"])
    with closing(Catalog(tmp_path / "catalog.sqlite", folder)) as each:
        assert read_pairs(each, folder) == ["a.png", "b.png", "c.png", "gone.png"]
        assert read_pairs(each, folder) == []
    write_txts(folder, a="general,solo")
    write_pair(folder, "b.png", ["general"], grey=9)
    write_pair(folder, "new.png", ["general"])
    (folder / "gone.png").unlink()
    with closing(Catalog(tmp_path / "catalog.sqlite", folder)) as each:
        assert read_pairs(each, folder) == ["a.png", "b.png", "new.png"]
        assert each.tag_counts(as_written) == {"general": 4, "solo": 1}
        assert each.txt_without_image() == (1, "gone.txt")


@pytest.mark.parametrize("spoil", ["another dataset", "not a database", "another version"])
def test_a_database_that_is_of_no_use_is_made_anew(tmp_path: Path, spoil: str) -> None:
    folder, path = tmp_path / "dataset", tmp_path / "catalog.sqlite"
    write_pair(folder, "a.png", ["general"])
    with closing(Catalog(path, tmp_path if spoil == "another dataset" else folder)) as each:
        read_pairs(each, folder if spoil != "another dataset" else tmp_path)
    if spoil == "not a database":
        path.write_bytes(b"no database" * 1000)
    elif spoil == "another version":
        with closing(sqlite3.connect(path)) as database:
            database.execute("UPDATE about SET value = '0' WHERE key = 'version'")
            database.commit()
    with closing(Catalog(path, folder)) as each:
        assert read_pairs(each, folder) == ["a.png"]


def problems(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "dataset"
    with closing(Catalog(tmp_path / "catalog.sqlite", folder)) as each:
        read_pairs(each, folder)
        each.put_in_order(INDEX, as_written, 0)
        return dict(each.problems())


@pytest.mark.skipif(os.name == "nt", reason="links need rights, and names are Unicode, on Windows")
def test_links_folders_and_odd_names(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    write_pair(tmp_path, "outside.png", ["general"])
    write_pair(folder, "inside.png", ["general"])
    write_pair(folder, "a\nb.png", ["unknown"])
    write_pair(folder, os.fsdecode(b"\xff.png"), ["unknown"])
    (folder / "linked.png").symlink_to(tmp_path / "outside.png")
    (folder / "linked.txt").write_text("general")
    (folder / "near.png").symlink_to(folder / "inside.png")
    (folder / "near.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "broken.png").symlink_to(folder / "nowhere.png")
    (folder / "broken.txt").write_text("general")
    (folder / "folder.png").mkdir()
    (folder / "folder.txt").write_text("general")
    found = problems(tmp_path)
    assert found == {
        "a\\nb.png": "no known tag among: unknown",
        "\\udcff.png": "no known tag among: unknown",
        "linked.png": "a link out of the folder; copy the file here",
        "near.png": "near.txt: a link out of the folder; copy the file here",
        "broken.png": "No such file or directory; replace or remove it",
        "folder.png": "not a file; remove it",
    }


def test_tags_that_are_none(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    write_pair(folder, "a.png", ["general", "nul\0", "x" * 256, "x" * 255])
    write_pair(folder, "b.png", ["\x1b[31m"])
    write_pair(folder, "c.png", []).with_suffix(".txt").write_bytes(b"general," * 200_000)
    with closing(Catalog(tmp_path / "catalog.sqlite", folder)) as each:
        read_pairs(each, folder)
        assert each.tag_counts(as_written) == {"general": 1, "x" * 255: 1}
        assert each.tags_left_out() == 2
    found = problems(tmp_path)
    assert found["b.png"].startswith("b.txt: no usable tags")
    assert found["c.png"] == "c.txt: 1600000 bytes, too long for a tag list; replace it"


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with (
        closing(Catalog(tmp_path / "catalog.sqlite", tmp_path)),
        pytest.raises(UnusableOutput, match="another run is at work"),
    ):
        Catalog(tmp_path / "catalog.sqlite", tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode on Windows")
def test_a_folder_whose_name_is_not_unicode(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"no\xffunicode")
    write_pair(folder, "a.png", ["general"])
    for expected in (["a.png"], []):  # the second time it is known
        with closing(Catalog(tmp_path / "catalog.sqlite", folder)) as each:
            assert read_pairs(each, folder) == expected


def test_every_other_file_is_counted_by_suffix(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    write_pair(folder, "a.gif", ["general"])
    for name in (
        "b.HEIC",
        "c.heic",
        "notes.md",
        "LICENSE",
        ".DS_Store",
        "tag_categories.csv",
        "a sentence. With a long end",
    ):
        (folder / name).touch()
    (folder / "more.pictures").mkdir()
    with closing(Catalog(tmp_path / "catalog.sqlite", folder)) as each:
        for _ in range(2):  # counted anew each time
            each.list_folder()
            assert each.others == {".heic": 2, ".md": 1, "": 2, "/": 1}
            assert each.images() == 1


def test_two_spellings_in_one_picture_are_one_use_and_one_label(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    write_pair(folder, "a.png", ["general", "long hair", "long_hair", "(long hair:1.2)"])
    reader = TagReader()
    with closing(Catalog(tmp_path / "catalog.sqlite", folder)) as each:
        read_pairs(each, folder)
        assert each.tag_counts(reader.name) == {"general": 1, "long_hair": 1}
        assert each.put_in_order({"general": 0, "long_hair": 7}, reader.name, 0) == 1
        (row,) = each.rows(0, 1)
        assert labels_of(row) == [0, 7]


def test_a_full_disk_is_told_of(tmp_path: Path) -> None:
    with (
        pytest.raises(UnusableOutput, match=r"catalog\.sqlite: database or disk is full; make room there"),
        opened_catalog(tmp_path / "catalog.sqlite", tmp_path) as each,
    ):
        each._database.execute("PRAGMA max_page_count = 1")
        each._database.executemany("INSERT INTO scanned (name) VALUES (?)", [(f"{n:01000}",) for n in range(1000)])


def test_a_database_that_was_damaged_behind_its_beginning_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    with opened_catalog(path, tmp_path) as each:
        each.list_folder()
    data = path.read_bytes()
    path.write_bytes(data[: 3 * 4096] + b"\xff" * (len(data) - 3 * 4096))  # the first pages are the schema and `about`
    with (
        pytest.raises(UnusableOutput, match=r"catalog\.sqlite: .*malformed; remove it"),
        opened_catalog(path, tmp_path) as each,
    ):
        each.list_folder()


def test_a_name_in_two_folders_is_two_pictures(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_pair(root, "a.png", ["solo"])
    write_pair(root / "10_name", "a.png", ["general"], grey=1)
    write_pair(root / "out" / "shards", "b.png", ["general"], grey=2)
    with closing(Catalog(root / "out" / ".plan.sqlite", root)) as catalog:

        def listed(recursive: bool) -> tuple[int, list[tuple[str, list[int]]]]:
            catalog.list_folder(recursive)
            unread = catalog.unread()
            list(catalog.scan(lambda batches: ((batch, pairs.scan_pairs(root, batch)) for batch in batches)))
            count = catalog.put_in_order(INDEX, as_written, 0)
            return unread, sorted((row.name, labels_of(row)) for row in catalog.rows(0, count))

        assert listed(True) == (2, [("10_name/a.png", [0]), ("a.png", [1])])
        assert not catalog.others
        assert listed(False) == (0, [("a.png", [1])])
        assert catalog.others == {"/": 2}
        assert listed(True)[0] == 1  # what was forgotten with its folder


# --- which file has the tags ----------------------------------------------------------------------------------------


def listed(folder: Path, *names: str) -> tuple[dict[str, str | None], Catalog]:
    """Of each image the file with its tags; and the catalog, still open."""
    folder.mkdir()
    for name in names:
        (folder / name).write_text("general" if name.endswith(".txt") else '["general"]')
    catalog = Catalog(folder.parent / "catalog.sqlite", folder)
    catalog.list_folder()
    rows = catalog._database.execute("SELECT name, labels FROM present")
    return {os.fsdecode(name): labels and os.fsdecode(labels) for name, labels in rows}, catalog


def test_the_first_of_several_files_with_tags_is_read(tmp_path: Path) -> None:
    order = ["x.txt", "x.jpg.txt", "x.caption", "x.json", "x.jpg.json"]
    for number, first in enumerate(order):
        found, catalog = listed(tmp_path / str(number), "x.jpg", *order[number:])
        with closing(catalog):
            assert found == {"x.jpg": first}
            sentence = "1 image has tags in several places, such as x.jpg; taken was the first of x.txt, x.jpg.txt, "
            sentence += "x.caption, x.json, x.jpg.json, metadata"
            assert catalog.labelled_twice() == (sentence if number < 4 else "")
            assert not catalog.others and catalog.txt_without_image() == (0, "")


def test_two_images_of_one_stem_need_files_of_their_own(tmp_path: Path) -> None:
    found, catalog = listed(tmp_path / "set", "x.jpg", "x.png", "x.gif", "x.txt", "x.png.json", "y.jpg", "y.png.txt")
    with closing(catalog):
        assert found == {"x.jpg": "x.txt", "x.png": "x.png.json", "x.gif": None, "y.jpg": None}
        assert dict(catalog.problems()) == {
            "x.gif": "x.jpg has the same txt; rename one of them",
            "y.jpg": "y.txt: no such file; write its tags, separated by commas",
        }
        assert catalog.txt_without_image() == (1, "y.png.txt")


def test_a_whole_name_that_is_a_stem_as_well(tmp_path: Path) -> None:
    found, catalog = listed(tmp_path / "set", "x.jpg.png", "x.jpg.txt", "z.txt", "info.json", "z.caption")
    with closing(catalog):
        assert found == {"x.jpg.png": "x.jpg.txt"}
        assert catalog.txt_without_image() == (1, "z.txt")
        assert catalog.others == {".json": 1, ".caption": 1}


def test_another_file_with_tags_is_read_when_the_first_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write_pair(folder, "x.png", ["general"])
    (folder / "x.caption").write_text("solo")
    with closing(Catalog(tmp_path / "catalog.sqlite", folder)) as each:
        assert read_pairs(each, folder) == ["x.png"]
        (folder / "x.txt").unlink()
        assert read_pairs(each, folder) == ["x.png"]
        assert each.tag_counts(as_written) == {"solo": 1}


def test_a_catalog_that_an_earlier_version_wrote_is_known(tmp_path: Path) -> None:
    """Version 0.2 and earlier kept what lies in the folder in tables of other columns."""
    folder, path = tmp_path / "set", tmp_path / "catalog.sqlite"
    write_pair(folder, "a.png", ["general"])
    with closing(Catalog(path, folder)) as each:
        assert read_pairs(each, folder) == ["a.png"]
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "DROP TABLE listed; DROP TABLE present; DROP TABLE alone;"
            "CREATE TABLE listed (stem BLOB, kind INTEGER, name BLOB, stamp TEXT, problem TEXT);"
            "CREATE TABLE present (name BLOB PRIMARY KEY, txt BLOB, stamp TEXT, problem TEXT) WITHOUT ROWID;"
        )
    with closing(Catalog(path, folder)) as each:
        assert read_pairs(each, folder) == []
        assert each.put_in_order(INDEX, as_written, 0) == 1


# --- tables of posts ------------------------------------------------------------------------------------------------


def table(rows: dict[str, str]) -> Iterator[Posts]:
    """A table with the tags of posts, by id or MD5, two rows at a time."""
    waiting = list(rows.items())
    while waiting:
        some, waiting = waiting[:2], waiting[2:]
        posts = [{"tags": tags} for _, tags in some]
        yield Posts([[key] for key, _ in some], lambda numbers, posts=posts: map(posts.__getitem__, numbers))  # type: ignore[misc]


def tagged(each: Catalog, folder: Path, rows: dict[str, str] | None) -> tuple[int, dict[str, list[int]]]:
    """How many images were read, and the labels of each that is usable."""
    each.list_folder(posts=None if rows is None else table(rows))
    read = sum(each.scan(lambda batches: ((batch, pairs.scan_pairs(folder, batch)) for batch in batches)))
    count = each.put_in_order(INDEX, as_written, 0)
    return read, {row.name: labels_of(row) for row in each.rows(0, count)}


def test_the_tags_of_a_picture_may_be_in_a_table_of_posts(tmp_path: Path) -> None:
    folder, md5 = tmp_path / "set", hashlib.md5(b"").hexdigest()
    names = ("12.png", "0013.png", f"danbooru_7_{md5}.png", "14.png", "15.png", "16.png", "name.png")
    for number, name in enumerate(names):
        image = write_pair(folder, name, ["solo"], grey=number)
        if name != "14.png":
            image.with_suffix(".txt").unlink()
    rows = {"99": "solo", "12": "general", "13": "general solo", "14": "general", md5: "solo", "12 ": "solo"}
    rows |= {"15": "nul\0", "7": "general"}
    found = {"12.png": [0], "0013.png": [0, 1], f"danbooru_7_{md5}.png": [1], "14.png": [1]}
    with closing(Catalog(tmp_path / "catalog.sqlite", folder)) as each:
        assert tagged(each, folder, rows) == (4, found)
        assert each.labelled_twice().startswith("1 image has tags in several places, such as 14.png; ")
        reason = "no tags beside it, and none in the metadata; write some, or remove it"
        assert dict(each.problems()) == dict.fromkeys(("15.png", "16.png", "name.png"), reason)
        assert each.tag_counts(as_written) == {"general": 2, "solo": 3}
        # Other tags for the same pictures: none of these is read again.
        assert tagged(each, folder, rows | {"12": "general solo"}) == (0, found | {"12.png": [0, 1]})
        assert tagged(each, folder, rows | {"16": "solo,general,nul\0"}) == (1, found | {"16.png": [1, 0]})
        assert each.tags_left_out() == 1
        assert tagged(each, folder, None) == (0, {"14.png": [1]})
        assert dict(each.problems())["12.png"].startswith("12.txt: no such file")


def test_pictures_of_one_post_in_two_folders(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        write_pair(tmp_path / "set" / name, "5.png", [], grey=number).with_suffix(".txt").unlink()
    with closing(Catalog(tmp_path / "catalog.sqlite", tmp_path / "set")) as each:
        each.list_folder(recursive=True, posts=table({"5": "solo"}))
        assert each.images() == 2 and not list(each.problems())


# --- tars -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_tar_is_a_folder_and_of_two_files_with_one_name_the_later_holds(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    with tarfile.open(folder / "0.tar", "w") as tar:
        for name, data in (
            ("1.png", b"old"),
            ("1.txt", b"solo"),
            ("1.cls", b""),
            ("1.png", b"new"),
            ("1.txt", b"general"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (folder / "0.json").write_text("{}")
    (folder / "loop.tar").symlink_to(folder / "loop.tar")
    (folder / "out.tar").symlink_to(tmp_path / "elsewhere.tar")
    shutil.copy(folder / "0.tar", tmp_path / "elsewhere.tar")
    with closing(Catalog(tmp_path / "catalog.sqlite", folder)) as each:
        assert read_pairs(each, folder) == ["0.tar/1.png"]
        assert read_pairs(each, folder) == []
        assert each.put_in_order(INDEX, as_written, 0) == 1
        (row,) = each.rows(0, 1)
        assert row.digest == hashlib.sha256(b"new").digest() and labels_of(row) == [0]
        assert each.others == {".cls": 1, ".tar": 1}
        assert dict(each.problems()) == {"out.tar": "a link out of the folder; copy the file here"}
        os.utime(folder / "0.tar", ns=(0, 0))
        assert read_pairs(each, folder) == ["0.tar/1.png"]  # a tar that changed may hold anything
