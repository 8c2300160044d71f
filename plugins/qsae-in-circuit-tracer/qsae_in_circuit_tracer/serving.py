"""Which coders circuit-tracer can be given."""

from __future__ import annotations

from qsae_core import name_of
from qsae_core.coders import LinearCoder, MatrixCoder, defined_anew
from qsae_core.contracts import Activation
from qsae_core.errors import ConfigError

FUNCTIONS = ("relu", "identity", "jumprelu")
"""Where a latent is active it is its pre-activation, which is what the edges of a graph add up to."""
CROSS_LAYER = "cross-layer-transcoder"


def check_serves(coder: MatrixCoder, where: str) -> LinearCoder:
    """The coder of a layer, if circuit-tracer's formulas are true of it.

    Raises:
        ConfigError: if not, with the reason.
    """
    reason = _fault(coder) or _fault_of_layer(coder)
    if reason is not None or not isinstance(coder, LinearCoder):
        raise _refused(coder, reason, where)
    return coder


def check_serves_layers(coder: MatrixCoder, where: str) -> None:
    """The same of a coder of all layers.

    Raises:
        ConfigError: if it is none, or they are not.
    """
    reason = _fault(coder)
    if reason is None and name_of(coder) != CROSS_LAYER:
        reason = "it is one coder, and neither one of each layer nor a cross-layer transcoder"
    if reason is None:
        reason = next((fault for part in coder.modules() if (fault := _fault_of_activation(part))), None)
    if reason is not None:
        raise _refused(coder, reason, where)


def _refused(coder: MatrixCoder, reason: str | None, where: str) -> ConfigError:
    return ConfigError(
        f"circuit-tracer has no place for {name_of(coder)}: {reason}",
        where=where,
        allowed="transcoders of one encoder and one decoder matrix for each layer, or a cross-layer "
        "transcoder; of relu, jumprelu or identity, and any rule",
        next="qsae train --transcoder transcoder --per-layer --source-site mlp_in --target-site mlp_out",
    )


def _fault(coder: MatrixCoder) -> str | None:
    if coder.is_autoencoder:
        return "it is an SAE, and transcoders stand in place of MLPs"
    if coder.shape.d_in != coder.shape.d_out:
        return f"it is from width {coder.shape.d_in} to {coder.shape.d_out}, and both sides have one there"
    return None


def _fault_of_layer(coder: MatrixCoder) -> str | None:
    if not isinstance(coder, LinearCoder):
        return "it is more than one encoder and one decoder matrix"
    own = defined_anew(type(coder), LinearCoder)
    if own is not None:
        return f"it defines '{own}' in its own way"
    return _fault_of_activation(coder.activation)


def _fault_of_activation(part: object) -> str | None:
    if not isinstance(part, Activation):
        return None
    point = part.pointwise()
    if point is not None and point.function in FUNCTIONS:
        return None
    return f"with activation '{name_of(part)}' active latents are not their pre-activations"
