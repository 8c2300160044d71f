"""What was found of all tasks, as values, columns and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qsae_core.contracts import Result, Table
from qsae_evaluation_sparse_probing.estimates import Floats, error_of, ratio, value_of
from qsae_evaluation_sparse_probing.measuring import DENSE_FLOOR, Found

MEASURES = ("accuracy", "f1", "auc", "score")
COLUMNS = (
    "task",
    "k",
    *(column for name in MEASURES for column in (name, f"{name}_se")),
    *("dense_accuracy", "dense_f1", "dense_auc"),
    *("token_accuracy", "random_accuracy", "shuffled_accuracy"),
)
"""Behind these are those of the sizes."""
LATENT_COLUMNS = ("task", "rank", "latent", "difference", "fires_on_positives", "fires_on_negatives")
Cell = str | int | float | None


def report(
    found: Mapping[str, Found],
    sizes: Mapping[str, Any],
    counts: Mapping[str, float],
    ks: Sequence[int],
) -> Result:
    """Means over the tasks, with the tables of all of them.

    Args:
        found: of each task that there are tokens for.
        sizes: of every task, in the order of the table: a named tuple of cells.
        counts: more values by name.
        ks: latents of the sparse probes.
    """
    values: dict[str, float | None] = dict(counts)
    chance: dict[str, float | None] = {}
    baseline: dict[str, float | None] = {}
    uncertainty: dict[str, float | None] = {}

    def add(name: str, per_task: list[Floats]) -> None:
        estimates_R = _mean(per_task)
        values[name] = None if estimates_R is None else value_of(estimates_R)
        uncertainty[name] = None if estimates_R is None else error_of(estimates_R)

    for k in ks:
        of_k = [each.sparse[k] for each in found.values() if k in each.sparse]
        for name in MEASURES[:-1]:
            add(f"top_{k}_{name}", [each[name] for each in of_k])
        add(f"top_{k}_score", _pooled_score(found, k))
        add(f"random_{k}_accuracy", [each["random"] for each in of_k])
        shuffled = _mean([each["shuffled"] for each in of_k])
        chance[f"top_{k}_accuracy"] = None if shuffled is None else value_of(shuffled)
        for name, by_chance in (("auc", 0.5), ("score", 0.0)):
            chance[f"top_{k}_{name}"] = None if values[f"top_{k}_{name}"] is None else by_chance
    for name in MEASURES[:-1]:
        add(f"dense_{name}", [each.dense[name] for each in found.values()])
        baseline |= {f"top_{k}_{name}": values[f"dense_{name}"] for k in ks}
    add("token_accuracy", [each.token for each in found.values()])
    values["n_tasks"], values["n_tasks_left_out"] = float(len(found)), float(len(sizes) - len(found))
    clear = [each for each in found.values() if each.dense["accuracy"][0] >= DENSE_FLOOR]
    values["n_tasks_dense_tells"] = float(len(clear))
    rows = [_row(task, k, found.get(task), own) for task, own in sizes.items() for k in ks]
    columns = COLUMNS + next(iter(sizes.values()))._fields
    tables = {"tasks": Table(columns, rows), "latents": Table(LATENT_COLUMNS, _latents(found))}
    return Result(values, chance, baseline, uncertainty, tables=tables)


def _pooled_score(found: Mapping[str, Found], k: int) -> list[Floats]:
    """Mean gain over random latents by mean gain of the dense probe, which a task where the latter is small
    does not swamp; of tasks that have a score. None of them: empty."""
    scored = [each for each in found.values() if k in each.sparse and np.isfinite(each.sparse[k]["score"][0])]
    if not scored:
        return []
    sparse = np.mean([each.sparse[k]["accuracy"] for each in scored], axis=0)
    random = np.mean([each.sparse[k]["random"] for each in scored], axis=0)
    dense = np.mean([each.dense["accuracy"] for each in scored], axis=0)
    return [ratio(sparse - random, dense - random)]


def largest_differences(found: Mapping[str, Found], n_latents: int) -> Tensor:
    """float64 ``[D]``: of each latent the largest absolute difference of means of any task, in units of its
    mean magnitude; NaN where it fires in no task's training part."""
    largest = np.full(n_latents, np.nan)
    for each in found.values():
        latents, differences = each.differences
        largest[latents] = np.fmax(largest[latents], abs(differences))
    return torch.from_numpy(largest)


def _mean(per_task: list[Floats]) -> Floats | None:
    return np.mean(per_task, axis=0) if per_task else None


def _row(task: str, k: int, found: Found | None, sizes: Sequence[Cell]) -> list[Cell]:
    if found is None:
        return [task, k, *[None] * (len(COLUMNS) - 2), *sizes]
    of_k = found.sparse.get(k, {})
    cells: list[Cell] = [task, k]
    for name in MEASURES:
        cells += [value_of(of_k[name]), error_of(of_k[name])] if of_k else [None, None]
    cells += [value_of(found.dense[name]) for name in MEASURES[:-1]]
    cells.append(value_of(found.token))
    cells += [value_of(of_k[name]) if of_k else None for name in ("random", "shuffled")]
    return [*cells, *sizes]


def _latents(found: Mapping[str, Found]) -> list[list[Cell]]:
    return [
        [task, rank + 1, *described]
        for task, each in found.items()
        for rank, described in enumerate(each.latents)
    ]
