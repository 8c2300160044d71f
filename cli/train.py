"""``qsae train``: resolve the configuration, train, show what came of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
import yaml

from qsae_cli.options.component_options import ConfiguredCommand
from qsae_cli.output import json_option, print_json
from qsae_cli.progress import make_watcher
from qsae_cli.summary import check_failures, labels, print_coders, rows_of, unavailable
from qsae_cli.waiting import describe_waiting
from qsae_core.config.layers import Layer
from qsae_core.config.run import resolve
from qsae_core.launched import launched
from qsae_core.plugins.records import load_plugins
from qsae_core.results.files import read_json
from qsae_core.results.quantized import check_trained

if TYPE_CHECKING:
    from qsae_core.results.run import Run


@click.command("train", cls=ConfiguredCommand)
@click.option("--dry-run", is_flag=True, help="Print the resolved configuration as YAML, and train nothing.")
@json_option
def train(layers: list[Layer], dry_run: bool, as_json: bool) -> None:
    """Train a sparse autoencoder or a transcoder.

    The flags depend on the chosen components: qsae train --sae ternary --help. A short flag works where one
    chosen part alone has it; where two do, as --n-bits of two quantizers, each has its long spelling:
    --quantizer.n-bits, --encoder-quantizer.n-bits.

    Flags win over --config, which wins over the SAE's default parts. What a run resolved to is written to its
    config.json, and qsae train --config results/.../config.json repeats it.
    """
    for layer in layers:
        check_trained(layer)
    plugins = load_plugins()
    config = resolve(layers, plugins.registry)
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
    title = f"{run.path}: {summary['tokens']:,} tokens of {summary['model']}, layer {summary['layer']}"
    print_coders(rows_of(coders, names), title)
    for sentence in unavailable(coders["coder"]):
        click.echo(sentence)
    from qsae_cli.findings import print_results
    from qsae_core.evaluation.stored import load_results
    from qsae_core.results.run import slug

    print_results(load_results(run.evaluations), run.evaluations, brief=True)
    for layer in coders["coder"].get("layers", {}):
        folder = run.evaluations / "layers" / slug(layer)
        print_results(load_results(folder), folder, layer, brief=True)
    click.echo(f"artifact: {run.final}")
