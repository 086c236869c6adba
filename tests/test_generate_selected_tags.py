"""generate_selected_tags.py from a dataset's txt files. Danbooru's own list: test_vocabulary_from_danbooru.py.

python -m pytest tests/test_generate_selected_tags.py
"""

import os
import re
from pathlib import Path

import pytest

import generate_selected_tags as script
from tagger.formats.vocabulary import ARTIST, CHARACTER, GENERAL, read_categories, read_vocabulary
from tests.helpers import ODD_NAMES, ROOT, error_line, left_out, run_script, write_csv, write_pair, write_txts

RATINGS = ["general,9", "sensitive,9", "questionable,9", "explicit,9"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """solo 3, 1girl 2, smile 2, hat 1; a character twice, an artist once."""
    return write_txts(
        tmp_path / "dataset",
        a="general,1girl,solo,smile",
        b="sensitive,1girl,solo,saber,ke-ta",
        c="general,solo,hat,smile,saber",
    )


def generate(folder: Path, output: Path, *flags: object) -> int:
    return script.main(["--dataset-folder", str(folder), "--output-csv", str(output), *map(str, flags)])


def lines(path: Path) -> list[str]:
    return path.read_bytes().decode().split("\n")


def test_ratings_then_falling_frequency_then_name(folder: Path, tmp_path: Path) -> None:
    assert generate(folder, tmp_path / "tags.csv") == 0
    rest = ["solo,0", "1girl,0", "saber,0", "smile,0", "hat,0", "ke-ta,0"]
    assert lines(tmp_path / "tags.csv") == ["name,category", *RATINGS, *rest, ""]


def test_the_defaults_in_a_process_of_their_own(folder: Path) -> None:
    done = run_script("generate_selected_tags.py", cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    assert "10 tags" in done.stdout and "4 rating" in done.stdout
    assert len(read_vocabulary(folder.parent / "selected_tags.csv")) == 10


def test_either_spelling_of_the_flags(folder: Path, tmp_path: Path) -> None:
    arguments = ["--dataset_folder", str(folder), "--output_csv", str(tmp_path / "tags.csv"), "--min_count", "3"]
    assert script.main(arguments) == 0
    assert read_vocabulary(tmp_path / "tags.csv").names[4:] == ("solo",)


def test_tag_categories_of_the_dataset_are_taken(folder: Path, tmp_path: Path) -> None:
    write_csv(folder / "tag_categories.csv", ["saber,4", "ke-ta,1", "not_in_the_dataset,4"])
    assert generate(folder, tmp_path / "tags.csv") == 0
    known = read_categories(tmp_path / "tags.csv")
    assert known["saber"] == CHARACTER and known["ke-ta"] == ARTIST and known["solo"] == GENERAL
    assert "not_in_the_dataset" not in known


def test_categories_from_another_vocabulary_win(folder: Path, tmp_path: Path) -> None:
    write_csv(folder / "tag_categories.csv", ["saber,1", "ke-ta,1"])
    edited = write_csv(tmp_path / "edited.csv", ["saber,4", "hat,4"])
    assert generate(folder, tmp_path / "tags.csv", "--categories-from", edited) == 0
    known = read_categories(tmp_path / "tags.csv")
    assert (known["saber"], known["hat"], known["ke-ta"]) == (CHARACTER, CHARACTER, ARTIST)


def test_a_rating_stays_a_rating_whatever_the_categories_say(folder: Path, tmp_path: Path) -> None:
    write_csv(folder / "tag_categories.csv", ["sensitive,0"])
    assert generate(folder, tmp_path / "tags.csv") == 0
    assert lines(tmp_path / "tags.csv")[1:5] == RATINGS


def test_rare_tags_can_be_left_out_but_no_rating(folder: Path, tmp_path: Path) -> None:
    assert generate(folder, tmp_path / "tags.csv", "--min-count", 2) == 0
    assert lines(tmp_path / "tags.csv")[1:-1] == [*RATINGS, "solo,0", "1girl,0", "saber,0", "smile,0"]


def test_counts_on_request(folder: Path, tmp_path: Path) -> None:
    assert generate(folder, tmp_path / "tags.csv", "--with-count") == 0
    vocabulary = read_vocabulary(tmp_path / "tags.csv")
    assert lines(tmp_path / "tags.csv")[0] == "name,category,count"
    assert vocabulary.counts == (2, 1, 0, 0, 3, 2, 2, 2, 1, 1)


def test_the_layout_of_wd_v3_has_characters_last_and_no_artists(folder: Path, tmp_path: Path) -> None:
    write_csv(folder / "tag_categories.csv", ["saber,4", "ke-ta,1"])
    assert generate(folder, tmp_path / "tags.csv", "--format", "wd") == 0
    written = lines(tmp_path / "tags.csv")
    assert written[0] == "tag_id,name,category,count"
    assert written[1:5] == [
        "9999999,general,9,2",
        "9999998,sensitive,9,1",
        "9999997,questionable,9,0",
        "9999996,explicit,9,0",
    ]
    assert written[5:-1] == ["0,solo,0,3", "0,1girl,0,2", "0,smile,0,2", "0,hat,0,1", "0,saber,4,2"]


def test_names_that_look_like_something_else_are_tags(tmp_path: Path) -> None:
    folder = write_txts(tmp_path / "dataset", a=",".join(ODD_NAMES))
    assert generate(folder, tmp_path / "tags.csv") == 0
    assert read_vocabulary(tmp_path / "tags.csv").names[4:] == tuple(sorted(ODD_NAMES))


def test_old_names_are_todays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_txts(tmp_path / "dataset", a="general,ke ta,saber_(old)", b="ke-ta,saber", c="oldest,today")
    write_csv(folder / "tag_categories.csv", ["ke_ta,1", "saber_(old),4"])
    aliases = ["ke_ta,ke-ta", "saber_(old),saber", "oldest,old", "old,today", "x,y"]
    path = write_csv(tmp_path / "tag_aliases.csv", aliases, "alias,name")
    assert generate(folder, tmp_path / "tags.csv", "--with-count") == 0
    assert lines(tmp_path / "tags.csv")[5:-1] == ["ke-ta,1,2", "saber,4,2", "today,0,1"]
    err = capsys.readouterr().err
    assert "tag_aliases.csv: 3 tags read under another name, such as ke_ta as ke-ta" in err
    path.rename(tmp_path / "named.csv")
    output = write_csv(tmp_path / "tags.csv", [*RATINGS, "old,0", "ke_ta,0"])
    assert generate(folder, output, "--append-to", output, "--tag-aliases", tmp_path / "named.csv") == 0
    # Their rows are the tags', whatever they are called today.
    assert read_vocabulary(output).names[4:] == ("old", "ke_ta", "saber")


def test_aliases_are_read_and_never_replaced(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(folder, tmp_path / "tags.csv", "--tag-aliases", tmp_path / "none.csv") == 2
    assert "none.csv: no such file; correct it, or name another with --tag-aliases" in error_line(
        capsys.readouterr().err
    )
    path = write_csv(tmp_path / "tag_aliases.csv", ["a,b"], "alias,name")
    assert generate(folder, path, "--overwrite") == 2
    assert "tag_aliases.csv: an input of this run" in error_line(capsys.readouterr().err)


def test_a_bom_windows_line_ends_and_repetitions_count_once(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "a.txt").write_bytes(b"\xef\xbb\xbfgeneral, solo,solo\r\n")
    assert generate(tmp_path / "dataset", tmp_path / "tags.csv", "--with-count") == 0
    assert lines(tmp_path / "tags.csv")[1:] == ["general,9,1", *(f"{row},0" for row in RATINGS[1:]), "solo,0,1", ""]


def test_a_txt_that_is_not_utf8_is_left_out_and_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "d.txt").write_bytes("café,solo".encode("latin-1"))
    assert generate(folder, tmp_path / "tags.csv", "--with-count") == 1
    (line,) = left_out(capsys.readouterr().err)
    assert "d.txt" in line
    vocabulary = read_vocabulary(tmp_path / "tags.csv")
    assert vocabulary.counts is not None and vocabulary.counts[vocabulary.index["solo"]] == 3


def test_an_existing_csv_is_replaced_only_with_overwrite(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = write_csv(tmp_path / "tags.csv", ["edited_by_hand,4"])
    before = output.read_bytes()
    assert generate(folder, output) == 2
    assert "tags.csv" in error_line(capsys.readouterr().err) and output.read_bytes() == before
    assert generate(folder, output, "--overwrite") == 0
    assert lines(output)[1:5] == RATINGS and "edited_by_hand,4" not in lines(output)


def test_running_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    assert generate(folder, tmp_path / "one.csv") == generate(folder, tmp_path / "two.csv") == 0
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


def test_appending_adds_only_what_is_missing_at_the_end(folder: Path, tmp_path: Path) -> None:
    write_csv(folder / "tag_categories.csv", ["saber,4", "hat,4"])
    path = tmp_path / "edited.csv"
    before = b"tag_id,name,category,count\n9,general,9,1\n7,hat,1,5\n"
    path.write_bytes(before)
    flags = ["--dataset-folder", str(folder), "--append-to", str(path)]
    assert script.main(flags) == 0
    after = path.read_bytes()
    assert after.startswith(before)
    rest = ("sensitive", "questionable", "explicit", "solo", "1girl", "saber", "smile", "ke-ta")
    assert read_vocabulary(path).names == ("general", "hat", *rest)
    assert read_categories(path)["saber"] == CHARACTER
    assert script.main(flags) == 0 and path.read_bytes() == after


@pytest.mark.parametrize("flags", [["--overwrite"], ["--with-count"], ["--format", "wd"]])
def test_appending_keeps_the_columns_of_its_csv(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    path = write_csv(tmp_path / "tags.csv", RATINGS)
    with pytest.raises(SystemExit) as caught:
        script.main(["--dataset-folder", str(folder), "--append-to", str(path), *flags])
    assert caught.value.code == 2
    assert "--append-to" in error_line(capsys.readouterr().err)


@pytest.mark.parametrize("flags", [["--min-count", "0"], ["--min-posts", "x"], ["--format", "xml"]])
def test_wrong_values_are_refused(capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        script.main(flags)
    assert caught.value.code == 2
    assert flags[0] in error_line(capsys.readouterr().err)


def test_unusable_input_is_one_line_that_names_the_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = write_csv(tmp_path / "bad.csv", ["saber,7"])
    output = tmp_path / "tags.csv"
    runs = [
        ("gone", ["--dataset-folder", tmp_path / "gone"]),
        ("bad.csv: row 2", ["--categories-from", bad]),
        ("bad.csv: row 2", ["--append-to", bad]),
        ("gone.csv", ["--append-to", tmp_path / "gone.csv"]),
    ]
    for words, flags in runs:
        assert generate(folder, output, *flags) == 2
        assert words in error_line(capsys.readouterr().err)
        assert not output.exists()


def test_a_csv_appears_whole_or_not_at_all(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)  # where a disk that buffered the rows may say that it is full
    assert generate(folder, tmp_path / "tags.csv") == 2
    assert "No space left" in error_line(capsys.readouterr().err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset"]


def test_tags_on_lines_of_their_own_do_not_spoil_the_csv(tmp_path: Path) -> None:
    folder = write_txts(tmp_path / "dataset", a="general\n1girl\nsolo")
    assert generate(folder, tmp_path / "tags.csv") in (0, 1)
    read_vocabulary(tmp_path / "tags.csv")


# --- tags in any spelling, and what is no tag -----------------------------------------------------------------------


def test_tags_in_any_spelling_are_what_they_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {
        "a": r"long hair, saber \(fate\), (smile:1.2)",
        "b": "long_hair，saber_(fate)\n((smile)), \\m/",
        "c": "long hair, long_hair",
    }
    folder = write_txts(tmp_path / "dataset", **texts)
    assert generate(folder, tmp_path / "tags.csv", "--with-count") == 0
    assert lines(tmp_path / "tags.csv")[5:-1] == ["long_hair,0,3", "saber_(fate),0,2", "smile,0,2", "\\m/,0,1"]
    assert "2 different tags had weights, such as (smile:1.2) for smile" in capsys.readouterr().err


def test_an_extended_vocabulary_keeps_its_spelling(tmp_path: Path) -> None:
    folder = write_txts(tmp_path / "dataset", a="long hair, blue eyes")
    path = write_csv(tmp_path / "tags.csv", [*RATINGS, "long hair,0"])
    assert script.main(["--dataset-folder", str(folder), "--append-to", str(path)]) == 0
    assert read_vocabulary(path).names[4:] == ("long hair", "blue_eyes")


def test_what_cannot_be_a_tag_is_counted_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_txts(tmp_path / "dataset", a="solo,\x1b[31m,a\u200bb", b=f"solo,{'x' * 256}")
    assert generate(folder, tmp_path / "tags.csv") == 1
    assert read_vocabulary(tmp_path / "tags.csv").names[4:] == ("solo",)
    assert "3 tags left out" in capsys.readouterr().err


def test_notes_beside_pictures_are_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "dataset"
    write_pair(folder, "a.png", ["general", "solo"])
    write_txts(folder, notes="buy milk, and bread")
    assert generate(folder, tmp_path / "tags.csv") == 0
    assert read_vocabulary(tmp_path / "tags.csv").names[4:] == ("solo",)
    assert "1 txt file without a picture of that name: not read" in capsys.readouterr().err


def test_another_encoding_is_named_with_who_converts_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_txts(tmp_path / "dataset", a="solo")
    (folder / "b.txt").write_bytes("长发".encode("gbk"))
    assert generate(folder, tmp_path / "tags.csv") == 1
    (line,) = left_out(capsys.readouterr().err)
    assert "b.txt: not UTF-8" in line and "replace_blanks.py" in line


def test_what_looks_misspelt_is_named_before_the_csv_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_txts(tmp_path / "dataset", a="1gril,kantokuu", b="1gril")
    write_csv(folder / "tag_categories.csv", ["kantokuu,1"])
    path = write_csv(tmp_path / "tags.csv", [*RATINGS, "1girl,0", "kantoku,1"])
    told = []

    def keep_before(path: Path) -> Path:
        told.append(capsys.readouterr().err)
        return path

    monkeypatch.setattr(script, "keep_before", keep_before)
    assert script.main(["--dataset-folder", str(folder), "--append-to", str(path)]) == 0
    assert "may be known ones misspelt: 1gril for 1girl (2 uses); if so" in told[0] and "kantokuu" not in told[0]


# --- the CSV that stands --------------------------------------------------------------------------------------------


def test_the_version_before_is_kept(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_csv(tmp_path / "tags.csv", [*RATINGS, "edited_by_hand,4"])
    for flags in (["--append-to", path], ["--output-csv", path, "--overwrite"]):
        before = path.read_bytes()
        assert script.main(["--dataset-folder", str(folder), *map(str, flags)]) == 0
        assert path.read_bytes() != before == (tmp_path / "tags.before.csv").read_bytes()
        assert "tags.before.csv is the version before" in capsys.readouterr().out


def test_a_newcomer_is_told_which_two_commands_are_meant(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = write_csv(tmp_path / "selected_tags.csv", [*RATINGS, "1girl,0"])
    monkeypatch.setattr(script, "SHIPPED_VOCABULARY", shipped)
    monkeypatch.chdir(tmp_path)
    assert script.main([]) == 2
    line = error_line(capsys.readouterr().err)
    commands = re.findall(r"generate_selected_tags\.py (--[^;]+)", line)
    assert commands == [
        "--dataset-folder dataset --output-csv my_tags.csv",
        "--dataset-folder dataset --append-to selected_tags.csv",
    ]
    for command in commands:
        assert script.main(command.split()) == 0
    assert read_vocabulary("my_tags.csv").names[4] == "solo" and read_vocabulary(shipped).names[4] == "1girl"
    assert script.main(["--overwrite"]) == 0 and read_vocabulary(shipped).names[4] == "solo"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("", "a folder stands there"),
        ("dataset/tag_categories.csv", "an input of this run"),
        ("dataset/a.txt", "an input of this run"),
        (ROOT / "README.md", "a file of the toolkit"),
        (ROOT / "tests" / "new.csv", "a file of the toolkit"),
    ],
)
def test_outputs_that_would_harm(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], output: Path, words: str
) -> None:
    write_csv(folder / "tag_categories.csv", ["saber,4"])
    assert generate(folder, tmp_path / output, "--overwrite") == 2
    line = error_line(capsys.readouterr().err)
    assert words in line and "name another file with --output-csv" in line
    assert not (ROOT / "tests" / "new.csv").exists()


def test_the_vocabulary_of_a_model_is_not_extended(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_csv(tmp_path / "selected_tags.csv", RATINGS)
    (tmp_path / "config.json").write_text('{"num_classes": 4}')
    before = path.read_bytes()
    assert script.main(["--dataset-folder", str(folder), "--append-to", str(path)]) == 2
    line = error_line(capsys.readouterr().err)
    assert "belongs to the config.json beside it" in line and "name the copy with --append-to" in line
    assert path.read_bytes() == before


def test_folders_below_with_their_categories(folder: Path, tmp_path: Path) -> None:
    write_txts(folder / "10_name", a="general,solo,wlop,miku")
    write_csv(folder / "10_name" / "tag_categories.csv", ["wlop,1", "miku,0"])
    write_csv(folder / "tag_categories.csv", ["miku,4"])
    assert generate(folder, tmp_path / "flat.csv") == 0
    assert "wlop" not in read_vocabulary(tmp_path / "flat.csv").names
    assert generate(folder, tmp_path / "tags.csv", "--recursive", "--with-count") == 0
    assert {"solo,0,4", "wlop,1,1", "miku,4,1"} <= set(lines(tmp_path / "tags.csv"))


def test_tags_beside_pictures_as_other_programs_leave_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "dataset"
    for number, name in enumerate(("a.png", "b.png", "c.png", "d.png")):
        write_pair(folder, name, [], grey=number).with_suffix(".txt").unlink()
    (folder / "a.png.json").write_text(
        '{"rating": "e", "tag_string_general": "smile hat", "tag_string_artist": "ke-ta"}'
    )
    (folder / "b.png.txt").write_text("creator:ke ta\nsmile")
    (folder / "c.caption").write_text("smile")
    (folder / "c.json").write_text('["hat"]')
    (folder / "d.json").write_text("[")
    assert generate(folder, tmp_path / "tags.csv", "--with-count") == 1
    told = capsys.readouterr().err
    assert "warning: 1 image has tags in several places, such as c.png; " in told
    assert "d.json: not JSON" in told
    assert lines(tmp_path / "tags.csv")[4:-1] == ["explicit,9,1", "smile,0,3", "hat,0,1", "ke-ta,1,1", "ke_ta,1,1"]


def test_tags_in_a_table_of_posts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("1.png", "2.png", "3.png")):
        write_pair(tmp_path / "dataset", name, ["smile"], grey=number)
    (tmp_path / "dataset" / "2.txt").unlink()
    table = write_csv(tmp_path / "posts.csv", ["1,hat,", "2,hat smile,ke-ta", "9,smile,"], "id,tags,tags_artist")
    assert generate(tmp_path / "dataset", tmp_path / "tags.csv", "--with-count", "--metadata", table) == 0
    assert "1 image has tags in several places" in capsys.readouterr().err
    assert lines(tmp_path / "tags.csv")[5:-1] == ["smile,0,3", "hat,0,1", "ke-ta,1,1"]
    assert generate(tmp_path / "dataset", tmp_path / "other.csv", "--metadata", tmp_path / "posts.xml") == 2
    assert "posts.xml: no such file" in error_line(capsys.readouterr().err)
