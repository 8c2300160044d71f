"""The evaluation ``splitting``. Shapes: F latents."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from qsae_core.contracts import Accumulator, Evaluation, EvaluationContext, Observation, Result
from qsae_core.measuring import entries_by_token
from qsae_evaluation_splitting import SplittingConfig
from qsae_evaluation_splitting.families import children, families, may_be_parents
from qsae_evaluation_splitting.pair_counts import PairCounts
from qsae_evaluation_splitting.report import Counted, report
from qsae_evaluation_splitting.siblings import Siblings


class Splitting(Evaluation):
    """Latents that are there twice, and latents whose firings others divide among them.

    With n_i tokens on which latent i fires, and n_ij on which i and j do:

    duplicates: pairs with ``n_ij / (n_i + n_j - n_ij) > jaccard`` and cosine of decoder rows ``> cosine``;
    children of i: ``C(i) = {j: n_ij / n_j > child_share, n_j >= min_fired}``, between the groups of a nested
    coder j of a later group than i, else any other j;
    coverage: P(any of C(i) fires | i fires); exclusivity: 1 - mean Jaccard index of pairs of C(i);
    split: ``|C(i)| >= 2``, and coverage and exclusivity above their thresholds.

    Children split a parent where they share its firings out; duplicates fire together, and do not.
    """

    def unavailable(self, context: EvaluationContext) -> str | None:
        """The reason, for several coders together."""
        if context.coder.by_layer():
            return "the coder of each layer has a dictionary of its own, and is evaluated alone"
        return None

    def start(self, context: EvaluationContext) -> PairsPass:
        """The first pass, which counts pairs."""
        return PairsPass(cast(SplittingConfig, self.config), context)


class PairsPass(Accumulator):
    """Counts latents and pairs of latents."""

    def __init__(self, config: SplittingConfig, context: EvaluationContext) -> None:
        self.config, self.coder = config, context.coder
        self.n_tokens, self.seen = config.tokens, 0
        n_latents = context.coder.n_latents
        self.pairs = PairCounts(n_latents, config.max_pairs, config.max_updates)
        prefixes = context.coder.config.prefixes()
        self.groups_F = None
        if prefixes is not None and len(prefixes) > 1:
            self.groups_F = torch.bucketize(torch.arange(n_latents), torch.tensor(prefixes), right=True)

    def update(self, observation: Observation) -> None:
        """Count a batch."""
        self.seen += observation.codes.batch_size
        self.pairs.add(*_entries(observation))

    def merge(self, other: PairsPass) -> None:
        """Add what another one has counted."""
        self.seen += other.seen
        self.pairs.merge(other.pairs)

    def next_pass(self) -> SiblingsPass | None:
        """What children cover of their parents, where any latent has two children."""
        counted = self._counted()
        return SiblingsPass(self, counted) if len(counted.families.parents) else None

    def result(self) -> Result:
        """Duplicates; and that there is no family, if none is."""
        return report(self._counted(), None, self.coder, self.config)

    def _counted(self) -> Counted:
        together = self.pairs.found()
        asked_F = may_be_parents(together, self.groups_F, self.seen, self.config)
        found = children(together, asked_F, self.groups_F, self.config)
        large = families(*found, together.fired)
        n_children_F = torch.bincount(found[0], minlength=len(asked_F))
        return Counted(together, asked_F, self.groups_F, n_children_F, large, self.seen)


class SiblingsPass(Accumulator):
    """Counts what the first pass's families need.

    Args:
        first: the first pass.
        counted: what it found.
    """

    def __init__(self, first: PairsPass, counted: Counted) -> None:
        self.config, self.coder, self.counted = first.config, first.coder, counted
        self.n_tokens = first.n_tokens
        n_latents = len(counted.asked)
        self.siblings = Siblings(counted.families, n_latents, first.config.max_children)

    def update(self, observation: Observation) -> None:
        """Count a batch."""
        self.siblings.add(*_entries(observation))

    def merge(self, other: SiblingsPass) -> None:
        """Add what another one has counted."""
        self.siblings.merge(other.siblings)

    def result(self) -> Result:
        """Duplicates and splits."""
        return report(self.counted, self.siblings, self.coder, self.config)


def _entries(observation: Observation) -> tuple[Tensor, Tensor]:
    """Token and latent of each firing, by token."""
    codes = observation.codes
    active_N = codes.active
    return entries_by_token(codes.rows[active_N].cpu(), codes.indices[active_N].long().cpu())
