"""Sweeps: the runs that a file asks for make one comparison. Importing this needs no torch."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from qsae_compare import sweep_file
from qsae_core import CoderConfig, Run, RunConfig
from qsae_core.errors import ConfigError, TrainingError
from qsae_core.runs import (
    Layer,
    QuantizeConfig,
    resolve,
    slug,
    stored_description,
    unquantized,
)

if TYPE_CHECKING:
    from qsae_core.runs import Registry

NOT_COMPARED = ("run", "trackers", "versions")
"""Sections in which a finished run may differ from the one that the sweep asks for (the seed may not)."""


@dataclass(frozen=True)
class Planned:
    """One run of a sweep: its name in the output folder, what it resolves to, and the run that is there.

    Attributes:
        source: name of the run that is quantized, which stands before it in the plan; None: it is trained.
        method: how it is quantized.
    """

    name: str
    config: RunConfig
    there: Run | None = None
    source: str | None = None
    method: QuantizeConfig | None = None

    @property
    def state(self) -> str:
        """``finished``, ``unfinished`` or ``new``."""
        if self.there is None:
            return "new"
        return "finished" if self.there.finished else "unfinished"

    @property
    def n_steps(self) -> int:
        """Optimiser steps of training, or of what follows a calibration."""
        return self.method.n_steps if self.method else self.config.train.n_steps


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
    tree = sweep_file.parse(path)
    seeds = sweep_file.seeds(tree, name)
    if changes is not None:
        sweep_file.check_places(changes, tree)
    folder = str(out or tree.get("out") or pathlib.Path("results") / path.stem)
    below = sweep_file.base(tree, path)
    found: dict[str, Planned] = {}
    for asked in sweep_file.combinations(tree, name):
        for seed in seeds:
            own = _run_name(asked.label, seed)
            if own in found:
                raise ConfigError(f"two runs would be called {own!r}", where=name, next="rename a variant")
            place = Layer({"run": {"seed": seed, "name": own, "out": folder}}, f"{name}: seeds")
            layers = [*below, *asked.layers, *([changes] if changes else []), place]
            planned = Planned(own, resolve(layers, registry))
            if asked.quantized is not None:
                source, method = _run_name(asked.quantized.source, seed), asked.quantized.method
                layers += _quantizers(asked.quantized.quantizers, planned.config)
                planned = Planned(own, resolve(layers, registry), None, source, method)
            found[own] = _with_run(planned)
    return list(found.values())


def _quantizers(chosen: Layer, source: RunConfig) -> list[Layer]:
    """What a quantized run has instead of the quantizers that its source was trained with."""
    return [Layer(unquantized(source.to_dict()), chosen.name, fallback=True), chosen]


def _run_name(label: str, seed: int) -> str:
    return f"{slug(label)}-seed{seed}"


def _with_run(planned: Planned) -> Planned:
    """With the run of that name and length that is there, which must be the same one if it is finished."""
    config = planned.config
    found = sorted(pathlib.Path(config.run.out).glob(f"{planned.name}/*/{planned.n_steps}/config.json"))
    if not found:
        return planned
    run = Run(found[0].parent)
    if run.finished:
        _check_same(run, planned)
        return dataclasses.replace(planned, there=run)
    settings = {"resume": True} if run.resume_states() else {"overwrite": True}
    changed = config.run.model_copy(update=settings)
    return dataclasses.replace(planned, config=dataclasses.replace(config, run=changed), there=run)


def _check_same(run: Run, planned: Planned) -> None:
    before, asked = run.record(), _as_recorded(planned.config, run).to_dict()
    different = [key for key in asked if key not in NOT_COMPARED and asked[key] != before.get(key)]
    if before["run"]["seed"] != asked["run"]["seed"]:
        different.append("run.seed")
    made = run.quantized_from
    if planned.method is not None:
        # whether such a coder is rotated is decided when it is there
        coder = planned.config.coder_slot
        if coder in different and _unrotated(asked[coder]) == _unrotated(before[coder]):
            different.remove(coder)
    if (made and made["method"]) != (planned.method and planned.method.model_dump(mode="json")):
        different.append("how it is quantized")
    if different:
        raise TrainingError(
            f"a finished run of this name has another configuration; different: {', '.join(different)}",
            where=str(run.path),
            allowed="another `out` in the sweep's file, or --out DIR",
            next=f"remove {run.path} to train it again",
        )


def _as_recorded(config: RunConfig, run: Run) -> RunConfig:
    """With the sizes that hang on the data, as they are in a finished run's record."""
    coder = cast(CoderConfig, config.coder.options)
    of_data = getattr(coder, "expansion", None) is not None or coder.rule_latents(1) != coder.rule_latents(2)
    shape = stored_description(run.final)["shape"] if of_data else {"d_in": 1}
    return config.for_width(shape["d_in"], shape.get("layers_in", 1))


def _unrotated(block: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in block.items() if key != "rotate"}
