"""``qsae import PATH``: a coder of installed components from another library's checkpoint."""

from __future__ import annotations

import pathlib

import click

from qsae_cli.options.choice_options import Scope
from qsae_cli.options.component_options import ConfiguredCommand
from qsae_core.config.layers import Layer

SCOPE = Scope(
    slots=("data",), lists=("metrics", "evaluate"), sections=(), needs_coder=False, config_file=False
)


@click.command("import", cls=ConfiguredCommand, scope=SCOPE)
@click.argument("path", type=click.Path(path_type=str))
@click.option("--out", required=True, type=click.Path(path_type=pathlib.Path), help="Folder to write.")
@click.option("--format", "form", metavar="NAME", help="Its format.  [default: the one that recognizes it]")
def import_(layers: list[Layer], path: str, out: pathlib.Path, form: str | None) -> None:
    """Make a coder of the checkpoint at PATH, a file or folder of another library, or the address of one
    (hf://user/repo/path).

    Every command reads the folder that it writes like a trained coder's. It computes what the checkpoint
    says, with its matrices bit for bit; a variant that installed components do not compute is refused.

    --data, --model, --text and the data source's other flags say on what it is evaluated and quantized where
    nothing else is asked for; the checkpoint itself may say it too.
    """
    from qsae_core.artifact.imported import import_checkpoint
    from qsae_core.component import name_of
    from qsae_core.plugins.records import load_plugins

    def note(text: str) -> None:
        click.echo(f"qsae: note: {text}", err=True)

    coder = import_checkpoint(path, out, load_plugins().registry, layers, format=form, message=note)
    widths = " -> ".join(str(n) for n in dict.fromkeys((coder.shape.d_in, coder.shape.d_out)))
    click.echo(f"{name_of(coder)}: {coder.n_latents:,} latents, d={widths}\nartifact: {out}")
