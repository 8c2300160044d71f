"""Codes as scipy has them. Shapes: B tokens, D latents."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from qsae_core.contracts import SparseCodes


def compressed(codes: SparseCodes) -> sp.csr_array:
    """Float64 ``[B, D]``, on the CPU; entries that are not active are not stored."""
    active = codes.active.cpu()
    entries = (codes.rows.cpu()[active].numpy(), codes.indices.cpu()[active].numpy())
    values = codes.values.detach().cpu()[active].numpy().astype(np.float64)
    return sp.csr_array((values, entries), shape=(codes.batch_size, codes.n_latents))
