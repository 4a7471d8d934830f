"""Draws the medians that bench/peers found, as SVG. Usage: plot.py FIGURES.json PLOT.svg"""

import json
import sys

import matplotlib

matplotlib.use("svg")
# The same figures give the same file.
matplotlib.rcParams["svg.hashsalt"] = "alert-archive"

from matplotlib import pyplot  # noqa: E402

CHARTS = {
    "docs_per_second": "messages a second", "cpu_s_per_gb": "CPU-s per GB of source", "peak_mb": "peak memory, MB",
    "kept_mb": "kept, MB"}


def main() -> None:
    figures, path = sys.argv[1:]
    with open(figures) as file:
        medians = json.load(file)
    canvas, axes = pyplot.subplots(1, len(CHARTS), figsize=(12, 3), layout="constrained")
    for axis, (column, title) in zip(axes, CHARTS.items(), strict=True):
        values = [median[column] for median in medians.values()]
        bars = axis.bar(range(len(values)), values, color=["#7b8794", "#9a8fbf", "#1a7f4b"])
        axis.bar_label(bars, fmt="{:,.0f}")
        axis.set_title(title, fontsize=10)
        axis.set_xticks(range(len(values)), [name.replace(" ", "\n") for name in medians], fontsize=8)
        axis.set_yticks([])
        axis.spines[["top", "right", "left"]].set_visible(False)
    canvas.savefig(path, metadata={"Date": None})


main()
