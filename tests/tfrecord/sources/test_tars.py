"""tars.py: what is found in whole, damaged and odd tars, and in the indexes beside them.

python -m pytest tests/tfrecord/sources/test_tars.py
"""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tagger.files import UserError
from tagger.tfrecord.sources import tars
from tagger.tfrecord.sources.found import BROKEN_TAR, Member
from tagger.tfrecord.sources.tars import find_in_tar, read_member

FILES = {
    "1.jpg": b"first picture",
    "1.txt": b"general",
    "sub/2.png": b"second" * 100,
    "3.cls": b"3",
    ".hidden.jpg": b"",
}


def write_tar(path: Path, contents: Mapping[str, bytes], format: int = tarfile.PAX_FORMAT) -> dict[str, Any]:
    """Make a tar; its index, as the public Danbooru tars have it."""
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with tarfile.open(path) as tar:
        places = {info.name: {"offset": info.offset_data, "size": info.size, "sha256": ""} for info in tar}
    return {"filesize": path.stat().st_size, "hash": "", "files": places}


def contents(path: Path) -> tuple[dict[str, bytes | str | None], list[str]]:
    """By name the bytes of what is found, or what is wrong with it; and the suffixes of all else."""
    others: list[str] = []
    found: dict[str, bytes | str | None] = {}
    for file in find_in_tar(path, path.name, others.append):
        if file.problem is None and file.member:
            found[file.name.removeprefix(f"{path.name}/")] = read_member(path.parent, file.member)
        else:
            assert (file.kind == BROKEN_TAR) == (file.name == path.name)
            found[file.name.removeprefix(f"{path.name}/")] = file.problem
    return found, others


WANTED: dict[str, bytes | str | None] = {name: FILES[name] for name in ("1.jpg", "1.txt", "sub/2.png")}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_with_and_without_an_index(tmp_path: Path, format: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "0000.tar"
    index = write_tar(path, FILES | {"./4.jpg": b"4"}, format)
    expected = WANTED | {"4.jpg": b"4"}
    assert contents(path) == (expected, [".cls"])
    (tmp_path / "0000.json").write_text(json.dumps(index))
    monkeypatch.setattr(tars, "_scanned", None)  # with the index nothing is looked for
    assert contents(path) == (expected, [".cls"])


def test_long_and_odd_names(tmp_path: Path) -> None:
    names = [f"{'long' * 60}.jpg", "初音 ミク.png", "a\nb.jpg", "\udcff.jpg", "../up.jpg"]
    write_tar(tmp_path / "a.tar", {name: name.encode("utf-8", "surrogateescape") for name in names})
    found, _ = contents(tmp_path / "a.tar")
    assert found == {name: name.encode("utf-8", "surrogateescape") for name in names}


def test_a_truncated_tar_loses_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    index = write_tar(path, {f"{number}.jpg": b"%d" % number * 600 for number in range(4)})
    third = index["files"]["2.jpg"]["offset"]
    ends = "the tar ends before it; fetch the tar again"
    path.write_bytes(path.read_bytes()[: third + 300])
    found, _ = contents(path)
    assert list(found) == ["0.jpg", "1.jpg", "2.jpg", "a.tar"]
    assert found["2.jpg"] == ends and found["0.jpg"] == b"0" * 600
    assert str(found["a.tar"]).endswith("; what is before was taken; fetch it again")
    path.with_suffix(".json").write_text(json.dumps(index))
    found, _ = contents(path)
    assert found == {"0.jpg": b"0" * 600, "1.jpg": b"1" * 600, "2.jpg": ends, "3.jpg": ends}
    with pytest.raises(UserError, match="the tar ends before it"):
        read_member(tmp_path, Member("a.tar", third, 600))
    # Between two files, and in the middle of a header: only the end of the tar tells.
    for end in (third - 512, third - 100):
        path.with_suffix(".json").unlink(missing_ok=True)
        path.write_bytes(path.read_bytes()[:end])
        found, _ = contents(path)
        assert list(found) == ["0.jpg", "1.jpg", "a.tar"]


def test_an_index_that_does_not_fit_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    good = write_tar(path, FILES)
    shifted = {name: {**at, "offset": at["offset"] + 512} for name, at in good["files"].items()}
    for text in (
        "{",
        "[]",
        "[" * 100_000,
        '{"files": {}}',
        json.dumps({"files": shifted}),
        json.dumps({"files": {"1.jpg": {"offset": -1, "size": 5}}}),
        json.dumps({"files": {"1.jpg": {"offset": 1536, "size": True}}}),
        json.dumps({"files": {"\ud800.jpg": {"offset": 1536, "size": 5}}}),
        json.dumps({"files": {"1.jpg": {"offset": 1536, "size": 10**30}}}),
    ):
        path.with_suffix(".json").write_text(text)
        assert contents(path) == (WANTED, [".cls"])


def test_what_is_no_file_and_what_is_no_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "links.tar", "w") as tar:
        info = tarfile.TarInfo("link.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    assert contents(tmp_path / "links.tar")[0] == {"link.jpg": "not a file; remove it from the tar"}
    for name, data in (("empty.tar", b""), ("none.tar", b"no tar " * 1000), ("gz.tar", b"\x1f\x8b\x08" + bytes(600))):
        (tmp_path / name).write_bytes(data)
        found, _ = contents(tmp_path / name)
        assert list(found) == [name] and str(found[name]).endswith("fetch it again")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_damaged_bytes_never_raise(tmp_path: Path, position: int, data: bytes) -> None:
    path = tmp_path / "a.tar"
    index = write_tar(path, FILES, tarfile.GNU_FORMAT)
    whole = path.read_bytes()
    path.write_bytes(whole[:position] + data + whole[position + len(data) :])
    path.with_suffix(".json").unlink(missing_ok=True)
    contents(path)
    path.with_suffix(".json").write_text(json.dumps(index))
    contents(path)
