"""posts.py: the tags of posts as gallery-dl, Hydrus and public tables describe them.

python -m pytest tests/formats/test_posts.py
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger.files import UserError
from tagger.formats.posts import key_of, tags_in_json, tags_of

EXPECTED = [
    "sensitive",
    "1girl",
    "long_hair",
    "character:saber_(fate)",
    "artist:ke-ta",
    "copyright:fate",
    "meta:highres",
]


@pytest.mark.parametrize(
    "post",
    [
        {
            "rating": "s",
            "tag_string": "1girl fate highres ke-ta long_hair saber_(fate)",
            "tag_string_general": "1girl long_hair",
            "tag_string_character": "saber_(fate)",
            "tag_string_artist": "ke-ta",
            "tag_string_copyright": "fate",
            "tag_string_meta": "highres",
            # gallery-dl adds the same as lists
            "tags": ["1girl", "fate", "highres", "ke-ta", "long_hair", "saber_(fate)"],
            "tags_artist": ["ke-ta"],
            "category": "danbooru",
        },
        {
            "rating": "sensitive",
            "tags": "1girl long_hair saber_(fate) ke-ta fate highres",
            "tags_character": "saber_(fate)",
            "tags_artist": "ke-ta",
            "tags_copyright": "fate",
            "tags_metadata": "highres",
        },
        {
            "rating": "sensitive",
            "general": ["1girl", "long hair"],
            "character": ["saber (fate)"],
            "artist": ["ke-ta"],
            "copyright": ["fate"],
            "meta": ["highres"],
        },
        {
            "rating": "Sensitive",
            "general": "1girl, long hair",
            "character": "saber (fate),",
            "artist": "ke-ta",
            "series": "fate",
            "meta": "highres",
        },
        {  # as e621's API has it
            "rating": "sensitive",
            "tags": {
                "general": ["1girl", "long_hair"],
                "artist": ["ke-ta"],
                "character": ["saber_(fate)"],
                "copyright": ["fate"],
                "meta": ["highres"],
            },
        },
    ],
)
def test_every_form_of_one_post(post: dict[str, Any]) -> None:
    assert tags_of(post) == EXPECTED


def test_hydrus() -> None:
    tags = ["1girl", "creator:ke ta", "rating:safe", "series:fate, the series"]
    found = ["1girl", "creator:ke_ta", "rating:safe", "series:fate,_the_series"]
    assert tags_in_json("a.json", json.dumps(tags)) == found
    assert tags_of({"hash": "…", "tags": tags}) == found
    services = {
        "6c6f": {"name": "my tags", "storage_tags": {"0": ["1girl"]}, "display_tags": {"0": tags, "2": ["old"]}}
    }
    assert tags_of({"tags": services}) == found


@pytest.mark.parametrize(
    ("post", "rating"),
    [
        ({"rating": "g"}, ["general"]),
        ({"rating": "s"}, ["sensitive"]),
        ({"rating": "s", "category": "danbooru", "tag_string": ""}, ["sensitive"]),
        ({"rating": "s", "category": "yandere"}, ["general"]),  # safe, where there are three ratings
        ({"rating": "q", "category": "yandere"}, ["questionable"]),
        ({"rating": "safe"}, ["general"]),
        ({"rating": 4.5}, []),
        ({"rating": "R-18"}, []),
        ({"rating": None}, []),
        ({}, []),
    ],
)
def test_ratings(post: dict[str, Any], rating: list[str]) -> None:
    assert tags_of(post) == rating


def test_what_a_camera_wrote_is_no_tag() -> None:
    assert tags_of({"artist": "Jane Doe", "copyright": "(c) Jane Doe", "tags": ["cat"]}) == ["cat"]


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "7", '"1girl"', "nul"])
def test_what_is_no_post_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(UserError, match=r"^a\.jpg\.json: "):
        tags_in_json("a.jpg.json", text)


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
KEYS = st.sampled_from(["rating", "tags", "tag_string", "tag_string_artist", "tags_meta", "general", "artist"])


@given(st.dictionaries(KEYS | st.text(), anything))
def test_whatever_a_file_holds_the_answer_is_a_list_of_names(post: dict[str, Any]) -> None:
    assert all(isinstance(tag, str) and tag for tag in tags_of(post))


@pytest.mark.parametrize(
    ("stem", "key"),
    [
        ("123", "123"),
        ("000123", "123"),
        ("0" * 3, "0"),
        ("D41D8CD98F00B204E9800998ECF8427E", "d41d8cd98f00b204e9800998ecf8427e"),
        ("danbooru_123_d41d8cd98f00b204e9800998ecf8427e", "d41d8cd98f00b204e9800998ecf8427e"),
        ("d41d8cd98f00b204e9800998ecf8427e0", None),
        ("²", None),
        ("a picture", None),
    ],
)
def test_which_post_a_picture_is_called_after(stem: str, key: str | None) -> None:
    assert key_of(stem) == key
