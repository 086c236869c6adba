"""artists.py: which pieces of a prompt are artists, and how they are spelt.

python -m pytest tests/inference/embedded/test_artists.py
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger.inference.artist_strings import ArtistSettings, weighted_string
from tagger.inference.embedded.artists import Lookup, find_artists, find_tags, plain_tag
from tagger.inference.embedded.grammar import DIALECTS

LOOKUP = Lookup(
    artists=frozenset(
        ("mori", "aoi_kumo", "hoshi_(circle_nine)", "kz7", "k+", "re:shima", "rain", "904", "artist_name")
    ),
    others=frozenset(("1girl", "rain", "long_hair", "@_@", "artist_name", "steins;gate")),
    aliases={"kumo_aoi": "aoi_kumo"},
)


def found(prompt: str, dialect: str = "sd", lookup: Lookup = LOOKUP) -> dict[str, float]:
    return {artist.tag: artist.weight for artist in find_artists([prompt], dialect, lookup)}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("artist:mori", {"mori": 1}),
        ("1girl, Artist: Aoi Kumo, smile", {"aoi_kumo": 1}),
        ("aritst:mori, ARTIST :kz7", {"mori": 1, "kz7": 1}),
        ("artist:a artist:b", {"a": 1, "b": 1}),
        ("artist:a and b", {"a_and_b": 1}),
        ("my_artist:mori", {}),
        (r"artist:hoshi \(circle nine\)", {"hoshi_(circle_nine)": 1}),
        (r"(artist:hoshi\(circle_nine\):1.3)", {"hoshi_(circle_nine)": 1.3}),
        ("(artist:904)", {"904": 1.1}),
        ("artist:re:shima", {"re:shima": 1}),
        ("artist:kumo aoi", {"aoi_kumo": 1}),
        ("artist:foo. A woman stands", {"foo": 1}),
        ("@mori, (@kz7:1.2), @ nobody", {"mori": 1, "kz7": 1.2, "nobody": 1}),
        ("@_@, @preset:x, a@b", {}),
        ("by mori, (by kz7:0.9)", {"mori": 1, "kz7": 0.9}),
        ("by mori and kz7", {"mori": 1, "kz7": 1}),
        ("by the window, by me, drawn by the river", {}),
        ("art by somebody new", {"somebody_new": 1}),
        ("by rain", {"rain": 1}),
        ("mori, Aoi Kumo, k+", {"mori": 1, "aoi_kumo": 1, "k+": 1}),
        ("rain, artist_name, artist name, 1girl", {}),
        ("__artist__, <lora:mori:1>", {}),
        ("(artist:mori:1.2), artist:mori", {"mori": 1.2}),
        ("(artist:mori:-1)", {"mori": -1}),
        ('"artist:mori"', {"mori": 1}),
        ("artist:, artist: , artist:()", {}),
    ],
)
def test_artists_of_a_prompt(prompt: str, expected: dict[str, float]) -> None:
    assert found(prompt) == expected


def test_an_artist_block_needs_no_prefix() -> None:
    assert found("<artist> 1.1::new one ::, mori </artist> x", "nai") == {"new_one": 1.1, "mori": 1}


def test_a_weight_of_another_dialect_is_no_part_of_the_name() -> None:
    assert found("(artist:mori:1.2)", "nai") == {"mori": 1}


def test_names_end_in_plus_outside_of_compel() -> None:
    assert found("artist:k+", "nai") == {"k+": 1}
    assert found("artist:mori+", "compel") == {"mori": 1.1}


def test_how_sure_it_is() -> None:
    artists = {artist.tag: artist for artist in find_artists(["mori, artist:new"], "sd", LOOKUP)}
    assert (artists["mori"].by_prefix, artists["mori"].is_known) == (False, True)
    assert (artists["new"].by_prefix, artists["new"].is_known) == (True, False)


def test_a_name_that_is_too_long_is_none() -> None:
    assert found("artist:" + "x" * 300) == {}


@pytest.mark.parametrize(
    ("written", "tag"),
    [
        ("Aoi  Kumo ", "aoi_kumo"),
        (r"hoshi \(circle\)", "hoshi_(circle)"),
        ("((mori", "mori"),
        ("mori))", "mori"),
        ("(mori)", "mori"),
        ("{mori}", "mori"),
        ("mori (a) (b)", "mori_(a)_(b)"),
    ],
)
def test_spelling(written: str, tag: str) -> None:
    assert plain_tag(written) == tag


def test_the_tags_of_a_caption() -> None:
    prompt = "1girl, (Long Hair:1.2), artist:mori, (artist:kz7:-1), masterpiece, A girl stands in the rain for hours."
    assert find_tags([prompt], "sd", LOOKUP) == (["1girl", "long_hair", "mori", "masterpiece"], 1)


NAMES = st.from_regex(r"[a-z]{2,8}[0-9]{0,2}(_\([a-z]{2,6}\))?", fullmatch=True)
WEIGHTS = st.integers(min_value=10, max_value=190).map(lambda hundredths: hundredths / 100)


@pytest.mark.parametrize(("syntax", "dialect"), [("nai", "nai"), ("sdxl", "sd"), ("sdxl", "comfy")])
@given(artists=st.dictionaries(NAMES, WEIGHTS, min_size=1, max_size=6))
def test_what_is_written_is_read_again(syntax: str, dialect: str, artists: dict[str, float]) -> None:
    lookup = Lookup(frozenset(artists))
    written = weighted_string(artists, ArtistSettings(syntax))
    assert written is not None
    assert found(written, dialect, lookup) == artists


@given(st.text(alphabet="artistby:@()[]{}<>/\\,.1_ \n\"'mori+-|&AND", max_size=200), st.sampled_from(list(DIALECTS)))
def test_no_prompt_is_too_odd(prompt: str, dialect: str) -> None:
    for artist in find_artists([prompt], dialect, LOOKUP):
        assert artist.tag and " " not in artist.tag and artist.tag == artist.tag.strip()
