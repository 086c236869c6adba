"""create_tfrecord.py: the split, the vocabulary that grows, what is written and what is left out.

tensorflow runs in processes of its own; what needs none of it is called here.

python -m pytest tests/test_create_tfrecord.py
"""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import create_tfrecord as script
import tags
from records import RecordFile
from tests.conftest import POSTS, STORED_SIZE
from tests.helpers import error_line, left_out, run_script, tree, write_csv, write_pair, write_txts

RATINGS = ["general,9", "sensitive,9", "questionable,9", "explicit,9"]
TRAIN = Path("record_shards_train", "aibooru_train.tfrecord")
VAL = Path("record_shards_val", "aibooru_val.tfrecord")


def names_in(path: Path) -> list[str]:
    file = RecordFile(path)
    return [file[number].name for number in range(len(file))]


def about(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "aibooru.json").read_text(encoding="utf-8"))


# --- the split ------------------------------------------------------------------------------------------------------


def pairs_of(contents: list[bytes]) -> list[script.Pair]:
    return [
        script.Pair(Path(f"{number}.jpg"), hashlib.sha256(data).digest(), ["solo"])
        for number, data in enumerate(contents)
    ]


@given(st.lists(st.binary(max_size=4), unique=True, max_size=30), st.floats(0, 1))
def test_the_split_takes_the_smallest_digests(contents: list[bytes], ratio: float) -> None:
    train, val = script.split(pairs_of(contents), ratio)
    ordered = sorted(hashlib.sha256(data).hexdigest() for data in contents)
    border = round(len(contents) * ratio)
    assert [pair.digest.hex() for pair in train] == ordered[:border]
    assert [pair.digest.hex() for pair in val] == ordered[border:]


@given(st.lists(st.binary(max_size=4), max_size=30), st.floats(0, 1), st.randoms(use_true_random=False))
def test_neither_order_nor_names_change_the_split(contents: list[bytes], ratio: float, random: Any) -> None:
    shuffled = random.sample(contents, len(contents))
    splits = (script.split(pairs_of(order), ratio) for order in (contents, shuffled))
    for ours, others in zip(*splits, strict=True):
        assert [pair.digest for pair in ours] == [pair.digest for pair in others]


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=30), st.floats(0, 1))
def test_equal_pictures_are_never_on_both_sides(contents: list[bytes], ratio: float) -> None:
    train, val = script.split(pairs_of(contents), ratio)
    assert not {pair.digest for pair in train} & {pair.digest for pair in val}
    assert len(train) >= round(len(contents) * ratio) and len(train) + len(val) == len(contents)


# --- what the shared fixture made of the sample dataset -------------------------------------------------------------


def test_round_n_times_ratio_by_the_digest_of_the_image_files(dataset: Path, records: Path) -> None:
    ordered = sorted(dataset.glob("*.jpg"), key=lambda path: hashlib.sha256(path.read_bytes()).digest())
    train, val = names_in(records / TRAIN), names_in(records / VAL)
    assert len(train) == round(POSTS * 0.75)
    assert [*train, *val] == [path.name for path in ordered]


def test_the_json_says_what_is_there(records: Path) -> None:
    vocabulary = tags.read_vocabulary(records / "selected_tags.csv")
    assert about(records) == {
        "num_classes": len(vocabulary),
        "train_samples": 18,
        "val_samples": 6,
        "image_size": STORED_SIZE,
        "tags_sha256": vocabulary.sha256,
    }


def test_the_frozen_vocabulary_counts_uses_in_the_train_split(dataset: Path, records: Path) -> None:
    vocabulary = tags.read_vocabulary(records / "selected_tags.csv")
    used = [name for image in names_in(records / TRAIN) for name in tags.read_tags(dataset / f"{image[:2]}.txt")]
    assert vocabulary.counts == tuple(used.count(name) for name in vocabulary.names)
    assert 0 in vocabulary.counts  # some tag is in the validation split alone


def test_new_tags_come_by_falling_frequency_with_the_datasets_categories(dataset: Path, records: Path) -> None:
    vocabulary = tags.read_vocabulary(records / "selected_tags.csv")
    used = [name for number in range(POSTS) for name in tags.read_tags(dataset / f"{number:02}.txt")]
    new = sorted(set(used) - set(vocabulary.names[:4]), key=lambda name: (-used.count(name), name))
    known = tags.read_categories(dataset / "tag_categories.csv")
    assert list(vocabulary.names[4:]) == new
    assert list(vocabulary.categories[4:]) == [known.get(name, tags.GENERAL) for name in new]
    assert vocabulary.indices(tags.ARTIST) and vocabulary.indices(tags.CHARACTER)


def test_the_same_dataset_gives_the_same_bytes_with_flags_in_either_spelling(
    dataset: Path, records: Path, tmp_path: Path
) -> None:
    csv_path = write_csv(tmp_path / "tags.csv", RATINGS)
    flags = [f"--dataset_folder={dataset}", "--output_path", "out", "--tags_csv", csv_path, "--img_size", STORED_SIZE]
    done = run_script("create_tfrecord.py", *flags, "--split_ratio=0.75", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "out") == tree(records)
    for name in tree(records):
        assert (tmp_path / "out" / name).read_bytes() == (records / name).read_bytes()


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
    write_csv(folder / "tag_categories.csv", ["ke-ta,1", "初音ミク,4", "solo,0", "sensitive,0"])
    (root / "selected_tags.csv").write_bytes(STANDING)
    return root, run_script("create_tfrecord.py", cwd=root)


GOOD = {*(f"good{number}.png" for number in range(8)), "kindjpg.jpg", "kindjpeg.jpeg", "kindwebp.webp", "kindPNG.PNG"}


def test_what_cannot_be_used_is_named_and_the_exit_code_is_1(messy: Any) -> None:
    _, done = messy
    assert done.returncode == 1, done.stderr
    assert len(left_out(done.stderr)) == 5
    for name in ("corrupt.jpg", "no_txt.txt", "empty_txt.txt", "twice.png", "latin.txt"):
        assert sum(name in line for line in left_out(done.stderr)) == 1
    assert "5 left out" in done.stdout


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
    known = tags.read_categories(root / "selected_tags.csv")
    new = {"smile": 0, "ke-ta": 1, "null": 0, "sensitive": 9, "初音ミク": 4, "only_in_a_corrupt_image": 0}
    assert known == {"general": 9, "solo": 4} | new
    assert list(known)[2] == "smile"  # eight uses
    frozen = tags.read_vocabulary(root / "output-datasets" / "selected_tags.csv")
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


@pytest.mark.parametrize("content", ["nothing", "an image without txt"])
def test_folder_without_a_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    image = write_pair(tmp_path / "dataset", "a.png", ["general"])
    image.with_suffix(".txt").unlink()
    if content == "nothing":
        image.unlink()
    write_csv(tmp_path / "tags.csv", RATINGS)
    assert run(tmp_path) == 2
    assert "dataset: no image with a txt" in error_line(capsys.readouterr().err)


@pytest.mark.parametrize("flags", [["--split-ratio", "1.5"], ["--img-size", "0"], ["--split-ratio", "most"]])
def test_wrong_values_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(tmp_path, *flags)
    assert caught.value.code == 2
    assert flags[0] in error_line(capsys.readouterr().err)


def test_new_tags_with_blanks_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv_path = write_csv(tmp_path / "tags.csv", RATINGS)
    image = write_pair(tmp_path, "a.png", ["general", "long hair"])
    pairs, _ = script.read_pairs([image])
    assert script.extend_vocabulary(csv_path, pairs, {}).names[4:] == ("long hair",)
    assert "'long hair'" in capsys.readouterr().err


def test_a_failure_in_the_middle_leaves_the_old_records_and_no_finished_folder(
    dataset: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full_disk(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    writer = SimpleNamespace(TFRecordWriter=lambda path: open(path, "wb"))  # noqa: SIM115, the script closes it
    train = SimpleNamespace(Feature=dict, Int64List=dict, BytesList=dict)
    monkeypatch.setattr(script, "import_tensorflow", lambda: SimpleNamespace(io=writer, train=train))
    monkeypatch.setattr(script.images, "encode_jpeg", full_disk)
    shutil.copytree(records, tmp_path / "out")
    write_csv(tmp_path / "tags.csv", RATINGS)
    assert run(tmp_path, "--dataset-folder", dataset) == 2
    assert "No space left" in error_line(capsys.readouterr().err)
    assert tree(tmp_path / "out") == [name for name in tree(records) if name != "aibooru.json"]
    assert (tmp_path / "out" / TRAIN).read_bytes() == (records / TRAIN).read_bytes()


def test_tags_on_lines_of_their_own_do_not_spoil_the_csv(tmp_path: Path) -> None:
    csv_path = write_csv(tmp_path / "tags.csv", RATINGS)
    image = write_pair(tmp_path, "a.png", ["general\n1girl\nsolo"])
    pairs, _ = script.read_pairs([image])
    script.extend_vocabulary(csv_path, pairs, {})
    tags.read_vocabulary(csv_path)
