"""The metric ``sparsity``. Shapes: B tokens, F latents, N tokens in all."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from qsae_core import ComponentConfig
from qsae_core.contracts import Metric, Observation
from qsae_metrics.moments import float64, ratio

QUANTILES = {"p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}


class Sparsity(Metric):
    """How sparse codes are. A latent fires on a token where its value is not zero; negative values count.

    ``l0`` = mean over tokens of the number of latents that fire;
    ``l1`` = mean over tokens of sum_j |f_j| ||w_j||;
    ``dead_fraction`` = share of latents that never fire in the stream;
    ``density_over_1pct``, ``density_over_10pct`` = share of latents that fire on over 1% (10%) of tokens;
    ``log10_density_p05`` to ``_p95`` = quantiles over the latents that fire at all of log10 of the share of
    tokens on which they fire; None where none fires.
    """

    def __init__(self, config: ComponentConfig) -> None:
        super().__init__(config)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._tokens = 0
        self._l1 = 0.0
        self._fired_F: Tensor | None = None

    def update(self, observation: Observation) -> None:
        """Take one batch into account; raises ValueError where the number of latents has changed."""
        codes = observation.codes
        fired_F = codes.fired().cpu()
        if self._fired_F is None:
            self._fired_F = torch.zeros_like(fired_F)
        if len(fired_F) != len(self._fired_F):
            raise ValueError(f"codes of {len(fired_F)} latents after codes of {len(self._fired_F)}")
        self._fired_F += fired_F
        self._tokens += codes.batch_size
        norms_F = float64(observation.atom_norms).reshape(codes.n_latents, -1).norm(dim=1)
        self._l1 += float((float64(codes.values).abs() * norms_F[codes.indices]).sum())

    def merge(self, other: Sparsity) -> None:
        """Add the counts of another one; raises ValueError where its codes have other latents."""
        if other._fired_F is None:
            return
        if self._fired_F is None:
            self._fired_F = torch.zeros_like(other._fired_F)
        if len(self._fired_F) != len(other._fired_F):
            raise ValueError(f"codes of {len(other._fired_F)} latents beside codes of {len(self._fired_F)}")
        self._fired_F += other._fired_F
        self._tokens += other._tokens
        self._l1 += other._l1

    def compute(self) -> dict[str, float | None]:
        """The values named above."""
        names = ["l0", "l1", "dead_fraction", "density_over_1pct", "density_over_10pct"]
        quantiles = [f"log10_density_{name}" for name in QUANTILES]
        values: dict[str, float | None] = dict.fromkeys([*names, *quantiles])
        if self._fired_F is None or self._tokens == 0:
            return values
        density_F = self._fired_F.to(torch.float64) / self._tokens
        values["l0"] = float(self._fired_F.sum()) / self._tokens
        values["l1"] = ratio(self._l1, self._tokens)
        values["dead_fraction"] = _share(density_F == 0)
        values["density_over_1pct"] = _share(density_F > 0.01)
        values["density_over_10pct"] = _share(density_F > 0.1)
        alive = density_F[density_F > 0].log10().numpy()
        if len(alive):
            values |= zip(quantiles, np.quantile(alive, list(QUANTILES.values())).tolist(), strict=True)
        return values


def _share(which_F: Tensor) -> float:
    return float(which_F.to(torch.float64).mean())
