"""Folding: matrices of a normalised space become those of a dense form. Shapes: D in, E out, F latents."""

from __future__ import annotations

import copy
from typing import Protocol

import torch
from torch import Tensor, nn

from qsae_core.coders.normalization import Normalization
from qsae_core.coders.quantized_matrix import QuantizedMatrix
from qsae_core.coders.quantized_values import QuantizedValues
from qsae_core.component import name_of
from qsae_core.contracts.activation import Activation
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.dense import ROWS_AT_ONCE, DenseForm, Function
from qsae_core.contracts.sparsity import SparsityRule
from qsae_core.errors import ConfigError


class Linear(Protocol):
    """What is asked of a LinearCoder here."""

    shape: CoderShape
    subtract_b_dec: bool
    unit_norm_rows: bool
    W_enc: QuantizedMatrix
    W_dec: QuantizedMatrix
    b_enc: nn.Parameter
    b_dec: nn.Parameter
    W_skip: nn.Parameter | None
    norm_in: Normalization
    activation: Activation
    sparsity: SparsityRule
    code_quantizer: QuantizedValues

    @property
    def norm_out(self) -> Normalization:
        """Of what is reconstructed."""


FORMULA = (
    "read",
    "normalized",
    "encoder_offset",
    "encoder_bias",
    "encode_normalized",
    "encode",
    "decode_normalized",
    "skipped_past",
    "decode",
    "forward",
)
"""What makes up the formula of a linear coder; a variant with one of its own may compute something else."""


def defined_anew(variant: type, base: type) -> str | None:
    """The first part of the formula that a variant does not take from the base."""
    return next((name for name in FORMULA if getattr(variant, name) is not getattr(base, name)), None)


def no_dense_form(coder: object, reason: str) -> ConfigError:
    """The error for a coder that a dense form cannot hold."""
    return ConfigError(
        f"{name_of(coder)} has no dense form: {reason}",
        allowed="one encoder and one decoder matrix with relu, identity or jumprelu, and the largest latents "
        "or all of them",
    )


@torch.no_grad()
def linear_form(coder: Linear, own: str | None) -> DenseForm:
    """The dense form: normalisation, rotation and the activation's scale go into the matrices, in float64.

    ``W_enc ((x - mean) / s R) = (W_enc R^T / s) (x - mean)``; codes stay what they are, and with them
    thresholds and ranks.

    Args:
        own: what the variant has defined anew of the formula; None: nothing.

    Raises:
        ConfigError: if there is no dense form that computes the same.
    """
    if own is not None:
        raise no_dense_form(coder, f"it defines '{own}' in its own way")
    if max(coder.shape.layers_in, coder.shape.layers_out) > 1:
        raise no_dense_form(coder, "it reads or writes several layers")
    if not coder.code_quantizer.quantizer.is_identity:
        raise no_dense_form(coder, "the values of its codes are quantized")
    norm_in, norm_out = (copy.deepcopy(norm).double() for norm in (coder.norm_in, coder.norm_out))
    W_dec, b_dec = coder.W_dec(), coder.b_dec.double()
    importance_F = torch.ones_like(coder.b_enc) if coder.unit_norm_rows else W_dec.norm(dim=1)
    function, threshold, k = _selection(coder, importance_F.double())
    W_enc, b_enc = _encoder(coder, norm_in, b_dec)
    b_dec, W_skip = norm_out.inverse(b_dec), None
    if coder.W_skip is not None:
        W_skip = norm_in.unrotated(coder.W_skip.detach().double()) / norm_in.scale
        W_skip = norm_out.inverse_direction(W_skip.T).T
        b_dec = b_dec - W_skip @ norm_in.mean
    dense = DenseForm(
        W_enc=W_enc,
        b_enc=b_enc,
        W_dec=torch.cat([_stored(norm_out.inverse_direction(w.double())) for w in W_dec.split(ROWS_AT_ONCE)]),
        b_dec=_stored(b_dec),
        activation=function,
        threshold=None if threshold is None else _stored(threshold),
        k=k,
        ranks_by_norm=not coder.unit_norm_rows and k is not None,
        W_skip=None if W_skip is None else _stored(W_skip),
    )
    dense.validate(name_of(coder))
    return dense


def _encoder(coder: Linear, norm_in: Normalization, b_dec: Tensor) -> tuple[Tensor, Tensor]:
    """``W_enc`` and ``b_enc`` of the dense form, a few rows at a time."""
    W_enc, point, parts = coder.W_enc(), coder.activation.pointwise(), []
    assert point is not None  # _selection has seen one
    for rows in torch.arange(coder.b_enc.shape[0], device=b_dec.device).split(ROWS_AT_ONCE):
        W, bias = W_enc[rows].double(), coder.b_enc[rows].double()
        if coder.subtract_b_dec:
            bias = bias - W @ b_dec
        W = norm_in.unrotated(W) / norm_in.scale
        bias = bias - W @ norm_in.mean
        if point.scale is not None:
            W, bias = W * point.scale[rows].double()[:, None], bias * point.scale[rows].double()
        if point.shift is not None:
            bias = bias + point.shift[rows].double()
        parts.append((_stored(W), _stored(bias)))
    return torch.cat([W for W, _ in parts]), torch.cat([bias for _, bias in parts])


def _stored(tensor: Tensor) -> Tensor:
    return tensor.float().cpu().contiguous()


def _selection(coder: Linear, importance_F: Tensor) -> tuple[Function, Tensor | None, int | None]:
    """Activation, thresholds ``[F]`` and k of activation and rule together.

    Args:
        importance_F: float64, what the rule multiplies latents with.
    """
    activation, rule = coder.activation, coder.sparsity
    point, kept = activation.pointwise(), rule.kept()
    if point is None:
        raise no_dense_form(coder, f"other libraries have no activation '{name_of(activation)}'")
    if kept is None:
        raise no_dense_form(coder, f"other libraries have no sparsity rule '{name_of(rule)}'")
    threshold = None if point.threshold is None else point.threshold.detach().double()
    if kept.above is None or (kept.above == 0 and point.function == "relu"):
        return point.function, threshold, kept.largest
    # an atom of norm 0 is never above anything
    most = torch.finfo(torch.float32).max
    above = (kept.above / importance_F).nan_to_num(nan=most).clamp_max(most)
    if point.function == "relu":
        above = above.clamp_min(0)
    return "jumprelu", above if threshold is None else torch.maximum(threshold, above), kept.largest
