"""The metric ``reconstruction``. Shapes: B tokens, L layers, D width; r = x - x_hat; N tokens in all."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from qsae_core import ComponentConfig
from qsae_core.contracts import Metric, Observation
from qsae_metrics import ReconstructionConfig
from qsae_metrics.moments import ROUNDING, MeanOfRatios, Spread, float64, ratio


class Reconstruction(Metric):
    """How well vectors are reconstructed.

    ``fvu`` = sum ||r||^2 / sum ||x - mean(x)||^2 with the mean of the whole stream;
    ``explained_variance`` = 1 - fvu;
    ``fve_variance`` = 1 - sum_d Var(r) / sum_d Var(x), blind to a constant error;
    ``mse`` = mean ||r||^2; ``mse_per_dim`` = mse / D;
    ``norm_mse`` = mean ||r||^2 / ||x||^2; ``l2_ratio`` = mean ||x_hat|| / ||x||;
    ``l2_norm_in`` = mean ||x||; ``l2_norm_out`` = mean ||x_hat||;
    ``cosine`` = mean cos(x, x_hat);
    ``relative_reconstruction_bias`` = sum ||x_hat||^2 / sum <x, x_hat>;
    with ``legacy``, ``explained_variance_legacy`` = mean 1 - ||r||^2 / ||x - mean of the batch||^2.

    Means of ratios are over the tokens whose ratio exists (a zero vector has no direction). A value is None
    where its denominator is zero or something is not finite.

    Of vectors of several layers ``[B, L, D]`` each value is the mean over layers of the layer's own value,
    with its own mean and variance, so that layers with larger vectors weigh no more; ``fvu_layer_0``, ... are
    the layers' own FVU.

    Of a coder whose first latents are coders of their own, ``fvu_1``, ``fvu_2``, ... are what the codes of
    its first 1, 2, ... groups leave, the last one ``fvu``; ``fvu_min``, ``fvu_mean`` and ``fvu_max`` are over
    these.
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
        self._layers: list[_Layer] = []
        self._shorter: list[Spread] = []

    def update(self, observation: Observation) -> None:
        """Take one batch into account."""
        x_BLD, x_hat_BLD = _by_layer(observation.target), _by_layer(observation.reconstruction)
        if not self._layers:
            self._layers = [_Layer() for _ in range(x_BLD.shape[1])]
        for layer, x_BD, x_hat_BD in zip(self._layers, x_BLD.unbind(1), x_hat_BLD.unbind(1), strict=True):
            layer.add(x_BD, x_hat_BD, legacy=self._legacy)
        if observation.shorter is not None and len(self._layers) == 1:
            decoded = observation.shorter()
            self._shorter = self._shorter or [Spread() for _ in decoded]
            target = float64(observation.target).flatten(1)
            for error, shorter in zip(self._shorter, decoded, strict=True):
                error.add(target - float64(shorter).flatten(1))

    def merge(self, other: Reconstruction) -> None:
        """Add the sums of another one, layer by layer."""
        if not self._layers:
            self._layers = [_Layer() for _ in other._layers]
        for layer, its in zip(self._layers, other._layers, strict=bool(other._layers)):
            layer.merge(its)
        self._shorter = self._shorter or [Spread() for _ in other._shorter]
        for error, its_error in zip(self._shorter, other._shorter, strict=bool(other._shorter)):
            error.merge(its_error)

    def compute(self) -> dict[str, float | None]:
        """The values named above."""
        of_layers = [layer.values(legacy=self._legacy) for layer in self._layers or [_Layer()]]
        values = {name: _mean([layer[name] for layer in of_layers]) for name in of_layers[0]}
        if len(of_layers) > 1:
            values |= {f"fvu_layer_{i}": layer["fvu"] for i, layer in enumerate(of_layers)}
        return values | self._of_groups(values["fvu"])

    def _of_groups(self, fvu: float | None) -> dict[str, float | None]:
        """The values of nested groups, of which the whole is the last; nothing where there is one group."""
        if not self._shorter:
            return {}
        spread = self._layers[0].target.about_mean
        found = [*(ratio(error.about_zero, spread) for error in self._shorter), fvu]
        values = {f"fvu_{i}": value for i, value in enumerate(found, 1)}
        known = [value for value in found if value is not None]
        over_all = {"fvu_min": min(known, default=None), "fvu_mean": _mean(found)}
        over_all["fvu_max"] = max(known, default=None)
        return values | (over_all if len(known) == len(found) else dict.fromkeys(over_all))


class _Layer:
    """Sums over the stream of one layer's vectors."""

    def __init__(self) -> None:
        self.target, self.error = Spread(), Spread()
        self.width = 0
        self.norm = self.norm_hat = self.squared_norm_hat = self.inner_product = 0.0
        self.norm_mse, self.l2_ratio, self.cosine = MeanOfRatios(), MeanOfRatios(), MeanOfRatios()
        self.unexplained_legacy = MeanOfRatios()

    def add(self, x_BD: Tensor, x_hat_BD: Tensor, *, legacy: bool) -> None:
        """Take float64 ``[B, D]`` into account."""
        r_BD = x_BD - x_hat_BD
        self.width = x_BD.shape[1]
        self.target.add(x_BD)
        self.error.add(r_BD)
        inner_product = (x_BD * x_hat_BD).sum(1)
        norm, norm_hat, squared_error = x_BD.norm(dim=1), x_hat_BD.norm(dim=1), r_BD.square().sum(1)
        self.norm += float(norm.sum())
        self.norm_hat += float(norm_hat.sum())
        self.squared_norm_hat += float(norm_hat.square().sum())
        self.inner_product += float(inner_product.sum())
        self.norm_mse.add(squared_error, norm.square())
        self.l2_ratio.add(norm_hat, norm)
        self.cosine.add(inner_product, norm * norm_hat)
        if legacy:
            self.unexplained_legacy.add(squared_error, _squared_deviation(x_BD))

    def merge(self, other: _Layer) -> None:
        self.width = self.width or other.width
        self.norm += other.norm
        self.norm_hat += other.norm_hat
        self.squared_norm_hat += other.squared_norm_hat
        self.inner_product += other.inner_product
        self.target.merge(other.target)
        self.error.merge(other.error)
        self.norm_mse.merge(other.norm_mse)
        self.l2_ratio.merge(other.l2_ratio)
        self.cosine.merge(other.cosine)
        self.unexplained_legacy.merge(other.unexplained_legacy)

    def values(self, *, legacy: bool) -> dict[str, float | None]:
        fvu = ratio(self.error.about_zero, self.target.about_mean)
        variances = ratio(self.error.about_mean, self.target.about_mean)
        values = {
            "fvu": fvu,
            "explained_variance": _one_minus(fvu),
            "fve_variance": _one_minus(variances),
            "mse": ratio(self.error.about_zero, self.error.count),
            "mse_per_dim": ratio(self.error.about_zero, self.error.count * self.width),
            "norm_mse": self.norm_mse.value,
            "cosine": self.cosine.value,
            "l2_ratio": self.l2_ratio.value,
            "l2_norm_in": ratio(self.norm, self.target.count),
            "l2_norm_out": ratio(self.norm_hat, self.target.count),
            "relative_reconstruction_bias": ratio(self.squared_norm_hat, self.inner_product),
        }
        if legacy:
            values["explained_variance_legacy"] = _one_minus(self.unexplained_legacy.value)
        return values


def _by_layer(vectors: Tensor) -> Tensor:
    """float64 ``[B, L, D]``; L is 1 for ``[B, D]``."""
    return float64(vectors if vectors.dim() == 3 else vectors.unsqueeze(1))


def _mean(values: list[float | None]) -> float | None:
    """None where one of them is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _squared_deviation(x_BD: Tensor) -> Tensor:
    """``[B]``: squared distance from the batch's mean; exactly 0 where what is left of it is rounding."""
    deviation = (x_BD - x_BD.mean(0)).square().sum(1)
    return torch.where(deviation > ROUNDING * x_BD.square().sum(1), deviation, 0.0)


def _one_minus(value: float | None) -> float | None:
    return None if value is None else 1 - value
