"""``qsae evaluate PATH``: a trained coder on its own held-out data, or on another split, file or model."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from qsae_cli.options.choice_options import Scope
from qsae_cli.options.component_options import ConfiguredCommand
from qsae_cli.options.count import Count
from qsae_cli.options.recorded import check_data, recorded
from qsae_cli.output import json_option, print_json
from qsae_core.config.layers import Layer
from qsae_core.kinds import CODER_SLOTS, PART_SLOTS

if TYPE_CHECKING:
    from qsae_core.evaluation.run import Evaluated

SCOPE = Scope(slots=("data",), lists=("metrics", "evaluate"), sections=(), needs_coder=False)
WITHIN_RUN = {"train": ("batch_size", "eval_tokens"), "run": ("seed", "device")}
"""What an evaluation takes over from the run beside its components."""


def _recorded(values: Mapping[str, Any]) -> list[Layer]:
    """The configuration that the coder was trained with, as the lowest layer."""
    found = recorded(values)
    if found is None:
        return []
    config, file = found
    kept = {s: config[s] for s in (*CODER_SLOTS, *PART_SLOTS, "data", "metrics", "evaluate") if s in config}
    for section, names in WITHIN_RUN.items():
        kept[section] = {name: config[section][name] for name in names}
    return [Layer(kept, file, fallback=True)]


@click.command("evaluate", cls=ConfiguredCommand, scope=SCOPE, base=_recorded)
@click.argument("path", type=click.Path(path_type=pathlib.Path))
@click.option(
    "--tokens",
    type=Count(),
    help="Vectors to use.  [default: as in training; of tensor files that it was not trained on, all]",
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Vectors per batch.  [default: as in training]"
)
@click.option("--level", type=int, help="Of a coder with levels: this one, and only its bytes are read.")
@click.option("--all-levels", is_flag=True, help="A table of all levels.")
@click.option(
    "--out",
    type=click.Path(path_type=pathlib.Path, file_okay=False),
    help="Where to keep all that was found, a folder an evaluation.  [default: RUN/evaluations, where they "
    "are those of the run on its own data]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@json_option
def evaluate(
    path: pathlib.Path,
    layers: list[Layer],
    tokens: int | None,
    batch_size: int | None,
    level: int | None,
    all_levels: bool,
    out: pathlib.Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Evaluate the trained coder at PATH: a run's folder, or any folder with coder.json. Of a run with one
    for each layer, all together and each alone.

    Without more, the evaluations of its training run are repeated on the same held-out data. --eval chooses
    others; --model, --text, --data-path and the data source's other flags choose other data. Data that the
    coder was not trained on is measured whole, up to --tokens; its training data is known again by content.

    Scalars are printed and, with columns per latent and tables, stored.

    --level reads the first groups of latents of a nested coder, or the first bit planes of its decoder.
    """
    if all_levels and level is not None:
        raise click.UsageError("--level and --all-levels cannot be given together")
    from qsae_cli.summary import warn
    from qsae_core.config.run import resolve
    from qsae_core.evaluation import run as evaluation_run
    from qsae_core.evaluation.kept import own_folder, store_all
    from qsae_core.evaluation.of_layers import WHOLE
    from qsae_core.plugins.records import load_plugins

    check_data(path, layers)
    plugins = load_plugins()
    config = resolve(layers, plugins.registry)
    sizes: dict[str, Any] = {"n_tokens": tokens, "batch_size": batch_size, "device": device}
    if all_levels:
        levels = [e.entry for e in evaluation_run.evaluate_levels(path, config, plugins.registry, **sizes)]
        warn(levels[0])
        _print_levels(path, levels, as_json)
        return
    found = evaluation_run.evaluate_artifact(path, config, plugins.registry, level=level, **sizes)
    warn(found.entry)
    folder = out or (None if level is not None else own_folder(path, config, tokens))
    if folder is not None:
        about = {"coder": found.entry["path"], "model": found.entry["model"], "layer": found.entry["layer"]}
        about |= {"n_tokens": tokens or config.train.eval_tokens, "measured": found.entry["measured"]}
        store_all({WHOLE: found.outcomes, **found.layers}, folder, plugins.registry, about)
    _print_coder(path, found.entry, config.to_dict(), as_json)
    if not as_json:
        _print_found(found, folder)
        if out is not None:
            click.echo(f"kept in {out}")


def _print_found(found: Evaluated, folder: pathlib.Path | None) -> None:
    """What the table of coders has no column for, of all together and of each layer."""
    from qsae_cli.findings import print_results
    from qsae_core.results.run import slug

    print_results(_results(found.outcomes), folder)
    for layer, outcomes in found.layers.items():
        place = None if folder is None else folder / "layers" / slug(layer)
        print_results(_results(outcomes), place, layer)


def _results(outcomes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: outcome.result for name, outcome in outcomes.items() if outcome.result is not None}


def _print_coder(path: pathlib.Path, result: dict[str, Any], config: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    from qsae_cli.summary import labels, print_coders, rows_of, unavailable

    title = f"{path}: vectors of {result['model']}, layer {result['layer']}"
    of_level = f", level {result['level']}: {result['n_latents']:,} latents" if "level" in result else ""
    print_coders(rows_of({"coder": result}, {"coder": labels(config)["coder"] + of_level}), title)
    for sentence in unavailable(result):
        click.echo(sentence)


def _print_levels(path: pathlib.Path, results: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(results)
        return
    from qsae_cli.summary import print_coders
    from qsae_core.results.run import values_of

    first = results[0]
    title = f"{path}: vectors of {first['model']}, layer {first['layer']}, level by level"
    print_coders([(f"level {r['level']}: {r['n_latents']:,} latents", r) for r in results], title)
    fvus = [values_of(result).get("fvu") for result in results]
    for number, (coarse, fine) in enumerate(itertools.pairwise(fvus), 2):
        if coarse is not None and fine is not None and fine > coarse:
            click.echo(f"level {number} is worse than the one before it: FVU {fine:.4f} after {coarse:.4f}")
