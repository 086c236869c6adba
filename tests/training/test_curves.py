"""The curves of a run are drawn whatever its metrics.csv lacks.

python -m pytest tests/training/test_curves.py
"""

from pathlib import Path

import pytest
from PIL import Image

from tagger.training import curves


def test_curves_of_any_number_of_epochs(tmp_path: Path) -> None:
    for rows in ([], [{"epoch": "1", "loss": "2.5", "train_loss": "", "lr": "0.1"}]):
        curves.draw(rows, tmp_path / "curves.png")
        with Image.open(tmp_path / "curves.png") as image:
            assert image.size == (1200, 840)


@pytest.mark.parametrize("epochs", [1, 2, 30])
@pytest.mark.parametrize("categories", [("artist",), curves.CATEGORIES])
def test_no_legend_covers_a_line(epochs: int, categories: tuple[str, ...]) -> None:
    columns = ["lr", "train_loss", "loss", "mAP", "macro_F1"]
    columns += [f"{metric}_{name}" for metric in ("mAP", "macro_F1") for name in categories]
    figure = curves.plot([{"epoch": epoch + 1} | dict.fromkeys(columns, 1 / (epoch + 1)) for epoch in range(epochs)])
    figure.canvas.draw()
    legends = [legend for axes in figure.axes if (legend := axes.get_legend())]
    assert len(legends) == 3
    for legend in legends:
        extent = legend.get_window_extent()
        assert not any(axes.get_window_extent().overlaps(extent) for axes in figure.axes)
        assert figure.bbox.x0 <= extent.x0 and extent.x1 <= figure.bbox.x1
