"""The files of a folder that are pictures or may hold the tags of one.

python create_tfrecord.py --dataset-folder ./dataset
"""

import os
import stat
from pathlib import Path

from tagger.tfrecord.sources.found import Found, kind_of, too_long


def look_at(entry: os.DirEntry[str], name: str, root: Path) -> Found | None:
    """What there is to say of a file; None where it is neither a picture nor may hold tags.

    Args:
        name: its path from the dataset's folder.
        root: that folder, resolved.
    """
    kind = kind_of(entry.name)
    if kind is None:
        return None
    stamp, problem = "", None
    try:
        problem = out_of(root, entry)
        status = entry.stat()
        stamp = f"{status.st_size} {status.st_mtime_ns}"
        problem = not_a_file(status) or too_long(kind, status.st_size) or problem
    except OSError as error:
        problem = f"{error.strerror}; replace or remove it"
    return Found(kind, name, stamp, problem)


def out_of(root: Path, entry: os.DirEntry[str]) -> str | None:
    """The problem of a link that leads out of the dataset's folder."""
    if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
        return "a link out of the folder; copy the file here"
    return None


def not_a_file(status: os.stat_result) -> str | None:
    """The problem of a folder, a pipe or a device."""
    return None if stat.S_ISREG(status.st_mode) else "not a file; remove it"
