"""The curves of a run are drawn whatever its metrics.csv lacks.

python -m pytest tests/training/test_curves.py
"""

from pathlib import Path

from PIL import Image

from tagger.training import curves


def test_curves_of_any_number_of_epochs(tmp_path: Path) -> None:
    for rows in ([], [{"epoch": "1", "loss": "2.5", "train_loss": "", "lr": "0.1"}]):
        curves.draw(rows, tmp_path / "curves.png")
        with Image.open(tmp_path / "curves.png") as image:
            assert image.size == (1200, 840)
