"""Damaged and made-up files: whatever a file holds, reading it ends soon, in little memory, and in no exception.

python -m pytest tests/inference/embedded/test_fuzz.py
"""

import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagger.inference.embedded import hidden as hidden_module
from tagger.inference.embedded.artists import Lookup
from tagger.inference.embedded.fields import make_fields
from tagger.inference.embedded.generators import find_prompt
from tagger.inference.embedded.reading import Embedded, read_embedded
from tests.inference.embedded.files import INFOTEXT, encoded, graph, hidden, jpeg, novelai_png, png, saved, user_comment

LOOKUP = Lookup(frozenset(("mori", "aoi_kumo")), frozenset(("1girl",)))
SAMPLES = {
    "novelai.png": novelai_png("1.2::artist:mori::", ["girl"]),
    "packed.png": png(("zTXt", "parameters", INFOTEXT), ("iTXt packed", "b", "c")),
    "graph.png": png(("comf", "prompt", json.dumps(graph("artist:mori"))), at_the_end=True),
    "a1111.jpg": jpeg(user_comment(INFOTEXT), b"<exif:UserComment>{}</exif:UserComment>"),
    "a1111.webp": encoded("WEBP", exif=b"Exif\0\0" + user_comment(INFOTEXT)),
    "a1111.avif": encoded("AVIF", exif=b"Exif\0\0" + user_comment(INFOTEXT)),
    "a1111.gif": encoded("GIF", comment=INFOTEXT.encode()),
}
HIDDEN = encoded("PNG", hidden(INFOTEXT))
SECONDS, MEGABYTES = 2, 64


def check(found: Embedded) -> None:
    """What holds of every answer."""
    json.dumps([found.prompt, found.negative_prompt, found.wanted, found.unwanted], allow_nan=False)
    assert (found.source is None) == (found.prompt is None)


def mutated(data: bytes, edits: list[tuple[int, bytes]], cut: int) -> bytes:
    """With bytes replaced at some places, and cut off somewhere."""
    content = bytearray(data)
    for place, new in edits:
        at = place % len(content)
        content[at : at + len(new)] = new
    return bytes(content[: len(content) - cut % len(content)] if cut % 3 == 0 else content)


EDITS = st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=4)), max_size=12)


@pytest.mark.parametrize("name", SAMPLES)
@given(edits=EDITS, cut=st.integers(0, 1 << 16))
def test_damaged_files(
    name: str, edits: list[tuple[int, bytes]], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Only containers are at stake: the pixels of damaged pictures are Pillow's.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hidden_module, "_pixels", lambda path: None)
        check(read_embedded(saved(tmp_path_factory.getbasetemp(), mutated(SAMPLES[name], edits, cut), name), LOOKUP))


@settings(max_examples=30)
@given(edits=EDITS, cut=st.integers(0, 1 << 16))
def test_damaged_pictures_with_a_hidden_text(
    edits: list[tuple[int, bytes]], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    check(read_embedded(saved(tmp_path_factory.getbasetemp(), mutated(HIDDEN, edits, cut)), LOOKUP))


KEYS = (
    *(
        "prompt",
        "workflow",
        "parameters",
        "Comment",
        "Description",
        "Software",
        "v4_prompt",
        "caption",
        "char_captions",
    ),
    *("base_caption", "char_caption", "uc", "inputs", "class_type", "positive", "text", "1", "2", "sui_image_params"),
    *("extraMetadata", "invokeai_metadata", "sd-metadata", "image", "Dream", "generation_data", "UserComment", "Model"),
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["1", "artist:mori"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=20,
)


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from(KEYS), JSON.map(json.dumps) | st.text(max_size=30), max_size=6),
    st.sampled_from(["png", "exif", "xmp"]),
)
def test_made_up_texts(texts: dict[str, str], container: str) -> None:
    prompt = find_prompt(make_fields(container, texts))
    assert prompt is None or (isinstance(prompt.text, str) and isinstance(prompt.negative, str))


HUGE: dict[str, Callable[[], bytes]] = {
    "a hundred megabytes of text": lambda: png(("tEXt", "parameters", b"artist:a, " * 10_000_000)),
    "a megabyte of parentheses": lambda: png(("tEXt", "parameters", "(" * 1_000_000)),
    "a megabyte of digits": lambda: png(("tEXt", "prompt", '{"a": ' + "9" * 1_000_000 + "}")),
    "a megabyte of settings": lambda: png(("tEXt", "parameters", "a\n" + 'b: "' * 250_000)),
    "a megabyte of lines": lambda: png(("tEXt", "parameters", "\n" * 1_000_000)),
    "a megabyte of brackets": lambda: png(("tEXt", "sd-metadata", json.dumps({"image": {"prompt": "[" * 1_000_000}}))),
    "a megabyte of quotes": lambda: png(("tEXt", "Dream", '"' + '\\"' * 500_000)),
    "a megabyte of nodes": lambda: png(
        (
            "tEXt",
            "prompt",
            json.dumps(
                {str(i): {"class_type": "KSampler", "inputs": {"positive": [str(i + 1), 0]}} for i in range(13_000)}
            ),
        )
    ),
}


@pytest.mark.parametrize("what", HUGE)
def test_huge_texts_take_little_time_and_memory(what: str, tmp_path: Path) -> None:
    path = saved(tmp_path, HUGE[what]())
    begin = time.process_time()
    check(read_embedded(path, LOOKUP))
    assert time.process_time() - begin < SECONDS
    tracemalloc.start()
    try:
        read_embedded(path, LOOKUP)
        assert tracemalloc.get_traced_memory()[1] < MEGABYTES << 20
    finally:
        tracemalloc.stop()
