"""One run from configuration to results: data, coders, loop, checkpoints, artifact, evaluation."""

from __future__ import annotations

import contextlib
import pathlib
from typing import TYPE_CHECKING, Any

import torch

from qsae_core.compose.compose import compose_data, compose_evaluations
from qsae_core.compose.kernels import activate_kernels
from qsae_core.compose.setup import resolve_device
from qsae_core.config.run import RunConfig
from qsae_core.contracts.data import DataSource
from qsae_core.contracts.shards import shard
from qsae_core.errors import TrainingError
from qsae_core.interrupt import sigterm_interrupts
from qsae_core.kernels.processes import alone
from qsae_core.launched import launched
from qsae_core.results.beginning import open_run
from qsae_core.results.files import write_json
from qsae_core.results.run import FLOAT_TWIN, Run, now, run_path
from qsae_core.training import checkpoints, early_end
from qsae_core.training.chronicle import Chronicle
from qsae_core.training.finish import finish_coders
from qsae_core.training.loop import TrainingLoop
from qsae_core.training.parts import check_cadences, check_latents, check_members, check_parts
from qsae_core.training.sample import statistics_sample
from qsae_core.training.setup import (
    Member,
    check_order,
    check_targets,
    compose_members,
    off_centre,
)
from qsae_core.training.start import check_same, check_same_data, joined, own_device
from qsae_core.training.team import Team, share_of
from qsae_core.training.trainer import Trainer
from qsae_core.training.watcher import Unwatched, Watcher

if TYPE_CHECKING:
    from qsae_core.plugins.records import Plugins


def train(config: RunConfig, plugins: Plugins, watcher: Watcher) -> Run:
    """Carry out a run; returns it with its artifact and ``metrics.json`` written.

    Where torchrun started several processes, each calls this, and trains on its part of every batch; the
    first one alone writes, shows and evaluates, and the others return when training has ended.

    Raises:
        QsaeError: for what the user can mend; nothing that was complete is lost.
        TrainingError: on a non-finite loss or an interrupt; says how to resume.
        StoppedError: in a process that ends since another raised one of these.
    """
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    place = launched()
    device = own_device(resolve_device(config.run.device), place)
    with sigterm_interrupts(), joined(place, device) as team, contextlib.ExitStack() as opened:
        shown = watcher if team.is_first else Unwatched()
        with team.all_or_none():
            check_same(config, team)
            check_parts(config, team, plugins.registry)
            check_cadences(config)
        opened.enter_context(team.split(config.train.latent_parallel))
        with team.all_or_none():
            share_of(config.train.batch_size, team, "batch_size")
            for active in activate_kernels(config.run.kernels, plugins.registry):
                shown.message(str(active))
            with alone():
                data = compose_data(config, plugins.registry, device=device)
            opened.callback(data.close)
            opened.callback(shown.stop)
            config = config.for_width(data.d_in, data.layers_in)
            plugins.hook.qsae_configure.call_historic(kwargs={"run_config": config})
            state = data.state_dict() if team.world > 1 else {}
            own = shard(data, team.processes.rank, team.processes.world)
            run = _TrainingRun(config, plugins, shown, own, device, team)
        with team.all_or_none():
            check_same_data(state, team)
        return run.carry_out()


class _TrainingRun:
    """The state of one run while it is carried out."""

    def __init__(
        self,
        config: RunConfig,
        plugins: Plugins,
        watcher: Watcher,
        data: DataSource,
        device: str,
        team: Team,
    ) -> None:
        self.config, self.plugins, self.watcher = config, plugins, watcher
        self.data, self.device, self.team = data, device, team
        self.steps = config.train.n_steps
        self.members: list[Member] = []
        self.trainers: dict[str, Trainer] = {}
        self.chronicle = Chronicle(config, plugins, watcher, writes=team.is_first)
        compose_evaluations(config, plugins.registry)  # a faulty one should stop the run now, not at its end

    def carry_out(self) -> Run:
        path = run_path(self.config, self.data.model_name, self.data.layer, self.steps)
        writes, resumes = self.team.is_first, self.config.run.resume
        with self.team.all_or_none():
            self._compose_members()
            self.run = self._open(path) if writes else Run(path)
        with self.chronicle, early_end.noted(self.run) if writes else contextlib.nullcontext():
            with early_end.removed(self.run, if_fresh=writes and not resumes):
                first = self._restore() if resumes else self._initialize()
                self._begin_alike()
            self.chronicle.begin(self.run)
            with early_end.lost(self.run), early_end.unwritten(self.run):
                seconds = self._loop().carry_out(first)
                self.team.leave()
            if writes:
                with alone(), early_end.finishing(self.run), early_end.unwritten(self.run):
                    self._finish(seconds)
        return self.run

    # --- before the first step

    def _open(self, path: pathlib.Path) -> Run:
        run = open_run(self.config, path, self.data.describe())
        active = activate_kernels(self.config.run.kernels, self.plugins.registry)
        run.update_record(status="running", active_kernels=[str(kernel_set) for kernel_set in active])
        return run

    def _compose_members(self) -> None:
        check_latents(self.config, self.team.partners.world)
        self.members = compose_members(self.config, self.plugins, self.data)
        check_order(self.members, self.data)
        check_members(self.members, self.team)
        if any(member.kind == FLOAT_TWIN for member in self.members):
            self.watcher.message(
                "a float twin (the same coder without quantizers) is trained on the same batches, "
                "so that you see what quantization costs; --no-compare-float leaves it out"
            )

    def _initialize(self) -> int:
        self._warn()
        self.watcher.message(f"measuring statistics on {self.config.train.statistics_tokens} vectors")
        sample = statistics_sample(self.data, self.config.train.statistics_tokens, self.team)
        with self.team.all_or_none():
            check_targets(self.config, sample, self.data)
            for member in self.members:
                member.initialize(sample)
                if (warning := off_centre(member, sample)) is not None:
                    self.watcher.message(f"warning: {warning}")
            self._make_trainers()
        main = self.trainers[self.members[0].key]
        if main.coder.is_quantized and main.quantize_from > 0:
            self.watcher.message(
                f"weights pass the quantizers from step {main.quantize_from + 1} on (train.quantize_after): "
                "until then a step's fvu is of float weights; held out, it is measured quantized"
            )
        torch.manual_seed(self.config.run.seed)
        return 0

    def _restore(self) -> int:
        with self.team.all_or_none():
            self._make_trainers()
            states = self.run.resume_states()
            if not states:  # the first process has some, or it would have refused
                raise TrainingError(
                    f"process {self.team.rank} finds no checkpoint",
                    where=str(self.run.path),
                    allowed="a results folder that all processes see",
                    next="--out on a file system that is shared",
                )
        latest = states[-1]
        first = checkpoints.load_state(latest, self.trainers, self.data, self.team)
        if self.team.is_first:
            self.run.truncate_log(first)
            self.run.truncate_screens(first)
        self.watcher.message(f"resuming after step {first} from {latest}")
        self._warn()
        return first

    def _warn(self) -> None:
        if warning := self.data.warning():
            self.watcher.message(f"warning: {warning}")

    def _make_trainers(self) -> None:
        for member in self.members:
            coder = member.coder.to(self.device)
            self.trainers[member.key] = Trainer(coder, self.config.train, member.key, self.team)

    def _begin_alike(self) -> None:
        """From here on all processes make the same steps, and nothing of a coder travels any more."""
        for trainer in self.trainers.values():
            state = trainer.state()
            divided = trainer.divided_state(state)
            self.team.align(
                [tensor for name, tensor in state.items() if name not in divided],
                [tensor for name, tensor in state.items() if name in divided],
            )

    def _loop(self) -> TrainingLoop:
        return TrainingLoop(
            self.config,
            self.plugins,
            self.chronicle,
            self.data,
            self.device,
            self.team,
            self.members,
            self.trainers,
            self.run,
        )

    # --- after the last step

    def _finish(self, seconds: float) -> None:
        self.watcher.stop()
        if self.team.partners.world > 1:
            self._bring_together()
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
        self.chronicle.end(self.run)

    def _bring_together(self) -> None:
        """Whole coders from the state after the last step, on the CPU; twins, which evaluations run beside
        what was stored, on the device."""
        self.trainers.clear()
        self.members.clear()
        self.members = compose_members(self.config, self.plugins, self.data)
        checkpoints.load_coders(self.run, self.steps, {member.key: member.coder for member in self.members})
        for member in self.members:
            if member.kind == FLOAT_TWIN:
                member.coder.to(self.device)
