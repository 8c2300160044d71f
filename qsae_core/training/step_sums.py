"""Sums over training steps, from which logs are made. Shapes: B tokens, D width."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.contracts.coder import LossOutput
from qsae_core.kernels import partners, processes
from qsae_core.training.team import Team


class StepSums(NamedTuple):
    """What a step adds."""

    tokens: int
    terms: dict[str, float]
    values: dict[str, float]
    squared_error: float
    spread: float
    active: float
    grad_norm: float


@torch.no_grad()
def sums_of(output: LossOutput, grad_norm: float) -> StepSums:
    """Of one step, what this process saw of it."""
    target = output.target.detach().flatten(1)
    error = _sum_of_squares(target - output.reconstruction.detach().flatten(1))
    spread = _sum_of_squares(target - processes().mean_row(target))
    return StepSums(
        tokens=target.shape[0],
        terms={name: term.item() for name, term in output.terms.items()},
        values={name: value.item() for name, value in output.values.items()},
        squared_error=error,
        spread=spread,
        active=float(partners().sum(output.codes.active.sum())),
        grad_norm=grad_norm,
    )


class StepMeans:
    """Means over the steps since the last report, and over processes.

    A term that only some steps have (``SparseCoder.term_periods``) is shown with the weight that it has on
    average, as the last of these steps had it: a loss that leapt at every eighth step would say nothing.

    Args:
        periods: of such terms.
    """

    def __init__(self, periods: Mapping[str, int]) -> None:
        self.periods = periods
        self.sums: list[StepSums] = []
        self.last: dict[str, float] = {}
        """Of terms with a period, what was shown last."""

    def report(self, team: Team) -> dict[str, float | None]:
        """Of the steps that were added since; nothing where there are none."""
        sums, self.sums = self.sums, []
        if not sums:
            return {}
        terms = list(dict.fromkeys(term for s in sums for term in s.terms))  # some are not of every step
        squared_error, spread, active, *others = team.totals(
            [
                sum(s.squared_error for s in sums),
                sum(s.spread for s in sums),
                sum(s.active for s in sums),
                *(sum(s.terms.get(term, 0.0) for s in sums) for term in terms),
                *(sum(s.values.get(name, 0.0) for s in sums) for name in sums[-1].values),
            ]
        )
        parts = len(sums) * team.processes.world
        of_terms, of_values = others[: len(terms)], others[len(terms) :]
        means = self._terms(sums, dict(zip(terms, of_terms, strict=True)), team.processes.world)
        shown: dict[str, float | None] = {"loss": math.fsum(means.values())}
        shown |= {f"loss/{term}": mean for term, mean in means.items()}
        for name, total in zip(sums[-1].values, of_values, strict=True):
            # values may be shares of the variance of a single vector
            shown[name] = total / parts if math.isfinite(total) else None
        shown["fvu"] = squared_error / spread if spread > 0 else None
        shown["l0"] = active / (sum(s.tokens for s in sums) * team.processes.world)
        shown["grad_norm"] = sum(s.grad_norm for s in sums) / len(sums)
        return shown

    def _terms(self, sums: Sequence[StepSums], totals: Mapping[str, float], world: int) -> dict[str, float]:
        means = {}
        for term, total in totals.items():
            if term in self.periods:
                n_steps = sum(term in s.terms for s in sums)
                self.last[term] = total / (n_steps * self.periods[term] * world)
            else:
                means[term] = total / (len(sums) * world)
        return means | self.last

    def state(self) -> dict[str, Tensor]:
        """What the next report may need of the steps before."""
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in self.last.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what ``state`` gave."""
        self.last = {name: value.item() for name, value in tensors.items()}


def _sum_of_squares(difference: Tensor) -> float:
    """Row by row in float32, over the rows in float64."""
    return torch.linalg.vecdot(difference, difference).sum(dtype=torch.float64).item()
