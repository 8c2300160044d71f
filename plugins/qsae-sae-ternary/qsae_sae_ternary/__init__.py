"""SAE variant ``ternary``: a TopK SAE whose decoder weights are in {-1, 0, +1} times a scale per atom."""

from __future__ import annotations

from qsae_core import ComponentSpec, RestartConfig, hookimpl, option


class TernaryConfig(RestartConfig):
    """A TopK SAE trained through a ternary decoder: w_hat = scale_j sign(w) 1[|w| >= Delta_j]."""

    mask_density: float | None = option(
        None,
        "share of each atom's weights that may differ from zero; which ones is learned (RigL: Evci et al., "
        "2020); none: all of them",
        gt=0,
        le=1,
    )
    mask_every: int = option(
        100, "steps between re-drawings of the mask, which end after 75% of training", ge=100
    )


@hookimpl
def qsae_register_saes() -> list[ComponentSpec]:
    """Register ``ternary``."""
    return [
        ComponentSpec(
            "sae",
            "ternary",
            TernaryConfig,
            "qsae_sae_ternary.model:TernarySAE",
            default_parts={
                "quantizer": {"use": "ste"},  # ternary and optimally scaled, unless told otherwise
                "encoder_quantizer": {"use": "ste", "n_bits": 4},
                "activation": {"use": "relu"},
                "sparsity": {"use": "topk", "k": 32},
            },
        )
    ]
