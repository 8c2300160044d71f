"""``qsae export PATH``: a trained coder as another library's checkpoint."""

from __future__ import annotations

import pathlib

import click


@click.command()
@click.argument("path", type=click.Path(path_type=pathlib.Path))
@click.option("--format", "form", metavar="NAME", required=True, help="One of `qsae describe format`.")
@click.option("--out", required=True, type=click.Path(path_type=pathlib.Path), help="What to write.")
def export(path: pathlib.Path, form: str, out: pathlib.Path) -> None:
    """Write the trained coder at PATH, a run's folder or any folder with coder.json, in a format.

    Input normalisation, rotation and quantization are folded into dense float32 weights; a coder that these
    cannot express is refused, with the reason.
    """
    from qsae_core.artifact.checkpoints import export_checkpoint
    from qsae_core.plugins.records import load_plugins

    export_checkpoint(path, out, form, load_plugins().registry)
    click.echo(f"wrote {out}")
