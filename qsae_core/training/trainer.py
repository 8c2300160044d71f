"""The training step of one coder; knows only the contracts. Shapes: B tokens, D width."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.contracts.coder import Budget, LossOutput
from qsae_core.contracts.data import Batch
from qsae_core.errors import TrainingError
from qsae_core.kernels import partners
from qsae_core.training.optimizer import Adam
from qsae_core.training.screening import Screening, screen_recall
from qsae_core.training.step_sums import StepMeans, sums_of
from qsae_core.training.team import ALONE, Team

if TYPE_CHECKING:
    from qsae_core.config.settings import TrainConfig

LONG_RUN_STEPS = 20_000
"""Runs of this many steps or more take the rate of the 1/sqrt(F) rule as it is; shorter ones a higher one."""


def auto_learning_rate(n_latents: int, steps: int) -> float:
    """Adam's peak rate: ``2e-4 / sqrt(F / 2^14)`` (Gao et al., 2024), and more in short runs.

    They get it times ``sqrt(20000 / steps)``, at most times 10: the rate that is best for a long run is too
    slow for a short one.
    """
    return 2e-4 / math.sqrt(n_latents / 2**14) * min(10.0, max(1.0, math.sqrt(LONG_RUN_STEPS / steps)))


def schedule(step: int, steps: int, warmup: float, decay: float) -> float:
    """Share of the peak rate at a step (from 0): linear warm-up, constant, linear decay towards 0."""
    warm, cool = warmup * steps, decay * steps
    rise = (step + 1) / warm if step + 1 < warm else 1.0
    fall = (steps - step) / cool if steps - step < cool else 1.0
    return min(rise, fall)


RECALL_TOKENS = 64
"""Tokens of a batch on which a screen's recall is measured, at every logged step."""


class Trainer:
    """One coder, its optimiser and its schedule.

    Args:
        coder: initialised, on its device.
        config: the ``train`` section.
        name: what messages and checkpoints call it.
        team: the processes that train it, each on its part of every batch.
        rate_factors: of parameters by name; None: the coder's own, which are for training from the start.
    """

    def __init__(
        self,
        coder: MatrixCoder,
        config: TrainConfig,
        name: str,
        team: Team = ALONE,
        rate_factors: Mapping[str, float] | None = None,
    ) -> None:
        self.coder, self.config, self.name, self.team = coder, config, name, team
        self.steps = config.n_steps
        self.peak_rate = (
            auto_learning_rate(coder.dictionary_size, self.steps) if config.lr == "auto" else float(config.lr)
        )
        self.parameters = {n: p for n, p in coder.named_parameters() if p.requires_grad}
        self.divided = coder.latent_tensors() if partners().world > 1 else frozenset()
        """Tensors of the coder of which partners have other rows."""
        self.optimizer = Adam(
            self.parameters,
            [matrix.master for matrix in coder.unit_norm_matrices()],
            coder.rotated_parameters(),
            rate_factors=coder.rate_factors() if rate_factors is None else rate_factors,
            beta1=config.beta1,
            beta2=config.beta2,
            clip=config.clip,
            divided=self.divided,
        )
        self.rate = 0.0
        self.means = StepMeans(coder.term_periods)
        self.screening = Screening(coder, config.screen, self.steps, name)
        coder.begin_training(Budget(self.steps, config.n_tokens, config.batch_size))

    @property
    def quantize_from(self) -> int:
        """The first step (from 0) whose forward pass goes through the quantizers."""
        return math.ceil(self.config.quantize_after * self.steps)

    @property
    def freeze_from(self) -> int:
        """The first step (from 0) that leaves a quantized decoder as it is; where asked for, any decoder."""
        if self.config.freeze_decoder:
            return 0
        return max(self.quantize_from, math.ceil(self.config.freeze_decoder_after * self.steps))

    def step(self, batch: Batch, step: int) -> None:
        """Train on one batch, or on this process's part of it; ``step`` counts from 0.

        Raises:
            TrainingError: if the loss is not finite, with the batch's statistics; no weight has changed then.
        """
        coder = self.coder.train()
        if step == self.quantize_from > 0:
            coder.begin_quantization()
        coder.quantize_weights(step >= self.quantize_from)
        coder.freeze_decoder(step >= self.freeze_from, plain=self.config.freeze_decoder)
        self.screening.before_step(batch.x, step, weights_change=step == self.quantize_from)
        self.rate = self.peak_rate * schedule(step, self.steps, self.config.warmup, self.config.decay)
        output = coder.loss(batch)
        total = torch.stack(list(output.terms.values())).sum()
        finite = math.isfinite(total.item())
        self.team.stop_if(None if finite else TrainingError(_non_finite(self.name, step, output, batch)))
        of_latents = [p for n, p in self.parameters.items() if n in self.divided]
        alike = [p for n, p in self.parameters.items() if n not in self.divided]
        self.team.backward(total, alike, of_latents)
        coder.before_step()
        norm = self.optimizer.step(self.rate)
        coder.after_step(step + 1)
        self.optimizer.forget(coder.restarted())
        self.means.sums.append(sums_of(output, norm))
        self.last_inputs = batch.x[:RECALL_TOKENS]

    def report(self) -> dict[str, float | None]:
        """Means over the steps since the last report, and over the processes; shares and rates as they stand
        now. What a coder adds to its loss in ``values`` is of each process's part of a batch."""
        values = self.means.report(self.team)
        if not values:
            return {}
        values["dead"] = self.coder.dead_share()
        values["lr"] = self.rate
        if self.config.screen == "auto" and self.coder.screen != "none":
            values["screen_recall"] = self.screening.recall
        elif self.coder.screen != "none":
            values["screen_recall"] = screen_recall(self.coder, self.last_inputs)
        return values

    # --- state, as tensors, for checkpoints

    def state(self) -> dict[str, Tensor]:
        """Everything from which ``load_state`` continues bit for bit: weights, buffers, Adam's moments."""
        tensors = {f"coder.{n}": t for n, t in self.coder.state_dict().items()}
        tensors |= {f"adam.{n}": t for n, t in self.optimizer.state().items()}
        tensors |= {f"screen.{n}": t for n, t in self.screening.state().items()}
        tensors |= {f"shown.{n}": t for n, t in self.means.state().items()}
        return {name: tensor.detach() for name, tensor in tensors.items()}

    def divided_state(self, names: Iterable[str]) -> set[str]:
        """Of names of ``state`` those of which partners have other rows."""
        prefixes = ("coder.", "adam.exp_avg.", "adam.exp_avg_sq.")
        divided = {f"{prefix}{name}" for prefix in prefixes for name in self.divided}
        return divided.intersection(names)

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what ``state`` gave.

        Raises:
            RuntimeError: if the tensors are not those of this coder.
        """
        coder, adam, screen, shown = (
            {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}
            for prefix in ("coder.", "adam.", "screen.", "shown.")
        )
        self.coder.load_state_dict(coder)
        self.optimizer.load_state(adam)
        self.screening.load_state(screen)
        self.means.load_state(shown)


def _non_finite(name: str, step: int, output: LossOutput, batch: Batch) -> str:
    terms = ", ".join(f"{n} = {t.item():.4g}" for n, t in output.terms.items())
    x = batch.x.detach().double()
    finite = x[torch.isfinite(x)]
    statistics = (
        f"{x.shape[0]} vectors, {x.numel() - finite.numel()} values not finite, "
        f"min {finite.min():.4g}, max {finite.max():.4g}, rms {finite.square().mean().sqrt():.4g}"
        if finite.numel()
        else f"{x.shape[0]} vectors, none of their values finite"
    )
    return f"the loss of {name} is not finite at step {step + 1} ({terms}); the batch: {statistics}"
