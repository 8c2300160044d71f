"""Options of the quantizers; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from qsae_core import ComponentConfig, option

REFUSED = {
    ("binary", "twn"): "the TWN rule chooses which weights become zero, and a binary grid has no zero",
    (
        "binary",
        "absmax",
    ): "every weight would become as large as the row's largest; the best scale is absmean",
    ("uniform", "twn"): "the TWN rule is for the ternary grid",
    ("uniform", "absmean"): "the mean says nothing about the range that a uniform grid has to cover",
}
"""(grid, scale) -> why they do not go together."""


class NoneConfig(ComponentConfig):
    """Leave the weights as they are: float32, 32 bits each."""


class HalfConfig(ComponentConfig):
    """Store weights as 16-bit floats; those that are of that type already stay as they are."""

    dtype: Literal["bfloat16", "float16"] = option(
        "bfloat16", "bfloat16 (8 bits of precision, the range of float32) or float16 (11 bits, up to 65504)"
    )


class ScaledConfig(ComponentConfig):
    """Options of every quantizer with scales."""

    granularity: Literal["row", "tensor", "group"] = option(
        "row", "one scale per row, one for the whole matrix, or one per group of group_size columns of a row"
    )
    group_size: int | None = option(None, "columns per scale, with granularity group", gt=0)

    @model_validator(mode="after")
    def _group_has_a_size(self) -> ScaledConfig:
        if self.granularity == "group" and self.group_size is None:
            raise ValueError(
                "granularity 'group' needs group_size, a divisor of the matrix's width (64 or 128)"
            )
        if self.granularity != "group" and self.group_size is not None:
            raise ValueError(
                f"group_size = {self.group_size} contradicts granularity {self.granularity!r}: "
                "choose granularity 'group', or leave out group_size"
            )
        return self


class SteConfig(ScaledConfig):
    """Round each weight to its row's grid; the gradient goes straight through (Bengio et al., 2013)."""

    grid: Literal["auto", "ternary", "binary", "uniform"] = option(
        "auto",
        "ternary {-1, 0, +1}, binary {-1, +1}, or uniform: 2^n_bits evenly spaced points around zero; "
        "auto: uniform where n_bits is given, else ternary",
    )
    n_bits: int | None = option(None, "bits per weight of the uniform grid", aliases=("bits",), ge=1, le=8)
    scale: Literal["optimal", "absmean", "twn", "absmax"] = option(
        "optimal",
        "the grid's scale: optimal (least squared error), absmean (mean |w|), twn (threshold 0.7 mean |w|) "
        "or absmax (the largest weight is the outermost point)",
    )

    @model_validator(mode="before")
    @classmethod
    def _resolve_auto(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("grid", "auto") == "auto":
            return {**values, "grid": "ternary" if values.get("n_bits") is None else "uniform"}
        return values

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> SteConfig:
        if self.grid == "uniform" and self.n_bits is None:
            raise ValueError("grid 'uniform' needs n_bits (1 to 8)")
        if self.grid != "uniform" and self.n_bits is not None:
            raise ValueError(
                f"n_bits = {self.n_bits} contradicts grid {self.grid!r}: "
                "leave out n_bits, or leave out the grid (n_bits makes it uniform)"
            )
        reason = REFUSED.get((self.grid, self.scale))
        if reason is not None:
            raise ValueError(f"scale {self.scale!r} does not go with grid {self.grid!r}: {reason}")
        return self


class UniformConfig(ScaledConfig):
    """Options of quantizers that round to 2^n_bits evenly spaced points alone."""

    n_bits: int = option(4, "bits per weight", aliases=("bits",), ge=1, le=8)


class LsqConfig(UniformConfig):
    """Learn the grid's scale with the weights (LSQ: Esser et al., 2020)."""

    init: Literal["optimal", "lsq"] = option(
        "optimal",
        "where scales start: optimal (least squared error), or lsq (the paper's 2 mean|w| / sqrt(Qp))",
    )


class EwgsConfig(SteConfig):
    """Round as ste does; the gradient grows and shrinks with the rounding error (EWGS: Lee et al., 2021)."""

    delta: float = option(
        0.5,
        "share by which the gradient changes per distance between points that w is from w_hat; 0: as ste, "
        "above 2 gradients would change their sign",
        ge=0,
        le=2,
    )

    @model_validator(mode="after")
    def _refuse_thresholds(self) -> EwgsConfig:
        if self.scale == "twn":
            raise ValueError(
                "scale 'twn' does not go with ewgs: its threshold is not midway between points, which the "
                "rounding error is counted from; choose optimal, absmean or absmax"
            )
        return self


class DorefaConfig(UniformConfig):
    """Limit weights by tanh, then round to the range of the largest (DoReFa-Net: Zhou et al., 2016)."""

    unit: Literal["rms", "one"] = option(
        "rms", "what tanh takes weights in units of: rms (of the row, group or matrix), or one (as published)"
    )


class StochasticConfig(UniformConfig):
    """Round up or down at random in training, so that w_hat is w on average; to the nearest in evaluation."""

    scale: Literal["optimal", "absmax"] = option(
        "optimal",
        "the grid's scale: optimal (least squared error) or absmax (max |w| is the outermost point)",
    )


class TwosComplementConfig(UniformConfig):
    """Two's complement integers times a step: -2^(n-1) to 2^(n-1) - 1, zero included."""


class ResidualBinaryConfig(ScaledConfig):
    """A sum of sign vectors, each with its own scale, refitted together by least squares."""

    n_bits: int = option(2, "terms, each of which costs one bit per weight", aliases=("bits",), ge=1, le=8)
