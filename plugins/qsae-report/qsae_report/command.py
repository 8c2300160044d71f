"""``qsae report``: a run as one HTML file, or served with the coder and its language model behind it."""

from __future__ import annotations

import pathlib
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from qsae_core.errors import ConfigError

if TYPE_CHECKING:
    from qsae_report.subject import Subject

PATH = click.Path(path_type=pathlib.Path)
FILE = "report.html"


@click.command("report")
@click.argument("path", type=PATH)
@click.option(
    "--compare", metavar="PATH", type=PATH, help="Put the numbers and latents of this coder beside."
)
@click.option("--out", metavar="FILE", type=PATH, help=f"Where to write it.  [default: RUN/{FILE}]")
@click.option(
    "--layer", help="Of a run with a coder for each layer: whose.  [default: the first with samples]"
)
@click.option("--without-samples", is_flag=True, help="Leave out examples, or make it where there are none.")
@click.option("--serve", is_flag=True, help="Serve it on this machine, with texts to try and to steer.")
@click.option("--port", type=int, help="With --serve: which; 0: one that is free.  [default: 0]")
@click.option("--tokenizer", metavar="DIR", help="With --serve: where the language model does not say it.")
@click.option("--device", help="With --serve: auto, cpu, cuda or cuda:N.  [default: auto]")
def report(
    path: pathlib.Path,
    compare: pathlib.Path | None,
    out: pathlib.Path | None,
    layer: str | None,
    without_samples: bool,
    serve: bool,
    **of_server: Any,
) -> None:
    """Write the run at PATH as one HTML file: its numbers and charts, and every latent with its text.

    PATH is a run's folder, or one with coder.json, and then --out says where it goes. All that is read is
    what is stored there; qsae samples and qsae evaluate --eval all make more of it.
    """
    given = {name: value for name, value in of_server.items() if value is not None}
    if given and not serve:
        name = next(iter(given))
        raise ConfigError(f"--{name} is about a server", where=f"--{name}", next="add --serve")
    if serve and out is not None:
        raise ConfigError("a report that is served is not written", where="--out", next="leave one out")
    from qsae_report.gather import gather
    from qsae_report.places import check

    with_samples = not without_samples
    check(path, compare, layer, written=not serve and out is None, with_samples=with_samples)
    subject = gather(path, compare, layer=layer, with_samples=with_samples)
    _warn(subject)
    options = {"compare": compare, "out": out, "layer": layer, "without_samples": without_samples}
    command = _said(path, {**options, "serve": serve, **given})
    if serve:
        from qsae_report.serve import run

        defaults: dict[str, Any] = {"port": 0, "device": "auto"}
        run(path, lambda: _page(subject, command, serve=True), layer=subject.layer, **(defaults | given))
        return
    _write(out or path / FILE, _page(subject, command, serve=False))


def _said(path: pathlib.Path, options: Mapping[str, object]) -> str:
    """The command as it was given, for a shell."""
    words = ["qsae", "report", str(path)]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value not in (None, False):
            words += [flag, str(value)]
    return shlex.join(words)


def _warn(subject: Subject) -> None:
    """Say on stderr what the page is without."""
    for note in subject.notes:
        click.echo(f"qsae: warning: {note}", err=True)
    for coder in (subject.coder, *subject.beside):
        on_the_way = [stored for by_step in coder.on_the_way.values() for stored in by_step.values()]
        for stored in (*coder.evaluations.values(), *on_the_way):
            if stored.damage is not None:
                click.echo(f"qsae: warning: {stored.damage}; the report says so in its place", err=True)


def _page(subject: Subject, command: str, *, serve: bool) -> str:
    from qsae_report.page import measure, render

    return render(subject, measure(subject), command=command, serve=serve)


def _write(place: pathlib.Path, text: str) -> None:
    from qsae_core.runs import atomic_file

    with atomic_file(place) as temporary:
        temporary.write_text(text, encoding="utf-8")
    click.echo(f"{place}: {place.stat().st_size / 1e6:.1f} MB")
