"""From counts to a result. Shapes: F latents, C (parent, child) pairs."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.contracts import Result, SparseCoder, Table
from qsae_evaluation_splitting import SplittingConfig
from qsae_evaluation_splitting.duplicates import Duplicates, cosines, duplicates
from qsae_evaluation_splitting.families import Families
from qsae_evaluation_splitting.pair_counts import Together
from qsae_evaluation_splitting.siblings import Siblings

Numbers = dict[str, float | None]


class Counted(NamedTuple):
    """What the first pass found."""

    together: Together
    asked: Tensor
    """Bool ``[F]``: latents that are asked for children."""
    groups: Tensor | None
    """int64 ``[F]``: groups of a nested coder, from 0."""
    n_children: Tensor
    """int64 ``[F]``."""
    families: Families
    n_tokens: int


class Splits(NamedTuple):
    """Of each family, float64; and bool, whether the parent is split."""

    coverage: Tensor
    coverage_by_chance: Tensor
    exclusivity: Tensor
    exclusivity_by_chance: Tensor
    split: Tensor


def splits(counted: Counted, siblings: Siblings | None, config: SplittingConfig) -> Splits:
    """What the second pass found; of no family, if there is none."""
    fired_F, families = counted.together.fired, counted.families
    if siblings is None:
        nothing = torch.zeros(0, dtype=torch.float64)
        return Splits(nothing, nothing, nothing, nothing, nothing.bool())
    coverage = siblings.covered / fired_F[families.parents].double()
    silent = torch.log1p(-fired_F[families.child].double() / counted.n_tokens)
    none = torch.zeros_like(coverage).index_add_(0, families.family, silent)
    exclusivity = 1 - siblings.mean_jaccard(fired_F)
    by_chance = 1 - siblings.mean_jaccard(fired_F, n_tokens=counted.n_tokens)
    split = (coverage > config.coverage) & (exclusivity > config.exclusivity)
    return Splits(coverage, -none.expm1(), exclusivity, by_chance, split)


def report(
    counted: Counted, siblings: Siblings | None, coder: SparseCoder, config: SplittingConfig
) -> Result:
    """All that was found."""
    together, families = counted.together, counted.families
    found = splits(counted, siblings, config)
    twice = duplicates(together, coder, config.jaccard, config.cosine)
    per_latent = _columns(counted, found, twice)
    alive = together.sampled & (together.fired > 0)
    n_parents, n_split = int(counted.asked.sum()), int(found.split.sum())
    shares = {
        "duplicate_fraction": (int((per_latent["duplicates"][alive] > 0).sum()), int(alive.sum())),
        "split_fraction": (n_split, n_parents),
    }
    values: Numbers = {name: part / n if n else None for name, (part, n) in shares.items()}
    errors: Numbers = {name: _share_error(part, n) for name, (part, n) in shares.items()}
    values["duplicate_pairs"] = float(twice.n)
    values |= {"n_parents": float(n_parents), "n_families": float(len(families.parents))}
    values |= {"n_split": float(n_split), "children": _mean(families.sizes.double())}
    values |= {"coverage": _mean(found.coverage), "exclusivity": _mean(found.exclusivity)}
    values["sampled_fraction"] = float(together.sampled.double().mean())
    values["n_tokens"] = float(counted.n_tokens)
    errors |= {name: _mean_error(getattr(found, name)) for name in ("coverage", "exclusivity")}
    chance = {name: _mean(getattr(found, f"{name}_by_chance")) for name in ("coverage", "exclusivity")}
    tables = {
        "splits": _split_table(counted, found, coder, config),
        "duplicates": _duplicate_table(twice, together.fired, config.rows_shown),
    }
    if counted.groups is not None:
        tables["groups"] = _group_table(counted, counted.groups, found)
    return Result(values, chance=chance, uncertainty=errors, per_latent=per_latent, tables=tables)


def _columns(counted: Counted, found: Splits, twice: Duplicates) -> dict[str, Tensor]:
    sampled_F, fired_F = counted.together.sampled, counted.together.fired
    n = len(fired_F)
    copies_F = torch.bincount(torch.cat([twice.i, twice.j]), minlength=n).double()
    columns = {
        "fired": fired_F,
        "duplicates": copies_F.where(sampled_F, math.nan),
        "children": counted.n_children.double().where(counted.asked, math.nan),
        "split": torch.zeros(n, dtype=torch.float64).where(counted.asked, math.nan),
    }
    columns["split"][counted.families.parents] = found.split.double()
    for name in ("coverage", "exclusivity"):
        columns[name] = torch.full((n,), math.nan, dtype=torch.float64)
        columns[name][counted.families.parents] = getattr(found, name)
    return columns


def _split_table(counted: Counted, found: Splits, coder: SparseCoder, config: SplittingConfig) -> Table:
    """The children of split parents, those that fire most often first."""
    families, fired_F = counted.families, counted.together.fired
    number = found.split.nonzero().flatten()
    number = number[fired_F[families.parents[number]].argsort(descending=True, stable=True)]
    rows: list[tuple[int | float | None, ...]] = []
    for family in number[: config.rows_shown].tolist():
        parent = int(families.parents[family])
        its = (families.family == family) & (families.rank < config.max_children)
        kids = families.child[its]
        cosine = cosines(coder, torch.full_like(kids, parent), kids)
        about = (parent, int(fired_F[parent]), int(families.sizes[family]))
        scores = (float(found.coverage[family]), float(found.exclusivity[family]))
        shares = families.shared[its] / fired_F[kids].double()
        for kid, share, similar in zip(kids.tolist(), shares.tolist(), cosine.tolist(), strict=True):
            defined = similar if math.isfinite(similar) else None
            rows.append((*about, *scores, kid, int(fired_F[kid]), share, defined))
    columns = ("parent", "fired", "children", "coverage", "exclusivity")
    return Table((*columns, "child", "child_fired", "within_parent", "cosine"), rows)


def _duplicate_table(twice: Duplicates, fired_F: Tensor, n: int) -> Table:
    some = Duplicates(*(column[:n] for column in twice))
    rows = list(
        zip(
            some.i.tolist(),
            some.j.tolist(),
            fired_F[some.i].tolist(),
            fired_F[some.j].tolist(),
            some.jaccard.tolist(),
            some.cosine.tolist(),
            strict=True,
        )
    )
    return Table(("latent", "other", "fired", "other_fired", "jaccard", "cosine"), rows)


def _group_table(counted: Counted, groups_F: Tensor, found: Splits) -> Table:
    """A row for each group that has later ones."""
    rows: list[tuple[int | float | None, ...]] = []
    of_family = groups_F[counted.families.parents]
    for group in range(int(groups_F.max())):
        parents = int(counted.asked[groups_F == group].sum())
        n_split = int(found.split[of_family == group].sum())
        share = n_split / parents if parents else None
        latents = int((groups_F == group).sum())
        rows.append((group + 1, latents, parents, int((of_family == group).sum()), n_split, share))
    return Table(("group", "latents", "parents", "families", "split", "split_fraction"), rows)


def _mean(column: Tensor) -> float | None:
    return float(column.mean()) if len(column) else None


def _mean_error(column: Tensor) -> float | None:
    """Standard error of the mean over families."""
    return float(column.std()) / math.sqrt(len(column)) if len(column) > 1 else None


def _share_error(part: int, n: int) -> float | None:
    """Standard error of a share of n latents."""
    return math.sqrt(part * (n - part) / n) / n if n else None
