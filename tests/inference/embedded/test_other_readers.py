"""What independent programs write is read here, and what the tests' own writers make is what those programs read.

    python -m pytest tests/inference/embedded/test_other_readers.py

Each program runs in a process of its own with a time limit, for some never return from a length that lies. One that is
not installed skips its tests.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from tagger.inference.embedded.artists import Lookup
from tagger.inference.embedded.containers import read_containers
from tagger.inference.embedded.reading import read_embedded
from tests.inference.embedded.files import (
    INFOTEXT,
    encoded,
    graph,
    hidden,
    jpeg,
    novelai_chunks,
    novelai_png,
    picture,
    png,
    saved,
    user_comment,
)

TIME_LIMIT = 60  # seconds for all files of a program
PROMPT = "1girl, (artist:mori:1.2)"
JAPANESE = f"猫, {INFOTEXT}"

# Each reads the files that are named and prints what it finds, by name, as JSON.
PROGRAMS = {
    "sd_parsers": """
from sd_parsers import Eagerness, ParserManager
def read(path):
    found = ParserManager(eagerness=Eagerness.EAGER).parse(path)
    return found and {"generator": found.generator.name.lower(), "prompts": [each.value for each in found.prompts],
                      "negative_prompts": [each.value for each in found.negative_prompts]}
""",
    "naipng": """
import naipng
def read(path):
    with open(path, "rb") as file:  # of bytes its reader makes something that it cannot read
        return naipng.read(file)
""",
    "novelai": """
from PIL import Image
from novelai.utils.metadata import extract_metadata
def read(path):
    return extract_metadata(Image.open(path)).alpha_info
""",
    "piexif": """
import piexif, piexif.helper
def read(path):
    return piexif.helper.UserComment.load(piexif.load(path)["Exif"][piexif.ExifIFD.UserComment])
""",
}
RUN = "\nimport json, sys\nprint(json.dumps({path: read(path) for path in sys.argv[1:]}))"


def ask(program: str, paths: list[Path]) -> list[Any]:
    """What a program finds in each file."""
    if importlib.util.find_spec(program) is None:
        pytest.skip(f"{program} is not installed: pip install -r requirements-dev.txt")
    command = [sys.executable, "-c", PROGRAMS[program] + RUN, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=TIME_LIMIT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return [found[str(path)] for path in paths]


# ComfyUI's editor knows the links by their types.
WORKFLOW = {"links": [[1, 4, 0, 3, 0, "MODEL"], [2, 6, 0, 3, 1, "CONDITIONING"], [3, 7, 0, 3, 2, "CONDITIONING"]]}


def full_graph() -> dict[str, Any]:
    """A graph with all that sd-parsers wants of a sampler."""
    content = graph(PROMPT, "bad")
    content["3"]["inputs"] |= {"sampler_name": "euler", "steps": 20, "cfg": 5.0, "model": ["4", 0]}
    content["4"]["inputs"] = {"ckpt_name": "x.safetensors"}
    return content


def fooocus() -> str:
    members = {"prompt": PROMPT, "negative_prompt": "bad", "full_prompt": [PROMPT], "base_model": "x"}
    members |= {"base_model_hash": "1", "sampler": "s", "metadata_scheme": "fooocus", "version": "Fooocus v2.5"}
    return json.dumps(members)


def test_sd_parsers_agrees(tmp_path: Path) -> None:
    infotext = INFOTEXT.replace("(artist:aoi kumo:1.2)", "(artist:mori:1.2)")
    invokeai = {"positive_prompt": PROMPT, "negative_prompt": "bad", "model": {"model_name": "x"}}
    files = {
        "a1111": ("a.png", png(("tEXt", "parameters", infotext))),
        "a1111 ": ("a.jpg", jpeg(user_comment(infotext))),
        "a1111  ": ("b.png", encoded("PNG", hidden(infotext))),
        "novelai": ("c.png", novelai_png(PROMPT)),
        "comfyui": (
            "d.png",
            png(("tEXt", "prompt", json.dumps(full_graph())), ("tEXt", "workflow", json.dumps(WORKFLOW))),
        ),
        "fooocus": ("e.png", png(("tEXt", "parameters", fooocus()), ("tEXt", "fooocus_scheme", "fooocus"))),
        "invokeai": (
            "f.png",
            png(("tEXt", "invokeai_metadata", json.dumps(invokeai | {"scheduler": "euler", "seed": 1, "steps": 2}))),
        ),
    }
    paths = [saved(tmp_path, data, name) for name, data in files.values()]
    for generator, path, found in zip(files, paths, ask("sd_parsers", paths), strict=True):
        ours = read_embedded(path, Lookup())
        assert found is not None, path
        assert found["generator"].replace("automatic1111", "a1111") == ours.generator == generator.strip()
        assert found["prompts"] == [ours.prompt]


def test_naipng_and_the_novelai_sdk_agree(tmp_path: Path) -> None:
    chunks = novelai_chunks("1.2::artist:mori ::, 猫", ["girl, 0.8::artist:sabi::"])
    paths = [
        saved(tmp_path, png(*(("iTXt", key, text) for key, text in chunks.items())), "a.png"),
        saved(tmp_path, png(*(("tEXt", key, text) for key, text in chunks.items())), "b.png"),
        saved(tmp_path, encoded("PNG", hidden(json.dumps(chunks))), "c.png"),
        saved(tmp_path, encoded("WEBP", hidden(json.dumps(chunks)), lossless=True, exact=True), "c.webp"),
    ]
    ours = [read_embedded(path, Lookup()) for path in paths]
    assert all(each.wanted == {"mori": 1.2, "sabi": 0.8} for each in ours)
    # naipng reads tEXt alone.
    (comment,) = ask("naipng", paths[1:2])
    assert comment["prompt"] == ours[1].prompt and comment["uc"] == ours[1].negative_prompt
    for found in ask("novelai", paths[2:]):
        content = found["Comment"] if isinstance(found["Comment"], dict) else json.loads(found["Comment"])
        assert content["prompt"] == ours[2].prompt and found["Source"] == chunks["Source"]


def test_piexif_reads_what_the_tests_write(tmp_path: Path) -> None:
    paths = [
        saved(tmp_path, jpeg(user_comment(JAPANESE)), "a.jpg"),
        saved(tmp_path, jpeg(user_comment(JAPANESE, order="<")), "b.jpg"),
        saved(tmp_path, encoded("WEBP", exif=b"Exif\0\0" + user_comment(JAPANESE)), "a.webp"),
    ]
    ours = [read_containers(path).fields["exif"]["UserComment"] for path in paths]
    assert ask("piexif", paths) == ours == [JAPANESE] * 3


@pytest.mark.parametrize(("encoding", "text"), [("unicode", JAPANESE), ("ascii", INFOTEXT), ("jis", "猫, 1girl")])
def test_what_piexif_writes_is_read(encoding: str, text: str, tmp_path: Path) -> None:
    piexif = pytest.importorskip("piexif")
    helper = pytest.importorskip("piexif.helper")
    comment = helper.UserComment.dump(text, encoding=encoding)
    data = piexif.dump({"0th": {piexif.ImageIFD.Software: b"x"}, "Exif": {piexif.ExifIFD.UserComment: comment}})
    for kind in ("jpeg", "webp", "avif"):
        path = saved(tmp_path, encoded(kind, exif=data), f"a.{kind}")
        assert read_containers(path).fields["exif"]["UserComment"] == text


@pytest.mark.parametrize(("packed", "international"), [(False, False), (True, False), (False, True), (True, True)])
def test_what_pillow_writes_is_read(packed: bool, international: bool, tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    if international:
        info.add_itxt("parameters", JAPANESE, lang="en", tkey="Parameter", zip=packed)
    else:
        info.add_text("parameters", INFOTEXT, zip=packed)
    path = saved(tmp_path, encoded("PNG", pnginfo=info))
    with Image.open(path) as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        assert read_containers(path).fields == {"png": dict(image.text)}
    exif = Image.Exif()
    exif[0x010E] = INFOTEXT
    path = saved(tmp_path, encoded("JPEG", picture(), exif=exif), "a.jpg")
    assert read_containers(path).fields == {"exif": {"ImageDescription": INFOTEXT}}


def test_exiftool_agrees(tmp_path: Path) -> None:
    if (exiftool := shutil.which("exiftool")) is None:
        pytest.skip("no exiftool here: apt install libimage-exiftool-perl")
    files = {"a.jpg": jpeg(user_comment(JAPANESE)), "a.gif": encoded("GIF", comment=INFOTEXT.encode())}
    files |= {f"a.{kind}": encoded(kind, exif=b"Exif\0\0" + user_comment(JAPANESE)) for kind in ("webp", "avif")}
    files["a.png"] = png(("iTXt", "parameters", JAPANESE))
    paths = [saved(tmp_path, data, name) for name, data in files.items()]
    command = [exiftool, "-json", "-UserComment", "-Comment", "-Parameters", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=TIME_LIMIT, check=True)
    for path, found in zip(paths, json.loads(done.stdout), strict=True):
        found.pop("SourceFile")
        (ours,) = (
            text for texts in read_containers(path).fields.values() for key, text in texts.items() if key != "Software"
        )
        assert list(found.values()) == [ours], path
