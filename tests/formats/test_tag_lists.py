"""Tag lists: what separates, and every spelling that is written comes back as Danbooru's.

python -m pytest tests/formats/test_tag_lists.py
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger.formats.tag_lists import (
    TagReader,
    danbooru_spelling,
    is_usable,
    lookalikes,
    lookalikes_in_words,
    parse_tags,
    spell,
    unescaped,
    unweighted,
    usable_tags,
)
from tagger.formats.vocabulary import read_vocabulary
from tests.helpers import ODD_NAMES, ROOT

NAMES = read_vocabulary(ROOT / "selected_tags.csv").names
HARD = [
    "\\m/",
    "\\||/",
    "\\o/",
    ":o",
    "o_o",
    "(o)_(o)",
    "a_(b_(c))",
    ";)",
    ";d",
    ">:(",
    "(9)",
    "steins;gate",
    "^_^",
    "|_|",
]


# --- lists ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("1girl,solo", ["1girl", "solo"]),
        ("1girl， solo、long hair", ["1girl", "solo", "long hair"]),
        ("1girl\r\nsolo\rlong_hair\n\n", ["1girl", "solo", "long_hair"]),
        ("1girl; solo;\nlong_hair", ["1girl", "solo", "long_hair"]),
        ("trigger ||| 1girl, solo", ["trigger", "1girl", "solo"]),
        (";d,;),steins;gate", [";d", ";)", "steins;gate"]),
        ("\ufeff\ufeff1girl, \ufeffsolo", ["1girl", "solo"]),
        ("\\||/, |_|, ||_||", ["\\||/", "|_|", "||_||"]),
        ("solo, ,solo,", ["solo"]),
        ("", []),
    ],
)
def test_what_separates_tags(text: str, tags: list[str]) -> None:
    assert parse_tags(text) == tags


@pytest.mark.parametrize("name", ["", "a\x00", "a\x9fb", "\ufeffsolo", "so\u200blo", "so\u202elo", "a" * 256, "\ud800"])
def test_what_no_csv_and_no_screen_can_take(name: str) -> None:
    assert not is_usable(name)


@pytest.mark.parametrize("name", [*HARD, *ODD_NAMES, "a" * 255])
def test_odd_names_are_usable(name: str) -> None:
    assert is_usable(name)


# --- spelling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("long hair", "long_hair"),
        ("very  long\thair", "very_long_hair"),
        (r"saber \(fate\)", "saber_(fate)"),
        (r"saber_\(fate\)", "saber_(fate)"),
        ("(long hair:1.2)", "long_hair"),
        ("(long hair : 1.2 )", "long_hair"),
        (r"(saber \(fate\):1.3)", "saber_(fate)"),
        ("saber_(fate):1.2)", "saber_(fate)"),
        ("((smile))", "smile"),
        ("[hat]", "hat"),
        ("{{hat}}", "hat"),
        ("(long hair", "long_hair"),
        ("blue eyes:1.2)", "blue_eyes"),
        ("1.2::hat::", "hat"),
        ("-1.5::bad hands::", "bad_hands"),
        ("hair::", "hair"),
        (r"\(^o^)/", r"\(^o^)/"),
        ("vertin_(reverse:1999)", "vertin_(reverse:1999)"),
        ("<lora:style:1>", "<lora:style:1>"),
    ],
)
def test_a_tag_is_read_as_danbooru_spells_it(written: str, name: str) -> None:
    assert TagReader().name(written) == name


@pytest.mark.parametrize("name", HARD)
def test_emoticons_and_nested_parentheses_are_no_weights_and_no_escapes(name: str) -> None:
    assert unweighted(name) == unescaped(name) == TagReader().name(name) == name


def test_a_known_name_is_never_changed() -> None:
    known = {"(smile)", "[hat]", "long hair", r"a\(b\)", "((nested))"}
    reader = TagReader(known)
    assert [reader.name(name) for name in sorted(known)] == sorted(known)
    assert reader.name("long_hair") == "long_hair"
    assert reader.weights == {}


def test_a_vocabulary_with_blanks_is_read_in_its_own_spelling() -> None:
    reader = TagReader({"long hair", "saber (fate)"})
    assert reader.read(r"long hair, (saber \(fate\):1.1), blue eyes") == ["long hair", "saber (fate)", "blue_eyes"]


def test_what_had_weights_is_remembered() -> None:
    reader = TagReader(["smile"])
    assert reader.read("(smile:1.2), ((solo)), hat, :)") == ["smile", "solo", "hat", ":)"]
    assert reader.weights == {"(smile:1.2)": "smile", "((solo))": "solo"}


tags = st.sampled_from([*NAMES, *HARD]) | st.from_regex(
    r"[a-z]{2,6}(_[a-z]{1,4}){0,2}(_\([a-z]{2,5}\))?", fullmatch=True
)


@given(
    st.lists(tags, unique=True),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([",", ", ", "，", "\n", "\r\n"]),
)
def test_every_spelling_that_is_written_comes_back(
    names: list[str], spaces: bool, escape: bool, knows: bool, separator: str
) -> None:
    text = separator.join(spell(name, spaces=spaces, escape=escape) for name in names)
    reader = TagReader(set(NAMES) if knows else ())
    assert reader.read(text) == names
    assert reader.weights == {}


@given(st.text(max_size=30))
def test_reading_twice_changes_nothing_more(text: str) -> None:
    once = TagReader().read(text)
    assert all(name == danbooru_spelling(name) for name in once)


# --- misspellings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "known"),
    [
        ("1gril", "1girl"),
        ("long_hiar", "long_hair"),
        ("Long_Hair", "long_hair"),
        ("longhair", "long_hair"),
        ("looking_at_viewr", "looking_at_viewer"),
    ],
)
def test_a_misspelt_name_is_recognised(new: str, known: str) -> None:
    assert lookalikes([new], NAMES) == {new: known}
    assert lookalikes([new, *(f"other_thing_{letter}" for letter in "abc")], [known]) == {new: known}


@pytest.mark.parametrize("new", ["7girls", "whiskey", "hat", "1girl", "m16a1"])
def test_another_name_is_no_misspelling(new: str) -> None:
    assert lookalikes([new], NAMES) == {}


def test_misspellings_are_named_with_their_uses_the_commonest_first() -> None:
    found = {"1gril": "1girl", "long_hiar": "long_hair", "smlie": "smile"}
    uses = {"1gril": 1, "long_hiar": 12, "smlie": 1}
    assert lookalikes_in_words(found, uses, limit=2) == (
        "long_hiar for long_hair (12 uses), 1gril for 1girl (1 use) and 1 more"
    )


# --- what cannot be a tag -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["x" * 255, "初音ミク", "\\m/", "a b", "(a b:1.2)", "a\tb"])
def test_usable(written: str) -> None:
    assert usable_tags([written]) == [written]


@pytest.mark.parametrize(
    "written", ["x" * 256, "a\0b", "\x1b[31m", "\x7f", "\x9f", "a\ufeffb", "long\u200bhair", "\u202ea"]
)
def test_unusable(written: str) -> None:
    assert usable_tags([written]) == []


@given(st.lists(st.text(alphabet="ab_ \\()[]{}:,;.1|\t", max_size=12), max_size=6))
def test_tags_that_were_added_change_the_reading_of_none(texts: list[str]) -> None:
    """What a first run appends to the vocabulary a second knows; it must read the same, or the labels would differ."""
    written = [tag for text in texts for tag in parse_tags(text)]
    first = TagReader(("a_b",))
    names = [first.name(tag) for tag in written]
    assert list(map(TagReader({"a_b", *names}).name, written)) == names


def test_weights_in_words() -> None:
    reader = TagReader(["long_hair"])
    assert reader.weights_in_words() == ""
    reader.read("(long hair:1.2)")
    assert reader.weights_in_words() == "1 tag had weights, such as (long hair:1.2) for long_hair"
    reader.read("((hat))")
    assert reader.weights_in_words().startswith("2 different tags had weights")
