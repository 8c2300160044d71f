"""The metric ``reconstruction``. Shapes: B tokens, D width; r = x - x_hat; N tokens in all."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from qsae_core.component import ComponentConfig
from qsae_core.measures import Metric, Observation
from qsae_metrics import ReconstructionConfig
from qsae_metrics.moments import ROUNDING, MeanOfRatios, Spread, float64, ratio


class Reconstruction(Metric):
    """How well vectors are reconstructed.

    ``fvu`` = sum ||r||^2 / sum ||x - mean(x)||^2 with the mean of the whole stream;
    ``explained_variance`` = 1 - fvu;
    ``fve_variance`` = 1 - sum_d Var(r) / sum_d Var(x), blind to a constant error;
    ``mse`` = mean ||r||^2; ``mse_per_dim`` = mse / D;
    ``norm_mse`` = mean ||r||^2 / ||x||^2; ``l2_ratio`` = mean ||x_hat|| / ||x||;
    ``cosine`` = mean cos(x, x_hat);
    ``relative_reconstruction_bias`` = sum ||x_hat||^2 / sum <x, x_hat>;
    with ``legacy``, ``explained_variance_legacy`` = mean 1 - ||r||^2 / ||x - mean of the batch||^2.

    Means of ratios are over the tokens whose ratio exists (a zero vector has no direction). A value is None
    where its denominator is zero or something is not finite. Vectors of several layers ``[B, L, D]`` count
    as one of width L * D.
    """

    optimum = {  # noqa: RUF012 (declared as a ClassVar by the base class)
        "fvu": 0.0,
        "explained_variance": 1.0,
        "fve_variance": 1.0,
        "mse": 0.0,
        "mse_per_dim": 0.0,
        "norm_mse": 0.0,
        "cosine": 1.0,
        "l2_ratio": 1.0,
        "relative_reconstruction_bias": 1.0,
    }
    batch_dependent = frozenset({"explained_variance_legacy"})

    def __init__(self, config: ComponentConfig) -> None:
        super().__init__(config)
        self._legacy = cast(ReconstructionConfig, config).legacy
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._target, self._error = Spread(), Spread()
        self._width = 0
        self._squared_norm_hat = self._inner_product = 0.0
        self._norm_mse, self._l2_ratio, self._cosine = MeanOfRatios(), MeanOfRatios(), MeanOfRatios()
        self._unexplained_legacy = MeanOfRatios()

    def update(self, observation: Observation) -> None:
        """Take one batch into account."""
        x = float64(observation.target).flatten(1)
        x_hat = float64(observation.reconstruction).flatten(1)
        r = x - x_hat
        self._width = x.shape[1]
        self._target.add(x)
        self._error.add(r)
        inner_product = (x * x_hat).sum(1)
        norm, norm_hat, squared_error = x.norm(dim=1), x_hat.norm(dim=1), r.square().sum(1)
        self._squared_norm_hat += float(norm_hat.square().sum())
        self._inner_product += float(inner_product.sum())
        self._norm_mse.add(squared_error, norm.square())
        self._l2_ratio.add(norm_hat, norm)
        self._cosine.add(inner_product, norm * norm_hat)
        if self._legacy:
            self._unexplained_legacy.add(squared_error, _squared_deviation(x))

    def compute(self) -> dict[str, float | None]:
        """The values named above."""
        fvu = ratio(self._error.about_zero, self._target.about_mean)
        variances = ratio(self._error.about_mean, self._target.about_mean)
        values = {
            "fvu": fvu,
            "explained_variance": _one_minus(fvu),
            "fve_variance": _one_minus(variances),
            "mse": ratio(self._error.about_zero, self._error.count),
            "mse_per_dim": ratio(self._error.about_zero, self._error.count * self._width),
            "norm_mse": self._norm_mse.value,
            "cosine": self._cosine.value,
            "l2_ratio": self._l2_ratio.value,
            "relative_reconstruction_bias": ratio(self._squared_norm_hat, self._inner_product),
        }
        if self._legacy:
            values["explained_variance_legacy"] = _one_minus(self._unexplained_legacy.value)
        return values


def _squared_deviation(x_BD: Tensor) -> Tensor:
    """``[B]``: squared distance from the batch's mean; exactly 0 where what is left of it is rounding."""
    deviation = (x_BD - x_BD.mean(0)).square().sum(1)
    return torch.where(deviation > ROUNDING * x_BD.square().sum(1), deviation, 0.0)


def _one_minus(value: float | None) -> float | None:
    return None if value is None else 1 - value
