"""containers.py and exif.py: texts of every container, in every encoding, and files that lie.

python -m pytest tests/inference/embedded/test_containers.py
"""

import struct
import time
import zlib
from pathlib import Path

import pytest

from tagger.files import UserError
from tagger.inference.embedded import containers
from tagger.inference.embedded.containers import Texts, read_containers
from tagger.inference.embedded.exif import read_exif, user_comment
from tests.inference.embedded.files import (
    INFOTEXT,
    USER_COMMENT,
    chunk,
    encoded,
    exif,
    jpeg,
    picture,
    png,
    saved,
    text_chunk,
    with_chunks,
)
from tests.inference.embedded.files import user_comment as comment_of

JAPANESE = f"猫, {INFOTEXT}"


def texts_of(folder: Path, data: bytes, name: str = "a.png") -> Texts:
    return read_containers(saved(folder, data, name))


@pytest.mark.parametrize("at_the_end", [False, True])
@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "iTXt packed", "comf"])
def test_each_chunk_of_a_png_before_and_behind_the_pixels(kind: str, at_the_end: bool, tmp_path: Path) -> None:
    texts = texts_of(tmp_path, png((kind, "parameters", JAPANESE), at_the_end=at_the_end))
    assert texts.fields == {"png": {"parameters": JAPANESE}} and texts.problems == []


def test_latin_1_where_a_chunk_is_no_utf_8(tmp_path: Path) -> None:
    assert texts_of(tmp_path, png(("tEXt", "a", "caf\xe9".encode("latin-1")))).fields == {"png": {"a": "café"}}


ENCODINGS = [
    ("utf-16-be", b"UNICODE\0", ">"),
    ("utf-16-be", b"UNICODE\0", "<"),  # Civitai
    ("utf-16-le", b"UNICODE\0", "<"),  # SwarmUI
    ("utf-16-le", b"UNICODE\0", ">"),
    ("utf-16", b"UNICODE\0", ">"),  # with a BOM
    ("utf-8", b"UNICODE\0", ">"),  # Exif 3.0
    ("utf-8", b"ASCII\0\0\0", ">"),  # NovelAI
    ("utf-8", bytes(8), "<"),
    ("utf-8", b"", ">"),
]


@pytest.mark.parametrize(("encoding", "mark", "order"), ENCODINGS)
@pytest.mark.parametrize("container", ["jpeg", "webp", "avif", "png"])
def test_user_comments_in_every_encoding_and_container(
    container: str, encoding: str, mark: bytes, order: str, tmp_path: Path
) -> None:
    data = comment_of(JAPANESE, encoding, mark, order)
    if container == "jpeg":
        file = jpeg(data)
    elif container == "png":
        file = with_chunks(encoded("PNG"), chunk(b"eXIf", data))
    else:
        file = encoded(container, exif=b"Exif\0\0" + data)
    texts = texts_of(tmp_path, file, f"a.{container}")
    assert texts.fields["exif"]["UserComment"] == JAPANESE and texts.problems == []


def test_utf_16_that_is_all_chinese_follows_the_order_of_the_file() -> None:
    assert user_comment(b"UNICODE\0" + "猫猫犬".encode("utf-16-le"), "little") == "猫猫犬"
    assert user_comment(b"UNICODE\0" + "猫猫犬".encode("utf-16-be"), "big") == "猫猫犬"


def test_other_tags_of_exif_but_not_the_owners(tmp_path: Path) -> None:
    tags = {
        0x010E: b"described\0",
        0x0110: b"prompt:{}\0",
        0x013B: b"somebody\0",
        0x8298: b"copyright\0",
        0x9C9D: b"me\0\0",
    }
    assert texts_of(tmp_path, jpeg(exif(tags)), "a.jpg").fields == {
        "exif": {"ImageDescription": "described", "Model": "prompt:{}"}
    }


def test_a_gifs_comment_and_no_jpegs(tmp_path: Path) -> None:
    gif = encoded("GIF", picture("RGB").convert("P"), comment=(JAPANESE * 9).encode())
    assert texts_of(tmp_path, gif, "a.gif").fields == {"gif": {"comment": JAPANESE * 9}}
    assert texts_of(tmp_path, jpeg(comment=INFOTEXT.encode()), "a.jpg").fields == {}


@pytest.mark.parametrize(
    "form",
    [
        '<rdf:Description exif:UserComment="{0}"/>',
        "<exif:UserComment><rdf:Alt><rdf:li xml:lang='x-default'>{0}</rdf:li></rdf:Alt></exif:UserComment>",
        "<exif:UserComment>{0}</exif:UserComment>",
    ],
)
def test_xmp_in_every_container(form: str, tmp_path: Path) -> None:
    xmp = form.format("{&quot;c&quot;: &quot;a &lt;b&gt;&quot;}").encode()
    for name, data in {
        "a.jpg": jpeg(xmp=xmp),
        "a.webp": encoded("WEBP", xmp=xmp),
        "a.png": png(("iTXt", "XML:com.adobe.xmp", xmp)),
    }.items():
        assert texts_of(tmp_path, data, name).fields == {"xmp": {"UserComment": '{"c": "a <b>"}'}}


def test_the_content_counts_and_not_the_name(tmp_path: Path) -> None:
    assert texts_of(tmp_path, png(("tEXt", "a", "b")), "a.jpg").fields == {"png": {"a": "b"}}
    assert texts_of(tmp_path, b"no picture", "a.png").problems == [
        "no PNG, JPEG, WebP, AVIF or GIF, so no prompt is looked for"
    ]
    assert texts_of(tmp_path, b"").fields == {}


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_containers(tmp_path / "missing.png")
    with pytest.raises(UserError, match="a folder"):
        read_containers(tmp_path)


# --- files that lie -------------------------------------------------------------------------------------------------


def bomb(size: int) -> bytes:
    return chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(size), 9))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (with_chunks(encoded("PNG"), bomb(300 << 20)), "a packed text has more than 1,048,576 bytes and is not read"),
        (png(("tEXt", "a", "x" * (2 << 20))), "a text of 2,097,154 bytes is not read; the limit is 1,048,576"),
        (with_chunks(encoded("PNG"), struct.pack(">I", 1 << 31) + b"tEXt"), "the file is cut off"),
        (with_chunks(encoded("PNG"), chunk(b"zTXt", b"a\0\0nothing packed")), "a packed text is damaged"),
        (
            with_chunks(encoded("PNG"), chunk(b"zTXt", b"a\0\0" + zlib.compress(b"abc")[:-8])),
            "a packed text is cut off",
        ),
        (with_chunks(encoded("PNG"), *[text_chunk("tEXt", "k", "x" * 1_000_000)] * 12), "more than 8 MB"),
        (with_chunks(encoded("PNG"), *[bomb(1 << 20)] * 400), "more than 8 MB"),
        (jpeg(exif({USER_COMMENT: b"x" * 9})[:-4]), "the EXIF data is cut off"),
        (jpeg(b"no TIFF"), "the EXIF data is damaged"),
        (b"\xff\xd8\xff\xe1\0\0", "a JPEG segment is damaged"),
        (b"\xff\xd8\xff" + b"\xff" * 300_000, "more than 200,000 parts"),
        (b"GIF89a" + bytes(7) + b"\x21\xfe" + (b"\xff" + b"x" * 255) * 9000, "a text of more than"),
        (b"\0\0\0\x10ftypavif" + bytes(4) + b"\xff\xff\xff\xffmeta", "an AVIF box is damaged"),
        (b"\0\0\0\x10ftypavif" + bytes(4) + (b"\0\0\0\x08free" * 250_000), "more than 200,000 parts"),
    ],
)
def test_lies_about_sizes_are_a_word_and_cost_nothing(data: bytes, problem: str, tmp_path: Path) -> None:
    path = saved(tmp_path, data)
    begin = time.process_time()
    texts = read_containers(path)
    assert time.process_time() - begin < 2
    assert any(text.startswith(problem) for text in texts.problems), texts.problems


def test_exif_directories_that_point_at_each_other_end() -> None:
    data = struct.pack(">4sIH", b"MM\0*", 8, 1) + struct.pack(">HHII", 0x8769, 4, 1, 8) + bytes(4)
    assert read_exif(data) == ({}, None)


def test_exif_entries_that_share_a_megabyte_are_not_all_decoded() -> None:
    text = b"x" * (1 << 20)
    entries = [struct.pack(">HHII", 0x010E, 2, len(text), 12_010)] * 1000
    data = struct.pack(">4sIH", b"MM\0*", 8, 1000) + b"".join(entries)
    begin = time.process_time()
    texts, problem = read_exif(data.ljust(12_010, b"\0") + text)
    assert time.process_time() - begin < 0.5
    assert problem and texts == {"ImageDescription": text.decode()}


def test_entities_of_xmp_are_not_expanded(tmp_path: Path) -> None:
    laughs = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><exif:UserComment>&b;</exif:UserComment>'
    assert texts_of(tmp_path, jpeg(xmp=laughs.encode()), "a.jpg").fields == {"xmp": {"UserComment": "&b;"}}


def test_limits_are_those_of_the_specification() -> None:
    assert (containers.MAX_TEXT, containers.MAX_TEXTS) == (1 << 20, 8 << 20)
