"""DenseForm: a coder as plain matrices over the data's own vectors, which other libraries' files can hold.

Shapes: B tokens, D width of the input, E width of the output, F latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from qsae_core.errors import ArtifactError
from qsae_core.reading import all_finite

Function = Literal["relu", "identity", "jumprelu", "gated"]
"""``max(z, 0)``; ``z``; ``z 1[z > threshold]``; ``1[z > 0] max(e^r_mag (z - b_gate) + b_mag, 0)``."""


ROWS_AT_ONCE = 4096
"""Latents whose weights are in float64 at one time."""
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class Pointwise(NamedTuple):
    """An activation in words that other libraries share."""

    function: Function
    threshold: Tensor | None = None
    """``[F]``, of a jumprelu."""
    r_mag: Tensor | None = None
    """``[F]``, of gated latents, as are the next two."""
    b_mag: Tensor | None = None
    """``[F]``."""
    b_gate: Tensor | None = None
    """``[F]``: what is in z for the gate alone."""

    def __call__(self, z_BF: Tensor) -> Tensor:
        """``[B, F]``, in the precision of z."""
        if self.function == "jumprelu":
            assert self.threshold is not None
            return z_BF * (z_BF > self.threshold.to(z_BF))
        if self.function == "gated":
            assert self.r_mag is not None
            assert self.b_mag is not None
            assert self.b_gate is not None
            magnitude_BF = self.r_mag.to(z_BF).exp() * (z_BF - self.b_gate.to(z_BF)) + self.b_mag.to(z_BF)
            return magnitude_BF.relu() * (z_BF > 0)
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
    """A whole coder on vectors as the data has them: nothing is normalised, rotated or packed.

        z = W_enc x + b_enc                      or W_enc (x - b_dec) + b_enc, where subtracts_b_dec
        f = activation(z)                        relu, identity, jumprelu: z_j where z_j > threshold_j; or
                                                 gated, whose b_gate is b_enc
        f_j = 0 but for the k largest f_j        (f_j ||W_dec_j|| where ranks_by_norm), where k is given
        x_hat = W_dec^T f + b_dec + W_skip x

    TopK SAEs are relu with k; BatchTopK SAEs that are no longer trained are jumprelu with one threshold.
    Several ways to write one function are kept apart, so that what a file says comes back bit for bit;
    ``plain`` is the one that everything can be written in. Tensors have the type in which a file holds them,
    float32, float16 or bfloat16, and are used in that of x.
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
    r_mag: Tensor | None = None
    """``[F]``, of gated latents and of nothing else, as is ``b_mag``."""
    b_mag: Tensor | None = None
    """``[F]``."""
    k: int | None = None
    ranks_by_norm: bool = False
    W_skip: Tensor | None = None
    """``[E, D]``, or None."""
    subtracts_b_dec: bool = False
    """Whether ``b_dec`` is taken from what is encoded; of an autoencoder alone."""
    layers: int = 1
    """Of a crosscoder: how many layers' vectors, one after another, D and E are."""

    @property
    def n_latents(self) -> int:
        """F."""
        return self.W_enc.shape[0]

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Width in, width out, layers in, layers out."""
        n = self.layers
        return self.W_enc.shape[1] // n, self.W_dec.shape[1] // n, n, n

    @property
    def pointwise(self) -> Pointwise:
        """The activation."""
        return Pointwise(self.activation, self.threshold, self.r_mag, self.b_mag, self.b_enc)

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
            raise ArtifactError(fault, where=where, allowed="finite tensors as DenseForm describes")

    # --- the same function, written otherwise; sums are float64, and rounded once

    def in_dtypes(self, dtypes: Mapping[str, torch.dtype] | torch.dtype) -> DenseForm:
        """With tensors in these types; of a mapping (field -> type), those that it names."""
        wanted = dict.fromkeys(self.tensors(), dtypes) if isinstance(dtypes, torch.dtype) else dtypes
        changed: dict[str, Any] = {
            name: tensor.to(wanted[name]) for name, tensor in self.tensors().items() if name in wanted
        }
        return replace(self, **changed)

    def with_offset(self, subtracts_b_dec: bool) -> DenseForm:
        """With ``b_dec`` subtracted from what is encoded, or not: the other's share of ``W_enc x`` goes into
        ``b_enc``, which is float32 then.

        Raises:
            ArtifactError: if ``b_dec`` is to be subtracted from vectors of another width.
        """
        if subtracts_b_dec == self.subtracts_b_dec:
            return self
        if subtracts_b_dec and self.W_enc.shape[1] != self.b_dec.shape[0]:
            raise ArtifactError("b_dec cannot be subtracted from inputs of another width")
        moved = self.moved_by(-self.b_dec if subtracts_b_dec else self.b_dec)
        return replace(moved, subtracts_b_dec=subtracts_b_dec)

    def moved_by(self, offset_D: Tensor) -> DenseForm:
        """What computes on x as this one does on ``x - offset``, where it encodes it; its biases are float32,
        whatever type the others had."""
        share_F = self.projected(offset_D)
        b_enc, b_mag = (self.b_enc.double() - share_F).float(), self.b_mag
        if self.r_mag is not None and b_mag is not None:
            b_mag = (b_mag.double() - self.r_mag.double().exp() * share_F).float()
        return replace(self, b_enc=b_enc, b_mag=b_mag)

    def plain(self) -> DenseForm:
        """float32, with nothing subtracted from x, and gated latents as the jumprelu that they are:
        ``u = e^r z + (b_mag - e^r b_enc)`` is above ``max(b_mag - e^r b_enc, 0)`` where ``z > 0`` and
        ``u > 0``.
        """
        form = self.in_dtypes(torch.float32).with_offset(False)
        if form.r_mag is None or form.b_mag is None:
            return form
        gain_F = form.r_mag.double().exp()
        shift_F = form.b_mag.double() - gain_F * form.b_enc.double()
        rows = zip(form.W_enc.split(ROWS_AT_ONCE), gain_F.split(ROWS_AT_ONCE), strict=True)
        return replace(
            form,
            W_enc=torch.cat([(W.double() * gain[:, None]).float() for W, gain in rows]),
            b_enc=form.b_mag,  # e^r b_enc + shift
            activation="jumprelu",
            threshold=shift_F.clamp_min(0).float(),
            r_mag=None,
            b_mag=None,
        )

    # --- the formula

    def encode(self, x_BD: Tensor) -> Tensor:
        """``[B, F]``: the latents by the formula above, in the precision of x."""
        read_BD = x_BD - self.b_dec.to(x_BD) if self.subtracts_b_dec else x_BD
        pre_BF = read_BD @ self.W_enc.to(x_BD).T + self.b_enc.to(x_BD)
        norms_F = self.W_dec.to(x_BD).norm(dim=1) if self.ranks_by_norm else x_BD.new_ones(self.n_latents)
        return Kept(self.k)(self.pointwise(pre_BF), norms_F)

    def reconstruct(self, x_BD: Tensor) -> Tensor:
        """``[B, E]``, in the precision of x."""
        x_hat_BE = self.encode(x_BD) @ self.W_dec.to(x_BD) + self.b_dec.to(x_BD)
        return x_hat_BE if self.W_skip is None else x_hat_BE + x_BD @ self.W_skip.to(x_BD).T


def _fault(form: DenseForm) -> str | None:
    tensors = form.tensors()
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            return f"{name} is {tensor.dtype}, not float32, float16 or bfloat16"
    for name in ("W_enc", "W_dec"):
        if tensors[name].dim() != 2:
            return f"{name} has shape {list(tensors[name].shape)}, and is a matrix with a row for each latent"
    n_latents, d_in = form.W_enc.shape
    d_out = form.W_dec.shape[1]
    sizes = {"W_enc": (n_latents, d_in), "W_dec": (n_latents, d_out), "b_dec": (d_out,)}
    sizes |= {"W_skip": (d_out, d_in)} | dict.fromkeys(("b_enc", "threshold", "r_mag", "b_mag"), (n_latents,))
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != sizes[name]:
            return f"{name} has shape {list(tensor.shape)}, and the others ask for {list(sizes[name])}"
        if not all(all_finite(rows) for rows in tensor.split(ROWS_AT_ONCE)):
            return f"{name} has NaN or infinite values"
    return _fault_of_rule(form)


def _fault_of_rule(form: DenseForm) -> str | None:
    d_in, d_out = form.W_enc.shape[1], form.W_dec.shape[1]
    if 0 in (form.n_latents, d_in, d_out):
        return "it has no latents, or no width"
    if form.activation not in get_args(Function):
        return f"there is no activation {form.activation!r}; there are {', '.join(get_args(Function))}"
    own = {"threshold": "jumprelu", "r_mag": "gated", "b_mag": "gated"}
    for name, activation in own.items():
        if (form.activation == activation) != (getattr(form, name) is not None):
            return (
                f"activation {form.activation} {'without' if getattr(form, name) is None else 'with'} {name}"
            )
    if form.k is not None and not 1 <= form.k <= form.n_latents:
        return f"k is {form.k}, with {form.n_latents} latents"
    if form.subtracts_b_dec and d_in != d_out:
        return f"b_dec [{d_out}] is subtracted from vectors of width {d_in}"
    if form.layers < 1 or d_in % form.layers or d_out % form.layers:
        return f"widths {d_in} and {d_out} do not divide into {form.layers} layers"
    return None
