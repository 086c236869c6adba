"""artist_strings.py: the syntax of each prompt, and its weights.

python -m pytest tests/inference/test_artist_strings.py
"""

import pytest

from tagger.inference.artist_strings import ArtistSettings, artist_string, weighted_string

ARTISTS = {"wlop": 0.7, "name_of_artist": 0.95, "ke-ta_(artist)": 0.5}


@pytest.mark.parametrize(
    ("syntax", "expected"),
    [
        ("nai", "1.45::artist:name of artist::, 1.20::artist:wlop::, 1.00::artist:ke-ta (artist)::"),
        ("sdxl", "(name of artist:1.45), (wlop:1.20), (ke-ta \\(artist\\):1.00)"),
        ("booru", "name_of_artist, wlop, ke-ta_(artist)"),
        # 1.05 to the 8th is 1.48, to the 4th 1.22; the last is neutral.
        ("nai3", "{{{{{{{{artist:name of artist}}}}}}}}, {{{{artist:wlop}}}}, artist:ke-ta (artist)"),
        ("anima", "@name of artist, @wlop, @ke-ta \\(artist\\)"),
    ],
)
def test_the_syntax_of_each_prompt(syntax: str, expected: str) -> None:
    assert artist_string(ARTISTS, ArtistSettings(syntax)) == expected
    assert artist_string(ARTISTS, ArtistSettings(syntax, top=1)) == expected.split(", ")[0]
    assert artist_string({}, ArtistSettings(syntax)) == ""


def test_without_a_syntax_nothing_is_said() -> None:
    assert artist_string(ARTISTS, ArtistSettings()) is None


def test_emoticons_keep_their_underscores_and_backslashes_are_escaped() -> None:
    assert artist_string({"o_o": 0.5}, ArtistSettings("nai")) == "1.00::artist:o_o::"
    assert artist_string({"a\\b": 0.5}, ArtistSettings("sdxl")) == "(a\\\\b:1.00)"


@pytest.mark.parametrize(
    ("probability", "expected"), [(0, 0.5), (0.5, 1), (1, 1.5), (0.625, 1.13), (0.875, 1.38), (0.1249, 0.62)]
)
def test_weights_round_halves_up(probability: float, expected: float) -> None:
    assert artist_string({"a": probability}, ArtistSettings("nai")) == f"{expected:.2f}::artist:a::"


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("prob", (1.45, 1.2, 1.0)),
        ("rank", (1.5, 1.25, 1.0)),
        ("equal", (1.0, 1.0, 1.0)),
        ("relative", (1.5, 1.24, 1.03)),  # 0.5 + 0.7 / 0.95, 0.5 + 0.5 / 0.95
    ],
)
def test_ways_to_make_a_weight_of_a_probability(weights: str, expected: tuple[float, ...]) -> None:
    said = artist_string(ARTISTS, ArtistSettings("sdxl", weights=weights))
    assert said is not None
    assert tuple(float(piece.rpartition(":")[2].rstrip(")")) for piece in said.split(", ")) == expected
    # What is cut off at the end changes nothing before it: the report's sliders rely on that.
    fewer = {name: p for name, p in ARTISTS.items() if p > 0.6}
    assert said.startswith(str(artist_string(fewer, ArtistSettings("sdxl", weights=weights))))


def test_the_range_of_the_weights() -> None:
    def weighted(low: float, high: float, syntax: str = "nai") -> str | None:
        return artist_string({"a": 1.0, "b": 0.0}, ArtistSettings(syntax, weight_range=(low, high)))

    assert weighted(0.8, 1.2) == "1.20::artist:a::, 0.80::artist:b::"
    assert weighted(0.9, 1.1, "nai3") == "{{artist:a}}, [[artist:b]]"
    assert weighted(1.0, 1.0, "nai3") == "artist:a, artist:b"


def test_a_name_that_ends_in_a_digit_is_kept_apart_from_the_end_of_its_weight() -> None:
    assert artist_string({"jp06": 0.5}, ArtistSettings("nai")) == "1.00::artist:jp06 ::"


def test_artists_with_weights_of_their_own_keep_their_order_and_numbers() -> None:
    artists = {"mori": 0.9091, "hoshi_(circle_nine)": 1.2, "kz7": -1.0}
    assert (
        weighted_string(artists, ArtistSettings("sdxl")) == "(mori:0.91), (hoshi \\(circle nine\\):1.20), (kz7:-1.00)"
    )
    assert weighted_string(artists, ArtistSettings("nai", top=1)) == (
        "0.91::artist:mori::, 1.20::artist:hoshi (circle nine)::, -1.00::artist:kz7 ::"
    )
    assert weighted_string(artists, ArtistSettings()) is None
