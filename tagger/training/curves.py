"""The curves of a training run as a PNG: loss, mAP, F1 and learning rate by epoch.

python -c "from tagger.training.curves import draw; draw([{'epoch': 1, 'loss': 9}, {'epoch': 2, 'loss': 5}], 'c.png')"
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tagger.files import replacing

# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999"]
ALL = "all tags"  # dashed and on top: general tags are most of all tags, and their line lies below it
CATEGORIES = ("rating", "general", "character", "artist", "copyright", "meta")
LEGEND_COLUMNS = 5
PANELS = {
    "loss per image": {"train_loss": "training", "loss": "validation"},
    "mAP": {"mAP": ALL, **{f"mAP_{name}": name for name in CATEGORIES}},
    "macro-F1 on unseen images": {"macro_F1": ALL, **{f"macro_F1_{name}": name for name in CATEGORIES}},
    "learning rate": {"lr": "at the epoch's end"},
}


def draw(rows: Sequence[Mapping[str, object]], path: Path | str) -> None:
    """Write the curves of metrics.csv's rows as a PNG, whole or not at all; see `plot`."""
    with replacing(path, "wb") as file:
        plot(rows).savefig(file, format="png")


def plot(rows: Sequence[Mapping[str, object]]) -> Figure:
    """The curves of metrics.csv's rows; columns that are missing or empty are left out.

    Args:
        rows: a mapping per epoch with `epoch` and the columns of `PANELS`, as numbers or as text.
    """
    figure = Figure(figsize=(10, 7), dpi=120, layout="constrained")
    for axes, (title, columns) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        for colour, (column, label) in zip(COLOURS, columns.items(), strict=False):
            points = [
                (int(str(row["epoch"])), float(str(row[column]))) for row in rows if row.get(column) not in (None, "")
            ]
            if points:
                style = {"linestyle": "--", "color": "black", "zorder": 3} if label == ALL else {"color": colour}
                axes.plot(*zip(*points, strict=True), marker="o", label=label, markersize=3, linewidth=1.6, **style)
        rows_of_legend = -(-len(axes.lines) // LEGEND_COLUMNS)
        axes.set_title(title, loc="left", fontsize=11, pad=8 + 14 * rows_of_legend)  # the legend lies under it
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if title == "learning rate":
            axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        elif axes.lines:
            # Beside the lines, for in a short run they may be anywhere within the axes.
            axes.legend(
                loc="lower left",
                bbox_to_anchor=(0, 1),
                ncols=LEGEND_COLUMNS,
                frameon=False,
                fontsize=8,
                borderaxespad=0.2,
                handlelength=1.4,
                columnspacing=1.0,
            )
        if "loss" not in title:
            axes.set_ylim(bottom=0)
    return figure
