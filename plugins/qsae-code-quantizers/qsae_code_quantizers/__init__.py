"""Code quantizers: the values of active latents, in a few bits each."""

from __future__ import annotations

from pydantic import model_validator

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option


class NoneConfig(ComponentConfig):
    """Leave the values of codes as they are: float32, 32 bits each."""


class SteConfig(ComponentConfig):
    """Round each latent's values to evenly spaced levels up to its largest; gradient straight through."""

    n_bits: int = option(
        6, "bits of an entry's value, its sign included where there is one", aliases=("bits",), ge=1, le=8
    )
    signed: bool = option(False, "codes may be negative (activation identity); takes one of the bits")

    @model_validator(mode="after")
    def _sign_and_size(self) -> SteConfig:
        if self.signed and self.n_bits < 2:
            raise ValueError("a signed code takes at least n_bits = 2: one for the sign, one for the size")
        return self


@hookimpl
def qsae_register_code_quantizers() -> list[ComponentSpec]:
    """Register ``none`` and ``ste``."""
    return [
        ComponentSpec("code_quantizer", "none", NoneConfig, "qsae_code_quantizers.none:NoCodeQuantizer"),
        ComponentSpec("code_quantizer", "ste", SteConfig, "qsae_code_quantizers.ste:SteCodes"),
    ]
