"""PlainCoder: a coder as nothing but a torch module.

Shapes: B tokens, L layers, D width of the input, E width of the output, F latents, K latents a token.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from qsae_core.contracts import Form, Pointwise
from qsae_core.errors import DataError
from qsae_format_onnx.forms import dense_of, norms_of

BUFFERS = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold", "r_mag", "b_mag", "W_skip", "W_dec_norms")


class TopK(NamedTuple):
    """The k largest latents of each token, in the order of their ranks."""

    top_acts: Tensor
    """``[B, K]``."""
    top_indices: Tensor
    """int64 ``[B, K]``; they do not repeat within a token."""


class PlainCoder(nn.Module):
    """What a ``DenseForm`` describes, for ``torch.compile``, ``torch.export`` and whatever takes a module.

    Buffers have the form's names, shapes and types, and are its tensors, not copies. What is computed is
    float32 (float64 of float64 vectors), whatever the type in which weights are kept. Nothing that is done
    hangs on the data, so that one graph serves every batch.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    threshold: Tensor | None
    r_mag: Tensor | None
    b_mag: Tensor | None
    W_skip: Tensor | None
    W_dec_norms: Tensor | None
    """float32 ``[F]``, where latents rank by the norms of their atoms."""

    def __init__(self, form: Form) -> None:
        """Take a form, such as ``coder.form()`` gives.

        Raises:
            ArtifactError: for a cross-layer transcoder, or a form that is none.
        """
        super().__init__()
        dense = dense_of(form, "PlainCoder")
        for name in BUFFERS:
            tensor = norms_of(dense) if name == "W_dec_norms" else getattr(dense, name)
            if tensor is not None:
                self.register_buffer(name, tensor)
            else:  # no buffer that is None: torch.export counts those among the inputs of its graph
                setattr(self, name, None)
        self.function, self.k = dense.activation, dense.k
        self.subtracts_b_dec, self.layers = dense.subtracts_b_dec, dense.layers
        self.n_latents = dense.n_latents

    def extra_repr(self) -> str:
        """What the formula is, and its sizes."""
        d_in, d_out = self.W_enc.shape[1], self.W_dec.shape[1]
        return f"{d_in} -> {self.n_latents} -> {d_out}, {self.function}, k={self.k}, layers={self.layers}"

    # --- latents of every token, active or not

    def encode(self, x: Tensor) -> Tensor:
        """``[B, D]`` (``[B, L, D]`` of a crosscoder) -> ``[B, F]``."""
        if self.k is None:
            return self._before_selection(self._read(x))
        top_acts, top_indices = self.top_k(x)
        latents_BF = top_acts.new_zeros(top_acts.shape[0], self.n_latents)
        return latents_BF.scatter(1, top_indices, top_acts)

    def decode(self, latents: Tensor) -> Tensor:
        """``[B, F]`` -> ``[B, E]`` (``[B, L, E]``), without what a skip connection adds."""
        return self._by_layer(latents @ self.W_dec.to(latents.dtype) + self.b_dec)

    # --- of those that a TopK coder keeps alone

    def top_k(self, x: Tensor) -> TopK:
        """The latents that stay. An entry may be 0, where fewer than k are positive.

        Raises:
            DataError: for a coder without k.
        """
        if self.k is None:
            raise DataError("this coder keeps no fixed number of latents", next="encode(x) gives them all")
        latents_BF = self._before_selection(self._read(x))
        ranking_BF = latents_BF if self.W_dec_norms is None else latents_BF * self.W_dec_norms
        top_indices = ranking_BF.topk(self.k, dim=1).indices
        return TopK(latents_BF.gather(1, top_indices), top_indices)

    def decode_top_k(self, top_acts: Tensor, top_indices: Tensor) -> Tensor:
        """``decode`` of the latents that ``top_k`` gives, which reads their rows alone."""
        W_dec = self.W_dec.to(top_acts.dtype)
        summed = functional.embedding_bag(top_indices, W_dec, per_sample_weights=top_acts, mode="sum")
        return self._by_layer(summed + self.b_dec)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, D]`` -> ``[B, E]``, with what a skip connection adds."""
        x_hat = self.decode(self.encode(x)) if self.k is None else self.decode_top_k(*self.top_k(x))
        if self.W_skip is None:
            return x_hat
        x_BD = self._read(x)
        return x_hat + self._by_layer(x_BD @ self.W_skip.to(x_BD.dtype).T)

    # --- mechanics

    def _read(self, x: Tensor) -> Tensor:
        """``[B, D]``, layers one after another."""
        d_in = self.W_enc.shape[1]
        shape = [d_in] if self.layers == 1 else [self.layers, d_in // self.layers]
        if list(x.shape[1:]) != shape:
            raise DataError(
                f"the vectors have the shape {list(x.shape)}", allowed=str(["B", *shape]).replace("'", "")
            )
        return x.flatten(1).to(torch.promote_types(x.dtype, torch.float32))

    def _before_selection(self, x_BD: Tensor) -> Tensor:
        if self.subtracts_b_dec:
            x_BD = x_BD - self.b_dec
        pre_BF = functional.linear(x_BD, self.W_enc.to(x_BD.dtype), self.b_enc.to(x_BD.dtype))
        point = Pointwise(self.function, self.threshold, self.r_mag, self.b_mag, self.b_enc)
        return point(pre_BF)

    def _by_layer(self, x_hat_BE: Tensor) -> Tensor:
        return x_hat_BE if self.layers == 1 else x_hat_BE.unflatten(1, (self.layers, -1))
