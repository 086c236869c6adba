"""constant_tags.py: what nearly all captions share, and answers that can be gone through twice.

python -m pytest tests/inference/test_constant_tags.py
"""

import sys
import tempfile
from pathlib import Path

import pytest

from tagger.files import UserError
from tagger.inference.constant_tags import LEAST_CAPTIONS, find_constant, kept
from tagger.inference.logits import Logits, likeliest
from tagger.inference.predictor import Results


@pytest.mark.parametrize("share", [0.07, 0.1, 0.29, 0.57, 0.7, 0.9, 1.0])
def test_a_share_is_met_by_exactly_so_many_captions(share: float) -> None:
    least = round(100 * share)
    captions = [["all", *(["enough"] if i < least else []), *(["fewer"] if i < least - 1 else [])] for i in range(100)]
    assert find_constant(captions, share).uses == {"all": 100, "enough": least}


def test_what_is_kept_is_not_named_and_ties_are_by_name() -> None:
    captions = [["solo", "1girl", "hat"], *[["1girl", "hat", "solo", "__proto__"]] * 9]
    found = find_constant(captions, 0.9, keep=("hat",))
    assert found.uses == {"1girl": 10, "solo": 10, "__proto__": 9} and list(found.uses) == [
        "1girl",
        "solo",
        "__proto__",
    ]
    assert found.lines()[2] == "__proto__: 0.900 (9 of 10 captions)"
    assert found.shares() == ["1girl 100%", "solo 100%", "__proto__ 90%"]
    assert find_constant([["a"]] * 199 + [[]], 0.9).shares() == ["a 99%"]  # 100% is all of them


@pytest.mark.parametrize("count", [0, 1, LEAST_CAPTIONS - 1])
def test_few_captions_tell_nothing(count: int) -> None:
    found = find_constant([["1girl"]] * count, 0.9)
    assert not found.can_be_told and found.uses == {} and found.captions == count
    assert find_constant([["1girl"]] * LEAST_CAPTIONS, 0.9).uses


def test_kept_results_are_the_same_to_the_last_bit_as_often_as_they_are_asked_for() -> None:
    error = UserError("b.png: damaged")
    odd = [Logits.of(values) for values in ([0.1, -1e38, 1e-40], [], [*map(float, range(5000))])]
    results: list[Results] = [
        (Path("a.png"), (odd[0], odd[2])),
        (Path("b.png"), error),
        (Path("c.png"), (odd[1],)),
        (Path("\udcff.png"), (likeliest(odd[2].values, most=9, with_total=True),)),
    ]
    with kept(iter(results)) as again:
        assert list(again) == list(again) == results
        part = iter(again)
        next(part)  # who stops on the way does not disturb the next
        assert list(again) == results
    with kept([]) as again:
        assert list(again) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_for_temporary_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: open("/dev/full", "wb+", buffering=0))  # noqa: SIM115
    results = [(Path("a.png"), (Logits.of([1.0]),))]
    with pytest.raises(UserError, match="No space left on device; make room there, or set TMPDIR"), kept(results):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="the file has a name there while it is open")
def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with kept([(Path("a.png"), (Logits.of([1.0]),))]):
        assert list(tmp_path.iterdir()) == []  # not even while it is in use: a killed run leaves nothing
