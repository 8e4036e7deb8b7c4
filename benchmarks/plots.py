"""Draw plots, as SVG files that differ only where figures do."""

import matplotlib as mpl
from matplotlib import pyplot as plt

from report import Plot

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "sluicegate"


def draw(plot: Plot) -> None:
    """Draw one line for each series, ours thick, and write the file."""
    figure, axes = plt.subplots(figsize=(8, 4.5))
    for name, points in plot.series.items():
        thick = name.startswith("sluicegate")
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", linewidth=3 if thick else 1.2, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(plot.title)
    axes.set_xlabel(plot.x_name)
    axes.set_ylabel(plot.y_name)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    plot.path.parent.mkdir(exist_ok=True)
    figure.savefig(plot.path, metadata={"Date": None})
    plt.close(figure)
