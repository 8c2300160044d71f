"""SAE variant ``binary``: a TopK SAE whose decoder weights are two's-complement bits with learned logits."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from qsae_core import AuxKConfig, ComponentSpec, hookimpl, option


class BinaryConfig(AuxKConfig):
    """A TopK SAE with a logit for each bit of each decoder weight; stored as bits and a scale per row."""

    n_bits: int = option(4, "bits per decoder weight, in two's complement", aliases=("bits",), ge=1, le=8)
    gamma: Annotated[float, Field(gt=0)] | None = option(
        None,
        "weights lie in [-gamma, gamma); none: where the bits of a random unit dictionary have the least "
        "squared error",
    )
    per_row: bool = option(True, "a learned scale for each atom, starting from gamma, instead of one for all")
    temperature: Annotated[float, Field(gt=0)] | None = option(
        None, "T of p_i = sigma(theta_i / 2^i T) at the start; none: a quarter of the step between weights"
    )
    final_temperature: float = option(1.0, "T at the end, as a share of that at the start", gt=0, le=1)
    tau: float = option(2.0, "size of the logits at the start, in units of 2^i T", gt=0)
    polarization: float = option(
        0.1, "weight of sum_i 4^i p_i (1 - p_i) / sum_i 4^i, which draws p to 0 and 1; ramped up from 0", ge=0
    )
    recode_every: int = option(
        1,
        "steps between re-codings: each weight's bits become those on the line between its two nearest "
        "integers; 0: never",
        ge=0,
    )


@hookimpl
def qsae_register_saes() -> list[ComponentSpec]:
    """Register ``binary``."""
    return [
        ComponentSpec(
            "sae",
            "binary",
            BinaryConfig,
            "qsae_sae_binary.model:BinarySAE",
            default_parts={
                "quantizer": None,  # the bits are the decoder
                "activation": {"use": "relu"},
                "sparsity": {"use": "topk", "k": 32},
            },
        )
    ]
