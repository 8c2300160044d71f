"""Which restored linear coders encode, and which decode, by one fused operation: all the conditions.

Those of a single call (no gradient is asked for, plain tensors) are ``serves`` of ``fused``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from qsae_core.coders.normalization import Normalization
from qsae_core.coders.quantized_matrix import QuantizedMatrix
from qsae_core.contracts.activation import Activation
from qsae_core.contracts.sparsity import SparsityRule
from qsae_core.kernels import Kind, Rows
from qsae_core.kernels.fused import DECODES_WITH, ENCODES_WITH, compiled_together
from qsae_core.kernels.products import DENSE_SHARE
from qsae_core.kernels.screening import candidates_for


class Linear(Protocol):
    """What is asked of a LinearCoder here."""

    training: bool
    n_latents: int
    screen: Kind
    unit_norm_rows: bool
    W_enc: QuantizedMatrix
    W_dec: QuantizedMatrix
    b_enc: nn.Parameter
    b_dec: nn.Parameter
    norm_in: Normalization
    served_encoder: Any
    served_decoder: Any
    _modules: dict[str, Any]
    _parameters: dict[str, Any]
    activation: Activation
    sparsity: SparsityRule

    @property
    def norm_out(self) -> Normalization:
        """Normalisation of what is reconstructed."""

    @property
    def has_skip(self) -> bool:
        """Whether decoding needs what was encoded."""

    @property
    def encoder_offset(self) -> Tensor | None:
        """What is subtracted from inputs."""

    def refusal_to_screen(self) -> str | None:
        """Why it cannot be screened."""

    def read(self, x: Tensor) -> Tensor:
        """The vectors, checked."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """All of them."""


def refusal_to_fuse_encoding(coder: Linear, base: type) -> str | None:
    """Why a restored coder encodes by operations one by one; None where one does it all."""
    rule = coder.sparsity
    if coder.screen != "int8":
        return "it does not search through an int8 screen"
    reason = coder.refusal_to_screen()
    if reason is not None:
        return reason
    if rule.needs_gates or type(rule).finish_batch is not SparsityRule.finish_batch:
        return "its sparsity rule reads more of a batch than the largest candidates of each token"
    reason = _refusal(coder.W_enc.rows(), coder.norm_in, coder.b_enc, ENCODES_WITH)
    if reason is not None:
        return reason
    if candidates(coder) > DENSE_SHARE * coder.n_latents:
        return "its candidates are so many that a dense product computes them"
    return _of_its_own(type(coder), base, ("encode_normalized", "normalized", "read", "encoder_offset"))


def refusal_to_fuse_decoding(coder: Linear, base: type) -> str | None:
    """Why a restored coder decodes by operations one by one; None where one does it all."""
    if coder.has_skip:
        return "a skip connection adds to what the latents decode to"
    reason = _refusal(coder.W_dec.rows(), coder.norm_out, coder.b_dec, DECODES_WITH)
    return reason or _of_its_own(type(coder), base, ("decode_normalized",))


def _of_its_own(variant: type, base: type, names: tuple[str, ...]) -> str | None:
    """Which of these methods a variant defines for itself, as a reason."""
    changed = [name for name in names if getattr(variant, name) is not getattr(base, name)]
    return f"{variant.__name__} defines {', '.join(changed)} for itself" if changed else None


def _refusal(rows: Rows, norm: Normalization, bias: Tensor, operations: tuple[str, ...]) -> str | None:
    """Why a matrix and its normalisation are read by operations one by one."""
    if not compiled_together(operations, bias.device.type):
        return f"no active kernel set has all of {', '.join(operations)} for {bias.device.type}"
    if bias.dtype != torch.float32 or norm.mean.dtype != torch.float32:
        return "it is not in float32"
    if norm.layers > 1:
        return "several layers are normalised one by one"
    if rows.fusable() is None:
        return "its packed matrix is unpacked to be read"
    return None


def candidates(coder: Linear) -> int:
    """Candidates a token, of a coder that can be screened."""
    assert coder.sparsity.fixed_k is not None
    return min(candidates_for("int8", coder.sparsity.fixed_k), coder.n_latents)
