"""What is kept of the data, in float64. Shapes: B tokens, D width, F latents, G groups of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.contracts import EvaluationContext, Observation, SparseCoder, SparseCodes
from qsae_core.kernels import decode
from qsae_evaluation_quantization_error import QuantizationErrorConfig
from qsae_evaluation_quantization_error.controls import Controls, Forms
from qsae_evaluation_quantization_error.margins import Margins
from qsae_evaluation_quantization_error.other_seed import OtherSeed
from qsae_evaluation_quantization_error.pairs import (
    GROUPS,
    Active,
    PairSums,
    active,
    another,
    one_group,
    shared,
    writes,
)
from qsae_evaluation_quantization_error.positions import TopPositions
from qsae_evaluation_quantization_error.reconstructions import Reconstructions

BLOCK = 64
"""Tokens of one group, where contexts are not known."""


class Seen:
    """Sums over every token, of the twin (a) and the coder (b).

    Args:
        made: what the controls vary.
        other: a float coder of another seed, where one is given.
    """

    @torch.no_grad()
    def __init__(
        self,
        config: QuantizationErrorConfig,
        context: EvaluationContext,
        made: Forms,
        other: SparseCoder | None,
    ) -> None:
        assert context.twin is not None
        n, device = context.coder.n_latents, context.device
        self.config, self.context = config, context
        self.difference = (context.coder.atoms() - context.twin.atoms()).flatten(1)
        """float32 ``[F, D]``: what the atoms became, less what they were."""
        self.difference_square = self.difference.double().square().sum(1)
        norms = [_norms(coder.atom_norms()) for coder in (context.twin, context.coder)]
        self.margins = Margins(*norms)
        self.writes = [writes(coder) for coder in (context.twin, context.coder)]
        self.pairs = PairSums(n, GROUPS, device)
        self.by_chance = PairSums(n, device=device)
        self.other_latent = another(n).to(device)
        self.top = [TopPositions(n, config.top, device) for _ in range(2)]
        self.controls = Controls(config, context, made)
        self.other_seed = None if other is None else OtherSeed(config, context, other)
        self.errors = torch.zeros(3, dtype=torch.float64, device=device)
        """Sums over tokens of ||e||^2 of the twin's codes decoded by either dictionary, of what that would be
        with independent errors, and of 1."""
        self.reconstructions = Reconstructions(device)
        self.special, self.next_token = 0, 0

    @torch.no_grad()
    def add(self, observation: Observation) -> None:
        """Take a batch."""
        assert observation.twin_codes is not None  # as the evaluation observes them
        first = self.next_token if observation.first is None else observation.first
        n = len(observation.target)
        self.next_token = first + n
        a = active(observation.twin_codes, self.writes[0])
        b = active(observation.codes, self.writes[1])
        common = shared(a, b)
        group_B = groups_of(observation, first, a)
        self.pairs.add(a, b, common, group_B)
        self.margins.add(a, b, common, n)
        mispaired = b._replace(latents=self.other_latent[b.latents])
        self.by_chance.add(a, mispaired, shared(a, mispaired), one_group(n, a))
        for kept, codes in zip(self.top, (a, b), strict=True):
            kept.add(codes, first)
        self._add_errors(observation, a)
        if observation.inputs is not None:
            self.controls.add(observation.inputs, observation.twin_codes, observation.codes, first)
        of_controls = self.controls.rows(first, n)
        if self.other_seed is not None and of_controls:
            self.other_seed.add(observation, group_B[:of_controls], first)
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
        decoded = self.context.twin.decode(codes), observation.reconstruction
        self.reconstructions.add(observation.target, *decoded)

    def merge(self, other: Seen) -> None:
        """Take what another one has seen."""
        self.margins.merge(other.margins)
        self.pairs.merge(other.pairs)
        self.by_chance.merge(other.by_chance)
        self.controls.merge(other.controls)
        if self.other_seed is not None and other.other_seed is not None:
            self.other_seed.merge(other.other_seed)
        for kept, more in zip(self.top, other.top, strict=True):
            kept.merge(more)
        self.errors += other.errors
        self.reconstructions.merge(other.reconstructions)
        self.special += other.special
        self.next_token = max(self.next_token, other.next_token)


def _plain(codes: SparseCodes) -> SparseCodes:
    """Without what a skip connection needs."""
    return SparseCodes(codes.indices, codes.values, codes.offsets, codes.n_latents, codes.k)


def _norms(norms: Tensor) -> Tensor:
    """float64 ``[F]``: over all layers, where there are several."""
    norms = norms.double()
    return norms if norms.dim() == 1 else norms.norm(dim=1)


def groups_of(observation: Observation, first: int, like: Active) -> Tensor:
    """int64 ``[B]``: the group of each token; tokens of one context, or of one block, are in one."""
    if observation.origin is not None:
        return (observation.origin.context % GROUPS).to(like.rows.device)
    numbers = torch.arange(first, first + len(observation.target), device=like.rows.device)
    return numbers // BLOCK % GROUPS
