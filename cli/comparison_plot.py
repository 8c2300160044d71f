"""The picture of ``qsae compare``: FVU against bits per weight, and against bytes on disk."""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qsae_core.errors import ConfigError, QsaeError

if TYPE_CHECKING:
    from qsae_core.comparison import Row

SUFFIXES = (".png", ".svg")
VIEWS = (
    ("bits_decoder", "bits per weight of the decoder", "at equal L0"),
    ("bytes", "bytes on disk, encoder included", "at equal bytes"),
)


def check(path: pathlib.Path) -> None:
    """Whether a picture can be drawn there.

    Raises:
        ConfigError: for another ending than .png and .svg.
        QsaeError: if matplotlib is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"a picture cannot be written as {path.suffix or path.name!r}",
            where="--plot",
            allowed=", ".join(SUFFIXES),
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise QsaeError(
            "drawing needs matplotlib, which is not installed",
            where="--plot",
            next='pip install "qsae[plot]"',
        )


def draw(rows: Sequence[Row], path: pathlib.Path) -> None:
    """Write the picture; no display is needed.

    One curve for each dictionary size (and coder), in the order of bits; bars are standard deviations over
    seeds, and hollow points have another L0 than their baseline.

    Raises:
        QsaeError: as ``check``; or if no row has an FVU.
    """
    check(path)
    drawn = [row for row in rows if row.mean["fvu"] is not None]
    if not drawn:
        raise QsaeError("no row has an FVU to draw", where="--plot", next="add --evaluate")
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "qsae", "font.size": 10}):  # the same numbers give the same file
        figure = Figure(figsize=(12, 5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, len(VIEWS), sharey=True)
        for axis, (column, label, title) in zip(axes, VIEWS, strict=True):
            _view(axis, drawn, column)
            axis.set_xlabel(label)
            axis.set_title(title, loc="left", fontsize=10)
        axes[0].set_ylabel("fraction of variance unexplained")
        handles, names = axes[1].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=4, frameon=False)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata=metadata)


def _view(axis: Any, rows: Sequence[Row], column: str) -> None:
    from matplotlib import ticker

    for name, curve in _curves(rows).items():
        points = sorted((row for row in curve if row.mean[column] is not None), key=lambda r: _at(r, column))
        x, y = [_at(row, column) for row in points], [_at(row, "fvu") for row in points]
        (line,) = axis.plot(x, y, label=name, linewidth=1.3, zorder=2)
        bars = [row.std["fvu"] or 0.0 for row in points]
        if any(bars):
            axis.errorbar(x, y, yerr=bars, fmt="none", ecolor=line.get_color(), capsize=2, linewidth=1)
        for row in points:
            hollow = row.equal_l0 is False
            face = "white" if hollow else line.get_color()
            axis.plot(
                _at(row, column), _at(row, "fvu"), "o", color=line.get_color(), markerfacecolor=face, zorder=3
            )
            if column == VIEWS[1][0]:
                bits = row.mean["bits_decoder"]
                text = "float" if row.is_float else "" if bits is None else f"{bits:.1f} b"
                place = (_at(row, column), _at(row, "fvu"))
                axis.annotate(text, place, xytext=(5, 5), textcoords="offset points", fontsize=8, alpha=0.8)
    axis.set_xscale("log", base=2)
    if column == "bytes":
        axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _bytes(value)))
    else:
        axis.set_xticks([1, 2, 4, 8, 16, 32])
        axis.xaxis.set_major_formatter("{x:g}")
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.yaxis.set_major_formatter("{x:.3g}")
    axis.yaxis.set_minor_locator(ticker.NullLocator())
    axis.grid(visible=True, which="major", alpha=0.3)


def _curves(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by coder and dictionary size; a float twin belongs to the quantized coders of its size."""
    curves: dict[str, list[Row]] = {}
    for row in rows:
        member = row.members[0]
        size = next(
            member.config[slot].get("n_latents") for slot in ("sae", "transcoder") if slot in member.config
        )
        curves.setdefault(f"{member.coder}, {size:,} latents" if size else member.coder, []).append(row)
    return curves


def _at(row: Row, column: str) -> float:
    value = row.mean[column]
    assert value is not None
    return value


def _bytes(value: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} B"
