"""What ``qsae evaluate`` does once it knows of what and on what: measure, keep, show."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from qsae_cli.options.recorded import model_flags
from qsae_cli.output import print_json
from qsae_core.config.layers import Layer
from qsae_core.results.run import FLOAT_TWIN, MAIN, Run
from qsae_core.results.words import vectors_of

if TYPE_CHECKING:
    from qsae_cli.keeping import Keeping
    from qsae_core.evaluation.run import Evaluated
    from qsae_core.evaluation.watch import Subject


class Asked:
    """What is evaluated, on what.

    Args:
        sizes: ``n_tokens``, ``batch_size`` and ``device``, as ``evaluate_artifact`` takes them.
    """

    def __init__(self, path: pathlib.Path, layers: list[Layer], sizes: dict[str, Any]) -> None:
        from qsae_core.config.run import resolve
        from qsae_core.plugins.records import load_plugins

        self.path, self.sizes, self.plugins = path, sizes, load_plugins()
        self.registry = self.plugins.registry
        self.config = resolve(layers, self.registry)

    def evaluated(
        self,
        path: pathlib.Path,
        what: str = "",
        level: int | None = None,
        begins: Callable[[Subject], None] | None = None,
    ) -> Evaluated:
        """One coder on the data, while it is shown how far that is.

        Args:
            what: what other coder that is than the one that was asked for.
            begins: is told before anything is measured what is evaluated on what.
        """
        from qsae_cli.pass_progress import EvaluationProgress
        from qsae_core.evaluation.run import evaluate_artifact

        with EvaluationProgress(what, begins) as watch:
            return evaluate_artifact(path, self.config, self.registry, level=level, watch=watch, **self.sizes)


def evaluate_levels(asked: Asked, as_json: bool) -> None:
    """Every level of a coder, in a table."""
    from qsae_cli.pass_progress import EvaluationProgress
    from qsae_cli.summary import check_failures, warn
    from qsae_core.evaluation import run

    def begins(subject: Subject) -> None:
        click.echo(f"evaluating {subject.folder}, level {subject.level}", err=True)

    with EvaluationProgress(begins=begins) as watch:
        found = run.evaluate_levels(asked.path, asked.config, asked.registry, watch=watch, **asked.sizes)
        levels = [evaluated.entry for evaluated in found]
    warn(levels[0])
    _print_levels(asked.path, levels, as_json)
    check_failures({str(entry["level"]): entry for entry in levels})


def evaluate_one(
    asked: Asked, level: int | None, keeping: Keeping, names: Sequence[str], *, with_twin: bool, as_json: bool
) -> None:
    """A coder, or one level of it, its float twin and its baselines: evaluated, kept and shown.

    Raises:
        ConfigError: if results of something else are where these should be kept.
        UnwritableError: if something could not be kept; all is shown by then.
        EvaluationError: if an evaluation of the coder or its twin failed; all else is kept and shown by then.
    """
    from qsae_cli.summary import check_failures, warn

    twin = _twin(asked.path) if with_twin and level is None else None
    places = _baselines(asked, keeping.out, names)
    found = asked.evaluated(asked.path, "", level, keeping.begins)
    warn(found.entry)
    keeping.store(found, asked.registry)
    beside: dict[str, Evaluated] = {}
    if twin is not None:
        beside[FLOAT_TWIN] = asked.evaluated(twin, "float twin")
        keeping.store(beside[FLOAT_TWIN], asked.registry, FLOAT_TWIN)
    for name, place in places.items():
        beside[name] = asked.evaluated(place, f"baseline {name}")
        keeping.store(beside[name], asked.registry, "baselines", name)
    if as_json:
        _print_json(found, beside)
    else:
        _print_found(asked, found, keeping, beside)
    if keeping.fault is not None:
        raise keeping.fault
    check_failures({name: one.entry for name, one in {MAIN: found, **beside}.items() if name not in places})


def _twin(path: pathlib.Path) -> pathlib.Path | None:
    """The full-precision twin that was trained in the run at a path; None where there is none."""
    from qsae_core.artifact.places import is_stored

    run = Run(path)
    twin = run.checkpoints / FLOAT_TWIN
    return twin if run.config_file.is_file() and is_stored(twin) else None


def _baselines(asked: Asked, out: pathlib.Path | None, names: Sequence[str]) -> dict[str, pathlib.Path]:
    """Name -> where the baseline is, made if need be."""
    if not names:
        return {}
    from qsae_cli.progress import make_watcher
    from qsae_core.baselines.stored import baseline
    from qsae_core.compose.setup import resolve_device
    from qsae_core.errors import ConfigError

    run = Run(asked.path)
    if not run.config_file.is_file() and out is None:
        raise ConfigError(
            "it is no run's folder, so where its baselines are kept has to be said",
            where=str(asked.path),
            next="--out DIR",
        )
    device, watcher = resolve_device(asked.sizes["device"]), make_watcher()
    found = {}
    for name in dict.fromkeys(names):
        own = run.path / "baselines"
        kept = own if out is None or (own / name).exists() else out / "baselines"
        found[name] = baseline(name, asked.path, kept, asked.plugins, device=device, watcher=watcher)
    return found


def _print_json(found: Evaluated, beside: Mapping[str, Evaluated]) -> None:
    entries = {name: other.entry for name, other in beside.items()}
    twin = {FLOAT_TWIN: entries.pop(FLOAT_TWIN)} if FLOAT_TWIN in entries else {}
    print_json({**found.entry, **twin, **({"baselines": entries} if entries else {})})


def _print_found(asked: Asked, found: Evaluated, keeping: Keeping, beside: Mapping[str, Evaluated]) -> None:
    """A block for each evaluation, what was not evaluated and why, the coders, and where all of it is."""
    from qsae_cli.findings import print_layers, print_results
    from qsae_cli.summary import unavailable
    from qsae_core.evaluation.evaluate import NO_MODEL

    entry = found.entry
    click.echo(f"{asked.path}: vectors of {vectors_of(entry)}")
    whole = {name.replace("_", " "): _results(other.outcomes) for name, other in beside.items()}
    print_results(_results(found.outcomes), keeping.kept, beside=whole, unkept=keeping.unkept)
    print_layers({layer: _results(outcomes) for layer, outcomes in found.layers.items()}, keeping.kept)
    sentences = unavailable(entry)
    if sentences:
        click.echo("\nnot evaluated, or not all of it:")
    for sentence in sentences:
        click.echo(sentence)
    click.echo()
    _print_coders(asked, entry, {name: other.entry for name, other in beside.items()})
    weighed = any(values.get("weight_error") is not None for values in entry["evaluations"].values())
    if weighed and entry.get("atom_errors_from") == "float twin":
        click.echo("weight_error is of the float twin's atoms, which training moved too: see --save-float")
    keeping.closing(found.n_tokens)
    textless = any(NO_MODEL in sentence for sentence in sentences)
    if (following := _next(asked.path, keeping.kept, textless)) is not None:
        click.echo(f"next: {following}")


def _next(path: pathlib.Path, kept: pathlib.Path | None, textless: bool) -> str | None:
    """The command that shows what a run has kept, if it is installed.

    Args:
        textless: the data have no language model.
    """
    here = click.get_current_context()
    group = None if here.parent is None else here.parent.command
    commands = group.list_commands(here) if isinstance(group, click.Group) else []
    run = Run(path)
    if "report" not in commands or kept != run.evaluations:
        return None
    sampled = any((place / "samples").is_dir() for place in (run.path, run.evaluations))
    model = f" {model_flags(path)}" if textless else ""
    return f"qsae report {path}" if sampled else f"qsae samples {path}{model}, then qsae report {path}"


def _results(outcomes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: outcome.result for name, outcome in outcomes.items() if outcome.result is not None}


def _print_coders(asked: Asked, result: dict[str, Any], others: dict[str, dict[str, Any]]) -> None:
    from qsae_cli.summary import labels, print_coders, rows_of

    of_level = f", level {result['level']}: {result['n_latents']:,} latents" if "level" in result else ""
    names = labels(asked.config.to_dict())
    names["coder"] += of_level
    if others:
        from qsae_core.baselines.stored import BASELINES

        names |= {name: f"  {label}" for name, label in BASELINES.items()}
    print_coders(rows_of({MAIN: result, **others}, names), "")


def _print_levels(path: pathlib.Path, results: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(results)
        return
    from qsae_cli.summary import print_coders
    from qsae_core.results.run import values_of

    first = results[0]
    title = f"{path}: vectors of {vectors_of(first)}, level by level"
    print_coders([(f"level {r['level']}: {r['n_latents']:,} latents", r) for r in results], title)
    fvus = [values_of(result).get("fvu") for result in results]
    for number, (coarse, fine) in enumerate(itertools.pairwise(fvus), 2):
        if coarse is not None and fine is not None and fine > coarse:
            click.echo(f"level {number} is worse than the one before it: FVU {fine:.4f} after {coarse:.4f}")
