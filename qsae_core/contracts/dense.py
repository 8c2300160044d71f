"""DenseForm: a coder as plain matrices over the data's own vectors, which other libraries' files can hold.

Shapes: B tokens, D width of the input, E width of the output, F latents.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from qsae_core.errors import ArtifactError

Function = Literal["relu", "identity", "jumprelu"]
"""``max(z, 0)``; ``z``; ``z 1[z > threshold]``."""


ROWS_AT_ONCE = 4096
"""Latents whose weights are in float64 at one time."""


class Pointwise(NamedTuple):
    """An activation in words that other libraries share: ``f = function(scale z + shift)``."""

    function: Function
    threshold: Tensor | None = None
    """``[F]``, of a jumprelu; compared with ``scale z + shift``."""
    scale: Tensor | None = None
    """``[F]``, above 0; None: 1."""
    shift: Tensor | None = None
    """``[F]``; None: 0."""

    def __call__(self, z_BF: Tensor) -> Tensor:
        """``[B, F]``, in the precision of z."""
        if self.scale is not None:
            z_BF = z_BF * self.scale.to(z_BF)
        if self.shift is not None:
            z_BF = z_BF + self.shift.to(z_BF)
        if self.function == "jumprelu":
            assert self.threshold is not None
            return z_BF * (z_BF > self.threshold.to(z_BF))
        return z_BF.relu() if self.function == "relu" else z_BF


class Kept(NamedTuple):
    """What a sparsity rule keeps of a token in evaluation mode; other latents become 0."""

    largest: int | None = None
    """So many of the largest ``latent * importance``; None: however many."""
    above: float | None = None
    """Those whose ``latent * importance`` is above it; None: whatever their value."""

    def __call__(self, latents_BF: Tensor, importance_F: Tensor) -> Tensor:
        """``[B, F]``: the latents that stay, and 0."""
        ranking_BF = latents_BF * importance_F.to(latents_BF)
        if self.above is not None:
            latents_BF = latents_BF * (ranking_BF > self.above)
        if self.largest is None:
            return latents_BF
        kept_BK = ranking_BF.topk(self.largest, dim=1).indices
        return torch.zeros_like(latents_BF).scatter(1, kept_BK, latents_BF.gather(1, kept_BK))


@dataclass(frozen=True, eq=False)
class DenseForm:
    """A whole coder on vectors as the data has them, in float32: nothing is normalised, rotated or packed.

        z = W_enc x + b_enc                      an offset subtracted from x is in b_enc: b_enc - W_enc offset
        f = activation(z)                        relu, identity, or jumprelu: z_j where z_j > threshold_j
        f_j = 0 but for the k largest f_j        (f_j ||W_dec_j|| where ranks_by_norm), where k is given
        x_hat = W_dec^T f + b_dec + W_skip x

    TopK SAEs are relu with k; BatchTopK SAEs that are no longer trained are jumprelu with one threshold.
    """

    W_enc: Tensor
    """``[F, D]``."""
    b_enc: Tensor
    """``[F]``."""
    W_dec: Tensor
    """``[F, E]``: a row is an atom, of any norm."""
    b_dec: Tensor
    """``[E]``."""
    activation: Function = "relu"
    threshold: Tensor | None = None
    """``[F]``, of a jumprelu and of nothing else."""
    k: int | None = None
    ranks_by_norm: bool = False
    W_skip: Tensor | None = None
    """``[E, D]``, or None."""

    @property
    def n_latents(self) -> int:
        """F."""
        return self.W_enc.shape[0]

    def tensors(self) -> dict[str, Tensor]:
        """Field -> tensor, without those that are None."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def projected(self, x_D: Tensor) -> Tensor:
        """float64 ``[F]``: ``W_enc x``, a few rows at a time."""
        return torch.cat([rows.double() @ x_D.double() for rows in self.W_enc.split(ROWS_AT_ONCE)])

    def validate(self, where: str | None = None) -> None:
        """Check types, shapes and values, before they are used.

        Raises:
            ArtifactError: with the first fault, and ``where`` it was found.
        """
        fault = _fault(self)
        if fault is not None:
            raise ArtifactError(fault, where=where, allowed="finite float32 tensors as DenseForm describes")

    def encode(self, x_BD: Tensor) -> Tensor:
        """``[B, F]``: the latents by the formula above, in the precision of x."""
        pre_BF = x_BD @ self.W_enc.to(x_BD).T + self.b_enc.to(x_BD)
        norms_F = self.W_dec.to(x_BD).norm(dim=1) if self.ranks_by_norm else x_BD.new_ones(self.n_latents)
        return Kept(self.k)(Pointwise(self.activation, self.threshold)(pre_BF), norms_F)

    def reconstruct(self, x_BD: Tensor) -> Tensor:
        """``[B, E]``, in the precision of x."""
        x_hat_BE = self.encode(x_BD) @ self.W_dec.to(x_BD) + self.b_dec.to(x_BD)
        return x_hat_BE if self.W_skip is None else x_hat_BE + x_BD @ self.W_skip.to(x_BD).T


def _fault(form: DenseForm) -> str | None:
    tensors = form.tensors()
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            return f"{name} is {tensor.dtype}, not float32"
    for name in ("W_enc", "W_dec"):
        if tensors[name].dim() != 2:
            return f"{name} has shape {list(tensors[name].shape)}, and is a matrix with a row for each latent"
    n_latents, d_in = form.W_enc.shape
    d_out = form.W_dec.shape[1]
    sizes = {"W_enc": (n_latents, d_in), "b_enc": (n_latents,), "W_dec": (n_latents, d_out)}
    sizes |= {"b_dec": (d_out,), "threshold": (n_latents,), "W_skip": (d_out, d_in)}
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != sizes[name]:
            return f"{name} has shape {list(tensor.shape)}, and the others ask for {list(sizes[name])}"
        if not bool(tensor.isfinite().all()):
            return f"{name} has NaN or infinite values"
    return _fault_of_rule(form)


def _fault_of_rule(form: DenseForm) -> str | None:
    if 0 in (*form.W_enc.shape, *form.W_dec.shape):
        return "it has no latents, or no width"
    if form.activation not in get_args(Function):
        return f"there is no activation {form.activation!r}; there are {', '.join(get_args(Function))}"
    if (form.activation == "jumprelu") != (form.threshold is not None):
        return f"activation {form.activation} {'without' if form.threshold is None else 'with'} thresholds"
    if form.k is not None and not 1 <= form.k <= form.n_latents:
        return f"k is {form.k}, with {form.n_latents} latents"
    return None
