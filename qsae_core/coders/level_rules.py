"""One sparsity rule for each group of latents. Shapes: C rows of a chunk, F latents, N entries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from qsae_core.component import ComponentConfig
from qsae_core.contracts.codes import SparseCodes, join_latents, split_latents
from qsae_core.contracts.sparsity import SparsityRule
from qsae_core.errors import ConfigError


class LevelRules(SparsityRule):
    """Each group of latents has a rule of its own, as if it were a dictionary by itself.

    Args:
        make: number of latents -> rule (``Parts.sparsity``).
        prefixes: where groups end, ascending; the last one is F.
        weights: what each group's penalty is multiplied by; 1 where left out.
        shares: what the number of latents that each group's rule keeps (``SparsityRule.counts``) is
            multiplied by (a whole number stays one, 1 at least); 1 where left out. Rules without such a
            number stay as they are.
        called: what a message calls a group.

    Raises:
        ConfigError: where a rule refuses its group; it names the group.
    """

    selects_largest = False

    def __init__(
        self,
        make: Callable[[int], SparsityRule],
        prefixes: Sequence[int],
        weights: Sequence[float] | None = None,
        shares: Sequence[float] | None = None,
        *,
        called: str = "level",
    ) -> None:
        super().__init__(ComponentConfig(), prefixes[-1])
        self.prefixes, self.called = tuple(prefixes), called
        sizes = [end - start for start, end in zip((0, *prefixes), prefixes, strict=False)]
        shares = shares or [1.0] * len(sizes)
        self.rules = nn.ModuleList(
            _of_level(called, i, sizes, make, share)
            for i, share in zip(range(len(sizes)), shares, strict=True)
        )
        self.weights = tuple(weights) if weights is not None else (1.0,) * len(sizes)
        ks = [rule.fixed_k for rule in self.each if rule.fixed_k is not None]
        self.fixed_k = sum(ks) if len(ks) == len(sizes) else None
        self.needs_gates = any(rule.needs_gates for rule in self.each)  # type: ignore[misc]
        self._ranks_batch = any(type(r).finish_batch is not SparsityRule.finish_batch for r in self.each)

    @property
    def each(self) -> list[SparsityRule]:
        """The rules, group by group."""
        return [cast(SparsityRule, rule) for rule in self.rules]

    def check_counts(self) -> None:
        """Refuse levels with fewer latents than their rule is to keep: one that ranks a whole batch takes any
        number. For new runs; coders that were stored so are served as they are.

        Raises:
            ConfigError: which names the first such level; its place is the rule's option.
        """
        sizes = [rule.n_latents for rule in self.each]
        for index, rule in enumerate(self.each):
            with _said_of_level(self.called, index, sizes):
                _check_count(rule)

    def begin_batch(self, batch_size: int) -> None:
        """Of every rule."""
        for rule in self.each:
            rule.begin_batch(batch_size)

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        """What every rule keeps of its own group."""
        groups = [slice(a, b) for a, b in zip((0, *self.prefixes), self.prefixes, strict=False)]
        return join_latents(
            [
                rule.select(latents_BF[:, g].contiguous(), None if importance_F is None else importance_F[g])
                for rule, g in zip(self.each, groups, strict=True)
            ]
        )

    def finish_batch(self, codes: SparseCodes, importance_F: Tensor | None = None) -> SparseCodes:
        """Of every rule, for its own group."""
        if not self._ranks_batch:
            return codes
        parts = split_latents(codes, self.prefixes)
        weights = (
            torch.split(importance_F, [p.n_latents for p in parts]) if importance_F is not None else None
        )
        return join_latents(
            [
                rule.finish_batch(part, None if weights is None else weights[i])
                for i, (rule, part) in enumerate(zip(self.each, parts, strict=True))
            ]
        )

    def penalty(self, codes: SparseCodes, atom_norms_F: Tensor) -> Tensor | None:
        """The weighted sum of the rules' penalties; None where none has one."""
        total: Tensor | None = None
        parts = split_latents(codes, self.prefixes)
        norms = torch.split(atom_norms_F, [part.n_latents for part in parts])
        for rule, part, its_norms, weight in zip(self.each, parts, norms, self.weights, strict=True):
            term = rule.penalty(part, its_norms)
            if term is not None:
                total = weight * term if total is None else total + weight * term
        return total

    def max_l0(self) -> int | None:
        """The sum of the rules' bounds; None where one has none."""
        bounds = [bound for rule in self.each if (bound := rule.max_l0()) is not None]
        return sum(bounds) if len(bounds) == len(self.rules) else None


@contextmanager
def _said_of_level(called: str, index: int, sizes: Sequence[int]) -> Iterator[None]:
    """A refusal of a level's rule says so, as the user has counted the latents of all levels."""
    try:
        yield
    except ConfigError as error:
        error.what = (
            f"{called} {index + 1} of {len(sizes)} has {sizes[index]} of the {sum(sizes)} latents "
            f"and a sparsity rule of its own: {error.what}"
        )
        raise


def _of_level(
    called: str, index: int, sizes: Sequence[int], make: Callable[[int], SparsityRule], share: float
) -> SparsityRule:
    with _said_of_level(called, index, sizes):
        return _made(make, sizes[index], share)


def _check_count(rule: SparsityRule) -> None:
    count = getattr(rule.config, rule.counts) if rule.counts is not None else None
    if isinstance(count, int) and count > rule.n_latents:
        raise ConfigError(
            f"{rule.counts} = {count} active latents per token, but there are only {rule.n_latents} latents",
            where=rule.counts,
            allowed=f"1 to {rule.n_latents}",
            next=f"give --sparsity.{rule.counts} of at most {rule.n_latents}, or a larger --n-latents",
        )


def _made(make: Callable[[int], SparsityRule], size: int, share: float) -> SparsityRule:
    """A rule for ``size`` latents that keeps ``share`` times as many as its options say."""
    rule = make(round(size / share))  # its number is meant for such a group
    if share == 1:
        return rule
    count = getattr(rule.config, rule.counts) if rule.counts is not None else None
    changed: dict[str, float] = {}
    if rule.counts is not None and count is not None:
        changed[rule.counts] = max(1, round(count * share)) if isinstance(count, int) else count * share
    return type(rule)(rule.config.model_copy(update=changed), size)
