"""The steps of a run, in one process or in several that do the same at the same time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch

from qsae_core.compose.compose import compose_metrics
from qsae_core.config.run import RunConfig
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.errors import LostError, QsaeError, StoppedError, TrainingError
from qsae_core.evaluation.evaluate import measure_held_out
from qsae_core.interrupt import Interrupt
from qsae_core.kernels.processes import alone
from qsae_core.results.run import Run
from qsae_core.training import checkpoints, early_end
from qsae_core.training.chronicle import Chronicle
from qsae_core.training.memory import memory_kept
from qsae_core.training.on_the_way import OnTheWay
from qsae_core.training.prefetch import BatchReader, batches_ahead
from qsae_core.training.setup import Member
from qsae_core.training.team import Team, share_of
from qsae_core.training.trainer import Trainer

if TYPE_CHECKING:
    from qsae_core.plugins.records import Plugins


class TrainingLoop:
    """Batch after batch to the trainers; log lines, measurements, checkpoints.

    Args:
        data: this process's part of the source (``shard``).
        trainers: of the members, by their keys; all processes' begin alike.
        run: whose folder the first process of the team writes.
    """

    def __init__(
        self,
        config: RunConfig,
        plugins: Plugins,
        chronicle: Chronicle,
        data: DataSource,
        device: str,
        team: Team,
        members: Sequence[Member],
        trainers: Mapping[str, Trainer],
        run: Run,
    ) -> None:
        self.config, self.plugins, self.chronicle, self.run = config, plugins, chronicle, run
        self.data, self.device, self.team = data, device, team
        self.members, self.trainers = members, trainers
        self.steps = config.train.n_steps
        self.held_out: list[Batch] = []
        self.on_the_way = OnTheWay(config, plugins, chronicle, data, members, run)

    def carry_out(self, first: int) -> float:
        """All steps from one on, counted from 0; gives the seconds that they took.

        Raises:
            TrainingError: on a non-finite loss, an interrupt, or where another process is gone; says how to
                resume.
            StoppedError: where another process raised one of these.
        """
        settings = self.config.train
        log_every = max(1, self.steps // 200) if settings.log_every == "auto" else settings.log_every
        eval_every, eval_tokens = settings.measurements
        if eval_every and self.team.among_first:
            self.chronicle.watcher.message(f"reading {eval_tokens} held-out vectors")
            with alone():
                self.held_out = list(self.data.held_out(eval_tokens, settings.batch_size))
        self.chronicle.watcher.start(self.run, first, self.steps)
        started = time.perf_counter()
        spent, since_log = 0.0, 0
        kept = memory_kept() if self.device == "cpu" else contextlib.nullcontext()
        with kept, Interrupt() as interrupt, self._open_batches(first) as self.batches:
            for step in range(first, self.steps):
                clock = time.perf_counter()
                batch = self._next_batch(step)
                self._step(batch, step)
                spent, since_log = spent + time.perf_counter() - clock, since_log + settings.batch_size
                done = step + 1
                if done % log_every == 0 or done == self.steps:
                    self._log(done, since_log / spent)
                    spent, since_log = 0.0, 0
                if eval_every and done % eval_every == 0 and done < self.steps:
                    self._measure(done)
                if self.on_the_way.due(done) and self.team.is_first:
                    with alone(), self.batches.paused():
                        self.on_the_way.carry_out(done)
                periodic = settings.checkpoint_every and done % settings.checkpoint_every == 0
                stops = self.team.any(interrupt.requested)
                if stops or periodic or done == self.steps:
                    self._checkpoint(done)  # the last one too: evaluation, all that is left, may be cut off
                if stops:
                    self._note("interrupted")
                    self.team.stop_if(early_end.interrupted(self.run, done, self.steps))
        return time.perf_counter() - started

    def _open_batches(self, first: int) -> BatchReader:
        settings = self.config.train
        return BatchReader(
            self.data,
            size=share_of(settings.batch_size, self.team, "batch_size"),
            count=self.steps - first,
            ahead=batches_ahead(settings.prefetch, self.data, self.device),
            device=self.device,
        )

    def _next_batch(self, done: int) -> Batch:
        before, error = self.batches.state_dict(), None
        try:
            with alone():  # the others need not read at the same time
                batch = self.batches.next_batch()
        except QsaeError as found:
            error = found
        if self.team.any(error is not None) and done:
            self._checkpoint(done, before)
            if error is not None:
                early_end.explain_data(error, self.run, done)
        self.team.stop_if(error)
        return batch

    def _step(self, batch: Batch, step: int) -> None:
        try:
            for layer, alike in self._by_layer():
                with alike:
                    for member in self.members:
                        if member.layer == layer:
                            self.trainers[member.key].step(member.batch(batch), step)
        except (LostError, StoppedError):
            raise
        except TrainingError as error:
            self._note("failed: non-finite loss")
            early_end.explain_loss(error, self.run)
            raise
        self.chronicle.screens(self.run, self.trainers)

    def _note(self, status: str) -> None:
        if self.team.is_first:
            self.run.update_record(status=status)

    def _by_layer(self) -> Iterator[tuple[str | None, AbstractContextManager[None]]]:
        """The layers that have a coder of their own (None: all layers), and a block for its step: in each of
        these chance begins alike, as it would if the run had that layer alone."""
        layers = list(dict.fromkeys(member.layer for member in self.members))
        devices = [self.device] if self.device.startswith("cuda") else []
        for layer in layers:
            last = layer == layers[-1]
            yield layer, contextlib.nullcontext() if last else torch.random.fork_rng(devices=devices)

    def _log(self, step: int, tokens_per_second: float) -> None:
        values: dict[str, float | None] = {"tokens_per_second": tokens_per_second}
        for member in self.members:
            report = self.trainers[member.key].report()
            values |= {f"{member.log_prefix}{key}": value for key, value in report.items()}
        self.chronicle.log(self.run, step, values)

    def _measure(self, step: int) -> None:
        if not self.team.among_first:
            return
        with self.team.partners_alone():
            values = {
                member.key: measure_held_out(
                    member.coder,
                    map(member.batch, self.held_out),
                    list(compose_metrics(self.config, self.plugins.registry).values()),
                )
                for member in self.members
            }
        self.chronicle.measured(self.run, step, values)

    def _checkpoint(self, step: int, state: Mapping[str, Any] | None = None) -> None:
        """Save what there is after a step; ``state``: of the data, where it is not right behind the last
        batch."""
        here = self.batches.state_dict() if state is None else state
        place = checkpoints.position(self.data, here, self.team)
        if self.team.is_first or self.team.partners.world > 1:
            path = checkpoints.save_state(self.run, step, self.trainers, place, self.team)
            if self.team.is_first:
                self.plugins.hook.qsae_checkpoint_saved(run=self.run, path=path)
