"""SparseCodes: the activations of a batch, as (indices, values, offsets).

Shapes: B tokens, F latents, N entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class SparseCodes:
    """The codes of B tokens in compressed rows: entries ``offsets[b]:offsets[b+1]`` belong to token b.

    An entry may hold the value 0 (a top-k rule that found fewer than k positive latents pads so); it
    does not count as active. Within a token the order of entries is free and indices do not repeat.

    Attributes:
        indices: int32 ``[N]``, the latent of each entry.
        values: float ``[N]``, its activation; carries the gradient.
        offsets: int64 ``[B + 1]``, starts at 0 and ends at N.
        n_latents: F.
        k: entries per token where every token has the same number of them, else None.
        gates: float ``[N]``: 1 where an entry is active, else 0, with the gradient that the activation gives
            it (``Activation.gates``); None where no rule asked for it.
        inputs: float ``[B, d_in]`` (``[B, L, d_in]``), no copy: what was encoded, in the data's space.
            ``encode`` keeps it where the decoder has a skip connection, whose ``decode`` needs it; else None.
        memo: what operations have derived from the support (its order by latent); shared by all codes that
            ``with_values`` makes of these, and not part of their value.
    """

    indices: Tensor
    values: Tensor
    offsets: Tensor
    n_latents: int
    k: int | None = None
    gates: Tensor | None = field(default=None, compare=False)
    inputs: Tensor | None = field(default=None, compare=False)
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @staticmethod
    def from_top_k(indices_BK: Tensor, values_BK: Tensor, n_latents: int) -> SparseCodes:
        """Codes with k entries per token from ``[B, k]`` indices and values."""
        batch, k = indices_BK.shape
        offsets = torch.arange(0, batch * k + 1, max(k, 1), device=indices_BK.device)[: batch + 1]
        if k == 0:
            offsets = torch.zeros(batch + 1, dtype=torch.int64, device=indices_BK.device)
        return SparseCodes(
            indices_BK.reshape(-1).to(torch.int32), values_BK.reshape(-1), offsets, n_latents, k
        )

    @staticmethod
    def from_dense(latents_BF: Tensor) -> SparseCodes:
        """Codes of the non-zero entries of a dense ``[B, F]`` tensor; values keep its gradient."""
        rows, columns = torch.nonzero(latents_BF, as_tuple=True)
        counts = torch.bincount(rows, minlength=latents_BF.shape[0])
        offsets = torch.zeros(latents_BF.shape[0] + 1, dtype=torch.int64, device=latents_BF.device)
        torch.cumsum(counts, 0, out=offsets[1:])
        return SparseCodes(columns.to(torch.int32), latents_BF[rows, columns], offsets, latents_BF.shape[1])

    @property
    def batch_size(self) -> int:
        """B, the number of tokens."""
        return self.offsets.numel() - 1

    @property
    def rows(self) -> Tensor:
        """int64 ``[N]``: the token of each entry."""
        tokens = torch.arange(self.batch_size, device=self.offsets.device)
        if self.k is not None:
            return tokens[:, None].expand(-1, self.k).reshape(-1)
        counts = self.offsets[1:] - self.offsets[:-1]
        return torch.repeat_interleave(tokens, counts, output_size=self.indices.numel())

    @property
    def active(self) -> Tensor:
        """Bool ``[N]``: entries whose value is not zero (negative ones count)."""
        return self.values != 0

    def with_values(self, values: Tensor) -> SparseCodes:
        """The same support with other values ``[N]``."""
        return replace(self, values=values)

    def first(self, n_tokens: int) -> SparseCodes:
        """The codes of the first tokens (of all, where there are fewer)."""
        offsets = self.offsets[: n_tokens + 1]
        end = int(offsets[-1])
        gates = None if self.gates is None else self.gates[:end]
        inputs = None if self.inputs is None else self.inputs[:n_tokens]
        return SparseCodes(
            self.indices[:end], self.values[:end], offsets, self.n_latents, self.k, gates, inputs
        )

    def detach(self) -> SparseCodes:
        """The same codes without gradient."""
        inputs = None if self.inputs is None else self.inputs.detach()
        return replace(self, values=self.values.detach(), gates=None, inputs=inputs)

    def to(self, device: str | torch.device) -> SparseCodes:
        """The same codes on a device."""
        tensors: dict[str, Any] = {
            name: None if tensor is None else tensor.to(device, non_blocking=True)
            for name in ("indices", "values", "offsets", "gates", "inputs")
            for tensor in [getattr(self, name)]
        }
        return replace(self, **tensors, memo={})

    def l0(self) -> Tensor:
        """int64 ``[B]``: active latents of each token."""
        if self.k is not None:
            return self.active.view(self.batch_size, self.k).sum(1)
        counts = torch.zeros(self.batch_size, dtype=torch.int64, device=self.indices.device)
        return counts.index_add_(0, self.rows, self.active.to(torch.int64))

    def fired(self) -> Tensor:
        """int64 ``[F]``: in how many tokens of the batch each latent is active."""
        return torch.bincount(self.indices[self.active], minlength=self.n_latents)

    def to_dense(self) -> Tensor:
        """The dense ``[B, F]`` tensor; keeps the gradient. For small batches, tests and dense methods."""
        dense = self.values.new_zeros(self.batch_size * self.n_latents)
        flat = self.rows * self.n_latents + self.indices
        return dense.index_put((flat,), self.values).view(self.batch_size, self.n_latents)


def concatenate(parts: list[SparseCodes]) -> SparseCodes:
    """The codes of consecutive chunks of a batch as one; with inputs where all have them."""
    if len(parts) == 1:
        return parts[0]
    shifts = [0]
    for part in parts:
        shifts.append(shifts[-1] + part.indices.numel())
    offsets = torch.cat(
        [parts[0].offsets, *(p.offsets[1:] + s for p, s in zip(parts[1:], shifts[1:], strict=False))]
    )
    same_k = {part.k for part in parts}
    inputs = [part.inputs for part in parts if part.inputs is not None]
    return SparseCodes(
        torch.cat([p.indices for p in parts]),
        torch.cat([p.values for p in parts]),
        offsets,
        parts[0].n_latents,
        same_k.pop() if len(same_k) == 1 else None,
        inputs=torch.cat(inputs) if len(inputs) == len(parts) else None,
    )


def split_latents(codes: SparseCodes, prefixes: Sequence[int]) -> list[SparseCodes]:
    """The codes of each group of latents alone, numbered from 0 within the group; keeps gradients.

    Args:
        prefixes: ascending, the last one F; group g holds latents ``prefixes[g - 1]`` up to ``prefixes[g]``.
    """
    parts, start, rows = [], 0, codes.rows
    for end in prefixes:
        place = ((codes.indices >= start) & (codes.indices < end)).nonzero().squeeze(1)
        offsets = torch.zeros_like(codes.offsets)
        torch.cumsum(torch.bincount(rows[place], minlength=codes.batch_size), 0, out=offsets[1:])
        values = codes.values[place] if codes.values.numel() else codes.values
        gates = None if codes.gates is None else codes.gates[place]
        indices = codes.indices[place] - start
        parts.append(SparseCodes(indices, values, offsets, end - start, gates=gates, inputs=codes.inputs))
        start = end
    return parts


def _order_of_joined(parts: Sequence[SparseCodes]) -> Tensor:
    """int64 ``[N]``: for each entry of the joined codes, token after token, where it is in the parts' entries
    one after another."""
    starts = torch.stack([part.offsets[:-1] for part in parts])
    counts = torch.stack([part.offsets.diff() for part in parts])
    first = counts.flatten().new_zeros(parts[0].batch_size)
    torch.cumsum(counts.sum(0)[:-1], 0, out=first[1:])
    # where a token's entries of a part begin among all, less where they begin within the part
    shifts = first + counts.cumsum(0) - counts - starts
    places = [
        torch.arange(len(part.indices), device=shift.device) + shift[part.rows]
        for part, shift in zip(parts, shifts, strict=True)
    ]
    place = torch.cat(places)
    order = torch.empty_like(place)
    order[place] = torch.arange(len(place), device=place.device)
    return order


def join_latents(parts: Sequence[SparseCodes]) -> SparseCodes:
    """Codes of several groups of latents as those of one dictionary, group after group; keeps gradients."""
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + part.n_latents)
    order = _order_of_joined(parts)
    indices = torch.cat([part.indices + start for part, start in zip(parts, starts, strict=False)])
    gates = [part.gates for part in parts if part.gates is not None]
    ks = [part.k for part in parts if part.k is not None]
    offsets = torch.stack([part.offsets for part in parts]).sum(0)
    return SparseCodes(
        indices[order],
        torch.cat([part.values for part in parts])[order],
        offsets,
        starts[-1],
        sum(ks) if len(ks) == len(parts) else None,
        torch.cat(gates)[order] if len(gates) == len(parts) else None,
        next((part.inputs for part in parts if part.inputs is not None), None),
    )
