"""checkpoint.py: which files make up a tagger.

python -m pytest tests/formats/test_checkpoint.py
"""

from pathlib import Path

import pytest

from tagger.files import UserError
from tagger.formats.checkpoint import locate


def test_the_weights_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no \.safetensors or \.pth"):
        locate(tmp_path)
    for name in ("a_epoch_1.pth", "a_epoch_2.pth"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"a_epoch_1\.pth, a_epoch_2\.pth; name one"):
        locate(tmp_path)
    for name in ("a_best.pth", "model.safetensors"):
        (tmp_path / name).touch()
        assert locate(tmp_path).weights.name == name
    assert locate(tmp_path / "a_epoch_1.pth", tags_csv="my.csv").tags_csv == Path("my.csv")
