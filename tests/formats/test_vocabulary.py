"""The tag list beside an image, and the vocabulary: what is written is read back, and rows are only ever appended.

python -m pytest tests/formats/test_vocabulary.py
"""

import csv
import hashlib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tagger.files import UserError
from tagger.formats.tag_lists import format_tags, parse_tags, read_tags, tag_files
from tagger.formats.vocabulary import (
    ARTIST,
    CATEGORY_NAMES,
    CHARACTER,
    GENERAL,
    RATING,
    Vocabulary,
    append_to_vocabulary,
    before_path,
    check_may_grow,
    first_difference,
    keep_before,
    read_categories,
    read_vocabulary,
    write_vocabulary,
)
from tests.helpers import ODD_NAMES, ROOT, write_csv, write_txts

# Anything that a line of UTF-8 can hold, blanks at its ends left out.
NAMES = st.one_of(
    st.sampled_from(ODD_NAMES),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), min_size=1, max_size=12).filter(
        lambda name: name == name.strip()
    ),
)
ROWS = st.lists(st.tuples(NAMES, st.sampled_from(list(CATEGORY_NAMES))), unique_by=lambda row: row[0], max_size=8)


@pytest.fixture(scope="module")
def csv_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One path that every example of a property test writes anew."""
    return tmp_path_factory.mktemp("tags") / "selected_tags.csv"


def vocabulary_of(rows: list[tuple[str, int]], counts: tuple[int, ...] | None = None) -> Vocabulary:
    return Vocabulary(tuple(name for name, _ in rows), tuple(category for _, category in rows), counts)


# --- the txt beside an image ----------------------------------------------------------------------------------------


@given(st.lists(NAMES.filter(lambda name: "," not in name), unique=True))
def test_a_tag_list_survives_the_round_trip(names: list[str]) -> None:
    assert parse_tags(format_tags(names)) == names


@given(st.text())
def test_a_parsed_list_has_no_blank_empty_or_repeated_tag(text: str) -> None:
    names = parse_tags(text)
    assert all(name and name == name.strip() and "," not in name for name in names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("general,1girl,whiskey", ["general", "1girl", "whiskey"]),
        (" general , 1girl ,,whiskey,\n", ["general", "1girl", "whiskey"]),
        ("solo,1girl,solo", ["solo", "1girl"]),
        ("long hair", ["long hair"]),
        ("", []),
        (" ,\n, ", []),
    ],
)
def test_parsing(text: str, names: list[str]) -> None:
    assert parse_tags(text) == names


def test_a_txt_with_a_bom_and_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfgeneral,1girl\r\n")
    assert read_tags(tmp_path / "a.txt") == ["general", "1girl"]


def test_txt_files_come_by_name_without_hidden_ones(tmp_path: Path) -> None:
    write_txts(tmp_path, b="solo", a="solo", **{"._a": "what macOS leaves beside a.txt"})
    (tmp_path / "a.jpg").touch()
    assert [path.name for path in tag_files(tmp_path)] == ["a.txt", "b.txt"]


def test_a_folder_without_txt_files_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(UserError, match=folder.name):
            tag_files(folder)


# --- reading and writing selected_tags.csv --------------------------------------------------------------------------


@given(ROWS, st.booleans())
@example([(name, GENERAL) for name in ODD_NAMES], False)
def test_a_vocabulary_survives_the_round_trip(csv_path: Path, rows: list[tuple[str, int]], with_counts: bool) -> None:
    vocabulary = vocabulary_of(rows, tuple(range(len(rows))) if with_counts else None)
    write_vocabulary(csv_path, vocabulary)
    assert read_vocabulary(csv_path) == vocabulary


@pytest.mark.parametrize(
    "text",
    [
        'name,category\n1girl,0\n"a,b",4\n',
        'category,name\n0,1girl\n4,"a,b"\n',
        'tag_id,name,category,count\n470575,1girl,0,4225150\n12,"a,b",4,7\n',
        '\ufeffname,category\r\n1girl,0\r\n"a,b",4',
        'name,category,note\n1girl,0,\n"a,b",4,"edited, by hand"\n',
        'name,category\n1girl, 0 \n\n"a,b",4\n',
    ],
)
def test_columns_go_by_name_whatever_their_order_and_line_ends(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tags.csv"
    path.write_bytes(text.encode())
    vocabulary = read_vocabulary(path)
    assert vocabulary.names == ("1girl", "a,b") and vocabulary.categories == (0, 4)
    assert vocabulary.counts == ((4225150, 7) if "count" in text else None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column name and category"),
        ("name,categories\n1girl,0\n", "no column category"),
        ("1girl,0\n", "no column name and category"),
        ("name,category\n1girl,0\nsolo,0\n1girl,4\n", "row 4: 1girl"),
        ("name,category\n1girl,2\n", "row 2: category '2'"),
        ("name,category\n1girl\n", "row 2: category ''"),
        ("name,category\n1girl,General\n", "row 2: category 'General'"),
        ("name,category\n1girl,-9\n", "row 2: category '-9'"),
        ("name,category\n,0\n", "row 2: ''"),
        ("name,category\nsolo,0\n long_hair,0\n", "row 3: ' long_hair'"),
        ('name,category\n"two\nlines",0\n', "row 2: 'two"),
        ('name,category\n1girl,0\n"open,0\n', "not CSV"),
        ('name,category\n"a"b,0\n', "row 2: not CSV"),
        ("name,category\n1girl,0\n\n\nsolo,7\n", "row 5: category '7'"),
        ("\n,,\nname,category\n,\nsolo,7\n", "row 5: category '7'"),
    ],
)
def test_an_unusable_row_is_named_as_a_spreadsheet_numbers_it(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "tags.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_vocabulary(path)
    assert str(caught.value).startswith(f"{path}: ") and words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_csv_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.csv: no such file"):
        read_vocabulary(tmp_path / "gone.csv")


def test_row_number_is_label_index(tmp_path: Path) -> None:
    vocabulary = read_vocabulary(write_csv(tmp_path / "tags.csv", ["general,9", "a,0", "b,4", "c,0", "d,1"]))
    assert vocabulary.index == {"general": 0, "a": 1, "b": 2, "c": 3, "d": 4}
    assert vocabulary.indices(GENERAL) == [1, 3]
    assert [vocabulary.indices(number) for number in (RATING, CHARACTER, ARTIST)] == [[0], [2], [4]]


def test_the_fingerprint_covers_names_and_their_order_and_nothing_else() -> None:
    vocabulary = Vocabulary(("general", "1girl"), (9, 0))
    assert vocabulary.sha256 == hashlib.sha256(b"general\n1girl").hexdigest()
    assert vocabulary.sha256 == Vocabulary(("general", "1girl"), (9, 4), (7, 8)).sha256
    assert vocabulary.sha256 != Vocabulary(("1girl", "general"), (0, 9)).sha256


def test_categories_by_name(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "tag_categories.csv", ["ke-ta,1", "null,4"])
    assert read_categories(path) == {"ke-ta": ARTIST, "null": CHARACTER}


def test_the_shipped_vocabulary_begins_with_wd_v3s_rows() -> None:
    vocabulary = read_vocabulary(ROOT / "selected_tags.csv")
    wd_v3 = 10_861
    assert len(vocabulary) >= wd_v3
    assert vocabulary.names[:5] == ("general", "sensitive", "questionable", "explicit", "1girl")
    assert vocabulary.indices(RATING) == [0, 1, 2, 3]
    assert set(vocabulary.categories[:wd_v3]) == {RATING, GENERAL, CHARACTER}
    assert {"=_=", ":o", "\\m/", 'don\'t_say_"lazy"'} <= vocabulary.index.keys()


# --- appending ------------------------------------------------------------------------------------------------------

STANDING = {
    "ours": b"name,category\ngeneral,9\n1girl,0\n",
    "WD v3's columns": b"tag_id,name,category,count\n9999999,general,9,807858\n470575,1girl,0,4225150\n",
    "category first": b"category,name\n9,general\n0,1girl\n",
    "Windows": b"name,category\r\ngeneral,9\r\n1girl,0\r\n",
    "no final line end": b"name,category\ngeneral,9\n1girl,0",
    "a BOM": b"\xef\xbb\xbfname,category\ngeneral,9\n1girl,0\n",
    "quoted": b'"name","category"\n"general","9"\n"1girl","0"\n',
}


@pytest.mark.parametrize("standing", STANDING.values(), ids=STANDING.keys())
@given(new=ROWS)
@example(new=[(name, CHARACTER) for name in ODD_NAMES])
def test_appending_keeps_every_byte_that_stands(csv_path: Path, standing: bytes, new: list[tuple[str, int]]) -> None:
    new = [(name, category) for name, category in new if name not in ("general", "1girl")]
    csv_path.write_bytes(standing)
    append_to_vocabulary(csv_path, new)
    assert csv_path.read_bytes().startswith(standing)
    vocabulary = read_vocabulary(csv_path)
    rows = list(zip(vocabulary.names, vocabulary.categories, strict=True))
    assert rows == [("general", RATING), ("1girl", GENERAL), *new]


def test_appended_rows_have_as_many_cells_as_the_header(tmp_path: Path) -> None:
    path = tmp_path / "tags.csv"
    path.write_bytes(STANDING["WD v3's columns"])
    append_to_vocabulary(path, [("solo", 0)])
    with open(path, encoding="utf-8", newline="") as file:
        assert list(csv.reader(file))[-1] == ["", "solo", "0", ""]


@pytest.mark.parametrize(
    ("given_names", "expected", "words"),
    [
        (["a", "b"], ["a", "c"], "row 3 is b, not c"),
        (["b", "a"], ["a", "b"], "row 2 is b, not a"),
        (["a"], ["a", "b"], "it has 1 tags, not 2"),
        (["a", "b"], ["a"], "it has 2 tags, not 1"),
    ],
)
def test_the_first_difference_is_named(given_names: list[str], expected: list[str], words: str) -> None:
    assert first_difference(given_names, expected) == words


def test_rows_are_appended_below_a_header_that_blank_rows_precede(tmp_path: Path) -> None:
    path = tmp_path / "tags.csv"
    path.write_bytes(b"\n,,\nname,category\n1girl,0\n")
    append_to_vocabulary(path, [("solo", 4)])
    assert read_vocabulary(path).names == ("1girl", "solo")


def test_the_version_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "my.tags.csv"
    for text in (b"one", b"two"):
        path.write_bytes(text)
        assert keep_before(path) == before_path(path) == tmp_path / "my.tags.before.csv"
        assert (tmp_path / "my.tags.before.csv").read_bytes() == text == path.read_bytes()


@pytest.mark.parametrize("beside", ["aibooru.json", "config.json"])
def test_the_vocabulary_of_records_or_of_a_model_may_not_grow(tmp_path: Path, beside: str) -> None:
    vocabulary = Vocabulary(("general", "1girl"), (9, 0))
    path = tmp_path / "selected_tags.csv"
    check_may_grow(path, vocabulary, "copy it")
    for text in ("no JSON", "[]", '{"num_classes": 3}'):
        (tmp_path / beside).write_text(text)
        check_may_grow(path, vocabulary, "copy it")
    (tmp_path / beside).write_text('{"num_classes": 2}')
    check_may_grow(tmp_path / "mine.csv", vocabulary, "copy it")
    with pytest.raises(UserError, match=rf"selected_tags\.csv: belongs to the {beside} beside it.*; copy it"):
        check_may_grow(path, vocabulary, "copy it")
