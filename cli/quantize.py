"""``qsae quantize PATH``: a trained float coder with its weights on a quantizer's grid."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import click

from qsae_cli.options.choice_options import Scope
from qsae_cli.options.component_options import ConfiguredCommand
from qsae_cli.options.count import Count
from qsae_cli.options.recorded import check_data, recorded
from qsae_cli.output import json_option, print_json
from qsae_core.config.layers import Layer
from qsae_core.config.settings import QuantizeConfig
from qsae_core.errors import ConfigError
from qsae_core.kinds import HALF, QUANTIZER_SLOTS, unquantized

SCOPE = Scope(slots=(*QUANTIZER_SLOTS, "data"), lists=(), sections=(), needs_coder=False, config_file=False)


def _recorded(values: Mapping[str, Any]) -> list[Layer]:
    """The configuration that the coder was trained with, and what it has before quantizers are chosen."""
    found = recorded(values)
    if found is None:
        return []
    config, file = found
    kept = {name: block for name, block in config.items() if name not in ("versions", *QUANTIZER_SLOTS)}
    return [Layer(kept, file), Layer(unquantized(config), file, fallback=True)]


@click.command("quantize", cls=ConfiguredCommand, scope=SCOPE, base=_recorded)
@click.argument("path", type=click.Path(path_type=pathlib.Path))
@click.option("--tokens", type=Count(), default=16384, show_default=True, help="Calibration.")
@click.option(
    "--eval-tokens",
    type=Count(),
    help="Held-out vectors that the coder is measured on, before and after.  [default: as in training]",
)
@click.option(
    "--rotate/--no-rotate", default=None, help="Rotate the coder first.  [default: where that is possible]"
)
@click.option("--finetune", type=click.Choice(["encoder"]), help="What then learns to use the new weights.")
@click.option(
    "--finetune-steps", type=click.IntRange(min=1), help="Length of each fine-tuning.  [default: 150]"
)
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    help="Peak rate of fine-tuning.  [default: a quarter of the automatic one; less below 150 steps]",
)
@click.option("--alternate", type=click.IntRange(min=1), help="Rounds of calibrating and fine-tuning.")
@click.option("--name", help="Name of the run's folder.  [default: the coder, the model, the quantizer]")
@click.option("--out", default="results", show_default=True, help="Folder of the run's own folder.")
@click.option("--overwrite", is_flag=True, help="Replace a run that has the same folder.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@json_option
def quantize(layers: list[Layer], **values: Any) -> None:
    """Quantize the float coder at PATH: a run's folder, or any folder with coder.json.

    Writes a run of its own, which every other command reads like a trained one. Calibration vectors come
    from the training stream of the coder's own data, values from its held-out part; --data-path, --model,
    --text and the data source's other flags choose other data, or say where it is now.
    """
    from qsae_core.config.run import resolve
    from qsae_core.plugins.records import load_plugins

    check_data(values["path"], layers)
    registry = load_plugins().registry
    config = resolve(layers, registry)
    given = {slot for layer in layers if not layer.fallback for slot in layer.tree}
    chosen = [config.components[s].use for s in QUANTIZER_SLOTS if s in config.components and s in given]
    if all(name == "none" for name in chosen):
        raise ConfigError(
            "no quantizer is chosen",
            where="--quantizer",
            allowed=", ".join(n for n in registry.names("quantizer") if n != "none"),
            next="--quantizer NAME for the decoder, --encoder-quantizer NAME for the encoder",
        )
    method = _method(values)
    from qsae_core.quantization.run import quantize_artifact

    name = values["name"] or (f"{config.run.name}-{chosen[0]}" if config.run.name else None)
    update = {
        "name": name,
        "out": values["out"],
        "overwrite": values["overwrite"],
        "device": values["device"],
    }
    config = replace(config, run=config.run.model_copy(update=update))
    if values["eval_tokens"] is not None:
        train = config.train.model_copy(update={"eval_tokens": values["eval_tokens"]})
        config = replace(config, train=train)
    from qsae_cli.pass_progress import EvaluationProgress

    def message(text: str) -> None:
        click.echo(text, err=True)

    with EvaluationProgress() as watch:
        run = quantize_artifact(values["path"], config, registry, method, message, watch)
    _show(run, given, as_json=values["as_json"])
    from qsae_cli.summary import check_failures
    from qsae_core.results.files import read_json

    check_failures(read_json(run.metrics_file)["coders"])


def _method(values: Mapping[str, Any]) -> QuantizeConfig:
    given = {key: values[key] for key in QuantizeConfig.model_fields if values[key] is not None}
    method = QuantizeConfig(**given)
    if method.without_effect:
        raise ConfigError(
            "nothing is fine-tuned without --finetune or --alternate",
            where="--" + method.without_effect[0].replace("_", "-"),
            next="add --finetune encoder",
        )
    return method


def _show(run: Any, given: Collection[str], as_json: bool) -> None:
    from qsae_cli.summary import labels, print_coders, rows_of
    from qsae_core.results.files import read_json
    from qsae_core.results.run import values_of
    from qsae_core.results.words import rounds_atoms

    summary, record = read_json(run.metrics_file), run.record()
    if "encoder_quantizer" in record and "encoder_quantizer" not in given:
        bits = 16 if record["encoder_quantizer"]["use"] == HALF else 32
        note = f"the encoder's weights stay in {bits} bits; --encoder-quantizer NAME quantizes them too"
        click.echo(f"qsae: note: {note}", err=True)
    if as_json:
        print_json({"path": str(run.path), **summary})
        return
    entry = summary["coders"]["coder"]
    print_coders(rows_of(summary["coders"], labels(record)), str(run.path))
    made = summary["quantized_from"]
    before, after = values_of(made), values_of(entry)
    whose = " (float masters)" if made["of_masters"] else ""
    for name in ("fvu", "l0"):
        if before.get(name) is not None and after.get(name) is not None:
            click.echo(f"{name}: {before[name]:.4f} before{whose}, {after[name]:.4f} after")
    if before.get("fvu") is not None and after.get("fvu") is not None:
        predicted = after.get("predicted_delta_fvu") if rounds_atoms(record) else None
        beside = "" if predicted is None else f", {predicted:.4f} predicted (kappa D)"
        click.echo(f"increase of fvu: {after['fvu'] - before['fvu']:.4f} measured{beside}")
    click.echo(f"artifact: {run.final}")
