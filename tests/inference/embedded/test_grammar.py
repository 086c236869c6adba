"""grammar.py: the weights of each dialect, and prompts made of nothing but brackets.

python -m pytest tests/inference/embedded/test_grammar.py
"""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger.inference.embedded.grammar import DIALECTS, MAX_WEIGHT, segments


def weights(prompt: str, dialect: str) -> dict[str, float]:
    """Weight of each segment's first letter, by its text."""
    return {segment.text.strip(): round(segment.weight, 4) for segment in segments(prompt, dialect)}


@pytest.mark.parametrize(
    ("dialect", "prompt", "expected"),
    [
        ("nai", "{x}", {"x": 1.05}),
        ("nai", "{{{x}}}, y", {"x": 1.1576, "y": 1}),
        ("nai", "[[x]]", {"x": 0.907}),
        ("nai", "{x, y}", {"x": 1.05, "y": 1.05}),
        ("nai", "1.2::x, y ::, z", {"x": 1.2, "y": 1.2, "z": 1}),
        ("nai", "-1::x::", {"x": -1}),
        ("nai", ".5::x::", {"x": 0.5}),
        ("nai", "1.3::{x}, y::", {"x": 1.365, "y": 1.3}),
        ("nai", "{1.3::x::}, y", {"x": 1.3, "y": 1}),
        ("nai", "0.6::x, y", {"x": 0.6, "y": 0.6}),
        ("nai", "1.2::kz7::, x", {"kz7": 1.2, "x": 1}),
        ("nai", "prose. 1.2::x::", {"prose.": 1, "x": 1.2}),
        ("nai", "x}, {y", {"x": 1, "y": 1.05}),
        ("nai", "(x:1.2)", {"(x:1.2)": 1}),
        ("nai", "a|b", {"a": 1, "b": 1}),
        ("sd", "(x)", {"x": 1.1}),
        ("sd", "((x))", {"x": 1.21}),
        ("sd", "[x]", {"x": 0.9091}),
        ("sd", "(x:1.2)", {"x": 1.2}),
        ("sd", "((x:1.2))", {"x": 1.32}),
        ("sd", "(x, (y:1.2):1.1)", {"x": 1.1, "y": 1.32}),
        ("sd", "(x:-0.5)", {"x": -0.5}),
        ("sd", r"x \(y\)", {r"x \(y\)": 1}),
        ("sd", r"(x \(y\):1.2)", {r"x \(y\)": 1.2}),
        ("sd", "(artist:904)", {"artist:904": 1.1}),
        ("sd", "(x", {"x": 1.1}),
        ("sd", "x)", {"x)": 1}),
        ("sd", "[a:b:0.4], [c:10], [d::0.3]", {"a": 1, "b": 1, "c": 1, "d": 1}),
        ("sd", "[a|b], (c|d)", {"a": 1, "b": 1, "c": 1.1, "d": 1.1}),
        ("sd", "[artist:x]", {"artist:x": 0.9091}),
        ("sd", "[artist:x:0.4]", {"artist:x": 1}),
        ("sd", "a BREAK b AND c ADDCOMM d", {"a": 1, "b": 1, "c": 1, "d": 1}),
        ("sd", "a, <lora:b:0.8>, {c}", {"a": 1, "{c}": 1}),
        ("sd", "（x：1.2），y；z", {"x": 1.2, "y;z": 1}),
        ("comfy", "(x)", {"x": 1.1}),
        ("comfy", "((x:1.1):1.5)", {"x": 1.1}),
        ("comfy", "((x):1.5)", {"x": 1.65}),
        ("comfy", "[x]", {"[x]": 1}),
        ("comfy", "(a, (b:1.2)", {"(a": 1, "(b:1.2)": 1}),
        ("compel", "x+, y-, z", {"x": 1.1, "y": 0.9, "z": 1}),
        ("compel", "(x y)++, (z)1.4, (w)", {"x y": 1.21, "z": 1.4, "w": 1}),
        ("compel", "((x)+, y)+", {"x": 1.21, "y": 1.1}),
    ],
)
def test_weights(dialect: str, prompt: str, expected: dict[str, float]) -> None:
    assert weights(prompt, dialect) == expected


def test_a_segment_of_several_weights_has_that_of_each_letter() -> None:
    (segment,) = segments("by (name:1.3) x", "sd")
    assert segment.text == "by name x"
    assert [segment.weight_at(place) for place in (0, 3, 6, 7)] == [1, 1.3, 1.3, 1]


def test_artist_blocks_end_and_an_open_one_is_none() -> None:
    found = segments("<artist> a, 1.1::b :: </artist> c, <ARTIST>d", "nai")
    assert [(segment.text.strip(), segment.in_artists) for segment in found] == [
        *(("a", True), ("b", True), ("c", False), ("<ARTIST>d", False))
    ]


MILLION = 1_000_000
HOSTILE = {
    "openers": "(" * MILLION,
    "closers": ")" * MILLION,
    "nested": "(" * MILLION + "x" + ")" * MILLION,
    "nested in the limit": "(" * 49_000 + "x" + ")" * 49_000,
    "letters between": "(a" * 30_000 + ")" * 30_000,
    "square": "[" * MILLION,
    "schedules": "[a:b:1]" * MILLION,
    "schedules in schedules": "[" * 30_000 + ":1]" * 20_000,
    "braces": "{" * MILLION,
    "numbers": "1::" * MILLION,
    "ends": "::" * MILLION,
    "a long number": "1" * MILLION + "::",
    "networks": "<a:" * MILLION,
    "blocks": "<artist>" * MILLION,
    "backslashes": "\\" * MILLION,
    "plus": "a" + "+" * MILLION,
    "commas": "," * MILLION,
    "one letter becomes eighteen": "\ufdfa" * MILLION,
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("what", HOSTILE)
def test_no_prompt_takes_long(what: str, dialect: str) -> None:
    begin = time.process_time()
    found = segments(HOSTILE[what], dialect)
    assert time.process_time() - begin < 2  # some tenths
    assert all(abs(piece.weight) <= MAX_WEIGHT for segment in found for piece in segment.pieces)


@given(st.text(alphabet="ab1.5:,()[]{}|\\<>@+- \n", max_size=80), st.sampled_from(list(DIALECTS)))
def test_no_letter_is_lost_or_made(prompt: str, dialect: str) -> None:
    letters = re.sub(r"<[A-Za-z]{1,40}:[^<>\n]*>", "", prompt)  # <lora:...>
    found = "".join(segment.text for segment in segments(prompt, dialect))
    assert re.sub(r"[^ab]", "", found) == re.sub(r"[^ab]", "", letters)
