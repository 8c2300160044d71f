"""``qsae train``: resolve the configuration, train, show what came of it."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
import yaml

from qsae_cli.options.component_options import ConfiguredCommand
from qsae_cli.output import json_option, print_json
from qsae_cli.progress import make_watcher
from qsae_cli.summary import check_failures, labels, print_coders, rows_of, unavailable
from qsae_cli.waiting import describe_waiting
from qsae_core.config.layers import Layer, read_layer
from qsae_core.config.run import RunConfig, resolve
from qsae_core.errors import ConfigError
from qsae_core.launched import launched
from qsae_core.plugins.records import load_plugins
from qsae_core.results.files import read_json
from qsae_core.results.quantized import check_trained
from qsae_core.results.run import Run, slug
from qsae_core.results.words import vectors_of

if TYPE_CHECKING:
    from qsae_core.registry import Registry


def _of_run(values: Mapping[str, Any]) -> list[Layer]:
    """The record of the run at PATH, as the lowest layer, with the folder where that lies now."""
    path = values.get("path")
    if path is None or not Run(pathlib.Path(path)).config_file.is_file():
        return []
    place = pathlib.Path(path)
    parents = (place if len(place.parts) > 3 else place.resolve()).parents
    record = read_layer(Run(place).config_file)
    return [record, Layer({"run": {"out": str(parents[min(2, len(parents) - 1)])}}, record.name)]


def _resolved(path: pathlib.Path | None, layers: list[Layer], registry: Registry) -> RunConfig:
    """The configuration; of a run that is named, to go on with it.

    Raises:
        ConfigError: if that run is not there, or is not to be resumed.
    """
    if path is not None and not Run(path).config_file.is_file():
        raise ConfigError(
            "it is no run: it has no config.json",
            where=str(path),
            allowed="the folder of a run, behind --resume",
            next="qsae runs lists them",
        )
    config = resolve(layers, registry)
    if path is not None and not config.run.resume:
        raise ConfigError(
            "a run is named, and what to do with it is not said",
            where=str(path),
            next=f"qsae train --resume {path}; to repeat it: qsae train --config {Run(path).config_file}",
        )
    return config


@click.command("train", cls=ConfiguredCommand, base=_of_run)
@click.argument("path", metavar="[RUN]", required=False, type=click.Path(path_type=pathlib.Path))
@click.option("--dry-run", is_flag=True, help="Print the resolved configuration as YAML, and train nothing.")
@json_option
def train(path: pathlib.Path | None, layers: list[Layer], dry_run: bool, as_json: bool) -> None:
    """Train a sparse autoencoder or a transcoder.

    The flags depend on the chosen components: qsae train --sae ternary --help. A short flag works where one
    chosen part alone has it; where two do, as --n-bits of two quantizers, each has its long spelling:
    --quantizer.n-bits, --encoder-quantizer.n-bits.

    Flags win over --config, which wins over the SAE's default parts. What a run resolved to is written to its
    config.json, and qsae train --config results/.../config.json repeats it. qsae train --resume RUN goes on
    with one that was interrupted.
    """
    for layer in layers:
        check_trained(layer)
    plugins = load_plugins()
    config = _resolved(path, layers, plugins.registry)
    for note in config.notes if launched().is_first else ():
        click.echo(f"qsae: note: {note}", err=True)
    if dry_run:
        if as_json:
            print_json(config.to_dict())
        else:
            click.echo(yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True), nl=False)
        return
    import torch

    from qsae_core.training.run import train as train_run

    first = launched().is_first
    if first:
        threads = config.run.threads or torch.get_num_threads()
        click.echo(describe_waiting(threads, os.environ), err=True)
    run = train_run(config, plugins, make_watcher())
    if first:
        _show(run, as_json)
        check_failures(read_json(run.metrics_file)["coders"])


def _show(run: Run, as_json: bool) -> None:
    summary = read_json(run.metrics_file)
    if as_json:
        print_json({"path": str(run.path), **summary})
        return
    names = labels(run.record())
    coders = summary["coders"]
    title = f"{run.path}: {summary['tokens']:,} tokens of {vectors_of(summary)}"
    print_coders(rows_of(coders, names), title)
    for sentence in unavailable(coders["coder"]):
        click.echo(sentence)
    from qsae_cli.findings import print_layers, print_results
    from qsae_core.evaluation.stored import load_results

    print_results(load_results(run.evaluations), run.evaluations, brief=True)
    places = {layer: run.evaluations / "layers" / slug(layer) for layer in coders["coder"].get("layers", {})}
    of_layers = {layer: load_results(place) for layer, place in places.items()}
    print_layers(of_layers, run.evaluations, brief=True)
    click.echo(f"artifact: {run.final}")
