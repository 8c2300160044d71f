"""Folding: matrices of a normalised space become those of a dense form. Shapes: D in, E out, F latents."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.coders.normalization import Normalization
from qsae_core.component import name_of
from qsae_core.contracts.activation import Activation
from qsae_core.contracts.dense import DenseForm, Function
from qsae_core.contracts.sparsity import SparsityRule
from qsae_core.errors import ConfigError


class Affine(NamedTuple):
    """A linear coder in its normalised space, with encoder inputs that nothing is subtracted from."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    W_skip: Tensor | None = None
    """``[E, D]``."""


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
def folded(
    coder: object,
    affine: Affine,
    norms: tuple[Normalization, Normalization],
    activation: Activation,
    rule: SparsityRule,
    ranks_by_norm: bool,
) -> DenseForm:
    """The dense form: normalisation, rotation and the activation's scale go into the matrices, in float64.

    ``W_enc ((x - mean) / s R) = (W_enc R^T / s) (x - mean)``; codes stay what they are, and with them
    thresholds and ranks.

    Raises:
        ConfigError: if other libraries have no word for the activation or the rule.
    """
    norm_in, norm_out = (copy.deepcopy(norm).double() for norm in norms)
    W_enc, b_enc, W_dec, b_dec = (tensor.detach().double() for tensor in affine[:4])
    W_enc = norm_in.unrotated(W_enc) / norm_in.scale
    b_enc = b_enc - W_enc @ norm_in.mean
    function, threshold, k = _selection(coder, activation, rule, _importance(W_dec, ranks_by_norm))
    point = activation.pointwise()
    assert point is not None  # _selection has seen one
    if point.scale is not None:
        W_enc, b_enc = W_enc * point.scale.double()[:, None], b_enc * point.scale.double()
    if point.shift is not None:
        b_enc = b_enc + point.shift.double()
    b_dec, W_skip = norm_out.inverse(b_dec), None
    if affine.W_skip is not None:
        W_skip = norm_in.unrotated(affine.W_skip.detach().double()) / norm_in.scale
        W_skip = norm_out.inverse_direction(W_skip.T).T
        b_dec = b_dec - W_skip @ norm_in.mean
    dense = DenseForm(
        W_enc=_stored(W_enc),
        b_enc=_stored(b_enc),
        W_dec=_stored(norm_out.inverse_direction(W_dec)),
        b_dec=_stored(b_dec),
        activation=function,
        threshold=None if threshold is None else _stored(threshold),
        k=k,
        ranks_by_norm=ranks_by_norm and k is not None,
        W_skip=None if W_skip is None else _stored(W_skip),
    )
    dense.validate(name_of(coder))
    return dense


def _stored(tensor: Tensor) -> Tensor:
    return tensor.float().cpu().contiguous()


def _importance(W_dec_FE: Tensor, ranks_by_norm: bool) -> Tensor:
    """float64 ``[F]``: what a rule multiplies latents with."""
    return W_dec_FE.norm(dim=1) if ranks_by_norm else W_dec_FE.new_ones(W_dec_FE.shape[0])


def _selection(
    coder: object, activation: Activation, rule: SparsityRule, importance_F: Tensor
) -> tuple[Function, Tensor | None, int | None]:
    """Activation, thresholds ``[F]`` and k of both together."""
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
