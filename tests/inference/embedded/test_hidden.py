"""hidden.py: texts in the lowest bits, of every kind, and headers that lie.

python -m pytest tests/inference/embedded/test_hidden.py
"""

import gzip
import json
import time
from pathlib import Path

import pytest
from PIL import Image

from tagger.inference.embedded.artists import Lookup
from tagger.inference.embedded.hidden import read_hidden
from tagger.inference.embedded.reading import read_embedded
from tests.inference.embedded.files import INFOTEXT, encoded, hidden, novelai_chunks, picture, png, saved

ALPHA, COLOURS = ("stealth_pnginfo", "stealth_pngcomp"), ("stealth_rgbinfo", "stealth_rgbcomp")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize(
    ("signature", "mode"), [*((name, "RGBA") for name in ALPHA + COLOURS), *((name, "RGB") for name in COLOURS)]
)
def test_every_kind_of_hidden_text(signature: str, mode: str, kind: str, tmp_path: Path) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    path = saved(tmp_path, encoded(kind, hidden(INFOTEXT + " 猫", signature, mode=mode), **options), "a.bin")
    assert read_hidden(path) == (signature, INFOTEXT + " 猫", [])
    embedded = read_embedded(path, Lookup())
    assert embedded.source == signature and embedded.wanted == {"aoi_kumo": 1.2}


def test_novelais_metadata_and_comfyuis_graph_are_hidden_as_json(tmp_path: Path) -> None:
    chunks = novelai_chunks("1girl, 1.2::artist:mori ::", ["girl, 0.8::artist:sabi::"])
    path = saved(tmp_path, encoded("PNG", hidden(json.dumps(chunks))))
    embedded = read_embedded(path, Lookup())
    assert (embedded.generator, embedded.source) == ("novelai", "stealth_pngcomp")
    assert embedded.wanted == {"mori": 1.2, "sabi": 0.8}
    graph = {"1": {"class_type": "KSampler", "inputs": {"positive": ["2", 0]}}}
    graph["2"] = {"class_type": "CLIPTextEncode", "inputs": {"text": "(artist:mori:1.3)"}}
    path = saved(tmp_path, encoded("PNG", hidden(json.dumps({"prompt": graph, "workflow": {}}))))
    assert read_embedded(path, Lookup()).wanted == {"mori": 1.3}


def test_a_text_in_a_container_spares_the_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, png(("tEXt", "parameters", INFOTEXT), image=hidden("another text")))
    monkeypatch.setattr(Image, "open", None)
    assert read_embedded(path, Lookup()).source == "png:parameters"


@pytest.mark.parametrize(
    ("image", "problems"),
    [
        (picture("RGBA"), []),
        (picture("RGB", (1, 1)), []),
        (picture("RGB").convert("P"), []),
        (hidden("x", length=0), ["a hidden text has an impossible length"]),
        (hidden("x", length=9), ["a hidden text has an impossible length"]),
        (hidden("x", length=8 * 3000), ["a hidden text is longer than its picture"]),
        (hidden("x", length=0xFFFFFFF8), ["a hidden text of 536,870,911 bytes is not read; the limit is 1,048,576"]),
        (hidden(b"no gzip"), ["a packed text is damaged"]),
        (hidden(gzip.compress(b"abc" * 99)[:-9]), ["a packed text is cut off"]),
        (hidden(gzip.compress(bytes(200_000))), []),
    ],
)
def test_headers_that_lie(image: Image.Image, problems: list[str], tmp_path: Path) -> None:
    begin = time.process_time()
    assert read_hidden(saved(tmp_path, encoded("PNG", image)))[2] == problems
    assert time.process_time() - begin < 2


def test_a_damaged_picture_hides_nothing(tmp_path: Path) -> None:
    data = encoded("PNG", hidden(INFOTEXT))
    assert read_hidden(saved(tmp_path, data[: len(data) // 2])) == ("", "", [])
    assert read_hidden(saved(tmp_path, b"")) == ("", "", [])
