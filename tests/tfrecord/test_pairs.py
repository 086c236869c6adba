"""pairs.py: what an image and its txt hold, or why they are of no use.

python -m pytest tests/tfrecord/test_pairs.py
"""

import hashlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tagger.tfrecord.pairs import Pair, Scanned, printable, scan_pairs
from tests.helpers import write_pair


def test_each_pair_gives_what_is_in_it_or_why_it_is_unusable(tmp_path: Path) -> None:
    image = write_pair(tmp_path, "a.png", ["general", "solo", "nul\0"])
    write_pair(tmp_path, "empty.png", [" "])
    write_pair(tmp_path, "control.png", ["\x1b[31m"])
    names = [(f"{stem}.png", f"{stem}.txt") for stem in ("a", "empty", "control", "gone")]
    whole, empty, control, gone = scan_pairs(tmp_path, [Pair(*each) for each in names])
    assert whole == Scanned(hashlib.sha256(image.read_bytes()).digest(), "general,solo", 1)
    assert empty == "empty.txt: no tags in it; write some, separated by commas"
    assert isinstance(control, str) and control.startswith("control.txt: no usable tags")
    assert isinstance(gone, str) and gone.startswith("gone.txt: no such file")


def test_an_image_that_is_gone(tmp_path: Path) -> None:
    write_pair(tmp_path, "a.png", ["general"])
    (reason,) = scan_pairs(tmp_path, [Pair("gone.png", "a.txt")])
    assert reason == "No such file or directory; replace or remove it"


@given(st.text())
def test_what_is_printable_is_one_line_of_utf8_and_stays_so(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable() and printable(shown) == shown
    shown.encode()
