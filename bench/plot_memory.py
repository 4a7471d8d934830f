"""Draws what bench/memory found, as SVG. Usage: plot_memory.py FIGURES.json PLOT.svg"""

import json
import sys

import matplotlib

matplotlib.use("svg")
# The same figures give the same file.
matplotlib.rcParams["svg.hashsalt"] = "alert-archive"

from matplotlib import pyplot  # noqa: E402


def main() -> None:
    figures, path = sys.argv[1:]
    with open(figures) as file:
        found = json.load(file)
    canvas, axis = pyplot.subplots(figsize=(7, 3), layout="constrained")
    for (name, peaks), colour in zip(found["peaks"].items(), ["#1a7f4b", "#9a8fbf", "#7b8794"], strict=True):
        axis.plot(found["megabytes"], peaks, marker="o", label=name, color=colour)
    axis.set_xscale("log")
    axis.set_xticks(found["megabytes"], [f"{size:,} MB" for size in found["megabytes"]])
    axis.minorticks_off()
    axis.set_ylim(0)
    axis.set_ylabel("peak memory, MB")
    axis.set_xlabel("messages of the window")
    axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    canvas.savefig(path, metadata={"Date": None})


main()
