"""A chart as a list of primitives, which every output draws alike."""

from __future__ import annotations

from qsae_report.charts.bars import lay_out_histogram
from qsae_report.charts.chart import Chart, Histogram
from qsae_report.charts.curves import lay_out_curves
from qsae_report.charts.primitives import Picture
from qsae_report.charts.text import printable
from qsae_report.charts.words import describe


def lay_out(chart: Chart, width: float, height: float) -> Picture:
    """Lay a chart out.

    Args:
        height: at least; a long legend or notes make it more.
    """
    if isinstance(chart, Histogram):
        frame, items = lay_out_histogram(chart, width, height)
    else:
        frame, items = lay_out_curves(chart, width, height)
    return Picture(width, frame.height, printable(chart.title), describe(chart), (*frame.items, *items))
