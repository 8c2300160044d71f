"""``qsae export PATH``: a trained coder as another library's checkpoint."""

from __future__ import annotations

import pathlib
from typing import Any

import click

from qsae_cli.options.format_options import FormatCommand


@click.command(cls=FormatCommand)
@click.argument("path", type=click.Path(path_type=pathlib.Path))
@click.option("--format", "form", metavar="NAME", required=True, help="One of `qsae describe format`.")
@click.option("--out", required=True, type=click.Path(path_type=pathlib.Path), help="What to write.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Of the tensors; a bias that takes over b_dec's share for the format is float32.  [default: as they "
    "were imported, where that holds every value; else float32]",
)
def export(
    path: pathlib.Path, form: str, out: pathlib.Path, dtype: str | None, options: dict[str, Any]
) -> None:
    """Write the trained coder at PATH, a run's folder or any folder with coder.json, in a format.

    Input normalisation, rotation and quantization are folded into dense weights; a coder that these cannot
    express is refused, with the reason. What was imported and is unchanged has the same tensors again, bit
    for bit. A run with a coder for each layer becomes a folder of them, where the format has such folders.

    A format's own options are flags too: qsae export --format neuronpedia --help.
    """
    from qsae_core.artifact.checkpoints import export_checkpoint
    from qsae_core.plugins.records import load_plugins

    export_checkpoint(path, out, form, load_plugins().registry, dtype=dtype, options=options)
    n_bytes = sum(file.stat().st_size for file in [out, *out.rglob("*")] if file.is_file())
    click.echo(f"wrote {out}: {n_bytes:,} bytes")
