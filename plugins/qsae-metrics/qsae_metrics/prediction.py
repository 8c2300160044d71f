"""The metric ``kappa``: what quantized atoms should cost.

Shapes: B tokens, L layers, F latents, D width, N entries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core import ComponentConfig
from qsae_core.contracts import Metric, Observation
from qsae_metrics.moments import Spread, float64, ratio


class Kappa(Metric):
    """How much of the data's variance goes through the atoms, and what their rounding should cost.

    If rounding turns atom j away from its direction by an error that is unrelated to those of the others, FVU
    grows by the energy of that error: E sum_j f_j^2 ||w_j||^2 D_j / Var(x), with ||w_j|| the atom's norm
    before quantization and D_j = 1 - cos^2 between before and after (with the best scale, the error left).

    ``kappa`` = E sum_j f_j^2 ||w_j||^2 / Var(x), with Var(x) = E ||x - mean(x)||^2;
    ``weight_error`` = mean of D_j, weighted by the atom's energy E f_j^2 ||w_j||^2;
    ``weight_error_unweighted`` = mean of D_j over all atoms;
    ``predicted_delta_fvu`` = kappa * weight_error, to be compared with what quantization does to FVU: codes
    and encoder that adapt to it make it cost less.

    The last three are None where the atoms before quantization are not known; ``kappa`` is then that of the
    atoms after it, whose norms are smaller (with the best scale, by cos). Of vectors of several layers an
    atom's energy is the mean over layers of its energy there as a share of the layer's variance, as the FVU
    of ``reconstruction`` is a mean over layers.
    """

    def __init__(self, config: ComponentConfig) -> None:
        super().__init__(config)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._targets: list[Spread] = []
        self._energy_FL: Tensor | None = None
        self._errors_F: Tensor | None = None

    def update(self, observation: Observation) -> None:
        """Take one batch into account."""
        codes, errors = observation.codes, observation.atom_errors
        norms_FL = float64(observation.atom_norms if errors is None else errors.norms)
        norms_FL = norms_FL.reshape(codes.n_latents, -1)
        x_BLD = float64(observation.target).reshape(len(observation.target), norms_FL.shape[1], -1)
        if self._energy_FL is None:
            self._energy_FL = torch.zeros(norms_FL.shape, dtype=torch.float64)
            self._targets = [Spread() for _ in range(norms_FL.shape[1])]
        for target, x_BD in zip(self._targets, x_BLD.unbind(1), strict=True):
            target.add(x_BD)
        energy_NL = (float64(codes.values)[:, None] * norms_FL[codes.indices]).square()
        self._energy_FL.index_add_(0, codes.indices.long().cpu(), energy_NL.cpu())
        self._errors_F = None if errors is None else errors.squared_sines

    def merge(self, other: Kappa) -> None:
        """Add the energies and spreads that another one has seen."""
        if other._energy_FL is None:
            return
        if self._energy_FL is None:
            self._energy_FL = torch.zeros_like(other._energy_FL)
            self._targets = [Spread() for _ in other._targets]
        self._energy_FL += other._energy_FL
        for target, its in zip(self._targets, other._targets, strict=True):
            target.merge(its)
        self._errors_F = other._errors_F

    def compute(self) -> dict[str, float | None]:
        """The values named above."""
        names = ("kappa", "weight_error", "weight_error_unweighted", "predicted_delta_fvu")
        values: dict[str, float | None] = dict.fromkeys(names)
        if self._energy_FL is None:
            return values
        errors_F = None if self._errors_F is None else float64(self._errors_F).cpu()
        if errors_F is not None:
            values["weight_error_unweighted"] = float(errors_F.mean())
        variance_L = torch.tensor([target.about_mean for target in self._targets], dtype=torch.float64)
        if not (variance_L > 0).all():
            return values
        shares_F = (self._energy_FL / variance_L).mean(1)
        values["kappa"] = ratio(float(shares_F.sum()), 1)
        if errors_F is not None:
            lost = float((shares_F * errors_F).sum())
            values["weight_error"] = ratio(lost, float(shares_F.sum()))
            values["predicted_delta_fvu"] = ratio(lost, 1)
        return values
