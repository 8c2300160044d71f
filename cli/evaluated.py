"""What ``qsae evaluate`` does once it knows of what and on what: measure, keep, show."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from qsae_cli.output import print_json
from qsae_core.config.layers import Layer

if TYPE_CHECKING:
    from qsae_core.evaluation.run import Evaluated


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

    def evaluated(self, path: pathlib.Path, what: str, level: int | None = None) -> Evaluated:
        """One coder on the data, while its passes are shown."""
        from qsae_cli.progress import PassProgress
        from qsae_core.evaluation.run import evaluate_artifact

        with PassProgress(what) as progress:
            return evaluate_artifact(
                path, self.config, self.registry, level=level, progress=progress, **self.sizes
            )


def evaluate_levels(asked: Asked, as_json: bool) -> None:
    """Every level of a coder, in a table."""
    from qsae_cli.progress import PassProgress
    from qsae_cli.summary import warn
    from qsae_core.evaluation import run

    with PassProgress("evaluating levels") as progress:
        found = run.evaluate_levels(
            asked.path, asked.config, asked.registry, progress=progress, **asked.sizes
        )
        levels = [evaluated.entry for evaluated in found]
    warn(levels[0])
    _print_levels(asked.path, levels, as_json)


def evaluate_one(
    asked: Asked, level: int | None, out: pathlib.Path | None, names: Sequence[str], as_json: bool
) -> None:
    """A coder, or one level of it, and its baselines: evaluated, kept and shown.

    Raises:
        EvaluationError: if one of the coder's own evaluations failed; all else is kept and shown by then.
    """
    from qsae_cli.summary import check_failures, warn
    from qsae_core.evaluation.kept import own_folder

    of_run = None if level is not None else own_folder(asked.path, asked.config, asked.sizes["n_tokens"])
    places = _baselines(asked, out, names)
    found = asked.evaluated(asked.path, "evaluating", level)
    warn(found.entry)
    folder = out or of_run
    _store(asked, found, folder)
    beside = {}
    for name, place in places.items():
        beside[name] = asked.evaluated(place, f"evaluating baseline {name}")
        _store(asked, beside[name], None if folder is None else folder / "baselines" / name)
    _print_coder(asked, found.entry, {name: other.entry for name, other in beside.items()}, as_json)
    if not as_json:
        _print_found(found, folder, beside)
        if out is not None:
            click.echo(f"kept in {out}")
    check_failures({"coder": found.entry})


def _baselines(asked: Asked, out: pathlib.Path | None, names: Sequence[str]) -> dict[str, pathlib.Path]:
    """Name -> where the baseline is, made if need be."""
    if not names:
        return {}
    from qsae_cli.progress import make_watcher
    from qsae_core.baselines.stored import baseline
    from qsae_core.compose.setup import resolve_device
    from qsae_core.errors import ConfigError
    from qsae_core.results.run import Run

    run = Run(asked.path)
    if not run.config_file.is_file() and out is None:
        raise ConfigError(
            "it is no run's folder, so where its baselines are kept has to be said",
            where=str(asked.path),
            next="--out DIR",
        )
    kept = (run.path if run.config_file.is_file() or out is None else out) / "baselines"
    device, watcher = resolve_device(asked.sizes["device"]), make_watcher()
    return {
        name: baseline(name, asked.path, kept, asked.plugins, device=device, watcher=watcher)
        for name in dict.fromkeys(names)
    }


def _store(asked: Asked, found: Evaluated, folder: pathlib.Path | None) -> None:
    """All that was found, in a folder an evaluation."""
    from qsae_core.evaluation.kept import store_all
    from qsae_core.evaluation.of_layers import WHOLE

    if folder is None:
        return
    about = {"coder": found.entry["path"], "model": found.entry["model"], "layer": found.entry["layer"]}
    n_tokens = asked.sizes["n_tokens"] or asked.config.train.eval_tokens
    about |= {"n_tokens": n_tokens, "measured": found.entry["measured"]}
    store_all({WHOLE: found.outcomes, **found.layers}, folder, asked.registry, about)


def _print_found(found: Evaluated, folder: pathlib.Path | None, baselines: Mapping[str, Evaluated]) -> None:
    """What the table of coders has no column for, of all together and of each layer, with the same values of
    baselines beside."""
    from qsae_cli.findings import print_results
    from qsae_core.results.run import slug

    whole = {name: _results(other.outcomes) for name, other in baselines.items()}
    print_results(_results(found.outcomes), folder, beside=whole)
    for layer, outcomes in found.layers.items():
        place = None if folder is None else folder / "layers" / slug(layer)
        own = {name: _results(other.layers.get(layer, {})) for name, other in baselines.items()}
        print_results(_results(outcomes), place, layer, beside=own)


def _results(outcomes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: outcome.result for name, outcome in outcomes.items() if outcome.result is not None}


def _print_coder(
    asked: Asked, result: dict[str, Any], baselines: dict[str, dict[str, Any]], as_json: bool
) -> None:
    if as_json:
        print_json({**result, "baselines": baselines} if baselines else result)
        return
    from qsae_cli.summary import labels, print_coders, rows_of, unavailable

    title = f"{asked.path}: vectors of {result['model']}, layer {result['layer']}"
    of_level = f", level {result['level']}: {result['n_latents']:,} latents" if "level" in result else ""
    names = {"coder": labels(asked.config.to_dict())["coder"] + of_level}
    if baselines:
        from qsae_core.baselines.stored import BASELINES

        names |= {name: f"  {BASELINES[name]}" for name in baselines}
    print_coders(rows_of({"coder": result, **baselines}, names), title)
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
