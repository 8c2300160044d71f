"""One run from configuration to results: data, coders, loop, checkpoints, artifact, evaluation."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch

from qsae_core.compose.compose import compose_data, compose_evaluations, compose_metrics, compose_trackers
from qsae_core.compose.kernels import activate_kernels
from qsae_core.compose.setup import resolve_device
from qsae_core.config.run import RunConfig
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.errors import QsaeError, TrainingError
from qsae_core.evaluation.evaluate import measure_held_out
from qsae_core.interrupt import Interrupt
from qsae_core.results.beginning import open_run
from qsae_core.results.files import write_json
from qsae_core.results.run import FLOAT_TWIN, Run, now, run_path
from qsae_core.training import checkpoints, early_end
from qsae_core.training.finish import finish_coders
from qsae_core.training.prefetch import BatchReader, batches_ahead
from qsae_core.training.setup import Member, check_targets, compose_members
from qsae_core.training.trainer import Trainer
from qsae_core.training.watcher import Watcher

if TYPE_CHECKING:
    from qsae_core.plugins.records import Plugins


def train(config: RunConfig, plugins: Plugins, watcher: Watcher) -> Run:
    """Carry out a run; returns it with its artifact and ``metrics.json`` written.

    Raises:
        QsaeError: for what the user can mend; nothing that was complete is lost.
        TrainingError: on a non-finite loss or an interrupt; says how to resume.
    """
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    device = resolve_device(config.run.device)
    for active in activate_kernels(config.run.kernels, plugins.registry):
        watcher.message(str(active))
    data = compose_data(config, plugins.registry, device=device)
    try:
        config = config.for_width(data.d_in)
        plugins.hook.qsae_configure.call_historic(kwargs={"run_config": config})
        return _TrainingRun(config, plugins, watcher, data, device).carry_out()
    finally:
        watcher.stop()
        data.close()


class _TrainingRun:
    """The state of one run while it is carried out."""

    def __init__(
        self, config: RunConfig, plugins: Plugins, watcher: Watcher, data: DataSource, device: str
    ) -> None:
        self.config, self.plugins, self.watcher = config, plugins, watcher
        self.data, self.device = data, device
        self.steps = config.train.n_steps
        self.members: list[Member] = []
        self.trainers: dict[str, Trainer] = {}
        self.held_out: list[Batch] = []
        self.trackers = list(compose_trackers(config, plugins.registry).values())
        compose_evaluations(config, plugins.registry)  # a faulty one should stop the run now, not at its end

    def carry_out(self) -> Run:
        path = run_path(self.config, self.data.model_name, self.data.layer, self.steps)
        self._compose_members()
        self.run = open_run(self.config, path, self.data.describe())
        active = activate_kernels(self.config.run.kernels, self.plugins.registry)
        self.run.update_record(status="running", active_kernels=[str(kernel_set) for kernel_set in active])
        resumes = self.config.run.resume
        with early_end.noted(self.run):
            with early_end.removed(self.run, if_fresh=not resumes):
                first = self._restore() if resumes else self._initialize()
            self.plugins.hook.qsae_train_start(run=self.run)
            for tracker in self.trackers:
                tracker.start(self.run)
            seconds = self._loop(first)
            with early_end.finishing(self.run):
                self._finish(seconds)
        return self.run

    # --- before the first step

    def _compose_members(self) -> None:
        self.members = compose_members(self.config, self.plugins, self.data)
        if any(member.kind == FLOAT_TWIN for member in self.members):
            self.watcher.message(
                "a float twin (the same coder without quantizers) is trained on the same batches, "
                "so that you see what quantization costs; --no-compare-float leaves it out"
            )

    def _initialize(self) -> int:
        self.watcher.message(f"measuring statistics on {self.config.train.statistics_tokens} vectors")
        sample = self.data.next_batch(self.config.train.statistics_tokens).to("cpu")  # where coders begin
        check_targets(self.config, sample, self.data)
        for member in self.members:
            member.initialize(sample)
        self._make_trainers()
        main = self.trainers[self.members[0].key]
        if main.coder.is_quantized and main.quantize_from > 0:
            self.watcher.message(
                f"weights go through quantizers from step {main.quantize_from + 1} on (train.quantize_after)"
            )
        torch.manual_seed(self.config.run.seed)
        return 0

    def _restore(self) -> int:
        self._make_trainers()
        latest = self.run.resume_states()[-1]
        first = checkpoints.load_state(latest, self.trainers, self.data)
        self.run.truncate_log(first)
        self.run.truncate_screens(first)
        self.watcher.message(f"resuming after step {first} from {latest}")
        return first

    def _make_trainers(self) -> None:
        for member in self.members:
            coder = member.coder.to(self.device)
            self.trainers[member.key] = Trainer(coder, self.config.train, member.key)

    # --- the loop

    def _loop(self, first: int) -> float:
        settings = self.config.train
        log_every = max(1, self.steps // 200) if settings.log_every == "auto" else settings.log_every
        eval_every = max(1, self.steps // 10) if settings.eval_every == "auto" else settings.eval_every
        if eval_every:
            self.watcher.message(f"reading {settings.eval_tokens} held-out vectors")
            self.held_out = list(self.data.held_out(settings.eval_tokens, settings.batch_size))
        self.watcher.start(self.run, first, self.steps)
        started = time.perf_counter()
        spent, since_log = 0.0, 0
        with Interrupt() as interrupt, self._open_batches(first) as self.batches:
            for step in range(first, self.steps):
                clock = time.perf_counter()
                batch = self._next_batch(step)
                self._step(batch, step)
                spent, since_log = spent + time.perf_counter() - clock, since_log + len(batch)
                done = step + 1
                if done % log_every == 0 or done == self.steps:
                    self._log(done, since_log / spent)
                    spent, since_log = 0.0, 0
                if eval_every and done % eval_every == 0 and done < self.steps:
                    self._measure(done)
                periodic = settings.checkpoint_every and done % settings.checkpoint_every == 0
                if interrupt.requested or periodic or done == self.steps:
                    self._checkpoint(done)  # the last one too: evaluation, all that is left, may be cut off
                if interrupt.requested:
                    raise early_end.interrupted(self.run, done, self.steps)
        return time.perf_counter() - started

    def _open_batches(self, first: int) -> BatchReader:
        settings = self.config.train
        return BatchReader(
            self.data,
            size=settings.batch_size,
            count=self.steps - first,
            ahead=batches_ahead(settings.prefetch, self.data, self.device),
            device=self.device,
        )

    def _next_batch(self, done: int) -> Batch:
        try:
            return self.batches.next_batch()
        except QsaeError as error:
            if done:
                self._checkpoint(done)
                early_end.explain_data(error, self.run, done)
            raise

    def _step(self, batch: Batch, step: int) -> None:
        try:
            for layer, alike in self._by_layer():
                with alike:
                    for member in self.members:
                        if member.layer == layer:
                            self.trainers[member.key].step(member.batch(batch), step)
        except TrainingError as error:
            early_end.explain_loss(error, self.run)
            raise
        self._note_screens()

    def _by_layer(self) -> Iterator[tuple[str | None, AbstractContextManager[None]]]:
        """The layers that have a coder of their own (None: all layers), and a block for its step: in each of
        these chance begins alike, as it would if the run had that layer alone."""
        layers = list(dict.fromkeys(member.layer for member in self.members))
        devices = [self.device] if self.device.startswith("cuda") else []
        for layer in layers:
            last = layer == layers[-1]
            yield layer, contextlib.nullcontext() if last else torch.random.fork_rng(devices=devices)

    def _note_screens(self) -> None:
        """Say what was decided about screens, and put it on record."""
        for name, trainer in self.trainers.items():
            new = trainer.screening.news()
            if new:
                self.run.add_screens(name, [decision.record() for decision in new])
            for decision in new:
                if decision.recall is not None:
                    self.watcher.message(f"{name} {decision}")

    def _log(self, step: int, tokens_per_second: float) -> None:
        values: dict[str, float | None] = {"tokens_per_second": tokens_per_second}
        for member in self.members:
            report = self.trainers[member.key].report()
            values |= {f"{member.log_prefix}{key}": value for key, value in report.items()}
        self.run.append_log(step, values)
        self.watcher.logged(step, values)
        for tracker in self.trackers:
            tracker.log(step, values)
        self.plugins.hook.qsae_step_end(run=self.run, step=step, metrics=values)

    def _measure(self, step: int) -> None:
        values = {
            member.key: measure_held_out(
                member.coder,
                map(member.batch, self.held_out),
                list(compose_metrics(self.config, self.plugins.registry).values()),
            )
            for member in self.members
        }
        self.run.write_step_metrics(step, values)
        self.watcher.measured(step, values)

    def _checkpoint(self, step: int) -> None:
        path = checkpoints.save_state(self.run, step, self.trainers, self.batches)
        self.plugins.hook.qsae_checkpoint_saved(run=self.run, path=path)

    # --- after the last step

    def _finish(self, seconds: float) -> None:
        self.watcher.stop()
        if left_out := self.data.left_out():
            self.watcher.message(left_out)
        summary: dict[str, Any] = {
            "model": self.data.model_name,
            "layer": self.data.layer,
            "steps": self.steps,
            "tokens": self.config.train.n_tokens,
            "training_seconds": round(seconds, 3),
        }
        summary["coders"] = finish_coders(
            self.members, self.run, self.data, self.config, self.plugins, self.watcher, self.device
        )
        write_json(self.run.metrics_file, summary)
        self.run.update_record(status="finished", completed_at=now())
        checkpoints.remove_state(self.run, self.steps)
        for tracker in self.trackers:
            tracker.finish()
        self.plugins.hook.qsae_train_end(run=self.run)
