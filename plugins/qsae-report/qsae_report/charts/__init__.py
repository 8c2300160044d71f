"""Charts that need nothing but themselves: one layout, drawn as SVG or, with matplotlib, as PNG."""

from qsae_report.charts.chart import Axis, Bars, Chart, Curves, Histogram, Rule, Series
from qsae_report.charts.palette import variables
from qsae_report.charts.png import png
from qsae_report.charts.svg import svg

__all__ = [
    "Axis",
    "Bars",
    "Chart",
    "Curves",
    "Histogram",
    "Rule",
    "Series",
    "png",
    "svg",
    "variables",
]
