"""Which coders circuit-tracer can be given."""

from __future__ import annotations

from qsae_core import name_of
from qsae_core.coders import LinearCoder, MatrixCoder, defined_anew
from qsae_core.errors import ConfigError

FUNCTIONS = ("relu", "identity", "jumprelu")
"""Latents that are their pre-activations where they are active: what an attribution is to, a graph adds up to
the latent."""


def check_serves(coder: MatrixCoder, where: str) -> LinearCoder:
    """The coder, if it is a transcoder that circuit-tracer's formulas are true of.

    Raises:
        ConfigError: if not, with the reason.
    """
    reason = _reason(coder)
    if reason is not None or not isinstance(coder, LinearCoder):
        raise ConfigError(
            f"circuit-tracer has no place for {name_of(coder)}: {reason}",
            where=where,
            allowed="a transcoder for each layer, with one encoder and one decoder matrix, of relu, jumprelu or "
            "identity, and any rule",
            next="qsae train --transcoder transcoder --per-layer --source-site mlp_in --target-site mlp_out",
        )
    return coder


def _reason(coder: MatrixCoder) -> str | None:
    if coder.is_autoencoder:
        return "it is an SAE, and transcoders stand in place of MLPs"
    if coder.shape.d_in != coder.shape.d_out:
        return f"it is from width {coder.shape.d_in} to {coder.shape.d_out}, and both sides have one there"
    if not isinstance(coder, LinearCoder):
        return "it is more than one encoder and one decoder matrix"
    own = defined_anew(type(coder), LinearCoder)
    if own is not None:
        return f"it defines '{own}' in its own way"
    point = coder.activation.pointwise()
    if point is None or point.function not in FUNCTIONS:
        return f"with activation '{name_of(coder.activation)}' latents are not their pre-activations"
    return None
