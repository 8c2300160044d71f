"""The scaling curves as pictures, where matplotlib is installed (``benchmarks/requirements.txt``)."""

from __future__ import annotations

import pathlib
from typing import Any

VARIED = {
    "n_latents": "dictionary size F",
    "d": "width d",
    "k": "active latents k",
    "batch_size": "batch size B",
}
NAME = "performance-scaling.svg"


def draw(result: dict[str, Any], folder: pathlib.Path) -> list[str]:
    """Write the picture into the folder; names of what was written, none without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "qsae"  # the same numbers give the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(VARIED), figsize=(14, 6), sharey="row", layout="constrained")
    for column, (varied, label) in enumerate(VARIED.items()):
        points = [p for p in result["points"] if p["varied"] == varied and "error" not in p]
        for row, (key, scale) in enumerate((("tokens_per_second", 1.0), ("peak_bytes", 1e9))):
            _curves(axes[row][column], points, varied, key, scale)
        axes[1][column].set_xlabel(label)
    axes[0][0].set_ylabel("tokens/s")
    axes[1][0].set_ylabel("peak memory, GB")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    figure.savefig(folder / NAME, metadata={"Date": None})
    pyplot.close(figure)
    return [NAME]


def _curves(axis: Any, points: list[dict[str, Any]], varied: str, key: str, scale: float) -> None:
    from matplotlib import ticker

    for side in dict.fromkeys(p["side"] for p in points):
        own = [p for p in points if p["side"] == side]
        axis.plot([p[varied] for p in own], [p[key] / scale for p in own], marker="o", label=side)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:,g}")
    axis.yaxis.set_minor_locator(ticker.NullLocator())
    axis.grid(visible=True, which="major", alpha=0.3)
