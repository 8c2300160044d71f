"""Folding: matrices of a normalised space become those of a dense form. Shapes: D in, E out, F latents."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from qsae_core.coders.normalization import Normalization
from qsae_core.coders.quantized_matrix import QuantizedMatrix, gathered
from qsae_core.coders.quantized_values import QuantizedValues
from qsae_core.component import name_of
from qsae_core.contracts.activation import Activation
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.dense import DenseForm, Function, Kept, Pointwise
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
    """The dense form: normalisation and rotation go into the matrices, in float64.

    ``W_enc ((x - mean) / s R - b) = (W_enc R^T / s) (x - (mean + s b R^T))``, where the offset on the right
    is ``b_dec`` as the data has it; codes stay what they are, and with them thresholds and ranks. Where
    nothing is normalised, tensors are those of the coder, bit for bit.

    Args:
        own: what the variant has defined anew of the formula; None: nothing.

    Raises:
        ConfigError: if there is no dense form that computes the same.
    """
    if own is not None:
        raise no_dense_form(coder, f"it defines '{own}' in its own way")
    layers = coder.norm_in.layers
    if (coder.shape.layers_in, coder.shape.layers_out) != (layers, layers):
        raise no_dense_form(coder, "it reads or writes several layers, with other vectors than they have")
    if not coder.code_quantizer.quantizer.is_identity:
        raise no_dense_form(coder, "the values of its codes are quantized")
    norm_in, norm_out = (copy.deepcopy(norm).double() for norm in (coder.norm_in, coder.norm_out))

    def read(rows: Tensor) -> Tensor:
        return (norm_in.unrotated(norm_in.by_layer(rows)) / norm_in.scale).flatten(1)

    def written(rows: Tensor) -> Tensor:
        return norm_out.inverse_direction(norm_out.by_layer(rows)).flatten(1)

    b_dec = norm_out.inverse(norm_out.by_layer(coder.b_dec[None].double())).flatten()
    W_skip = None
    if coder.W_skip is not None:
        W_skip = written(read(coder.W_skip.detach().double()).T).T
        b_dec = b_dec - W_skip @ norm_in.mean
    dense = DenseForm(
        W_enc=by_rows(read if norm_in.changes else None, coder.W_enc),
        b_enc=_stored(coder.b_enc),
        W_dec=by_rows(written if norm_out.changes else None, coder.W_dec),
        b_dec=_stored(b_dec),
        W_skip=None if W_skip is None else _stored(W_skip),
        subtracts_b_dec=coder.subtract_b_dec,
        layers=layers,
    )
    importance_F = torch.ones_like(coder.b_enc) if coder.unit_norm_rows else coder.W_dec.rows().norms()
    dense = _selected(dense, coder, importance_F.double().cpu())
    if not coder.subtract_b_dec and bool(norm_in.mean.any()):
        dense = dense.moved_by(norm_in.mean.flatten().cpu())
    dense.validate(name_of(coder))
    return dense


def by_rows(change: Callable[[Tensor], Tensor] | None, matrix: QuantizedMatrix) -> Tensor:
    """``[F, D]``, on the CPU: a matrix as evaluation uses it, changed in float64 a few rows at a time and
    float32 then; without a change in the float type in which it is stored, if it is stored so."""
    if change is None:
        stored = matrix.floats()
        return _stored(matrix()) if stored is None else stored.cpu().contiguous()
    return gathered((_stored(change(rows.double())) for rows in matrix.blocks()), matrix.shape[0])


def _stored(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu().contiguous()


def _selected(dense: DenseForm, coder: Linear, importance_F: Tensor) -> DenseForm:
    """With what activation and rule do together.

    Args:
        importance_F: float64, what the rule multiplies latents with.
    """
    point, kept = in_shared_words(coder, coder.activation, coder.sparsity)
    dense = replace(
        dense,
        activation=point.function,
        threshold=None if point.threshold is None else _stored(point.threshold),
        r_mag=None if point.r_mag is None else _stored(point.r_mag),
        b_mag=None if point.b_mag is None else _stored(point.b_mag),
        k=kept.largest,
        ranks_by_norm=not coder.unit_norm_rows and kept.largest is not None,
    )
    if point.function == "gated" and kept.above:
        dense = dense.plain()
    above_F = threshold_of(kept, dense.activation, dense.threshold, importance_F)
    if above_F is None:
        return dense
    return replace(dense, activation="jumprelu", threshold=_stored(above_F))


def in_shared_words(coder: object, activation: Activation, rule: SparsityRule) -> tuple[Pointwise, Kept]:
    """What activation and rule are called elsewhere.

    Raises:
        ConfigError: if they are called nothing; ``coder`` is named in it.
    """
    point, kept = activation.pointwise(), rule.kept()
    if point is None:
        raise no_dense_form(coder, f"other libraries have no activation '{name_of(activation)}'")
    if kept is None:
        raise no_dense_form(coder, f"other libraries have no sparsity rule '{name_of(rule)}'")
    return point, kept


def threshold_of(
    kept: Kept, function: Function, threshold_F: Tensor | None, importance_F: Tensor
) -> Tensor | None:
    """float64 ``[F]``: the thresholds of the jumprelu that a rule makes of an activation; None where it
    leaves the activation as it is.

    Args:
        threshold_F: of a jumprelu.
        importance_F: float64, what the rule multiplies latents with.
    """
    if kept.above is None or (kept.above == 0 and function in ("relu", "gated")):
        return None
    # an atom of norm 0 is never above anything
    most = torch.finfo(torch.float32).max
    above_F = (kept.above / importance_F).nan_to_num(nan=most).clamp_max(most)
    if function == "relu":
        above_F = above_F.clamp_min(0)
    return above_F if threshold_F is None else torch.maximum(threshold_F.double(), above_F)
