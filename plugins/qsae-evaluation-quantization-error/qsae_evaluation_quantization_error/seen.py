"""What is kept of the data, in float64. Shapes: B tokens, D width, F latents, G groups of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.contracts import EvaluationContext, Observation, SparseCodes
from qsae_core.kernels import decode
from qsae_evaluation_quantization_error import QuantizationErrorConfig
from qsae_evaluation_quantization_error.controls import Controls, Forms
from qsae_evaluation_quantization_error.margins import Margins
from qsae_evaluation_quantization_error.pairs import Active, PairSums, active, shared
from qsae_evaluation_quantization_error.positions import TopPositions

GROUPS = 10
"""Of tokens, for the jackknife: by context, or by blocks of tokens where contexts are not known."""
BLOCK = 64
SEED = 0
"""Of the pairing at random."""


def one_group(n_tokens: int, like: Active) -> Tensor:
    """int64 ``[B]`` of zeros."""
    return torch.zeros(n_tokens, dtype=torch.int64, device=like.rows.device)


class Seen:
    """Sums over every token, of the twin (a) and the coder (b)."""

    @torch.no_grad()
    def __init__(self, config: QuantizationErrorConfig, context: EvaluationContext, made: Forms) -> None:
        assert context.twin is not None
        n, device = context.coder.n_latents, context.device
        self.config, self.context = config, context
        self.difference = (context.coder.atoms() - context.twin.atoms()).flatten(1)
        """float32 ``[F, D]``: what the atoms became, less what they were."""
        self.difference_square = self.difference.double().square().sum(1)
        norms = [_norms(coder.atom_norms()) for coder in (context.twin, context.coder)]
        self.margins = Margins(*norms)
        self.pairs = PairSums(n, GROUPS, device)
        self.by_chance = PairSums(n, device=device)
        self.other_latent = another(n).to(device)
        self.top = [TopPositions(n, config.top, device) for _ in range(2)]
        self.controls = Controls(config, context, made)
        self.errors = torch.zeros(3, dtype=torch.float64, device=device)
        """Sums over tokens of ||e||^2 of the twin's codes decoded by either dictionary, of what that would be
        with independent errors, and of 1."""
        self.targets = [torch.zeros((), dtype=torch.float64, device=device) for _ in range(2)]
        """Sum of x, ``[D]``, and of ||x||^2."""
        self.squared_errors = torch.zeros(2, dtype=torch.float64, device=device)
        """Sum of the squared error of the twin's and of the coder's reconstruction."""
        self.special, self.next_token = 0, 0

    @torch.no_grad()
    def add(self, observation: Observation) -> None:
        """Take a batch."""
        assert observation.twin_codes is not None  # as the evaluation observes them
        first = self.next_token if observation.first is None else observation.first
        n = len(observation.target)
        self.next_token = first + n
        a, b = active(observation.twin_codes), active(observation.codes)
        common = shared(a, b)
        self.pairs.add(a, b, common, groups_of(observation, first, a))
        self.margins.add(a, b, common, n)
        mispaired = b._replace(latents=self.other_latent[b.latents])
        self.by_chance.add(a, mispaired, shared(a, mispaired), one_group(n, a))
        for kept, codes in zip(self.top, (a, b), strict=True):
            kept.add(codes, first)
        self._add_errors(observation, a)
        if observation.inputs is not None:
            self.controls.add(observation.inputs, observation.twin_codes, observation.codes, first)
        if observation.tokens is not None:
            tokens = observation.tokens
            self.special += int((tokens.attention & ~tokens.counted).sum())

    def _add_errors(self, observation: Observation, a: Active) -> None:
        codes = observation.twin_codes
        assert codes is not None
        assert self.context.twin is not None
        moved = decode(_plain(codes), self.difference).double().square().sum()
        alone = (a.values.square() * self.difference_square[a.latents]).sum()
        count = torch.tensor(float(len(observation.target)), dtype=torch.float64)
        self.errors += torch.stack([moved, alone, count.to(moved)])
        x = observation.target.double().flatten(1)
        self.targets[0] = self.targets[0] + x.sum(0)
        self.targets[1] = self.targets[1] + x.square().sum()
        for side, x_hat in enumerate((self.context.twin.decode(codes), observation.reconstruction)):
            self.squared_errors[side] += (x - x_hat.double().flatten(1)).square().sum()

    def merge(self, other: Seen) -> None:
        """Take what another one has seen."""
        self.margins.merge(other.margins)
        self.pairs.merge(other.pairs)
        self.by_chance.merge(other.by_chance)
        self.controls.merge(other.controls)
        for kept, more in zip(self.top, other.top, strict=True):
            kept.merge(more)
        self.errors += other.errors
        self.targets = [one + more for one, more in zip(self.targets, other.targets, strict=True)]
        self.squared_errors += other.squared_errors
        self.special += other.special
        self.next_token = max(self.next_token, other.next_token)

    def variance(self) -> float:
        """``sum ||x - mean(x)||^2`` over the tokens."""
        n = float(self.errors[2])
        return float(self.targets[1] - self.targets[0].square().sum() / n) if n else 0.0


def _plain(codes: SparseCodes) -> SparseCodes:
    """Without what a skip connection needs."""
    return SparseCodes(codes.indices, codes.values, codes.offsets, codes.n_latents, codes.k)


def _norms(norms: Tensor) -> Tensor:
    """float64 ``[F]``: over all layers, where there are several."""
    norms = norms.double()
    return norms if norms.dim() == 1 else norms.norm(dim=1)


def another(n_latents: int) -> Tensor:
    """int64 ``[F]``: a random permutation in which no latent keeps its place (unless it is the only one)."""
    order = torch.randperm(n_latents, generator=torch.Generator().manual_seed(SEED))
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    return other


def groups_of(observation: Observation, first: int, like: Active) -> Tensor:
    """int64 ``[B]``: the group of each token; tokens of one context, or of one block, are in one."""
    if observation.origin is not None:
        return (observation.origin.context % GROUPS).to(like.rows.device)
    numbers = torch.arange(first, first + len(observation.target), device=like.rows.device)
    return numbers // BLOCK % GROUPS
