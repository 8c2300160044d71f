"""``qsae evaluate PATH``: a trained coder on its own held-out data, or on another split, file or model."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import click

from qsae_cli.options.choice_options import Scope
from qsae_cli.options.component_options import ConfiguredCommand
from qsae_cli.options.count import Count
from qsae_cli.options.recorded import check_data, recorded
from qsae_cli.output import json_option
from qsae_core.config.layers import Layer
from qsae_core.kinds import CODER_SLOTS, PART_SLOTS

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
    help="Where to keep all that was found, a folder an evaluation.  [default: of a run or an imported coder "
    "on its own data PATH/evaluations; else nowhere]",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace stored results, also where these are of fewer tokens, failed, or are of another coder or "
    "other data.",
)
@click.option(
    "--compare-float/--no-compare-float",
    default=True,
    show_default=True,
    help="Of a run with a full-precision twin, evaluate that too, as training does.",
)
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    metavar="NAME",
    help="Also what another coder finds: random (random directions that fire as often), frozen-decoder "
    "(trained like this one with a random decoder), other-seed (in full precision, from other initial "
    "weights); repeatable. Kept in RUN/baselines, or "
    "where --out says.",
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
    overwrite: bool,
    compare_float: bool,
    baselines: tuple[str, ...],
    device: str,
    as_json: bool,
) -> None:
    """Evaluate the trained coder at PATH: a run's folder, or any folder with coder.json. Of a run with one
    for each layer, all together and each alone.

    Without more, the evaluations of its training run are repeated on the same held-out data. --eval chooses
    others; --model, --text, --data-path and the data source's other flags choose other data. Data that the
    coder was not trained on is measured whole, up to --tokens; its training data is known again by content.

    Scalars are printed and, with columns per latent and tables, stored. A stored result stays where it is of
    more tokens, unless --overwrite is given. Where an evaluation fails, the others are kept, and the command
    ends with an error.

    --level reads the first groups of latents of a nested coder, or the first bit planes of its decoder.
    """
    if all_levels and (level is not None or baselines):
        other = "--level" if level is not None else "--baseline"
        raise click.UsageError(f"{other} and --all-levels cannot be given together")
    if all_levels and (out is not None or overwrite):
        raise click.UsageError("--all-levels prints a table and keeps nothing: --level N --out DIR keeps one")
    if level is not None and baselines:
        raise click.UsageError("--level and --baseline cannot be given together")
    check_data(path, layers)
    from qsae_cli.evaluated import Asked, evaluate_levels, evaluate_one

    asked = Asked(path, layers, {"n_tokens": tokens, "batch_size": batch_size, "device": device})
    if all_levels:
        evaluate_levels(asked, as_json)
    else:
        from qsae_cli.keeping import Keeping
        from qsae_core.evaluation.kept import own_folder

        keeping = Keeping(path, out, None if level is not None else own_folder(path, asked.config), overwrite)
        evaluate_one(asked, level, keeping, baselines, with_twin=compare_float, as_json=as_json)
