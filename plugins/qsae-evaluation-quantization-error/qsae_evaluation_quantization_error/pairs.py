"""Sums over tokens of two coders' codes, from which everything about pairs of latents follows.

Shapes: B tokens, F latents, N entries, G groups of tokens, S sums. ``a`` is the twin, ``b`` the coder.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.contracts import SparseCoder, SparseCodes

SUMS = ("firings_a", "firings_b", "both", "sum_a", "sum_b", "square_a", "square_b", "cross")
"""#(a != 0), #(b != 0), #(both), sum a, sum b, sum a^2, sum b^2, sum a b."""
GROUPS = 10
"""Of tokens, for the jackknife: by context, or by blocks of tokens where contexts are not known."""
SEED = 0
"""Of the pairing at random."""
CONSTANT = 1e-12
"""A variance that is a smaller share of the mean square than this is rounding: the latent is constant."""


class Active(NamedTuple):
    """The entries of codes that are not zero."""

    rows: Tensor
    """int64 ``[N]``: token within the batch."""
    latents: Tensor
    """int64 ``[N]``."""
    values: Tensor
    """float64 ``[N]``."""
    n_latents: int

    @property
    def keys(self) -> Tensor:
        """int64 ``[N]``: one number for each pair of token and latent."""
        return self.rows * self.n_latents + self.latents


def writes(coder: SparseCoder) -> Tensor:
    """bool ``[F]``: whether an atom is there. One of zeros adds nothing, whatever the latent's code is."""
    norms = coder.atom_norms()
    return norms > 0 if norms.dim() == 1 else (norms > 0).any(1)


def active(codes: SparseCodes, writes_F: Tensor) -> Active:
    """The entries that fire, of latents that write anything."""
    on = codes.active & writes_F[codes.indices.to(torch.int64)]
    values = codes.values[on].to(torch.float64)
    return Active(codes.rows[on], codes.indices[on].to(torch.int64), values, codes.n_latents)


class Shared(NamedTuple):
    """Which entries two codes have in common."""

    in_b: Tensor
    """bool ``[N_a]``: whether the entry of a is one of b too."""
    in_a: Tensor
    """bool ``[N_b]``."""
    values_b: Tensor
    """float64 ``[N_a]``: b's value at the place of a's entry; 0 where it has none."""


def shared(a: Active, b: Active) -> Shared:
    """The entries in common, found by sorting one of the two."""
    keys_b, order = b.keys.sort()
    in_a = torch.zeros_like(keys_b, dtype=torch.bool)
    if not len(keys_b):
        return Shared(torch.zeros_like(a.rows, dtype=torch.bool), in_a, torch.zeros_like(a.values))
    place = torch.searchsorted(keys_b, a.keys).clamp_max(len(keys_b) - 1)
    in_b = keys_b[place] == a.keys
    found = order[place]
    in_a[found[in_b]] = True
    return Shared(in_b, in_a, torch.where(in_b, b.values[found], 0.0))


def one_group(n_tokens: int, like: Active) -> Tensor:
    """int64 ``[B]`` of zeros."""
    return torch.zeros(n_tokens, dtype=torch.int64, device=like.rows.device)


def another(n_latents: int) -> Tensor:
    """int64 ``[F]``: a random permutation in which no latent keeps its place (unless it is the only one)."""
    order = torch.randperm(n_latents, generator=torch.Generator().manual_seed(SEED))
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    return other


class PairSums:
    """The ``SUMS`` of every latent in each of several groups of tokens; only entries that fire are touched.

    Args:
        groups: G; more than one for a jackknife over groups.
    """

    def __init__(self, n_latents: int, groups: int = 1, device: str | torch.device = "cpu") -> None:
        self.n_latents = n_latents
        self.tokens = torch.zeros(groups, dtype=torch.float64, device=device)
        self.sums = torch.zeros(len(SUMS), groups, n_latents, dtype=torch.float64, device=device)

    def add(self, a: Active, b: Active, common: Shared, group_B: Tensor) -> None:
        """Add a batch; ``group_B`` is the group of each of its tokens, int64."""
        n_groups = len(self.tokens)
        self.tokens += torch.bincount(group_B, minlength=n_groups).to(self.tokens)
        cells = [group_B[side.rows] * self.n_latents + side.latents for side in (a, b)]
        ones = [torch.ones_like(side.values) for side in (a, b)]
        added = {
            "firings_a": (cells[0], ones[0]),
            "firings_b": (cells[1], ones[1]),
            "both": (cells[0], common.in_b.to(torch.float64)),
            "sum_a": (cells[0], a.values),
            "sum_b": (cells[1], b.values),
            "square_a": (cells[0], a.values.square()),
            "square_b": (cells[1], b.values.square()),
            "cross": (cells[0], a.values * common.values_b),
        }
        for place, name in enumerate(SUMS):
            index, values = added[name]
            self.sums[place].view(-1).index_add_(0, index, values)

    def merge(self, other: PairSums) -> None:
        """Add what another one has seen."""
        self.tokens += other.tokens
        self.sums += other.sums

    def whole(self) -> Pairs:
        """Of all tokens."""
        return Pairs(self.tokens.sum(), *self.sums.sum(1))

    def without_each(self) -> Pairs:
        """Of all tokens but those of one group, for each group: a leading dimension G."""
        tokens = self.tokens.sum() - self.tokens
        return Pairs(tokens[:, None], *(self.sums.sum(1, keepdim=True) - self.sums))


class Pairs(NamedTuple):
    """The sums of each pair of latents, ``[..., F]``, and what follows from them."""

    tokens: Tensor
    firings_a: Tensor
    firings_b: Tensor
    both: Tensor
    sum_a: Tensor
    sum_b: Tensor
    square_a: Tensor
    square_b: Tensor
    cross: Tensor

    @property
    def union(self) -> Tensor:
        """Tokens at which either fires."""
        return self.firings_a + self.firings_b - self.both

    @property
    def jaccard(self) -> Tensor:
        """``both / union``; NaN where neither ever fires."""
        return self.both / self.union

    @property
    def scale(self) -> Tensor:
        """``<a, b> / ||a||^2``: by what factor b is a; below 1 it is shrunk. NaN where a never fires."""
        return self.cross / self.square_a

    @property
    def r(self) -> Tensor:
        """Pearson's correlation over all tokens, zeros included; NaN where one of the two is constant."""
        return self._correlation(self.tokens)

    @property
    def r_union(self) -> Tensor:
        """The same over the tokens at which either fires."""
        return self._correlation(self.union)

    @property
    def varies_a(self) -> Tensor:
        """bool: whether a's activation varies over all tokens."""
        return _varies(self.square_a - self.sum_a.square() / self.tokens, self.square_a)

    def _correlation(self, n: Tensor) -> Tensor:
        variance_a = self.square_a - self.sum_a.square() / n
        variance_b = self.square_b - self.sum_b.square() / n
        covariance = self.cross - self.sum_a * self.sum_b / n
        r = (covariance / (variance_a * variance_b).sqrt()).clamp(-1, 1)
        both = _varies(variance_a, self.square_a) & _varies(variance_b, self.square_b)
        return torch.where(both, r, torch.nan)


def _varies(variance: Tensor, square: Tensor) -> Tensor:
    return variance > CONSTANT * square
