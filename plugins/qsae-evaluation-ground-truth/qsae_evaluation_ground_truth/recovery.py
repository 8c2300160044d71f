"""Atoms beside true directions. Shapes: A features, F latents, D width of a direction, P pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.measuring import Matching, match, mean, nearest, standard_error


class Recovery(NamedTuple):
    """What of a true dictionary a decoder's rows are."""

    values: Mapping[str, float | None]
    errors: Mapping[str, float | None]
    """Standard errors over features."""
    matching: Matching
    """Rows are features, columns latents."""


def recovery(truth_AD: Tensor, unit_FD: Tensor, exact_up_to: int, above: Sequence[float]) -> Recovery:
    """MCC, MMCS, uniqueness, and the shares of the features that are found.

    Args:
        truth_AD, unit_FD: unit rows or zero rows, which are left out.
        exact_up_to: as ``match`` takes it.
        above: |cos|; for each, the share of features whose partner is above it.
    """
    matching = match(truth_AD, unit_FD, exact_up_to=exact_up_to, absolute=True)
    cosines_P = matching.cosines.abs()
    features, latents = (x.any(1).nonzero()[:, 0] for x in (truth_AD, unit_FD))
    values: dict[str, float | None] = {"mcc": mean(cosines_P), "mmcs": None, "uniqueness": None}
    errors = {"mcc": standard_error(cosines_P)}
    if len(features) and len(latents):
        of_truth, of_latents = nearest(truth_AD[features], unit_FD[latents], absolute=True)
        values["mmcs"] = mean(of_truth.cosines.abs())
        errors["mmcs"] = standard_error(of_truth.cosines.abs())
        values["uniqueness"] = len(torch.unique(of_latents.which)) / len(latents)
    for t in above:
        found = int((cosines_P > t).sum())
        values[f"found_above_{t:g}"] = found / len(features) if len(features) else None
    return Recovery(values, errors, matching)
