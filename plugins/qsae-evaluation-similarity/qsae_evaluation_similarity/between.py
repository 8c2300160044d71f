"""How much of one dictionary another one has. Shapes: F latents, G latents of the other, D width, P pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from qsae_core.measuring import Matching, column, match, mean, nearest, standard_error


class Between(NamedTuple):
    """Values by name, their standard errors over latents, columns of the first dictionary."""

    values: Mapping[str, float | None]
    errors: Mapping[str, float | None]
    columns: Mapping[str, Tensor]
    matching: Matching
    """By cosine with its sign."""


def between(a_FD: Tensor, b_GD: Tensor, exact_up_to: int, above: Sequence[float]) -> Between:
    """MMCS both ways, PW-MCC, and the matched pairs; rows of zeros are left out.

    Args:
        a_FD, b_GD: unit rows or zero rows.
        exact_up_to: as ``match`` takes it.
        above: cosines; for each, the share of pairs above it.
    """
    signed = match(a_FD, b_GD, exact_up_to=exact_up_to)
    unsigned = match(a_FD, b_GD, exact_up_to=exact_up_to, absolute=True)
    own, others = (x.any(1).nonzero()[:, 0] for x in (a_FD, b_GD))
    values: dict[str, float | None] = {"mmcs": None, "mmcs_of_other": None}
    errors: dict[str, float | None] = {}
    columns = {
        "matched": column(len(a_FD), signed.rows, signed.columns),
        "matched_cosine": column(len(a_FD), signed.rows, signed.cosines),
    }
    if len(own) and len(others):
        of_a, of_b = nearest(a_FD[own], b_GD[others])
        values |= {"mmcs": mean(of_a.cosines), "mmcs_of_other": mean(of_b.cosines)}
        errors |= {"mmcs": standard_error(of_a.cosines), "mmcs_of_other": standard_error(of_b.cosines)}
        columns["nearest_of_other"] = column(len(a_FD), own.cpu(), others.cpu()[of_a.which])
        columns["nearest_of_other_cosine"] = column(len(a_FD), own.cpu(), of_a.cosines)
    values |= {"pw_mcc": mean(signed.cosines), "pw_mcc_abs": mean(unsigned.cosines.abs())}
    errors |= {
        "pw_mcc": standard_error(signed.cosines),
        "pw_mcc_abs": standard_error(unsigned.cosines.abs()),
    }
    values |= {f"matched_above_{t:g}": mean((signed.cosines > t).double()) for t in above}
    values["matching_exact"] = float(signed.how == "exact")
    return Between(values, errors, columns, signed)
