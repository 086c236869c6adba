"""A folder such as people have: sixty odd files. Every script ends in words, and changes nothing that is no caption.

python -m pytest tests/test_odd_files.py
"""

import hashlib
import io
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from examples.sample_booru.server import start
from tests.helpers import ROOT

TAGS = b"general,1girl,solo"


def picture(kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (24, 40), shade: int = 0) -> bytes:
    """An image file of one shade."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    out = io.BytesIO()
    Image.new(mode, size, shade if bands == 1 else (shade,) * bands).save(out, kind)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pair(stem: str, suffix: str, data: bytes, tags: bytes | None = TAGS) -> dict[str, bytes]:
    return {f"{stem}{suffix}": data, **({} if tags is None else {f"{stem}.txt": tags})}


def odd_files() -> dict[str, bytes]:
    """Contents by name."""
    png, jpeg = picture(), picture("JPEG")
    files: dict[str, bytes] = {}
    # What opens.
    for number, (suffix, kind) in enumerate(
        [
            *((".jpg", "JPEG"), (".jpeg", "JPEG"), (".jpe", "JPEG"), (".jfif", "JPEG"), (".png", "PNG")),
            *((".webp", "WEBP"), (".gif", "GIF"), (".bmp", "BMP"), (".tif", "TIFF"), (".tiff", "TIFF")),
            *((".avif", "AVIF"), (".PNG", "PNG")),
        ]
    ):
        files |= pair(f"kind{number}", suffix, picture(kind, shade=number * 9))
    for number, mode in enumerate(["L", "1", "LA", "RGBA", "P", "I;16"]):
        files |= pair(f"mode{number}", ".png", picture(mode=mode, shade=1))
    files |= pair("cmyk", ".jpg", picture("JPEG", "CMYK", shade=99))
    files |= pair("wide", ".png", picture(size=(3000, 2), shade=7))
    files |= pair("dot", ".png", picture(size=(1, 1), shade=8))
    files |= pair("text", ".png", png[:33] + chunk(b"tEXt", b"parameters\0" + b"x" * (2 << 20)) + png[33:])
    files |= pair("misnamed", ".png", picture("JPEG", shade=5))
    files |= pair("初音ミク 1", ".png", picture(shade=11))
    files |= pair("spaces and 'quotes' (1)", ".png", picture(shade=12))
    files |= pair("n" * 246, ".jpg", picture("JPEG", shade=13))
    # Tag lists of any habit.
    for number, tags in enumerate(
        [
            b"\xef\xbb\xbfgeneral, 1girl\r\nsolo\r\n",
            "general，1girl、solo".encode(),
            "长发, 1girl".encode("gbk"),
            "1girl, solo".encode("utf-16"),
            rb"(long hair:1.2), saber \(fate\), \m/",
            b"tag\x00with\x01controls, 1girl",
            b"x" * 5000,
            b"1girl," * 3000,
            b'"quoted, csv",=cmd|x,1girl',
            b"\xff\xfe",
            b" ,, ,",
            b"",
        ]
    ):
        files |= pair(f"tags{number}", ".png", picture(shade=20 + number), tags)
    # What does not open, or is no picture at all.
    files |= pair("truncated", ".jpg", jpeg[: len(jpeg) // 2])
    files |= pair("garbage", ".png", b"no picture")
    files |= pair("empty", ".png", b"")
    files |= pair("bomb", ".png", png[:16] + struct.pack(">II", 60_000, 60_000) + png[24:])
    files |= pair("vector", ".svg", b"<svg/>")
    files |= pair("phone", ".heic", b"\0\0\0\x18ftypheic")
    files |= pair("layers", ".psd", b"8BPS")
    files |= pair("film", ".mp4", b"\0\0\0\x18ftypmp42")
    files |= pair("alone", ".png", picture(shade=40), None)
    files |= {"twin.jpg": jpeg, "twin.png": png, "twin.txt": TAGS}
    # What people keep beside them.
    files |= {
        "notes.txt": b"buy milk, and bread",
        "sample_prompts.txt": b"a girl with long hair --n blurry",
        "requirements.txt": b"torch>=2\nnumpy\n",
        "metadata.jsonl": b'{"file_name": "kind0.jpg"}\n',
        "archive.zip": b"PK\3\4",
        "Thumbs.db": b"\xd0\xcf\x11\xe0",
        ".DS_Store": b"\0\0\0\1Bud1",
        ".hidden.txt": b"a b c",
        "lora.safetensors": b"\x08\0\0\0\0\0\0\0{}      ",
        "README.md": b"# mine",
        "no_suffix": b"",
    }
    return files


@pytest.fixture(scope="module")
def odd() -> dict[str, bytes]:
    files = odd_files()
    assert len(files) >= 60
    return files


@pytest.fixture
def folder(odd: dict[str, bytes], tmp_path: Path) -> Path:
    """The files on disk; among them a folder named as a caption and, where the system has them, links."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    for name, data in odd.items():
        (folder / name).write_bytes(data)
    (folder / "directory.txt").mkdir()
    (folder / "directory.png").write_bytes(picture(shade=50))
    (folder / "subfolder.png").mkdir()
    (tmp_path / "outside.png").write_bytes(picture(shade=51))
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "broken.png").symlink_to(tmp_path / "nothing.png")
    if os.name != "nt" and sys.platform != "darwin":
        (folder / os.fsdecode(b"no\xffunicode.png")).write_bytes(picture(shade=52))
        (folder / os.fsdecode(b"no\xffunicode.txt")).write_bytes(TAGS)
    return folder


def digests(folder: Path, is_spared: Callable[[str], bool]) -> dict[str, str]:
    return {
        os.fsencode(path.name).decode("utf-8", "backslashreplace"): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file() and not is_spared(path.name)
    }


def run(script: str, *flags: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script; it must end by itself, in words."""
    command = [sys.executable, str(ROOT / script), *map(str, flags)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, encoding="utf-8", errors="replace")
    assert done.returncode in (0, 1, 2), done.stderr
    assert "Traceback" not in done.stderr and "nobody foresaw" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    return done


NO_CAPTIONS = ("notes.txt", "sample_prompts.txt", "requirements.txt", ".hidden.txt")


def is_caption(name: str) -> bool:
    """Whether a name is that of a caption that a script may write, or of a script's own file."""
    own = name.startswith((".tagger", "replace_blanks", "crawl_state", "failures", "passed_over", "tag_categories"))
    return own or (name.endswith(".txt") and name not in NO_CAPTIONS)


def nothing(name: str) -> bool:
    return name.startswith(".tagger")


def test_replace_blanks(folder: Path) -> None:
    before, all_before = digests(folder, is_caption), digests(folder, nothing)
    done = run("replace_blanks.py", cwd=folder.parent)
    assert done.returncode == 1
    assert digests(folder, is_caption) == before
    assert run("replace_blanks.py", "--undo", cwd=folder.parent).returncode == 0
    assert digests(folder, nothing) == all_before


def test_generate_selected_tags(folder: Path) -> None:
    before = digests(folder, nothing)
    done = run("generate_selected_tags.py", "--output-csv", "tags.csv", cwd=folder.parent)
    assert done.returncode == 1 and (folder.parent / "tags.csv").exists()
    assert digests(folder, nothing) == before


def test_create_tfrecord(folder: Path) -> None:
    before = digests(folder, nothing)
    (folder.parent / "tags.csv").write_text("name,category\ngeneral,9\n1girl,0\n")
    done = run("create_tfrecord.py", "--tags-csv", "tags.csv", "--img-size", 28, "--workers", 2, cwd=folder.parent)
    assert done.returncode == 1, done.stderr
    assert digests(folder, nothing) == before
    output = folder.parent / "output-datasets"
    about = json.loads((output / "aibooru.json").read_text())
    skipped = (output / "skipped.csv").read_text(encoding="utf-8")
    written = about["train_samples"] + about["val_samples"]
    pictures = [
        path.name
        for path in folder.iterdir()
        if re.search(r"\.(jpe?g|jpe|jfif|png|webp|gif|bmp|tiff?|avif)$", path.name, re.IGNORECASE)
    ]
    assert written + len(skipped.splitlines()) - 1 == len(pictures)
    assert written >= 25
    for suffix in (".heic", ".psd", ".svg", ".mp4", ".zip"):
        assert suffix in done.stderr


def test_training_on_a_folder_of_pictures_is_refused_in_words(folder: Path) -> None:
    before = digests(folder, nothing)
    done = run(
        "train_pytorch.py", "--dataset_root", folder, "--output_dir", folder, "--device", "cpu", cwd=folder.parent
    )
    assert done.returncode == 2
    assert digests(folder, nothing) == before


def test_the_crawler_beside_other_files(folder: Path) -> None:
    before = digests(folder, nothing)
    server, booru = start(posts=12)
    try:
        flags = ("--base-url", booru.base_url, "--rate", 1000, "--target-count", 60)
        run("simple_dan_crawl.py", *flags, cwd=folder.parent)
    finally:
        server.shutdown()
    assert before.items() <= digests(folder, nothing).items()


@pytest.mark.parametrize("existing", ["skip", "overwrite", "append"])
def test_captions(folder: Path, checkpoint: Path, existing: str) -> None:
    before, all_before = digests(folder, is_caption), digests(folder, nothing)
    model = ("--model_path", checkpoint, "--device", "cpu", "--gen_threshold", 0.2)
    done = run("wdv3_pytorch.py", "--image_file", folder, *model, "--output_format", "jsonl", cwd=folder.parent)
    assert done.returncode == 1 and digests(folder, nothing) == all_before
    assert ".heic" in done.stderr and ".psd" in done.stderr
    flags = ("--write_captions", "--existing", existing, "--output", "tags.jsonl", "--output_format", "jsonl")
    done = run("wdv3_pytorch.py", "--image_file", folder, *model, *flags, cwd=folder.parent)
    assert done.returncode == 1 and (folder.parent / "tags.jsonl").exists()
    assert digests(folder, is_caption) == before
