"""``qsae compare``: what trained coders cost in bits and in fidelity, side by side; or of a whole sweep."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from qsae_cli.commands import Count, Scope, json_option, print_json, print_table, set_layer
from qsae_compare import picture, table
from qsae_compare.data_flags import SaysOn
from qsae_core.errors import ConfigError
from qsae_core.runs import load_plugins

if TYPE_CHECKING:
    from qsae_compare.measured import Measured
    from qsae_compare.sweep import Planned
    from qsae_core import Run
    from qsae_core.runs import Layer, Plugins, Registry

MEASURED_BY = Scope(slots=("data",), lists=("metrics", "evaluate"), sections=(), needs_coder=False)
"""What a measurement depends on beside the coder."""
PATH = click.Path(path_type=pathlib.Path)


@click.command(cls=SaysOn)
@click.argument("paths", metavar="[RUN]...", nargs=-1, type=PATH)
@click.option(
    "--sweep", metavar="FILE", type=PATH, help="Train what this file asks for and is not there yet."
)
@click.option("--dry-run", is_flag=True, help="With --sweep: say what would be trained, and train nothing.")
@click.option(
    "--out", metavar="DIR", type=PATH, help="With --sweep: where its runs go.  [default: the file's]"
)
@click.option(
    "--set",
    "changes",
    metavar="PLACE.OPTION=VALUE",
    multiple=True,
    help="With --sweep: change an option of every run; VALUE is YAML. Repeatable.",
)
@click.option(
    "--baseline",
    "baselines",
    metavar="RUN",
    multiple=True,
    type=PATH,
    help="Compare with this run; once for each seed.  [default: each run's float twin, or the float run of "
    "the same configuration]",
)
@click.option("--by-seed", is_flag=True, help="A row for each seed, instead of mean and spread.")
@click.option("--evaluate", "again", is_flag=True, help="Measure again, each on its run's held-out data.")
@click.option(
    "--on",
    "other",
    metavar="PLACE.OPTION=VALUE",
    multiple=True,
    help="With --evaluate: measure on other data, or by other metrics and evaluations; as --set. Repeatable.",
)
@click.option("--tokens", type=Count(), help="With --evaluate: vectors to use.")
@click.option("--device", default="auto", show_default=True, help="With --evaluate: auto, cpu, cuda, cuda:N.")
@click.option("--csv", metavar="FILE", type=PATH, help="Also write every column to a CSV file.")
@click.option("--plot", metavar="FILE", type=PATH, help="Also draw FVU against bits and bytes; .png or .svg.")
@json_option
def compare(
    paths: tuple[pathlib.Path, ...],
    sweep: pathlib.Path | None,
    dry_run: bool,
    out: pathlib.Path | None,
    changes: tuple[str, ...],
    baselines: tuple[pathlib.Path, ...],
    again: bool,
    other: tuple[str, ...],
    tokens: int | None,
    device: str,
    **shown: Any,
) -> None:
    """Put trained coders side by side: runs, their float twins, and folders with coder.json.

    Runs that differ in their seed alone are one row. Values are those of each run's metrics.json and what
    qsae evaluate RUN has kept since, unless --evaluate measures again. --sweep FILE first trains every
    combination that the file asks for.

    Coders that were trained on saved vectors have a cross-entropy where a language model is named:
    --evaluate --on data.use=lm --on data.model=DIR --on data.layer=9. Other saved vectors are
    --on data.use=tensors --on data.path=FILE.
    """
    if shown["plot"] is not None:
        picture.check(shown["plot"])  # before anything is trained
    of_sweep = {"dry-run": dry_run, "out": out, "set": changes}
    _check_options(paths, sweep, again, of_sweep, {"on": other, "tokens": tokens})
    on = set_layer(other, MEASURED_BY, flag_name="--on") if other else None
    plugins = load_plugins()
    if sweep is not None:
        plan = _plan(sweep, changes, out, plugins.registry)
        if dry_run:
            _print_plan(plan, shown["as_json"])
            return
        paths = (*paths, *_train(plan, plugins))
    groups = _read(paths, baselines, plugins.registry)
    if again:
        groups = [_measure_again(group, plugins.registry, on, tokens, device) for group in groups]
    _report(*groups, **shown)


def _plan(
    sweep: pathlib.Path, changes: tuple[str, ...], out: pathlib.Path | None, registry: Registry
) -> list[Planned]:
    from qsae_compare.sweep import read_sweep

    return read_sweep(sweep, registry, set_layer(changes, Scope()) if changes else None, out)


def _read(
    paths: tuple[pathlib.Path, ...], baselines: tuple[pathlib.Path, ...], registry: Registry
) -> list[list[Measured]]:
    """The coders at ``paths``, and those that they are compared with."""
    from qsae_compare.measured import read

    return [read(paths, registry), [m for m in read(baselines, registry) if m.name == "coder"]]


def _report(
    measured: list[Measured],
    rivals: list[Measured],
    *,
    by_seed: bool,
    csv: pathlib.Path | None,
    plot: pathlib.Path | None,
    as_json: bool,
) -> None:
    """The table, and the files that were asked for."""
    from qsae_compare.rows import rows

    found, left_out = rows(measured, rivals, by_seed=by_seed)
    for sentence in left_out:
        click.echo(f"qsae: note: {sentence}", err=True)
    if csv is not None:
        table.write_csv(found, csv)
    if plot is not None:
        picture.draw(found, plot)
    if as_json:
        print_json(table.records(found))
    else:
        table.show(found)


def _check_options(
    paths: tuple[pathlib.Path, ...],
    sweep: pathlib.Path | None,
    again: bool,
    of_sweep: dict[str, Any],
    of_evaluation: dict[str, Any],
) -> None:
    if not paths and sweep is None:
        raise ConfigError("there is nothing to compare", allowed="RUN..., --sweep FILE", next="qsae runs")
    given = [name for name, value in of_sweep.items() if value]
    if given and sweep is None:
        raise ConfigError(f"--{given[0]} is about a sweep, and there is none", where=f"--{given[0]}")
    given = [name for name, value in of_evaluation.items() if value]
    if given and not again:
        raise ConfigError(
            "nothing is measured without --evaluate", where=f"--{given[0]}", next="add --evaluate"
        )


def _print_plan(plan: list[Planned], as_json: bool) -> None:
    entries = [{"name": p.name, "state": p.state, "steps": p.n_steps} for p in plan]
    if as_json:
        print_json(entries)
        return
    print_table(["run", "state", "steps>"], [list(entry.values()) for entry in entries])
    todo = sum(p.state != "finished" for p in plan)
    click.echo(f"{todo} of {len(plan)} runs would be made; they go to {plan[0].config.run.out}")


def _train(plan: list[Planned], plugins: Plugins) -> list[pathlib.Path]:
    """Train and quantize what is not finished; the paths of all runs."""
    paths: dict[str, pathlib.Path] = {}
    for number, planned in enumerate(plan, 1):
        if planned.there is not None and planned.state == "finished":
            paths[planned.name] = planned.there.path
            continue
        click.echo(f"run {number} of {len(plan)}: {planned.name}", err=True)
        paths[planned.name] = _make(planned, paths, plugins).path
    return list(paths.values())


def _make(planned: Planned, paths: Mapping[str, pathlib.Path], plugins: Plugins) -> Run:
    from qsae_cli.commands import make_watcher
    from qsae_core.runs import quantize_artifact, train

    if planned.source is None or planned.method is None:
        return train(planned.config, plugins, make_watcher())
    source = paths[planned.source]
    config, registry = planned.config, plugins.registry
    return quantize_artifact(
        source, config, registry, planned.method, lambda text: click.echo(text, err=True)
    )


def _measure_again(
    measured: list[Measured], registry: Registry, on: Layer | None, tokens: int | None, device: str
) -> list[Measured]:
    from qsae_compare.again import measure_again

    done = []
    for m in measured:
        click.echo(f"evaluating {m.folder}", err=True)
        done.append(measure_again(m, registry, on, n_tokens=tokens, device=device))
        if done[-1].warning:
            click.echo(f"qsae: warning: {done[-1].warning}", err=True)
    return done
