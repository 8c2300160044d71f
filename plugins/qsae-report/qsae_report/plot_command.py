"""``qsae plot``: the curves and histograms of runs as pictures."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import click
from qsae_samples import Samples

from qsae_cli.commands import json_option, print_json
from qsae_core import Run
from qsae_core.errors import ConfigError
from qsae_core.runs import atomic_file
from qsae_report.charts import Curves, Histogram, png, svg
from qsae_report.charts.png import check_png
from qsae_report.figures import activation_histogram, coder_names, density_histogram, training_curves
from qsae_report.run_names import run_names
from qsae_report.stored_firings import Density, stored_firings
from qsae_report.training_log import LOG, TrainingLog, read_training_log

PATH = click.Path(path_type=pathlib.Path)
MEASURES = ("loss", "fvu", "l0", "dead")
FORMATS = ("png", "svg")
FOLDER = "plots"
Charts = Mapping[str, Curves | Histogram]


def _formats(context: click.Context, option: click.Parameter, value: str) -> tuple[str, ...]:
    """Endings of pictures, each once, of a text with commas between them."""
    found = tuple(dict.fromkeys(part.strip().lower() for part in value.split(",")))
    strange = [part for part in found if part not in FORMATS]
    if strange:
        raise click.BadParameter(
            f"{strange[0]!r} is no format of a picture; {' and '.join(FORMATS)} are", context, option
        )
    return found


@click.command("plot")
@click.argument("paths", metavar="RUN...", nargs=-1, required=True, type=PATH)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=pathlib.Path, file_okay=False),
    help=f"Folder of the pictures.  [default: RUN/{FOLDER}; of several runs, {FOLDER}]",
)
@click.option(
    "--format",
    "formats",
    metavar="FORMAT,...",
    callback=_formats,
    default=",".join(FORMATS),
    show_default=True,
    help=f"{' or '.join(FORMATS)}, or both with a comma between.",
)
@json_option
def plot(
    paths: tuple[pathlib.Path, ...], out: pathlib.Path | None, formats: tuple[str, ...], as_json: bool
) -> None:
    """Draw runs, finished or not: curves of loss, FVU, L0 and dead latents; how latents fire.

    Several runs are drawn over one another. Densities are those of the evaluation `sparsity` or, like
    activations, of `qsae samples`. What is not there is left out, and said.
    """
    if "png" in formats:
        check_png()
    charts, notes = _charts(paths)
    for note in notes:
        click.echo(f"qsae: note: {note}", err=True)
    if not charts:
        raise ConfigError(
            "there is nothing to draw",
            where=", ".join(map(str, paths)),
            allowed=f"runs with {LOG.as_posix()}, samples or the evaluation sparsity",
            next=f"qsae samples {paths[0]}",
        )
    folder = out or (paths[0] / FOLDER if len(paths) == 1 else pathlib.Path(FOLDER))
    files = []
    for file, chart in ((folder / f"{name}.{f}", chart) for name, chart in charts.items() for f in formats):
        lacking = _write(chart, file)
        files.append(file)
        if lacking:
            notes.append(f"{file}: the font of PNG files lacks {lacking}; SVG files have the whole text")
            click.echo(f"qsae: note: {notes[-1]}", err=True)
    if as_json:
        print_json({"files": [str(file) for file in files], "notes": notes})
        return
    for file in files:
        click.echo(str(file))


def _charts(paths: Sequence[pathlib.Path]) -> tuple[Charts, list[str]]:
    """Name of a file -> what it shows; and what is left out, and why."""
    names = run_names(paths)
    logs: dict[str, TrainingLog] = {}
    densities: dict[str, Density] = {}
    samples: dict[str, Samples] = {}
    notes: list[str] = []
    for path, name in zip(paths, names, strict=True):
        log, firings = read_training_log(path, MEASURES), stored_firings(path)
        logs[name] = log
        densities |= {_joined(name, coder): found for coder, found in firings.densities.items()}
        samples |= {_joined(name, coder): found for coder, found in firings.samples.items()}
        said = [*log.notes, *firings.notes]
        if not Run(path).finished:
            said.append("the run is not finished; this is what it has written so far")
        if not firings.densities:
            said.append(f"no samples and no evaluation sparsity, so no histograms: qsae samples {path}")
        elif not firings.samples:
            said.append(f"no samples, so no histogram of activations: qsae samples {path}")
        notes += [f"{path}: {sentence}" for sentence in said]
    charts: dict[str, Curves | Histogram] = {**training_curves(logs, MEASURES)}
    looks = {
        name: look for look, name in enumerate(dict.fromkeys([*coder_names(logs), *densities, *samples]))
    }
    if densities:
        charts["density"] = _like_curves(density_histogram(densities), looks)
    if samples:
        charts["activations"] = _like_curves(activation_histogram(samples), looks)
    return charts, notes


def _like_curves(chart: Histogram, looks: Mapping[str, int]) -> Histogram:
    """The chart with the colours that coders have in the curves."""
    return replace(chart, groups=[replace(bars, look=looks[bars.name]) for bars in chart.groups])


def _joined(name: str, coder: str) -> str:
    return f"{name}, {coder}" if coder else name


def _write(chart: Curves | Histogram, file: pathlib.Path) -> str:
    """Write one picture; gives the characters that are lost in it."""
    if file.suffix == ".png":
        return png(chart, file)
    with atomic_file(file) as temporary:
        temporary.write_text(svg(chart), encoding="utf-8")
    return ""
