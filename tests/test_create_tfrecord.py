"""create_tfrecord.py: the split, the vocabulary that grows, what is written or left out, and runs that were killed.

tensorflow runs in processes of its own; what needs none of it is called here.

python -m pytest tests/test_create_tfrecord.py
"""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

import create_tfrecord as script
from tagger import images
from tagger.files import LOCK_NAME, locked_folder
from tagger.formats.records import RecordFile, RecordFiles, index_of, shard_paths
from tagger.formats.tag_lists import read_tags
from tagger.formats.vocabulary import ARTIST, CHARACTER, GENERAL, read_categories, read_vocabulary
from tagger.tfrecord import writer
from tagger.tfrecord.catalog import CATALOG_FILE, Catalog
from tests.conftest import POSTS, STORED_SIZE
from tests.helpers import ROOT, error_line, flip_byte, left_out, run_script, tree, write_csv, write_pair, write_txts

RATINGS = ["general,9", "sensitive,9", "questionable,9", "explicit,9"]
TRAIN = Path("record_shards_train", "aibooru_train.tfrecord")
VAL = Path("record_shards_val", "aibooru_val.tfrecord")


def names_in(path: Path) -> list[str]:
    file = RecordFile(path)
    return [file[number].name for number in range(len(file))]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the catalog, which knows paths and times."""
    return {name: (folder / name).read_bytes() for name in tree(folder) if name != CATALOG_FILE}


def reasons(folder: Path) -> dict[str, str]:
    """The rows of skipped.csv."""
    with open(folder / "skipped.csv", encoding="utf-8", newline="") as file:
        return {row["file"]: row["reason"] for row in csv.DictReader(file)}


def about(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "aibooru.json").read_text(encoding="utf-8"))


# --- what the shared fixture made of the sample dataset -------------------------------------------------------------


def test_round_n_times_ratio_by_the_digest_of_the_image_files(dataset: Path, records: Path) -> None:
    ordered = sorted(dataset.glob("*.jpg"), key=lambda path: hashlib.sha256(path.read_bytes()).digest())
    train, val = names_in(records / TRAIN), names_in(records / VAL)
    assert len(train) == round(POSTS * 0.75)
    assert [*train, *val] == [path.name for path in ordered]


def test_the_json_says_what_is_there(records: Path) -> None:
    vocabulary = read_vocabulary(records / "selected_tags.csv")
    assert about(records) == {
        "num_classes": len(vocabulary),
        "train_samples": 18,
        "val_samples": 6,
        "train_shards": 1,
        "val_shards": 1,
        "image_size": STORED_SIZE,
        "tags_sha256": vocabulary.sha256,
    }


def test_the_frozen_vocabulary_counts_uses_in_the_train_split(dataset: Path, records: Path) -> None:
    vocabulary = read_vocabulary(records / "selected_tags.csv")
    used = [name for image in names_in(records / TRAIN) for name in read_tags(dataset / f"{image[:2]}.txt")]
    assert vocabulary.counts == tuple(used.count(name) for name in vocabulary.names)
    assert 0 in vocabulary.counts  # some tag is in the validation split alone


def test_new_tags_come_by_falling_frequency_with_the_datasets_categories(dataset: Path, records: Path) -> None:
    vocabulary = read_vocabulary(records / "selected_tags.csv")
    used = [name for number in range(POSTS) for name in read_tags(dataset / f"{number:02}.txt")]
    new = sorted(set(used) - set(vocabulary.names[:4]), key=lambda name: (-used.count(name), name))
    known = read_categories(dataset / "tag_categories.csv")
    assert list(vocabulary.names[4:]) == new
    assert list(vocabulary.categories[4:]) == [known.get(name, GENERAL) for name in new]
    assert vocabulary.indices(ARTIST) and vocabulary.indices(CHARACTER)


def test_the_same_dataset_gives_the_same_bytes_with_flags_in_either_spelling(
    dataset: Path, records: Path, tmp_path: Path
) -> None:
    csv_path = write_csv(tmp_path / "tags.csv", RATINGS)
    flags = [f"--dataset_folder={dataset}", "--output_path", "out", "--tags_csv", csv_path, "--img_size", STORED_SIZE]
    done = run_script("create_tfrecord.py", *flags, "--split_ratio=0.75", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(records)


# --- a dataset with everything that can be wrong with a pair --------------------------------------------------------

STANDING = b"tag_id,name,category,count\r\n9,general,9,5\r\n7,solo,4,3"  # edited, Windows, no final line end


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """./dataset and ./selected_tags.csv of a new folder, and the run of create_tfrecord.py in it without flags."""
    root = tmp_path_factory.mktemp("messy")
    folder = root / "dataset"
    for number in range(8):
        write_pair(folder, f"good{number}.png", ["general", "solo", "smile"], grey=number)
    for number, suffix in enumerate((".jpg", ".jpeg", ".webp", ".PNG")):
        names = ["sensitive", "ke-ta", "初音ミク", "null"]
        write_pair(folder, f"kind{suffix[1:]}{suffix}", names, grey=100 + 9 * number)
    write_pair(folder, "copy.png", ["general"], grey=3)  # the picture of good3.png
    write_pair(folder, "corrupt.jpg", ["general", "only_in_a_corrupt_image"]).write_bytes(b"\xff\xd8\xff no JPEG")
    write_pair(folder, "no_txt.png", []).with_suffix(".txt").unlink()
    write_pair(folder, "empty_txt.png", [" ", ""])
    write_pair(folder, "twice.png", ["general"], grey=50)
    write_pair(folder, "twice.jpg", ["general"], grey=51)
    write_pair(folder, "latin.png", []).with_suffix(".txt").write_bytes("café".encode("latin-1"))
    write_txts(folder, no_image="general,only_in_a_txt", **{"._a": "macOS"})
    (folder / "notes.md").write_text("no image")
    for own in ("crawl_state.json", "replace_blanks.undo.jsonl", "tag_categories.csv"):
        (folder / own).write_text("name,category\n" if own.endswith(".csv") else "{}")
    write_csv(folder / "tag_categories.csv", ["ke-ta,1", "初音ミク,4", "solo,0", "sensitive,0"])
    (root / "selected_tags.csv").write_bytes(STANDING)
    return root, run_script("create_tfrecord.py", cwd=root)


GOOD = {*(f"good{number}.png" for number in range(8)), "kindjpg.jpg", "kindjpeg.jpeg", "kindwebp.webp", "kindPNG.PNG"}


def test_what_cannot_be_used_is_named_and_the_exit_code_is_1(messy: Any) -> None:
    root, done = messy
    assert done.returncode == 1, done.stderr
    assert len(left_out(done.stderr)) == 5
    assert "5 left out" in done.stdout
    expected = {
        "corrupt.jpg": "",
        "no_txt.png": "no_txt.txt: no such file",
        "empty_txt.png": "empty_txt.txt: no tags in it",
        "twice.png": "twice.jpg has the same txt",
        "latin.png": "latin.txt: not UTF-8",
    }
    found = reasons(root / "output-datasets")
    assert set(found) == set(expected)
    for name, reason in expected.items():
        assert found[name].startswith(reason)
        assert sum(f"{name}: {found[name]}" in line for line in left_out(done.stderr)) == 1
    assert "1 image equals another one" in done.stderr and "1 txt file has no image" in done.stderr
    assert "no_image.txt" in done.stderr
    assert "not read, for being neither pictures nor files with tags: 1 .md\n" in done.stderr


def test_everything_else_is_written_at_the_default_size_and_place(messy: Any) -> None:
    root, _ = messy
    train, val = names_in(root / "output-datasets" / TRAIN), names_in(root / "output-datasets" / VAL)
    assert sorted([*train, *val]) == sorted({*GOOD, "copy.png", "twice.jpg"})
    assert {"good3.png", "copy.png"} <= set(train) or {"good3.png", "copy.png"} <= set(val)
    written = about(root / "output-datasets")
    assert (written["train_samples"], written["val_samples"], written["image_size"]) == (len(train), len(val), 224)


def test_by_default_seven_tenths_of_the_pairs_go_to_train(messy: Any) -> None:
    root, _ = messy
    # The corrupt image has tags: its digest counts, its record is missing. Equal pictures at the border go to train.
    usable = sorted(
        (hashlib.sha256(path.read_bytes()).digest(), path.name)
        for path in (root / "dataset").iterdir()
        if path.name in {*GOOD, "copy.png", "twice.jpg", "corrupt.jpg"}
    )
    assert len(usable) == 15
    last, _ = usable[round(0.7 * 15) - 1]
    train = [name for digest, name in usable if digest <= last]
    assert names_in(root / "output-datasets" / TRAIN) == [name for name in train if name != "corrupt.jpg"]


def test_the_rows_that_stood_in_the_csv_stay_and_new_ones_follow(messy: Any) -> None:
    root, _ = messy
    assert (root / "selected_tags.csv").read_bytes().startswith(STANDING)
    known = read_categories(root / "selected_tags.csv")
    new = {"smile": 0, "ke-ta": 1, "null": 0, "sensitive": 9, "初音ミク": 4, "only_in_a_corrupt_image": 0}
    assert known == {"general": 9, "solo": 4} | new
    assert list(known)[2] == "smile"  # eight uses
    frozen = read_vocabulary(root / "output-datasets" / "selected_tags.csv")
    assert frozen.names == tuple(known) and frozen.categories == tuple(known.values())


def test_nothing_half_written_remains(messy: Any) -> None:
    root, _ = messy
    assert not [name for name in tree(root) if name.endswith(".part")]


# --- edges ----------------------------------------------------------------------------------------------------------


def test_a_ratio_of_1_leaves_an_empty_validation_split(tmp_path: Path) -> None:
    for number in range(3):
        write_pair(tmp_path / "dataset", f"{number}.png", ["general"], grey=number)
    write_csv(tmp_path / "selected_tags.csv", RATINGS)
    done = run_script("create_tfrecord.py", "--split-ratio", 1, "--img-size", 14, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    output = tmp_path / "output-datasets"
    assert (about(output)["train_samples"], about(output)["val_samples"]) == (3, 0)
    assert len(names_in(output / TRAIN)) == 3 and names_in(output / VAL) == []


def run(tmp_path: Path, *flags: object) -> int:
    """The script in this process, on a folder's dataset/ and tags.csv; for what ends before tensorflow is needed."""
    arguments = ["--dataset-folder", tmp_path / "dataset", "--output-path", tmp_path / "out"]
    return script.main([*map(str, arguments), "--tags-csv", str(tmp_path / "tags.csv"), *map(str, flags)])


def test_missing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 2
    assert str(tmp_path / "dataset") in error_line(capsys.readouterr().err)
    assert tree(tmp_path) == []


def test_missing_vocabulary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pair(tmp_path / "dataset", "a.png", ["general"])
    assert run(tmp_path) == 2
    assert "tags.csv: no such file" in error_line(capsys.readouterr().err)


@pytest.mark.parametrize("name", ["tags.csv", "dataset/tag_categories.csv"])
def test_unusable_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    write_pair(tmp_path / "dataset", "a.png", ["general", "new_tag"])
    write_csv(tmp_path / "tags.csv", RATINGS)
    write_csv(tmp_path / name, ["general,9", "solo,7"])
    before = (tmp_path / "tags.csv").read_bytes()
    assert run(tmp_path) == 2
    assert f"{Path(name).name}: row 3" in error_line(capsys.readouterr().err)
    assert (tmp_path / "tags.csv").read_bytes() == before and not (tmp_path / "out").exists()


def test_a_folder_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dataset").mkdir()
    write_csv(tmp_path / "tags.csv", RATINGS)
    assert run(tmp_path) == 2
    assert "dataset: no images in it; fetch some pairs" in error_line(capsys.readouterr().err)


def test_where_no_pair_is_usable_the_reasons_are_the_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, grey in (("a.png", 1), ("b.png", 2)):
        write_pair(tmp_path / "dataset", name, [], grey).with_suffix(".txt").write_bytes("长发".encode("gbk"))
    write_pair(tmp_path / "dataset", "c.png", [], 3).with_suffix(".txt").unlink()
    write_csv(tmp_path / "tags.csv", RATINGS)
    assert run(tmp_path) == 2
    told = capsys.readouterr().err
    assert "a.txt: not UTF-8" in told and "c.txt: no such file" in told
    assert "let replace_blanks.py convert it" in told and "no usable pair among 3 images" in error_line(told)
    assert len((tmp_path / "out" / "skipped.csv").read_text().splitlines()) == 4


def test_a_split_without_training_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pair(tmp_path / "dataset", "a.png", ["general", "new_tag"])
    before = write_csv(tmp_path / "tags.csv", RATINGS).read_bytes()
    assert run(tmp_path, "--split-ratio", 0) == 2
    assert "leaves no image for training" in error_line(capsys.readouterr().err)
    assert (tmp_path / "tags.csv").read_bytes() == before


def test_a_folder_that_holds_somebodys_vocabulary_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path / "dataset", "a.png", ["general", "new_tag"])
    write_csv(tmp_path / "tags.csv", RATINGS)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "selected_tags.csv").write_text("mine")
    assert run(tmp_path) == 2
    assert "does not look like this script's output; name another --output-path" in error_line(capsys.readouterr().err)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["selected_tags.csv"]


@pytest.mark.parametrize("output", [ROOT, ROOT / "README.md"])
def test_the_toolkits_own_folder_is_no_place_for_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: Path
) -> None:
    write_pair(tmp_path / "dataset", "a.png", ["general"])
    write_csv(tmp_path / "tags.csv", RATINGS)
    assert run(tmp_path, "--output-path", output, "--overwrite") == 2
    assert "name another --output-path" in error_line(capsys.readouterr().err)
    assert not (ROOT / ".plan.sqlite").exists()


@pytest.mark.parametrize("flags", [["--split-ratio", "1.5"], ["--img-size", "0"], ["--split-ratio", "most"]])
def test_wrong_values_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(tmp_path, *flags)
    assert caught.value.code == 2
    assert flags[0] in error_line(capsys.readouterr().err)


def test_tags_in_any_spelling_are_what_they_mean(tmp_path: Path) -> None:
    """Captions that inference wrote with blanks and escapes make no new tags."""
    csv_path = write_csv(tmp_path / "tags.csv", [*RATINGS, "long_hair,0", "somebody_(series),4", "\\m/,0"])
    before = csv_path.read_bytes()
    spelt = ["general\nlong hair", r"somebody \(series\)", "(long hair:1.2)", "\\m/", "((1gril))", "1girl", "solo"]
    write_pair(tmp_path / "dataset", "a.png", spelt)
    done = run_script("create_tfrecord.py", "--tags-csv", csv_path, "--img-size", 14, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_vocabulary(csv_path).names[4:] == ("long_hair", "somebody_(series)", "\\m/", "1girl", "1gril", "solo")
    assert "2 different tags had weights, such as (long hair:1.2) for long_hair" in done.stderr
    assert "tags.csv: 3 new tags appended" in done.stderr and "tags.before.csv is the version before" in done.stderr
    assert (tmp_path / "tags.before.csv").read_bytes() == before
    record = RecordFile(tmp_path / "output-datasets" / TRAIN)[0]
    assert list(record.labels) == [0, 4, 5, 6, 8, 7, 9]


def test_a_tag_that_looks_misspelt_is_named_with_its_uses(tmp_path: Path) -> None:
    csv_path = write_csv(tmp_path / "tags.csv", [*RATINGS, "long_hair,0"])
    write_pair(tmp_path / "dataset", "a.png", ["general", "long_hiar"])
    done = run_script("create_tfrecord.py", "--tags-csv", csv_path, "--img-size", 14, cwd=tmp_path)
    assert "warning: new tags that may be known ones misspelt: long_hiar for long_hair (1 use); if so" in done.stderr


def test_tags_without_a_separator_are_warned_of(tmp_path: Path) -> None:
    csv_path = write_csv(tmp_path / "tags.csv", RATINGS)
    write_pair(tmp_path / "dataset", "a.png", ["general", "1girl whiskey"])
    done = run_script("create_tfrecord.py", "--tags-csv", csv_path, "--img-size", 14, cwd=tmp_path)
    assert done.returncode == 0
    assert read_vocabulary(csv_path).names[4:] == ("1girl_whiskey",)
    assert "1 new tag written with blanks, such as '1girl whiskey' for 1girl_whiskey; " in done.stderr
    assert "replace_blanks.py" in done.stderr


def test_what_tag_categories_knows_is_not_misspelt(tmp_path: Path) -> None:
    csv_path = write_csv(tmp_path / "tags.csv", [*RATINGS, "kantoku,1"])
    write_pair(tmp_path / "dataset", "a.png", ["general", "kantokuu"])
    write_csv(tmp_path / "dataset" / "tag_categories.csv", ["kantokuu,1"])
    done = run_script("create_tfrecord.py", "--tags-csv", csv_path, "--img-size", 14, cwd=tmp_path)
    assert done.returncode == 0 and "misspelt" not in done.stderr
    assert read_categories(csv_path)["kantokuu"] == ARTIST


def test_old_names_are_todays(tmp_path: Path) -> None:
    """Over others, beside today's name in one txt, in any spelling; and the name of a row stays that of the tag."""
    csv_path = write_csv(tmp_path / "tags.csv", [*RATINGS, "bow,0", "row_of_old,0"])
    names = ["oldest_artist,old_artist", "old_artist,artist", "ribbon_(bow),bow", "row_of_old,today"]
    write_csv(tmp_path / "tag_aliases.csv", [*names, "one,two", "two,one", "explicit,nsfw"], "alias,name")
    texts = ["explicit", "oldest artist", "old_artist", "ribbon \\(bow\\)", "bow", "today", "row_of_old", "one", "two"]
    write_pair(tmp_path / "dataset", "a.png", texts)
    write_csv(tmp_path / "dataset" / "tag_categories.csv", ["oldest_artist,1"])
    flags = ["--tags-csv", csv_path, "--img-size", 14]
    done = run_script("create_tfrecord.py", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = "tag_aliases.csv: 4 tags read under another name, such as oldest_artist as artist"
    assert said in done.stderr and done.stderr.count("another name") == 1
    assert read_vocabulary(csv_path).names[4:] == ("bow", "row_of_old", "artist", "one", "two")
    assert read_categories(csv_path)["artist"] == ARTIST
    assert list(RecordFile(tmp_path / "output-datasets" / TRAIN)[0].labels) == [3, 6, 4, 5, 7, 8]
    assert not (tmp_path / "output-datasets" / "unknown_tags.csv").exists()
    before = contents(tmp_path / "output-datasets")
    done = run_script("create_tfrecord.py", *flags, cwd=tmp_path)  # the rows that it appended change no name
    assert done.returncode == 0 and said in done.stderr
    assert contents(tmp_path / "output-datasets") == before


def test_a_name_of_today_that_the_vocabulary_lacks_is_the_unknown_one(three_pairs: Path) -> None:
    write_csv(three_pairs / "tag_aliases.csv", ["often,frequent", "seldom,rare"], "alias,name")
    done = run_script("create_tfrecord.py", "--no-new-tags", "--img-size", 14, cwd=three_pairs)
    assert "2 tags are not in selected_tags.csv (4 uses): frequent, rare" in done.stderr
    unknown = read_vocabulary(three_pairs / "output-datasets" / "unknown_tags.csv")
    assert (unknown.names, unknown.counts) == (("frequent", "rare"), (2, 2))


def test_records_made_with_other_aliases_are_out_of_date(tmp_path: Path) -> None:
    csv_path = write_csv(tmp_path / "tags.csv", [*RATINGS, "hat,0", "cap,0"])
    write_pair(tmp_path / "dataset", "a.png", ["general", "cap"])
    flags = ["--tags-csv", csv_path, "--img-size", 14]
    assert run_script("create_tfrecord.py", *flags, cwd=tmp_path).returncode == 0
    other = write_csv(tmp_path / "other.csv", ["cap,hat"], "alias,name")
    changed = "the tags in the txt files, their aliases or the rows of the CSV changed; pass --overwrite"
    done = run_script("create_tfrecord.py", *flags, "--tag-aliases", other, cwd=tmp_path)
    assert done.returncode == 2 and changed in error_line(done.stderr)
    shutil.copy(other, tmp_path / "tag_aliases.csv")
    done = run_script("create_tfrecord.py", *flags, "--overwrite", cwd=tmp_path)
    assert done.returncode == 0 and "1 tag read under another name, such as cap as hat" in done.stderr
    assert list(RecordFile(tmp_path / "output-datasets" / TRAIN)[0].labels) == [0, 4]
    (tmp_path / "tag_aliases.csv").unlink()
    done = run_script("create_tfrecord.py", *flags, cwd=tmp_path)
    assert done.returncode == 2 and changed in error_line(done.stderr)


@pytest.mark.parametrize(
    ("text", "reason"), [(None, "no such file"), ("a,b\n", "no column alias and name"), ('alias,name\n"x', "not CSV")]
)
def test_unusable_aliases_are_an_error_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, reason: str
) -> None:
    csv_path = write_csv(tmp_path / "tags.csv", RATINGS)
    write_pair(tmp_path / "dataset", "a.png", ["general", "cap"])
    if text is not None:
        (tmp_path / "x.csv").write_text(text)
    assert run(tmp_path, "--tags-csv", csv_path, "--tag-aliases", tmp_path / "x.csv") == 2
    line = error_line(capsys.readouterr().err)
    assert "x.csv" in line and reason in line
    assert tree(tmp_path / "output-datasets") == []


def test_records_of_a_vocabulary_with_blanks_are_still_finished_for_version_0_1s_dataset(tmp_path: Path) -> None:
    """Version 0.1 appended `long hair` as it was written; its row stays the one that is meant."""
    csv_path = write_csv(tmp_path / "tags.csv", [*RATINGS, "long_hair,0", "long hair,0"])
    write_pair(tmp_path / "dataset", "a.png", ["general", "long hair"])
    done = run_script("create_tfrecord.py", "--tags-csv", csv_path, "--img-size", 14, cwd=tmp_path)
    assert done.returncode == 0 and not (tmp_path / "tags.before.csv").exists()
    assert list(RecordFile(tmp_path / "output-datasets" / TRAIN)[0].labels) == [0, 5]


def test_pictures_that_are_not_read_here_are_left_out_and_all_else_is_counted(tmp_path: Path) -> None:
    write_csv(tmp_path / "selected_tags.csv", RATINGS)
    for name in ("a.png", "b.gif"):
        write_pair(tmp_path / "dataset", name, ["general"], grey=ord(name[0]))
    for name in ("phone.heic", "phone.txt", "film.mp4", "notes.md", "LICENSE"):
        (tmp_path / "dataset" / name).touch()
    (tmp_path / "dataset" / "more").mkdir()
    done = run_script("create_tfrecord.py", "--img-size", 14, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert [line.partition("left out: ")[2] for line in left_out(done.stderr)] == [
        "1 .heic: pictures in formats that are not read here; convert them to png or jpg"
    ]
    assert "1 without a suffix, 1 .md, 1 .mp4, 1 folder" in done.stderr
    assert "1 train + 1 val image, 4 tags, 1 left out" in done.stdout


# --- what is refused before any work --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "csv_path", "words"),
    [
        ("out", "tags.csv", "out: not a folder"),
        ("out/skipped.csv", "tags.csv", "skipped.csv: stands there and does not look like this script's output"),
        ("out/unknown_tags.csv", "tags.csv", "unknown_tags.csv: stands there"),
        ("out/selected_tags.csv", "out/selected_tags.csv", "selected_tags.csv: an input of this run"),
    ],
)
def test_an_output_over_somebodys_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, csv_path: str, words: str
) -> None:
    write_pair(tmp_path / "dataset", "a.png", ["general"])
    write_csv(tmp_path / "tags.csv", RATINGS)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    write_csv(tmp_path / file, RATINGS)
    before = tree(tmp_path)
    assert run(tmp_path, "--tags-csv", tmp_path / csv_path) == 2
    line = error_line(capsys.readouterr().err)
    assert words in line and "name another --output-path" in line
    assert tree(tmp_path) == before


def test_the_vocabulary_of_other_records_does_not_grow(records: Path, tmp_path: Path) -> None:
    shutil.copytree(records, tmp_path / "records")
    write_pair(tmp_path / "dataset", "a.png", ["general", "new_tag"])
    flags = ["--tags-csv", "records/selected_tags.csv", "--img-size", 14]
    before = contents(tmp_path)
    done = run_script("create_tfrecord.py", *flags, cwd=tmp_path)
    assert done.returncode == 2 and contents(tmp_path) == before
    line = error_line(done.stderr)
    assert "belongs to the aibooru.json beside it" in line and "--no-new-tags" in line
    done = run_script("create_tfrecord.py", *flags, "--no-new-tags", cwd=tmp_path)
    assert done.returncode == 0 and contents(tmp_path / "records") == contents(records)


def test_a_train_split_that_cannot_be_decoded_is_an_error(tmp_path: Path) -> None:
    write_pair(tmp_path / "dataset", "a.png", ["general"]).write_bytes(b"no picture")
    write_csv(tmp_path / "selected_tags.csv", RATINGS)
    done = run_script("create_tfrecord.py", "--img-size", 14, cwd=tmp_path)
    assert done.returncode == 2 and not (tmp_path / "output-datasets" / "aibooru.json").exists()
    assert "no image of the train split can be decoded; output-datasets" in error_line(done.stderr)
    assert set(reasons(tmp_path / "output-datasets")) == {"a.png"}


# --- tags that get no row -------------------------------------------------------------------------------------------


@pytest.fixture
def three_pairs(tmp_path: Path) -> Path:
    for number, names in enumerate((["often", "rare"], ["often"], ["seldom"])):
        write_pair(tmp_path / "dataset", f"{number}.png", ["general", *names] if number < 2 else names, grey=number)
    write_csv(tmp_path / "selected_tags.csv", RATINGS)
    return tmp_path


def test_rare_tags_are_not_appended_but_named(three_pairs: Path) -> None:
    done = run_script("create_tfrecord.py", "--min-count", 2, "--img-size", 14, cwd=three_pairs)
    assert read_vocabulary(three_pairs / "selected_tags.csv").names[4:] == ("often",)
    assert "2 tags are not in selected_tags.csv (2 uses): rare, seldom" in done.stderr
    unknown = read_vocabulary(three_pairs / "output-datasets" / "unknown_tags.csv")
    assert (unknown.names, unknown.counts) == (("rare", "seldom"), (1, 1))
    # 2.png has a rare tag alone: without a label it would teach that there is nothing in it.
    assert done.returncode == 1 and about(three_pairs / "output-datasets")["train_samples"] == 1
    assert reasons(three_pairs / "output-datasets") == {"2.png": "no known tag among: seldom"}


def test_no_new_tags_leaves_the_csv_alone(three_pairs: Path) -> None:
    before = (three_pairs / "selected_tags.csv").read_bytes()
    done = run_script("create_tfrecord.py", "--no-new-tags", "--strict", "--img-size", 14, cwd=three_pairs)
    assert (three_pairs / "selected_tags.csv").read_bytes() == before
    assert "3 tags are not in selected_tags.csv (4 uses): often, rare, seldom" in done.stderr
    assert done.returncode == 2  # --strict, for 2.png is left out


# --- shards and resuming --------------------------------------------------------------------------------------------

BIG = 96  # pictures that take a worker some milliseconds each
SHARDS = 6


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """./dataset and ./selected_tags.csv of a new folder; one picture is truncated."""
    root = tmp_path_factory.mktemp("big")
    (root / "dataset").mkdir()
    noise = np.random.default_rng(0)
    for number in range(BIG):
        pixels = np.repeat(np.repeat(noise.integers(0, 256, (40, 30, 3), np.uint8), 10, axis=0), 10, axis=1)
        image = root / "dataset" / f"{number:03}.jpg"
        Image.fromarray(pixels).save(image, quality=95)
        image.with_suffix(".txt").write_text(f"general,tag{number % 7}", encoding="utf-8")
    truncated = root / "dataset" / "005.jpg"
    truncated.write_bytes(truncated.read_bytes()[:-2000])
    write_csv(root / "selected_tags.csv", RATINGS)
    return root


def command(root: Path, output: Path, *flags: object) -> list[str]:
    """The script on the big dataset, as a command line."""
    script_path = Path(script.__file__)
    pairs = {"--dataset-folder": root / "dataset", "--output-path": output, "--tags-csv": output.with_suffix(".csv")}
    shutil.copy(root / "selected_tags.csv", output.with_suffix(".csv"))
    given = ["--img-size", 112, "--num-shards", SHARDS, *flags]
    return [sys.executable, *map(str, (script_path, *(part for pair in pairs.items() for part in pair), *given))]


@pytest.fixture(scope="module")
def undisturbed(big: Path) -> Path:
    done = subprocess.run(command(big, big / "undisturbed", "--workers", 1), capture_output=True, text=True)
    assert done.returncode == 1 and "005.jpg" in done.stderr
    return big / "undisturbed"


def test_the_number_of_workers_does_not_show(big: Path, undisturbed: Path) -> None:
    assert subprocess.run(command(big, big / "three", "--workers", 3), capture_output=True).returncode == 1
    assert contents(big / "three") == contents(undisturbed)


def test_a_killed_run_goes_on_from_the_finished_shards_and_ends_with_the_same_bytes(
    big: Path, undisturbed: Path
) -> None:
    output, seen = big / "killed", []
    for finished in (0, 2, 5):
        # stderr to a file: a pipe that nobody reads would stop the script.
        with open(big / "stderr", "wb") as stderr:
            process = subprocess.Popen(command(big, output), stdout=stderr, stderr=stderr)
        while len(list(output.glob("*/*.stats.json"))) < finished or not list(output.glob("*/.*.part")):
            assert process.poll() is None, (big / "stderr").read_text()
            time.sleep(0.001)
        process.kill()
        process.wait()
        seen.append(len(list(output.glob("*/*.stats.json"))))
        assert not (output / "aibooru.json").exists()
    assert seen == sorted(seen) and seen[-1] > 0
    done = subprocess.run(command(big, output), capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{seen[-1]} of 9 shards are finished" in done.stderr
    assert contents(output) == contents(undisturbed)


def test_shards_hold_what_one_file_would(big: Path, undisturbed: Path) -> None:
    done = subprocess.run([*command(big, big / "single"), "--num-shards=1"], capture_output=True)
    assert done.returncode == 1
    for split, count in (("train", SHARDS), ("val", 3)):
        folder = f"record_shards_{split}"
        names = [f"aibooru_{split}-{number:05}-of-{count:05}.tfrecord" for number in range(count)]
        assert sorted(path.name for path in (undisturbed / folder).glob("*.tfrecord")) == names
        whole = b"".join((undisturbed / folder / name).read_bytes() for name in names)
        assert whole == (big / "single" / folder / f"aibooru_{split}.tfrecord").read_bytes()
    files = RecordFiles(shard_paths(undisturbed, "train", SHARDS))
    single = RecordFile(big / "single" / TRAIN)
    assert len(files) == len(single) == about(undisturbed)["train_samples"]
    assert [files[number] for number in range(len(files))] == [single[number] for number in range(len(single))]
    with pytest.raises(IndexError):
        files[len(files)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--quality", 90], "--quality was 95 and is 90"),
        (["--seed", 1], "--seed was 0 and is 1"),
        (["--resize-mode", "stretch"], "--resize-mode was pad and is stretch"),
        (["--num-shards", 5], "--num-shards was 6 and is 5"),
        ("a txt", "the tags in the txt files, their aliases or the rows of the CSV changed"),
        ("a picture", "the dataset's pictures changed"),
    ],
)
def test_what_changed_is_said_and_nothing_is_touched(
    big: Path, undisturbed: Path, tmp_path: Path, change: Any, words: str
) -> None:
    shutil.copytree(undisturbed, tmp_path / "out")
    shutil.copytree(big / "dataset", tmp_path / "dataset")
    shutil.copy(big / "selected_tags.csv", tmp_path / "selected_tags.csv")
    if change == "a txt":
        (tmp_path / "dataset" / "001.txt").write_text("general,tag3,tag4", encoding="utf-8")
    elif change == "a picture":
        Image.new("RGB", (9, 9)).save(tmp_path / "dataset" / "001.jpg")
    before = contents(tmp_path / "out")
    done = subprocess.run(
        command(tmp_path, tmp_path / "out", *([] if isinstance(change, str) else change)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert words in error_line(done.stderr) and "--overwrite" in error_line(done.stderr)
    assert contents(tmp_path / "out") == before


def test_overwrite_writes_what_changed_and_keeps_the_rest(big: Path, undisturbed: Path) -> None:
    output = big / "overwritten"
    shutil.copytree(undisturbed, output)
    flags = ["--overwrite", "--num-shards", 3, "--resize-mode", "stretch"]
    assert subprocess.run(command(big, output, *flags), capture_output=True).returncode == 1
    assert [path.name for path in sorted(output.glob("record_shards_train/*.tfrecord"))] == [
        path.name for path in shard_paths(output, "train", 3)
    ]
    files = RecordFiles(shard_paths(output, "train", 3))
    names = {files[number].name: files[number].image for number in range(len(files))}
    expected = images.prepare(big / "dataset" / min(names), 112, stretch=True, reduced_decoding=True)
    assert names[min(names)] == images.encode_jpeg(expected)


def test_two_runs_in_one_folder_do_not_mix(big: Path, undisturbed: Path) -> None:
    with closing(Catalog(undisturbed / CATALOG_FILE, big / "dataset")):
        done = subprocess.run(command(big, undisturbed), capture_output=True, text=True)
    assert done.returncode == 2
    assert "another run is at work here; wait for it, or name another --output-path" in error_line(done.stderr)


def test_processes_end_with_a_script_that_is_killed(big: Path) -> None:
    process = subprocess.Popen(command(big, big / "orphans"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children: list[psutil.Process] = []
    while not list((big / "orphans").glob("*/.*.part")):
        assert process.poll() is None
        children = psutil.Process(process.pid).children(recursive=True) or children
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert children and not psutil.wait_procs(children, timeout=30)[1]


def test_a_full_disk_is_one_line_and_the_next_run_finishes(
    big: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class OpError(Exception):
        message = "No space left on device"

    def refuse(path: bytes) -> Any:
        raise OpError

    # tensorflow, as far as the script needs it, on a disk that takes no byte.
    tensorflow = SimpleNamespace(errors=SimpleNamespace(OpError=OpError), io=SimpleNamespace(TFRecordWriter=refuse))
    monkeypatch.setattr(writer, "import_tensorflow", lambda: tensorflow)
    output = big / "full"
    assert script.main(command(big, output)[2:]) == 2
    assert "aibooru_train-00000-of-00006.tfrecord: No space left" in (line := error_line(capsys.readouterr().err))
    assert "make room there, or name another --output-path" in line
    assert tree(output) == [CATALOG_FILE, LOCK_NAME]
    assert subprocess.run(command(big, output), capture_output=True).returncode == 1
    assert contents(output) == contents(undisturbed)


@pytest.mark.parametrize("flag", ["--verify", "--overwrite"])
def test_damaged_shards_are_found_and_written_again(big: Path, undisturbed: Path, flag: str) -> None:
    output = big / flag
    shutil.copytree(undisturbed, output)
    damaged = shard_paths(output, "train", SHARDS)
    flip_byte(damaged[0], 500)
    index_of(damaged[2]).write_text("0 500\n")
    done = subprocess.run(command(big, output), capture_output=True, text=True)
    assert done.returncode == 1 and contents(output) != contents(undisturbed)  # sizes and times do not tell
    done = subprocess.run(command(big, output, flag), capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert f"{damaged[0]}: record 0 is damaged; it is written again" in done.stderr
    assert f"{damaged[2]}: {index_of(damaged[2]).name} does not fit it; it is written again" in done.stderr
    assert done.stderr.count("it is written again") == 2 and "7 of 9 shards are finished" in done.stderr
    assert contents(output) == contents(undisturbed)


def test_the_run_that_has_the_folder_is_named(big: Path, undisturbed: Path) -> None:
    with locked_folder(undisturbed):
        done = subprocess.run(command(big, undisturbed), capture_output=True, text=True)
    assert done.returncode == 2
    line = error_line(done.stderr)
    assert f"process {os.getpid()} on " in line
    assert "is at work here; wait for it, or name another --output-path" in line


def test_folders_below(tmp_path: Path) -> None:
    for number in range(4):
        write_pair(tmp_path / "dataset" / f"{number}_name", "same.png", ["general", f"tag_{number}"], grey=number)
    (tmp_path / "dataset" / "1_name" / "lonely.png").write_bytes(b"no txt")
    write_csv(tmp_path / "dataset" / "2_name" / "tag_categories.csv", ["tag_2,1"])
    csv_path = write_csv(tmp_path / "tags.csv", RATINGS)
    flags = ["--recursive", "--tags-csv", csv_path, "--img-size", STORED_SIZE, "--split-ratio", "0.5"]
    done = run_script("create_tfrecord.py", *flags, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    output = tmp_path / "output-datasets"
    assert sorted(names_in(output / TRAIN) + names_in(output / VAL)) == [f"{n}_name/same.png" for n in range(4)]
    assert list(reasons(output)) == ["1_name/lonely.png"]
    assert read_categories(csv_path)["tag_2"] == ARTIST


# --- as other programs left it --------------------------------------------------------------------------------------


def write_gallery(folder: Path) -> None:
    """What gallery-dl 1.32 leaves of four posts with --write-metadata, in the folder of the site; shortened."""
    for number, suffix in enumerate(("jpg", "png", "jpg", "jpg")):
        md5 = hashlib.md5(b"%d" % number).hexdigest()
        name = f"danbooru_{10582 + number}_{md5}.{suffix}"
        write_pair(folder / "danbooru", name, [], grey=60 * number).with_suffix(".txt").unlink()
        post = {
            "id": 10582 + number,
            "rating": "gsqe"[number],
            "md5": md5,
            "file_ext": suffix,
            "tag_string_general": "chip food-sweet o_o",
            "tag_string_character": "saber_(fate)" if number else "",
            "tag_string_artist": "fxemoji_(mozilla)",
            "tag_string_copyright": "unicode_emoji",
            "tag_string_meta": "",
            "tag_count_general": 3,
            "tag_string": "chip food-sweet fxemoji_(mozilla) o_o unicode_emoji",
            "score": 0,
            "parent_id": None,
            "has_children": False,
            "media_asset": {"id": 10589, "variants": [{"type": "720x720", "width": 698}]},
            "filename": md5,
            "extension": suffix,
            "tags": ["chip", "food-sweet", "fxemoji_(mozilla)", "o_o", "unicode_emoji"],
            "tags_artist": ["fxemoji_(mozilla)"],
            "tags_meta": [],
            "search_tags": "",
            "category": "danbooru",
            "subcategory": "tag",
        }
        (folder / "danbooru" / f"{name}.json").write_text(json.dumps(post, indent=4), encoding="utf-8")


def test_a_folder_of_gallery_dls_needs_no_preparation(tmp_path: Path) -> None:
    write_gallery(tmp_path / "dataset")
    csv_path = write_csv(tmp_path / "selected_tags.csv", RATINGS)
    done = run_script("create_tfrecord.py", "--recursive", "--img-size", 14, "--split-ratio", 0.5, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    expected = {"chip": 0, "food-sweet": 0, "o_o": 0, "fxemoji_(mozilla)": ARTIST, "saber_(fate)": CHARACTER}
    expected["unicode_emoji"] = 3
    names, categories = list(read_categories(csv_path)), read_categories(csv_path)
    assert {name: categories[name] for name in names[4:]} == expected
    for split in (TRAIN, VAL):
        records = RecordFile(tmp_path / "output-datasets" / split)
        for number in range(len(records)):
            tags = [names[label] for label in records[number].labels]
            post = int(records[number].name.split("_")[1]) - 10582
            assert tags[0] == ["general", "sensitive", "questionable", "explicit"][post]
            assert tags[-1] == "unicode_emoji" and ("saber_(fate)" in tags) == (post > 0)


def test_hydrus_captions_and_posts_side_by_side(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    for number, name in enumerate(("a.png", "b.png", "c.png", "d.png", "e.png", "f.png")):
        write_pair(folder, name, [], grey=number).with_suffix(".txt").unlink()
    (folder / "a.png.txt").write_text("creator:ke-ta\nsmile\nrating:explicit\n")
    (folder / "b.caption").write_text("smile, character:saber")
    (folder / "c.json").write_text(json.dumps({"tags": ["creator:somebody", "meta:highres", "a,b"]}))
    (folder / "d.png.json").write_text(json.dumps(["series:re:zero"]))
    (folder / "d.txt").write_text("general")
    (folder / "e.json").write_text("{")
    (folder / "f.json").write_text('{"title": "no tags"}')
    csv_path = write_csv(tmp_path / "selected_tags.csv", [*RATINGS, "creator:somebody,0"])
    done = run_script("create_tfrecord.py", "--img-size", 14, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "warning: 1 image has tags in several places, such as d.png; taken was the first of x.txt" in done.stderr
    assert "warning: 1 tag left out, for being endless or having invisible characters or commas" in done.stderr
    found = reasons(tmp_path / "output-datasets")
    assert found.pop("e.png").startswith("e.json: not JSON (")
    assert found == {"f.png": "f.json: no tags in it; write some, separated by commas"}
    known = read_categories(csv_path)
    assert known["ke-ta"] == ARTIST and known["saber"] == CHARACTER and known["highres"] == 5
    assert known["creator:somebody"] == GENERAL and "re:zero" not in known  # as it stands in the CSV; d.txt holds


def test_tags_from_a_table_of_posts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        write_pair(tmp_path / "dataset", f"{number + 1:03}.png", [], grey=number).with_suffix(".txt").unlink()
    csv_path = write_csv(tmp_path / "tags.csv", RATINGS)
    rows = [
        f'{{"id": {n}, "rating": "q", "tag_string_general": "smile", "tag_string_artist": "ke-ta"}}' for n in (1, 2)
    ]
    (tmp_path / "posts.jsonl").write_text("\n".join(rows))
    write_csv(tmp_path / "more.csv", ["2,hat", "3,hat"], header="id,tags")
    tables = ["--metadata", tmp_path / "posts.jsonl", tmp_path / "more.csv"]
    done = run_script("create_tfrecord.py", "--tags-csv", csv_path, *tables, "--img-size", 14, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert reasons(tmp_path / "output-datasets").keys() == {"004.png"}
    assert list(read_categories(csv_path).items())[4:] == [("ke-ta", ARTIST), ("smile", GENERAL), ("hat", GENERAL)]
    assert about(tmp_path / "output-datasets")["train_samples"] == 2
    # What is wrong with a table is said before any work.
    shutil.rmtree(tmp_path / "output-datasets")
    assert run(tmp_path, "--metadata", tmp_path / "gone.parquet") == 2
    assert "gone.parquet: no such file; name a table of posts" in error_line(capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


# --- tars -----------------------------------------------------------------------------------------------------------


def tar_up(folder: Path, names: Sequence[str], tar: Path) -> None:
    tar.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tar, "w") as file:
        for name in names:
            file.add(folder / name, name)


def pictures_and_labels(output: Path) -> list[tuple[bytes, list[int], str]]:
    """All records of both splits, with the name within the tar alone."""
    found = []
    for path in sorted(output.glob("*/*.tfrecord")):
        records = RecordFile(path)
        rows = (records[number] for number in range(len(records)))
        found += [(row.image, list(row.labels), row.name.rpartition("/")[2]) for row in rows]
    return found


def test_tars_give_what_the_same_files_give(big: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Also when killed, and when one was truncated; an index beside one of them is used."""
    names = sorted(path.name for path in (big / "dataset").iterdir())
    for number in range(4):
        tar_up(big / "dataset", names[48 * number : 48 * number + 48], tmp_path / "dataset" / f"data-{number:04}.tar")
    with tarfile.open(tmp_path / "dataset" / "data-0001.tar") as tar:
        places = {info.name: {"offset": info.offset_data, "size": info.size} for info in tar}
    (tmp_path / "dataset" / "data-0001.json").write_text(json.dumps({"files": places}))
    shutil.copy(big / "selected_tags.csv", tmp_path / "selected_tags.csv")
    output = tmp_path / "out"
    for finished in (0, 3):
        process = subprocess.Popen(command(tmp_path, output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(list(output.glob("*/*.stats.json"))) < finished or not list(output.glob("*/.*.part")):
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
        process.wait()
    done = subprocess.run(command(tmp_path, output), capture_output=True, text=True)
    assert done.returncode == 1 and "data-0000.tar/005.jpg: " in done.stderr and "not read" not in done.stderr
    assert pictures_and_labels(output) == pictures_and_labels(undisturbed)
    last = tmp_path / "dataset" / "data-0003.tar"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    done = subprocess.run(command(tmp_path, output, "--overwrite"), capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    found = reasons(output)
    assert found["data-0003.tar"].endswith("; what is before was taken; fetch it again")
    written = about(output)
    assert 72 < written["train_samples"] + written["val_samples"] < 95


def test_the_tags_of_pictures_in_tars(tmp_path: Path) -> None:
    for number in range(4):
        write_pair(tmp_path / "files", f"{number + 1}.png", ["general", "creator:ke-ta"], grey=number)
    (tmp_path / "files" / "2.txt").unlink()
    (tmp_path / "files" / "3.txt").write_bytes(b"\xff")
    tar_up(tmp_path / "files", ["1.png", "1.txt", "2.png", "3.png", "3.txt"], tmp_path / "dataset" / "below" / "0.tar")
    write_csv(tmp_path / "posts.csv", ["2,hat", "4,hat"], header="id,tags")
    csv_path = write_csv(tmp_path / "selected_tags.csv", RATINGS)
    flags = ["--recursive", "--metadata", "posts.csv"]
    done = run_script("generate_selected_tags.py", *flags, "--output-csv", "own.csv", cwd=tmp_path)
    assert done.returncode == 1 and "3.txt: not UTF-8 at byte 0" in done.stderr
    assert read_vocabulary(tmp_path / "own.csv").names[4:] == ("hat", "ke-ta")
    done = run_script("create_tfrecord.py", *flags, "--img-size", 14, "--split-ratio", 1, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert sorted(names_in(tmp_path / "output-datasets" / TRAIN)) == ["below/0.tar/1.png", "below/0.tar/2.png"]
    assert reasons(tmp_path / "output-datasets").keys() == {"below/0.tar/3.png"}
    assert reasons(tmp_path / "output-datasets")["below/0.tar/3.png"].startswith("3.txt: not UTF-8 at byte 0")
    assert read_categories(csv_path)["ke-ta"] == ARTIST
