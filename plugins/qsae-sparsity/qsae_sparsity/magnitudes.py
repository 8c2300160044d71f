"""Magnitudes of codes, as penalties count them."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.contracts import SparseCodes


def magnitudes(codes: SparseCodes) -> Tensor:
    """``[N]``: of each entry ``|f|``, with the derivative 1 at 0.

    In training, codes of an activation with thresholds also hold entries just below them, whose value is 0
    and whose threshold learns through that derivative; ``Tensor.abs`` has 0 there.
    """
    return torch.where(codes.values < 0, -codes.values, codes.values)
