"""Sweeps: a file that says which runs make one comparison. Importing this needs no torch.

base: topk.yaml                     # a configuration, relative to this file; or its sections themselves
config:                             # changes for all runs, as in any configuration
  train: {tokens: 400_000}
grid:                               # every combination of these values
  sae.n_latents: [1024, 2048]
variants:                           # with every one of these, by name
  float: {quantizer: none}
  4bit: {quantizer: {use: ste, n_bits: 4}}
seeds: [0, 1, 2]
out: results/sweep
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qsae_core.config_layers import RECORD_KEYS, Layer, check_section, checked_layer, parse_yaml, read_layer
from qsae_core.discovery import did_you_mean
from qsae_core.errors import ConfigError, TrainingError
from qsae_core.results import Run, slug
from qsae_core.run_config import RunConfig, resolve

if TYPE_CHECKING:
    from qsae_core.registry import Registry

KEYS = ("base", "config", "grid", "variants", "seeds", "out")
NOT_COMPARED = ("run", "trackers", "versions", *sorted(RECORD_KEYS))
"""Sections in which a finished run may differ from the one that the sweep asks for (the seed may not)."""


@dataclass(frozen=True)
class Planned:
    """One run of a sweep: its name in the output folder, what it resolves to, and the run that is there."""

    name: str
    config: RunConfig
    there: Run | None

    @property
    def state(self) -> str:
        """``finished``, ``unfinished`` or ``new``."""
        if self.there is None:
            return "new"
        return "finished" if self.there.finished else "unfinished"


def read_sweep(
    path: pathlib.Path, registry: Registry, changes: Layer | None = None, out: pathlib.Path | None = None
) -> list[Planned]:
    """Every run of a sweep, seeds together, all of them validated.

    Args:
        changes: a layer over all that the file says (``--set`` of a command line).
        out: the output folder, instead of the file's.

    Raises:
        ConfigError: for a key or a value that does not fit, with its place in the file.
        PluginError: for a component that is not installed.
        TrainingError: if a finished run of that name and length has another configuration.
    """
    name = str(path)
    tree = _checked(_read(path), name)
    seeds = _seeds(tree.get("seeds", [0]), name)
    if changes is not None:
        _check_places(changes, tree)
    folder = str(out or tree.get("out") or pathlib.Path("results") / path.stem)
    below = [*_base(tree, path), *([_layer(tree["config"], f"{name}: config")] if "config" in tree else [])]
    found: dict[str, Planned] = {}
    for label, layers in _combinations(tree, name):
        for seed in seeds:
            own = f"{slug(label)}-seed{seed}"
            place = Layer({"run": {"seed": seed, "name": own, "out": folder}}, f"{name}: seeds")
            above = [*layers, *([changes] if changes else []), place]
            planned = _plan(own, resolve([*below, *above], registry))
            if own in found:
                raise ConfigError(f"two runs would be called {own!r}", where=name, next="rename a variant")
            found[own] = planned
    return list(found.values())


def _read(path: pathlib.Path) -> Any:
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the sweep cannot be read: {error}", where=str(path)) from error


def _checked(tree: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(tree, Mapping):
        raise ConfigError("a sweep is a mapping", where=name, allowed=", ".join(KEYS))
    for key in tree:
        if key not in KEYS:
            raise ConfigError(
                f"a sweep has no {str(key)!r}{did_you_mean(str(key), KEYS)}",
                where=name,
                allowed=", ".join(KEYS),
            )
    if "base" not in tree and "config" not in tree:
        raise ConfigError("a sweep needs a base: a configuration", where=name, next="base: topk.yaml")
    return tree


def _layer(tree: Any, place: str) -> Layer:
    layer = checked_layer(tree, place)
    _check_places(layer, {})
    return layer


def _check_places(layer: Layer, sweep: Mapping[str, Any]) -> None:
    """Refuse what a sweep decides for every run: its place and seed, and values that the grid varies."""
    for path in (("run", own) for own in ("seed", "name", "out")):
        if _sets(layer.tree, path):
            raise ConfigError(
                "a sweep gives every run its own", where=layer.place(*path), allowed="seeds, out"
            )
    for key in sweep.get("grid") or {}:
        varied = str(key).split(".")
        if _sets(layer.tree, varied):
            raise ConfigError(
                "the grid varies this, and runs are named after its values",
                where=layer.place(*varied),
                next=f"change grid: {key} in the sweep's file",
            )


def _sets(tree: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(tree, Mapping) or key not in tree:
            return False
        tree = tree[key]
    return True


def _base(tree: Mapping[str, Any], path: pathlib.Path) -> list[Layer]:
    base = tree.get("base")
    if base is None:
        return []
    if isinstance(base, str):
        return [read_layer(path.parent / base)]
    return [_layer(base, f"{path}: base")]


def _seeds(seeds: Any, name: str) -> Sequence[int]:
    whole = isinstance(seeds, list) and all(isinstance(s, int) and not isinstance(s, bool) for s in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"a list of different seeds is needed (got {seeds!r})", where=f"{name}: seeds")
    return list(seeds)


def _combinations(tree: Mapping[str, Any], name: str) -> Iterator[tuple[str, list[Layer]]]:
    """Label and layers of every combination: variant by variant, and within it through the grid."""
    grid = tree.get("grid") or {}
    variants = tree.get("variants") or {}
    for key, block in (("grid", grid), ("variants", variants)):
        if not isinstance(block, Mapping):
            raise ConfigError(f"a mapping is needed here (got {block!r})", where=f"{name}: {key}")
    axes = [_axis(str(key), values, name) for key, values in grid.items()]
    named = [(str(v), [_layer(block, f"{name}: variants.{v}")]) for v, block in variants.items()]
    for _, (layer,) in named:
        _check_places(layer, tree)
    if not axes and not named:
        raise ConfigError("there is nothing to vary", where=name, allowed="grid, variants")
    for variant, layers in named or [("", [])]:
        for points in itertools.product(*axes):
            label = "-".join(part for part in (variant, *(said for said, _ in points)) if part)
            yield label, [*(layer for _, layer in points), *layers]


def _axis(key: str, values: Any, name: str) -> list[tuple[str, Layer]]:
    """For each value of a dotted key: how names say it, and the layer that sets it."""
    place = f"{name}: grid"
    path = key.split(".")
    check_section(path[0], place)
    if not isinstance(values, list) or not values:
        raise ConfigError(f"a list of values is needed (got {values!r})", where=f"{place}.{key}")
    points = []
    for value in values:
        tree: Any = value
        for part in reversed(path):
            tree = {part: tree}
        points.append((f"{path[-1]}-{value}", _layer(tree, place)))
    return points


def _plan(name: str, config: RunConfig) -> Planned:
    """With the run of that name and length that is there, which must be the same one if it is finished."""
    found = sorted(pathlib.Path(config.run.out).glob(f"{name}/*/{config.train.n_steps}/config.json"))
    if not found:
        return Planned(name, config, None)
    run = Run(found[0].parent)
    if run.finished:
        _check_same(run, config)
        return Planned(name, config, run)
    settings = {"resume": True} if run.resume_states() else {"overwrite": True}
    changed = config.run.model_copy(update=settings)
    return Planned(name, dataclasses.replace(config, run=changed), run)


def _check_same(run: Run, config: RunConfig) -> None:
    before, asked = run.record(), config.to_dict()
    different = [key for key in asked if key not in NOT_COMPARED and asked[key] != before.get(key)]
    if before["run"]["seed"] != asked["run"]["seed"]:
        different.append("run.seed")
    if different:
        raise TrainingError(
            f"a finished run of this name has another configuration; different: {', '.join(different)}",
            where=str(run.path),
            allowed="another `out` in the sweep's file, or --out DIR",
            next=f"remove {run.path} to train it again",
        )
