"""The picture of ``qsae compare``: FVU against bits per weight, and against bytes on disk."""

from __future__ import annotations

import importlib.util
import math
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qsae_core.errors import ConfigError, QsaeError
from qsae_core.runs import CODER_SLOTS, SLOTS

if TYPE_CHECKING:
    from qsae_compare.rows import Row

SUFFIXES = (".png", ".svg")
TEXT_OFFSET = (-5, -10)
"""From a point to the right end of its text: curves fall to the right, and below their left side is room."""
SAME_PLACE = 0.03
"""Relative difference, in both directions, of two points whose texts would meet."""
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
            next='pip install "qsae-compare[plot]"',
        )


def draw(rows: Sequence[Row], path: pathlib.Path) -> None:
    """Write the picture; no display is needed.

    One curve for each coder and dictionary size, in the order of bits; bars are standard deviations over
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
        (line,) = axis.plot(x, y, label=name, linewidth=1.3)
        _points(axis, points, column, line.get_color())
    axis.set_xscale("log", base=2 if column == "bits_decoder" else 10)
    axis.margins(x=0.12, y=0.1)
    if column == "bits_decoder":
        axis.set_xticks([1, 2, 4, 8, 16, 32])
        axis.xaxis.set_major_formatter("{x:g}")
    else:
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _bytes(value)))
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(ticker.MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]))
    axis.yaxis.set_major_formatter("{x:.3g}")
    for direction in (axis.xaxis, axis.yaxis):
        direction.set_minor_locator(ticker.NullLocator())
    axis.grid(visible=True, which="major", alpha=0.3)


def _points(axis: Any, rows: Sequence[Row], column: str, color: str) -> None:
    """Markers with bars and, in the view of bytes, with how many bits a weight of the decoder has."""
    for row in rows:
        face = "white" if row.equal_l0 is False else color
        at = _at(row, column), _at(row, "fvu")
        axis.errorbar(*at, yerr=row.std["fvu"], fmt="o", color=color, markerfacecolor=face, capsize=2)
    if column == "bits_decoder":
        return
    for at, text in texts([row for row in rows if row.mean["bits_decoder"] is not None], column):
        axis.annotate(text, at, TEXT_OFFSET, textcoords="offset points", ha="right", fontsize=8, color=color)


def texts(rows: Sequence[Row], column: str) -> list[tuple[tuple[float, float], str]]:
    """Which points have a text, and which; floats that lie upon each other have one."""
    floats: list[tuple[float, float]] = []
    named = []
    for row in rows:
        at = _at(row, column), _at(row, "fvu")
        if not row.is_float:
            named.append((at, f"{round(_at(row, 'bits_decoder'), 1):g} b"))
        elif not any(_same_place(at, other) for other in floats):
            floats.append(at)
            named.append((at, "float"))
    return named


def _same_place(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return all(math.isclose(a, b, rel_tol=SAME_PLACE) for a, b in zip(one, other, strict=True))


def _curves(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by coder, dictionary size, and whether codes are quantized; a float twin is with its size."""
    curves: dict[str, list[Row]] = {}
    for row in rows:
        member = row.members[0]
        name, slots = member.coder, [member.config[s] for s in CODER_SLOTS if s in member.config]
        size = slots[0].get("n_latents")
        name += f", {size:,} latents" if isinstance(size, int) else ""
        codes = member.config.get("code_quantizer", {}).get("use", "none")
        name += f", codes by {codes}" if codes != SLOTS["code_quantizer"].default else ""
        curves.setdefault(name, []).append(row)
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
