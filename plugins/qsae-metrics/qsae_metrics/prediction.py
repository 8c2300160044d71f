"""The metric ``kappa``: what quantized atoms should cost. Shapes: B tokens, F latents, D width, N entries."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.component import ComponentConfig
from qsae_core.measures import Metric, Observation
from qsae_metrics.moments import Spread, float64, ratio


class Kappa(Metric):
    """How much of the data's variance goes through the atoms, and what their rounding should cost.

    If rounding turns atom j away from its direction by an error that is unrelated to those of the others, FVU
    grows by the energy of that error: E sum_j f_j^2 ||w_j||^2 D_j / Var(x), with D_j = 1 - cos^2 between the
    atom before and after quantization (with the best scale, the error left of it).

    ``kappa`` = E sum_j f_j^2 ||w_j||^2 / Var(x), with Var(x) = E ||x - mean(x)||^2;
    ``weight_error`` = mean of D_j, weighted by the atom's energy E f_j^2 ||w_j||^2;
    ``weight_error_unweighted`` = mean of D_j over all atoms;
    ``predicted_delta_fvu`` = kappa * weight_error, to be compared with what quantization does to FVU: codes
    and encoder that adapt to it make it cost less.

    The last three are None where the atoms before quantization are not known.
    """

    def __init__(self, config: ComponentConfig) -> None:
        super().__init__(config)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._target = Spread()
        self._energy_F: Tensor | None = None
        self._errors_F: Tensor | None = None

    def update(self, observation: Observation) -> None:
        """Take one batch into account."""
        codes = observation.codes
        if self._energy_F is None:
            self._energy_F = torch.zeros(codes.n_latents, dtype=torch.float64)
        self._target.add(float64(observation.target).flatten(1))
        energy_N = (float64(codes.values) * float64(observation.atom_norms)[codes.indices]).square()
        self._energy_F.index_add_(0, codes.indices.long().cpu(), energy_N.cpu())
        self._errors_F = observation.atom_errors

    def compute(self) -> dict[str, float | None]:
        """The values named above."""
        names = ("kappa", "weight_error", "weight_error_unweighted", "predicted_delta_fvu")
        values: dict[str, float | None] = dict.fromkeys(names)
        if self._energy_F is None:
            return values
        energy, variance = float(self._energy_F.sum()), self._target.about_mean
        values["kappa"] = ratio(energy, variance)
        if self._errors_F is not None:
            errors_F = float64(self._errors_F).cpu()
            lost = float((self._energy_F * errors_F).sum())
            values["weight_error"] = ratio(lost, energy)
            values["weight_error_unweighted"] = float(errors_F.mean())
            values["predicted_delta_fvu"] = ratio(lost, variance)
        return values
