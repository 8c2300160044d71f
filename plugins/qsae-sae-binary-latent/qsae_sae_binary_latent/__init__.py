"""SAE variant ``binary-latent``: each latent is one bit, with a magnitude that belongs to the latent."""

from __future__ import annotations

from qsae_core import AuxKConfig, ComponentSpec, hookimpl


class BinaryLatentConfig(AuxKConfig):
    """Latents f_j = m_j 1[sigma(z_j) >= 1/2]: a code is a set of latents, and stores no values."""


@hookimpl
def qsae_register_saes() -> list[ComponentSpec]:
    """Register ``binary-latent``."""
    return [
        ComponentSpec(
            "sae",
            "binary-latent",
            BinaryLatentConfig,
            "qsae_sae_binary_latent.model:BinaryLatentSAE",
            default_parts={
                "activation": None,  # the step is the method
                "code_quantizer": None,  # nothing is left to quantize
                "sparsity": {"use": "batchtopk", "k": 32},
            },
        )
    ]
