"""Evaluations of a run that are asked of its coders while these are trained (``EvaluationConfig.every``)."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from qsae_core.coders.coder_set import as_one
from qsae_core.component import EvaluationConfig
from qsae_core.compose.compose import compose_evaluations, compose_metrics
from qsae_core.config.run import RunConfig
from qsae_core.contracts.coder import SparseCoder
from qsae_core.contracts.data import DataSource
from qsae_core.errors import QsaeError
from qsae_core.evaluation.evaluate import Outcome, evaluate
from qsae_core.evaluation.kept import store_all
from qsae_core.evaluation.measured_part import measured_part, origins, source_record
from qsae_core.evaluation.of_layers import WHOLE
from qsae_core.results.run import FLOAT_TWIN, MAIN, Run
from qsae_core.training.chronicle import Chronicle
from qsae_core.training.setup import Member

if TYPE_CHECKING:
    from qsae_core.plugins.records import Plugins

MUCH = 0.1
"""Share of the time of training from where what evaluations take is remarked upon."""


def cadences(config: RunConfig) -> dict[str, int]:
    """Evaluation -> steps between its runs, of those that run while a coder is trained."""
    options = {block.use: block.options for block in config.evaluate}
    found = {name: o.every for name, o in options.items() if isinstance(o, EvaluationConfig)}
    return {name: every for name, every in found.items() if every}


class OnTheWay:
    """What is asked of a run's coders before its last step; then all evaluations are asked anyway.

    Of each, its coder as training uses it at that step, on held-out vectors: at most a fortieth as many as
    were trained on since (``TrainConfig.tokens_after``). Training goes on as without. What is found is stored
    below ``evaluations/step_XXXXXXXX`` of the run. An evaluation that cannot run, or fails, is said and does
    not end the run.

    Args:
        data: this process's part of the source; nobody else may use it meanwhile.
    """

    def __init__(
        self,
        config: RunConfig,
        plugins: Plugins,
        chronicle: Chronicle,
        data: DataSource,
        members: Sequence[Member],
        run: Run,
    ) -> None:
        self.config, self.plugins, self.chronicle = config, plugins, chronicle
        self.data, self.members, self.run = data, members, run
        self.every = cadences(config)
        self.evaluations = {
            name: evaluation
            for name, evaluation in compose_evaluations(config, plugins.registry).items()
            if name in self.every
        }
        self._said: set[str] = set()
        self._began, self._spent, self._times = time.perf_counter(), 0.0, 0

    def due(self, step: int) -> list[str]:
        """Names of those that run behind a step (from 1)."""
        last = self.config.train.n_steps
        return [name for name, every in self.every.items() if step % every == 0 and step < last]

    def carry_out(self, step: int) -> None:
        """Run those that are due.

        Raises:
            UnwritableError: for what the disk refuses.
        """
        started, names = time.perf_counter(), self.due(step)
        by_tokens: dict[int, list[str]] = {}
        for name in names:
            by_tokens.setdefault(self.config.train.tokens_after(self.every[name]), []).append(name)
        written, values = [], dict[str, dict[str, float | None]]()
        for n_tokens, some in by_tokens.items():
            found = self._asked(some, n_tokens, step)
            store_all(found, self._folder(step), self.plugins.registry, self._about(step, n_tokens))
            self._say(found, step)
            written += [name for name in some if any(of[name].result is not None for of in found.values())]
            for coder, of_coder in _values(found).items():
                values.setdefault(coder, {}).update(of_coder)
        self._spent, self._times = self._spent + time.perf_counter() - started, self._times + 1
        if written:
            seconds = f"{time.perf_counter() - started:.1f} s"
            self.chronicle.watcher.message(
                f"step {step}: {', '.join(written)} ({seconds}) in {self._folder(step)}"
            )
        self.chronicle.evaluated(step, values)
        self._remark()

    def _asked(self, names: Sequence[str], n_tokens: int, step: int) -> dict[str, dict[str, Outcome]]:
        coder, twin = self._coder(MAIN), self._coder(FLOAT_TWIN)
        assert coder is not None
        devices = [coder.device] if coder.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            try:
                return evaluate(
                    coder,
                    self.data,
                    {name: self.evaluations[name] for name in names},
                    lambda: list(compose_metrics(self.config, self.plugins.registry).values()),
                    n_tokens=n_tokens,
                    batch_size=self.config.train.batch_size,
                    twin=twin,
                )
            except QsaeError as error:
                said = " ".join(str(error).split())
                self.chronicle.watcher.message(
                    f"warning: {', '.join(names)} not measured at step {step}: {said}"
                )
                return {}

    def _coder(self, kind: str) -> SparseCoder | None:
        found = {member.layer: member.coder for member in self.members if member.kind == kind}
        return as_one(found) if found else None

    def _folder(self, step: int) -> pathlib.Path:
        return self.run.evaluations_at(step)

    def _about(self, step: int, n_tokens: int) -> dict[str, Any]:
        of_data = {"model": self.data.model_name, "layer": self.data.layer}
        return {"coder": f"step {step}", "step": step, **of_data, "n_tokens": n_tokens, **self._measured}

    @cached_property
    def _measured(self) -> dict[str, Any]:
        own = origins({"source": source_record(self.data, self.config)})
        return {"measured": measured_part(self.data, self.config, own, self.run.final).entry()}

    def _say(self, found: Mapping[str, Mapping[str, Outcome]], step: int) -> None:
        """What could not be found out: of a failure each time, of what cannot be once."""
        for layer, outcomes in found.items():
            for name, outcome in outcomes.items():
                of_layer = "" if layer == WHOLE else f" of layer {layer}"
                if outcome.unavailable is None or (layer == WHOLE and len(found) > 1 and not outcome.failed):
                    continue
                what = f"{name}{of_layer} is not measured: {outcome.unavailable}"
                if outcome.failed:
                    self.chronicle.watcher.message(f"warning: step {step}: {what}")
                elif what not in self._said:
                    self._said.add(what)
                    self.chronicle.watcher.message(what)

    def _remark(self) -> None:
        """The first time counts little: it reads what later ones find there."""
        training = time.perf_counter() - self._began - self._spent
        share = self._spent / max(training, 1e-9)
        if self._times > 1 and share > MUCH and "much" not in self._said:
            self._said.add("much")
            flags = ", ".join(f"--{name}-every" for name in self.every)
            self.chronicle.watcher.message(
                f"evaluations have taken {share:.0%} as long as training so far; "
                f"a larger {flags} makes that less"
            )


def _values(found: Mapping[str, Mapping[str, Outcome]]) -> dict[str, dict[str, float | None]]:
    """``coder``, or ``coder/LAYER`` -> ``NAME/VALUE`` -> number."""
    values = {
        MAIN if layer == WHOLE else f"{MAIN}/{layer}": {
            f"{name}/{key}": value
            for name, outcome in outcomes.items()
            if outcome.result is not None
            for key, value in outcome.result.values.items()
        }
        for layer, outcomes in found.items()
    }
    return {coder: of_coder for coder, of_coder in values.items() if of_coder}
