"""Quantizers for trained coders: rounding at the best scale, and rounding that knows the codes."""

from __future__ import annotations

from typing import Literal

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option


class RtnConfig(ComponentConfig):
    """Round each weight to the nearest point of its row's uniform grid, whose scale has the least error."""

    n_bits: int = option(4, "bits per weight; below 5 the grid has no zero", aliases=("bits",), ge=1, le=8)


class GptqConfig(RtnConfig):
    """Round latent after latent, and let the later ones make up for the errors (Frantar et al., 2023)."""

    damping: float = option(0.01, "share of the Hessian's mean diagonal that is added to it", gt=0)
    block: int = option(8192, "latents that are rounded together: those that are active together", gt=0)


class Nf4Config(ComponentConfig):
    """16 quantiles of the normal distribution and a scale per block (Dettmers et al., 2023)."""

    block: int | None = option(None, "columns per scale; none: a divisor near 64, else the row", ge=1)
    scale: Literal["absmax", "best"] = option("best", "the largest magnitude, or that of least squared error")


class HqqConfig(ComponentConfig):
    """Scale and zero point of each row by half-quadratic splitting (Badri & Shaji, 2023)."""

    n_bits: int = option(4, "bits per weight", aliases=("bits",), ge=1, le=8)
    p: float = option(0.7, "exponent of the errors that are summed; small ones let outliers go", gt=0, le=1)
    beta: float = option(10.0, "weight of the splitting's square, for errors in steps of the grid", gt=0)
    growth: float = option(1.01, "factor of beta from one iteration to the next", ge=1)
    iterations: int = option(20, "rounds of shrinking and refitting, from each start", ge=1)


class MixedConfig(ComponentConfig):
    """More bits for the rows of latents that carry more energy, rounded as by gptq."""

    n_bits: float = option(2.0, "bits per weight, the mean over rows", aliases=("bits",), gt=0, le=8)
    damping: float = option(0.01, "share of the Hessian's mean diagonal that is added to it", gt=0)
    block: int = option(8192, "latents that are rounded together: those that are active together", gt=0)


class VectorConfig(ComponentConfig):
    """Parts of rows as vectors of a codebook that k-means finds, for what the codes make of the errors."""

    length: int | None = option(None, "columns of a part; none: the largest divisor up to 4", ge=1, le=16)
    codebook_bits: int = option(8, "the codebook has 2^this vectors, at most one per part", ge=1, le=12)
    iterations: int = option(10, "rounds of k-means", ge=1)
    compensate: bool = option(True, "calibrated latents make up for the errors of earlier ones, as in gptq")
    damping: float = option(0.01, "share of the Hessian's mean diagonal that is added to it", gt=0)
    block: int = option(8192, "latents that are rounded together: those that are active together", gt=0)


@hookimpl
def qsae_register_quantizers() -> list[ComponentSpec]:
    """Register every quantizer of this distribution."""
    module = "qsae_quantizers_post_training"
    return [
        ComponentSpec("quantizer", "rtn", RtnConfig, f"{module}.rtn:Rtn"),
        ComponentSpec("quantizer", "gptq", GptqConfig, f"{module}.gptq:Gptq"),
        ComponentSpec("quantizer", "hqq", HqqConfig, f"{module}.hqq:Hqq"),
        ComponentSpec("quantizer", "mixed", MixedConfig, f"{module}.mixed:Mixed"),
        ComponentSpec("quantizer", "nf4", Nf4Config, f"{module}.nf4:Nf4"),
        ComponentSpec("quantizer", "vector", VectorConfig, f"{module}.vector:Vector"),
    ]
