"""Means over latents, and columns with a number for each. Shapes: F latents, P of them."""

from __future__ import annotations

import torch
from torch import Tensor


def mean(values_P: Tensor | None) -> float | None:
    """Of those that are defined (not NaN); None where none is."""
    defined = None if values_P is None else values_P[~values_P.isnan()]
    return None if defined is None or not len(defined) else float(defined.double().mean())


def standard_error(values_P: Tensor | None) -> float | None:
    """Of their mean, as if latents were drawn independently; None below two that are defined."""
    defined = None if values_P is None else values_P[~values_P.isnan()]
    if defined is None or len(defined) < 2:
        return None
    return float(defined.double().std() / len(defined) ** 0.5)


def column(n_latents: int, which_P: Tensor, values_P: Tensor) -> Tensor:
    """float64 ``[F]``: these values of these latents, NaN elsewhere."""
    found = torch.full((n_latents,), torch.nan, dtype=torch.float64)
    found[which_P] = values_P.double()
    return found
