"""captions.py: spelling, order, and the txt beside an image.

python -m pytest tests/inference/test_captions.py
"""

import errno
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger.cli import ArgumentTypeError
from tagger.files import Busy, UserError
from tagger.formats.tag_lists import KAOMOJI, TagReader, danbooru_spelling, parse_tags, spell
from tagger.inference import captions
from tagger.inference.captions import (
    Facts,
    Merging,
    Style,
    appended,
    caption_suffix,
    in_order,
    in_writable_folders,
    join,
    make_caption,
    new_text,
    owners_of_captions,
    read_replacements,
    write_caption,
)
from tests.helpers import ODD_NAMES, ROOT, write_csv

NAMES = ["long_hair", "1girl", "^_^", "saber_(fate)", "solo"]

PROBABILITIES = dict(zip(NAMES, (0.9, 0.8, 0.7, 0.95, 0.5), strict=True))

INDEX = dict(zip(NAMES, (4, 0, 2, 1, 3), strict=True))

CATEGORIES = dict.fromkeys(NAMES, "general") | {"saber_(fate)": "character"}

FACTS = Facts(PROBABILITIES, INDEX, CATEGORIES)

tag_names = st.one_of(
    st.sampled_from([*ODD_NAMES, *sorted(KAOMOJI)]),
    st.text(
        st.characters(exclude_categories=("Cs", "Cc", "Z"), exclude_characters=",;，、|\ufeff\\"),
        min_size=1,
        max_size=12,
    ),
)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("category", NAMES),
        ("probability", ["saber_(fate)", "long_hair", "1girl", "^_^", "solo"]),
        ("prompt", ["1girl", "solo", "saber_(fate)", "long_hair", "^_^"]),
        ("csv", ["1girl", "saber_(fate)", "^_^", "solo", "long_hair"]),
    ],
)
def test_orders(order: str, expected: list[str]) -> None:
    assert in_order(NAMES, Style(order=order), FACTS) == expected


def test_excluded_and_first() -> None:
    style = Style(exclude=("solo", "nothing"), first=("^_^", "not_there", "1girl"))
    assert in_order(NAMES, style, FACTS) == ["^_^", "1girl", "long_hair", "saber_(fate)"]


def test_tags_of_a_person_are_read_in_any_spelling() -> None:
    style = Style(exclude=("long hair", "(solo:1.2)"), first=(r"saber \(fate\)", "other thing"))
    read = style.read_by(TagReader(NAMES))
    assert read == Style(exclude=("long_hair", "solo"), first=("saber_(fate)", "other_thing"))
    spaced = style.read_by(TagReader(["long hair", "saber (fate)"]))
    assert spaced.exclude[0] == "long hair" and spaced.first[0] == "saber (fate)"


def test_a_caption_in_either_spelling() -> None:
    assert join(NAMES, Style()) == "long_hair, 1girl, ^_^, saber_(fate), solo"
    spaced = Style(spaces=True, escape=True)
    assert join(NAMES, spaced) == "long hair, 1girl, ^_^, saber \\(fate\\), solo"


@pytest.mark.parametrize("face", ["0_0", ">_<", "^_^", "@_@", "<o>_<o>", "|_|"])
def test_faces_keep_their_underscores(face: str) -> None:
    assert spell(face, spaces=True) == face


@given(st.lists(tag_names, unique=True, max_size=8), st.booleans(), st.booleans())
def test_what_is_written_reads_as_the_same_tags(names: list[str], spaces: bool, escape: bool) -> None:
    style = Style(spaces=spaces, escape=escape)

    def plain(tag: str) -> str:
        return danbooru_spelling(tag.replace("\\", ""))

    read = [plain(tag) for tag in parse_tags(join(names, style))]
    assert read == list(dict.fromkeys(plain(spell(name, spaces=spaces)) for name in names))


@pytest.mark.parametrize("name", ["1girl", "6+boys", "3others", "multiple girls", "no_humans", "solo"])
def test_counts_of_people_come_first_in_prompts(name: str) -> None:
    groups = {"general": {"hat": 0.9, "1girl_doll": 0.8, name: 0.6}, "character": {"miku": 0.9}}
    groups |= {"artist": {"wlop": 0.9}, "copyright": {"vocaloid": 0.9}, "meta": {"highres": 0.9}}
    names = [tag for group in groups.values() for tag in group]
    ordered = in_order(names, Style(order="prompt"), Facts.of(groups, {}))
    assert ordered == [name, "miku", "vocaloid", "wlop", "hat", "1girl_doll", "highres"]


def test_replaced_tags(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "new.csv", ["1girl,a woman (adult)", "solo,", 'long hair,"hair, long"', "^_^,1girl"], "old,new"
    )
    style = Style(replacements=read_replacements(path, "hint"), spaces=True, escape=True).read_by(READER)
    names = in_order(NAMES, style, FACTS)
    assert join(names, style) == "hair, long, a woman (adult), 1girl, saber \\(fate\\)"
    twice = replace(style, replacements={"1girl": "x", "^_^": "x", "saber_(fate)": "long hair"})
    assert join(NAMES, twice) == make_caption(NAMES, twice) == "long hair, x, solo"


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (["1girl,a", "1girl,b"], "row 3: 1girl has another new tag above"),
        ([" ,a"], "row 2: no old tag"),
        (['"1girl,a'], "row 2: not CSV"),
    ],
)
def test_replacements_that_are_unusable(tmp_path: Path, rows: list[str], error: str) -> None:
    with pytest.raises(UserError, match=error):
        read_replacements(write_csv(tmp_path / "new.csv", rows, "old,new"), "hint")
    with pytest.raises(UserError, match="no column old; hint"):
        read_replacements(write_csv(tmp_path / "new.csv", rows, "older,new"), "hint")


@pytest.mark.parametrize("text", ["", ".", ".png", "JPG", ".json", "../x", ".a/b", ".x.png", " "])
def test_what_is_no_extension_of_captions(text: str) -> None:
    assert caption_suffix("caption") == caption_suffix(".caption") == ".caption"
    with pytest.raises(ArgumentTypeError):
        caption_suffix(text)


@pytest.mark.parametrize(
    ("rating", "expected"),
    [
        ("none", "(my style:1.2), LONG HAIR, 1girl, solo"),
        ("first", "(my style:1.2), LONG HAIR, general, 1girl, solo"),
        ("last", "(my style:1.2), LONG HAIR, 1girl, solo, general"),
    ],
)
def test_what_begins_a_caption_stands_once_and_as_it_is_written(rating: str, expected: str) -> None:
    style = Style(prepend=("(my style:1.2)", "LONG HAIR"), rating=rating)
    assert make_caption(["1girl", "long_hair", "solo"], style, "general") == expected
    assert make_caption([], style, None) == "(my style:1.2), LONG HAIR"
    assert make_caption(["1girl"], replace(style, prepend=("general",)), "general") == "general, 1girl"


# --- the txt beside the image ---------------------------------------------------------------------------------------

READER = TagReader(NAMES)
MERGING = Merging(READER)


def test_appending_keeps_what_stands_there() -> None:
    standing = "my trigger word, Long hair,\n1girl"
    assert appended(standing, "1girl, Long_hair, solo, saber \\(fate\\)", MERGING) == (
        "my trigger word, Long hair,\n1girl, solo, saber \\(fate\\)"
    )
    assert appended("", "a, b", MERGING) == appended(" \n", "a, b", MERGING) == "a, b"


@pytest.mark.parametrize(
    ("standing", "tag"),
    [
        ("saber_(fate)", r"saber \(fate\)"),
        (r"saber \(fate\)", "saber_(fate)"),
        ("(long hair:1.2)", "long_hair"),
        ("LONG HAIR", "long_hair"),
        (r"1girl, \m/", r"\m/"),
        ("long hair,,", "long hair"),
    ],
)
def test_a_tag_that_stands_there_in_any_spelling_is_not_added(standing: str, tag: str) -> None:
    assert appended(standing, tag, MERGING) == standing


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        ("1girl", "my style, general, 1girl, solo"),
        ("1girl, My_Style", "general, 1girl, My_Style, solo"),
        ("sensitive, 1girl\n", "my style, sensitive, 1girl, solo"),
        ("", "my style, general, solo"),
    ],
)
def test_what_begins_a_caption_also_begins_the_text_that_is_there(standing: str, expected: str) -> None:
    merging = Merging.of(Style(prepend=("my style",), rating="first"), READER, ("general", "sensitive"))
    assert appended(standing, "my style, general, solo", merging) == expected
    assert appended(expected, "my style, general, solo", merging) == expected


def test_names_that_differ_in_a_backslash_are_two() -> None:
    assert appended("m/", "\\m/", MERGING) == "m/, \\m/"


def test_line_ends_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"1girl,\r\nsolo\r\n")
    assert write_caption(path, "1girl, hat", "append", MERGING)
    assert path.read_bytes() == b"1girl,\r\nsolo, hat"


listed = st.one_of(tag_names, st.text("ab;,| _():\\\n", max_size=6))


@given(st.lists(listed, max_size=6).map(", ".join) | st.text("ab;,|、 \r\n", max_size=8), st.lists(listed, max_size=6))
def test_appending_twice_changes_nothing(standing: str, new: list[str]) -> None:
    once = appended(standing, ", ".join(new), MERGING)
    assert parse_tags(once)[: len(parse_tags(standing))] == parse_tags(standing)
    assert appended(once, ", ".join(new), MERGING) == once


def test_what_becomes_of_a_caption_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"

    def write(caption: str, existing: str) -> bool:
        planned = new_text(path, caption, existing, MERGING)
        assert write_caption(path, caption, existing, MERGING) == planned
        assert planned is None or path.read_text() == planned
        return planned is not None

    assert write("new", "skip") and path.read_text() == "new"
    assert not write("other", "skip") and path.read_text() == "new"
    assert write("other", "append") and path.read_text() == "new, other"
    assert not write("other", "append")
    assert write("other", "overwrite") and path.read_text() == "other"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"a\.txt: not UTF-8"):
        write_caption(path, "other", "append", MERGING)
    assert path.read_bytes() == b"\xff\xfe"


@pytest.mark.parametrize("existing", captions.EXISTING)
def test_a_txt_that_cannot_be_written_is_the_error_of_one_image(tmp_path: Path, existing: str) -> None:
    (tmp_path / "folder.txt").mkdir()
    for name in ("x" * 252 + ".txt", *(["folder.txt"] if existing != "skip" else [])):
        with pytest.raises(UserError, match=r"\.txt: .*; (the image is left without this caption|make it readable)"):
            write_caption(tmp_path / name, "1girl", existing, MERGING)


def test_a_full_disk_is_the_error_of_all_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(captions, "write_text", fail)
    with pytest.raises(OSError, match="No space left"):
        write_caption(tmp_path / "a.txt", "1girl", "skip", MERGING)


def test_which_images_have_a_txt_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    names = ["a.jpeg", "a.jpg", "a.png", "b.png", "c.txt", "c.png", "d.png", "folder.png"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "d.txt").symlink_to(tmp_path / "b.png")
    kept, errors = owners_of_captions([*(tmp_path / name for name in names), ROOT / "requirements.png"])
    assert [path.name for path in kept] == ["a.jpg", "b.png"]
    reasons = [str(error).partition(": ")[2] for error in errors]
    assert [str(error).split(": ")[0] for error in errors] == [
        *(str(tmp_path / name) for name in ("a.jpeg", "a.png", "c.txt", "c.png", "d.png", "folder.png")),
        str(ROOT / "requirements.png"),
    ]
    assert reasons[0] == reasons[1] == "has the same txt as a.jpg; rename one of them"
    assert all("would replace the image" in reason for reason in reasons[2:5])
    assert "a folder stands" in reasons[5] and "a file of the toolkit" in reasons[6]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a").chmod(0o500)
    images = [tmp_path / name for name in ("a/1.png", "a/2.png", "b/1.png")]
    kept, errors = in_writable_folders(images)
    assert kept == images[2:] and len(errors) == 1 and "no permission to write there" in str(errors[0])


# --- two runs at once -----------------------------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from tagger import files
with files.locked_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_in_which_another_script_is_at_work_is_waited_for_and_then_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captions, "PATIENCE", 0.1)
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdin and holder.stdout.readline() == "held\n"
        with pytest.raises(Busy, match=f"process {holder.pid} on .* is at work here; wait for it"):
            in_writable_folders([tmp_path / "a.png"])
        with pytest.raises(Busy):
            write_caption(tmp_path / "a.txt", "1girl", "append", MERGING)
        monkeypatch.setattr(captions, "PATIENCE", 20)
        threading.Timer(0.2, holder.stdin.close).start()
        assert write_caption(tmp_path / "a.txt", "1girl", "append", MERGING)
    assert (tmp_path / "a.txt").read_text() == "1girl"
