"""What a latent's survival could be told from beforehand. Shapes: F latents."""

from __future__ import annotations

import math

from scipy import stats
from torch import Tensor

from qsae_core.contracts import Table

PREDICTORS = ("log10_density", "largest_activation", "margin", "atom_cosine", "encoder_cosine")
Values = dict[str, float | None]


def predictors(columns: dict[str, Tensor]) -> tuple[Values, Values, Table]:
    """Spearman's rank correlation of r with what the twin alone, or the weights, say of a latent."""
    values: Values = {}
    errors: Values = {}
    rows: list[list[str | int | float | None]] = []
    for name in PREDICTORS:
        column = columns.get(name)
        rho = error = None
        n = 0
        if column is not None:
            known = ~(columns["r"].isnan() | column.isnan())
            n = int(known.sum())
            rho, error = spearman(columns["r"][known], column[known])
        values[f"spearman_{name}"], errors[f"spearman_{name}"] = rho, error
        rows.append([name, rho, error, n])
    return values, errors, Table(("predictor", "spearman", "standard_error", "latents"), rows)


def spearman(x: Tensor, y: Tensor) -> tuple[float | None, float | None]:
    """rho and its standard error, ``(1 - rho^2) sqrt((1 + rho^2 / 2) / (n - 3))`` (Bonett and Wright, 2000);
    None of fewer than 4 latents, or where one of the two is the same for all."""
    if len(x) < 4 or bool((x == x[0]).all()) or bool((y == y[0]).all()):
        return None, None
    rho = float(stats.spearmanr(x.numpy(), y.numpy()).statistic)
    return rho, (1 - rho**2) * math.sqrt((1 + rho**2 / 2) / (len(x) - 3))
