"""Pictures and their tags in tars, found and read where they are: nothing is unpacked.

    tar -cf dataset/0000.tar 1.jpg 1.txt && python create_tfrecord.py --dataset-folder ./dataset

WebDataset's samples, and Danbooru's `0000.tar` with the `0000.json` beside it that says where each file begins.
"""

import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from tagger.files import UserError
from tagger.tfrecord.sources.found import BROKEN_TAR, Found, Member, kind_of, too_long

SUFFIX = ".tar"
BLOCK = tarfile.BLOCKSIZE  # bytes; a file's header is one block, which its bytes follow
MAX_MEMBER_BYTES = 1 << 29  # of a picture, which is read into memory; none of 89 million pixels is longer
MAX_INDEX_BYTES = 1 << 27  # a million files
ENDS = "the tar ends before it; fetch the tar again"

Place = tuple[str, int, int]  # name, offset and size of a file in a tar; the offset is negative where it is no file


def index_beside(tar: Path) -> Path:
    """The JSON that says where the files of a tar are, if there is one."""
    return tar.with_suffix(".json")


def find_in_tar(path: Path, name: str, count_other: Callable[[str], object]) -> Iterator[Found]:
    """The pictures and the files that may hold tags in a tar. What is wrong with it is found as well, as BROKEN_TAR.

    Args:
        name: of the tar, its path from the dataset's folder.
        count_other: called with the suffix of each other file.
    """
    stamp = ""
    try:
        status = path.stat()
        stamp = f"{status.st_size} {status.st_mtime_ns}"
        with open(path, "rb") as file:
            places = _indexed(file, index_beside(path), status.st_size)
            for inside, offset, size in places if places is not None else _scanned(file):
                kind = kind_of(inside)
                if kind is None:
                    count_other(os.path.splitext(inside)[1].lower())
                    continue
                member = Member(name, offset, size)
                problem = too_long(kind, size) or _problem(member, status.st_size)
                yield Found(kind, f"{name}/{inside}", f"{stamp} {offset} {size}", problem, member)
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:  # the latter three of extended headers
        yield Found(BROKEN_TAR, name, stamp, f"{error}; what is before was taken; fetch it again")
    except OSError as error:
        yield Found(BROKEN_TAR, name, stamp, f"{error.strerror}; replace or remove it")


def read_member(folder: Path, member: Member) -> bytes:
    """The bytes of a file in a tar.

    Raises:
        UserError: the tar has become shorter.
        OSError: it cannot be read.
    """
    with open(folder / member.tar, "rb") as file:
        file.seek(member.offset)
        data = file.read(member.size)
    if len(data) < member.size:
        raise UserError(ENDS)
    return data


def _problem(member: Member, tar_size: int) -> str | None:
    if member.offset < 0:
        return "not a file; remove it from the tar"
    if member.offset + member.size > tar_size:
        return ENDS
    return f"{member.size} bytes, too long for a picture; remove it" if member.size > MAX_MEMBER_BYTES else None


def _scanned(file: IO[bytes]) -> Iterator[Place]:
    """What is in a tar, by its headers.

    Raises:
        tarfile.TarError: no tar, or it ends in the middle.
    """
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        while info := tar.next():
            tar.members = []  # type: ignore[attr-defined]  # or memory would grow with the tar
            inside = info.name.removeprefix("./").lstrip("/")
            if info.isdir() or not inside or os.path.basename(inside).startswith("."):
                continue
            yield inside, info.offset_data if info.isreg() and not info.issparse() else -1, info.size
        # tarfile takes a damaged header and the end of the file for the end of the tar, which is a block of zeros.
        file.seek(tar.offset)
        if file.read(BLOCK) != bytes(BLOCK):
            raise tarfile.ReadError(f"ends or is damaged at byte {tar.offset}")


def _indexed(file: IO[bytes], index: Path, tar_size: int) -> list[Place] | None:
    """What is in a tar, by the index beside it; None where there is none, or one that does not fit it."""
    try:
        if index.stat().st_size > MAX_INDEX_BYTES:
            return None
        listed = json.loads(index.read_bytes())["files"].items()
        places = [(name.removeprefix("./").lstrip("/"), at["offset"], at["size"]) for name, at in listed]
        for name, _, _ in places:
            os.fsencode(name)  # JSON can hold what no file name can
    except (OSError, ValueError, RecursionError, AttributeError, KeyError, TypeError):
        return None
    if not all(type(offset) is type(size) is int and offset >= BLOCK and size >= 0 for _, offset, size in places):
        return None
    places.sort(key=lambda place: place[1])
    within = [place for place in places if place[1] + place[2] <= tar_size]
    # An index of another tar would give garbage for pictures: see whether files begin where it says so.
    if not within or not all(_begins(file, *place[1:]) for place in {within[0], within[len(within) // 2], within[-1]}):
        return None
    return [place for place in places if place[0] and not os.path.basename(place[0]).startswith(".")]


def _begins(file: IO[bytes], offset: int, size: int) -> bool:
    file.seek(offset - BLOCK)
    try:
        info = tarfile.TarInfo.frombuf(file.read(BLOCK), "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return info.isreg() and info.size == size
