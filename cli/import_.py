"""``qsae import PATH``: a coder of installed components from another library's checkpoint."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

from qsae_cli.options.choice_options import Scope
from qsae_cli.options.component_options import ConfiguredCommand
from qsae_core.config.layers import Layer

if TYPE_CHECKING:
    from qsae_core.config.run import RunConfig
    from qsae_core.contracts.coder import CoderShape
    from qsae_core.registry import Registry

Trained = Literal["unknown", "data", "elsewhere"]
SCOPE = Scope(
    slots=("data",), lists=("metrics", "evaluate"), sections=(), needs_coder=False, config_file=False
)


@click.command("import", cls=ConfiguredCommand, scope=SCOPE)
@click.argument("path", type=click.Path(path_type=str))
@click.option("--out", required=True, type=click.Path(path_type=pathlib.Path), help="Folder to write.")
@click.option("--format", "form", metavar="NAME", help="Its format.  [default: the one that recognizes it]")
@click.option(
    "--trained-on",
    type=click.Choice(["unknown", "data", "elsewhere"]),
    default="unknown",
    show_default=True,
    help="What it was trained on, which no other library records: all of the data that is chosen here, or "
    "none of what it will be measured on, which then is measured whole. Of a coder of which that is unknown, "
    "the held-out part of any data is measured.",
)
def import_(layers: list[Layer], path: str, out: pathlib.Path, form: str | None, trained_on: Trained) -> None:
    """Make a coder of the checkpoint at PATH, a file or folder of another library, or the address of one
    (hf://user/repo/path).

    Every command reads the folder that it writes like a trained coder's. It computes what the checkpoint
    says, with its matrices bit for bit; a variant that installed components do not compute is refused.

    --data, --model, --text and the data source's other flags say on what it is evaluated and quantized where
    nothing else is asked for; the checkpoint itself may say it too.
    """
    from qsae_cli.import_summary import summary
    from qsae_core.artifact.imported import import_checkpoint
    from qsae_core.plugins.records import load_plugins

    def note(text: str) -> None:
        click.echo(f"qsae: note: {text}", err=True)

    registry = load_plugins().registry
    known = None if trained_on == "unknown" else functools.partial(_origins, trained_on, layers, registry)
    coder = import_checkpoint(path, out, registry, layers, format=form, trained_on=known, message=note)
    click.echo("\n".join(summary(coder, out, path, form, registry)))


def _origins(
    trained_on: Trained, layers: Sequence[Layer], registry: Registry, config: RunConfig, shape: CoderShape
) -> list[dict[str, Any]]:
    """What is recorded of the data that a coder of a configuration was trained on."""
    if trained_on == "elsewhere":
        return []
    from qsae_core.artifact.imported import names_data
    from qsae_core.compose.compose import compose_data
    from qsae_core.errors import ConfigError
    from qsae_core.evaluation.fitting import check_shape
    from qsae_core.evaluation.measured_part import whole_origin

    if not names_data(layers):
        raise ConfigError(
            "no data is chosen that it was trained on",
            where="--trained-on",
            allowed="data, with the text or the vectors that the other library trained it on",
            next="add --text FOLDER, --dataset FILE, or --data-path FILE",
        )
    data = compose_data(config, registry)
    try:
        check_shape(shape, data)
        return [whole_origin(data, config)]
    finally:
        data.close()
