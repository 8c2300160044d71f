"""What a language model has at the last token of prompts, and what a coder makes of it.

Shapes: M prompts, L layers, d width, D latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsae_core.contracts import DataSource, LanguageModel, SparseCoder, TokenBatch
from qsae_evaluation_sparse_probing.compressed import compressed
from qsae_evaluation_sparse_probing.drawing import Tokens


class LastTokens(NamedTuple):
    """The vectors of different prompts."""

    places: dict[Tokens, int]
    """Prompt -> row."""
    vectors: Tensor
    """Float32 ``[M, d]``, of several layers ``[M, L, d]``, at the sites that the coder reads."""

    def rows(self, prompts: Sequence[Tokens]) -> Tensor:
        """Of some prompts, in their order."""
        return self.vectors[[self.places[tokens] for tokens in prompts]]


@torch.no_grad()
def read_last(data: DataSource, model: LanguageModel, prompts: Sequence[Tokens]) -> LastTokens:
    """Read each different prompt once; those of one length together, so that nothing is padded."""
    sites, different = data.source_sites, sorted(set(prompts), key=len)
    found: list[Tensor] = []
    at = 0
    while at < len(different):
        length = len(different[at])
        at_once = max(1, model.forward_positions // length)
        some = [tokens for tokens in different[at : at + at_once] if len(tokens) == length]
        ids = torch.tensor(some)
        everywhere = torch.ones_like(ids, dtype=torch.bool)
        read = model.read(TokenBatch(ids, everywhere, everywhere), list(dict.fromkeys(sites)))
        last = torch.stack([read[site][:, -1] for site in sites], dim=1)
        found.append((last[:, 0] if data.layers_in == 1 else last).float().cpu())
        at += len(some)
    shape = (0, data.d_in) if data.layers_in == 1 else (0, data.layers_in, data.d_in)
    vectors = torch.cat([torch.zeros(shape), *found])
    return LastTokens({tokens: row for row, tokens in enumerate(different)}, vectors)


@torch.no_grad()
def codes_of(coder: SparseCoder, vectors: Tensor, at_once: int) -> sp.csr_array:
    """Codes ``[M, D]`` of vectors, so many at once; only what is not 0 is stored."""
    found = [sp.csr_array((0, coder.n_latents), dtype=np.float64)]
    for part in vectors.split(at_once):
        found.append(compressed(coder.encode(part.to(coder.device))))
    return sp.vstack(found, format="csr")


def as_rows(vectors: Tensor) -> NDArray[np.float32]:
    """``[M, L d]``: several layers are one vector."""
    rows: NDArray[np.float32] = vectors.flatten(1).numpy()
    return rows
