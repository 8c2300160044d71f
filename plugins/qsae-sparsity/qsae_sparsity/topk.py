"""Sparsity rule ``topk``: k latents per token. Shapes: B tokens, F latents."""

from __future__ import annotations

from torch import Tensor

from qsae_core.contracts import SparseCodes, SparsityRule
from qsae_core.errors import ConfigError
from qsae_core.kernels import top_k
from qsae_sparsity import TopKConfig


class TopK(SparsityRule):
    """Exactly k entries for every token: those with the largest ``latent * importance``.

    Where fewer than k latents are positive after a ReLU, zeros fill the code up; they do not count as
    active. Signed latents are ranked by their signed value. Among equal latents the choice depends on the
    token's own latents alone, so that the same input gives the same code in any batch.

    Raises:
        ConfigError: if k is above the number of latents.
    """

    counts = "k"

    def __init__(self, config: TopKConfig, n_latents: int) -> None:
        config = config.for_latents(n_latents)
        super().__init__(config, n_latents)
        if config.k > n_latents:
            raise ConfigError(
                f"k = {config.k} active latents per token, but there are only {n_latents} latents",
                where="k",
                allowed=f"1 to {n_latents}",
                next=f"give --k of at most {n_latents}, or a larger --n-latents",
            )
        self.fixed_k = config.k

    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        """The codes of the k largest ``latent * importance`` of each row."""
        assert self.fixed_k is not None
        ranking_BF = latents_BF if importance_F is None else latents_BF * importance_F
        values_BK, indices_BK = top_k(ranking_BF, min(self.fixed_k, ranking_BF.shape[1]))
        if importance_F is not None:
            values_BK = latents_BF.gather(1, indices_BK.long())
        return SparseCodes.from_top_k(indices_BK, values_BK, latents_BF.shape[1])
