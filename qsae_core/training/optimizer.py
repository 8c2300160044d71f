"""Adam over a coder's parameters, with matrices whose rows stay on the unit sphere."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from qsae_core import kernels
from qsae_core.coders.normalization import Normalization
from qsae_core.coders.quantized_matrix import normalize_rows_
from qsae_core.kernels import partners

EPS = 1e-8


class Adam:
    """Adam (Kingma and Ba, 2015) with clipping by the norm of all gradients together; moments are float32.

    Args:
        parameters: name -> parameter; those without a gradient at a step are left as they are.
        unit_rows: parameters ``[F, D]`` whose rows keep norm 1: the gradient's component along a row is taken
            out before, and the row is renormalised after the step.
        rotated: name of a parameter -> the normalisation that rotated its last dimension: its moments are
            those of the data's axes, and it moves as the parameter in these would.
        rate_factors: name of a parameter -> what a step's rate is multiplied by for it; 1 for all others.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        clip: largest norm of all gradients together; None: no limit.
        divided: names of parameters of which partners have other rows.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        unit_rows: Iterable[nn.Parameter],
        rotated: Mapping[str, Normalization],
        *,
        rate_factors: Mapping[str, float],
        beta1: float,
        beta2: float,
        clip: float | None,
        divided: Collection[str] = (),
    ) -> None:
        self.parameters = dict(parameters)
        self.beta1, self.beta2, self.clip = beta1, beta2, clip
        self._unit_rows = {id(parameter) for parameter in unit_rows}
        self._rotated, self._rate_factors = dict(rotated), dict(rate_factors)
        self._divided = divided
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}
        self._steps: dict[str, int] = {}

    @torch.no_grad()
    def step(self, rate: float) -> float:
        """One step at this rate from the parameters' gradients, which are used up; gives their norm.

        The norm is that after the projection and before clipping.
        """
        gradients = dict(self._gradients())
        alike = own = 0.0
        for name, gradient in gradients.items():
            weight = self.parameters[name].detach() if self._keeps_norm(name) else None
            square = kernels.project_rows(gradient, weight)
            alike, own = (alike, own + square) if name in self._divided else (alike + square, own)
        norm = math.sqrt(alike + float(partners().sum(torch.tensor(own, dtype=torch.float64))))
        scale = 1.0 if self.clip is None else min(1.0, self.clip / (norm + 1e-6))
        for name, gradient in gradients.items():
            parameter = self.parameters[name]
            norms = self._rotated.get(name)
            if norms is not None and norms.rotated:
                self._turned(name, gradient, norms, rate, scale)
            else:
                self._move(name, parameter.detach(), gradient, rate, scale, self._keeps_norm(name))
            parameter.grad = None
            kernels.recycle(gradient)
        return norm

    def _move(
        self, name: str, weight: Tensor, gradient: Tensor, rate: float, scale: float, unit_rows: bool
    ) -> None:
        """Adam's step of a parameter, made on ``weight``."""
        if name not in self._moments:
            self._moments[name] = (torch.zeros_like(weight), torch.zeros_like(weight))
        self._steps[name] = self._steps.get(name, 0) + 1
        kernels.adam(
            weight,
            gradient,
            *self._moments[name],
            lr=rate * self._rate_factors.get(name, 1.0),
            beta1=self.beta1,
            beta2=self.beta2,
            eps=EPS,
            step=self._steps[name],
            grad_scale=scale,
            unit_rows=unit_rows,
        )

    def _turned(self, name: str, gradient: Tensor, norm: Normalization, rate: float, scale: float) -> None:
        """The step in the data's axes, rotated: the weight itself is not turned forth and back."""
        weight = self.parameters[name].detach()
        move = torch.zeros_like(weight)
        self._move(name, move, norm.unrotated(gradient), rate, scale, unit_rows=False)
        weight.add_(norm.direction(move))
        if self._keeps_norm(name):
            normalize_rows_(weight)

    def forget(self, entries: Mapping[str, Tensor]) -> None:
        """Set the moments of some entries to zero; where they are a whole row, second ones to the mean row.

        From second moments of zero as well, whose bias the number of the step no longer corrects, the row's
        next steps would be three times as long as those of the others. Single weights of a row may be masked
        ones, which have no moments.

        Args:
            entries: parameter name -> bool, of the parameter's shape.
        """
        for name, chosen in entries.items():
            if name in self._moments:
                exp_avg, exp_avg_sq = self._moments[name]
                exp_avg.masked_fill_(chosen, 0.0)
                whole = chosen if chosen.dim() == 1 else chosen.all(1, keepdim=True)
                usual = self._mean_row(name, exp_avg_sq).where(whole, 0.0)
                torch.where(chosen, usual, exp_avg_sq, out=exp_avg_sq)

    def state(self) -> dict[str, Tensor]:
        """``{exp_avg|exp_avg_sq|step}.{parameter}`` -> tensor."""
        tensors: dict[str, Tensor] = {}
        for name, (exp_avg, exp_avg_sq) in self._moments.items():
            tensors |= {f"exp_avg.{name}": exp_avg, f"exp_avg_sq.{name}": exp_avg_sq}
            tensors[f"step.{name}"] = torch.tensor(self._steps[name])
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what ``state`` gave."""
        for name, parameter in self.parameters.items():
            if f"step.{name}" not in tensors:
                continue
            first, second = (
                tensors[f"{key}.{name}"].to(parameter.device, copy=True) for key in ("exp_avg", "exp_avg_sq")
            )
            self._moments[name], self._steps[name] = (first, second), int(tensors[f"step.{name}"])

    def _mean_row(self, name: str, rows: Tensor) -> Tensor:
        """The mean over all rows of a matrix, those of partners too."""
        if name not in self._divided:
            return rows.mean(0)
        return partners().sum(rows.mean(0)) / partners().world

    def _keeps_norm(self, name: str) -> bool:
        return id(self.parameters[name]) in self._unit_rows

    def _gradients(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                yield name, parameter.grad.contiguous()
