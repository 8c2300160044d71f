"""NestedCoder: a dictionary whose first latents are a dictionary of their own.

Shapes: B tokens, D width of the input, E width of the output, F latents, G groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.coder_options import CoderConfig
from qsae_core.coders.linear import LinearCoder
from qsae_core.contracts.coder import CoderShape, Parts
from qsae_core.contracts.codes import SparseCodes
from qsae_core.errors import ConfigError
from qsae_core.kernels import Matrix, decode_groups, prefix_errors, processes


class NestedCoder(LinearCoder):
    """A LinearCoder whose config has ``prefixes()``, the latents of the first 1, 2, ... groups.

    Raises:
        ConfigError: if a rule with a fixed k keeps more latents than the first group has.
    """

    def __init__(self, config: CoderConfig, shape: CoderShape, parts: Parts) -> None:
        super().__init__(config, shape, parts)
        prefixes = config.prefixes()
        assert prefixes is not None
        self.prefixes = prefixes
        fixed_k = self.sparsity.fixed_k
        if fixed_k is not None and fixed_k > prefixes[0]:
            raise ConfigError(
                f"k = {fixed_k} latents per token, and the first group has {prefixes[0]}",
                where="sparsity",
                allowed=f"at most {prefixes[0]}: every level keeps so many",
                next="a smaller --k, larger groups, or --sparsity batchtopk",
            )

    def prefix_errors(
        self,
        target_BE: Tensor,
        codes: SparseCodes,
        W_dec_FE: Matrix,
        weight_B: Tensor | None = None,
        x_BD: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``[G]``: ``||target - x_hat_g||^2`` of every prefix, mean over tokens; and ``[B, E]``, the whole
        reconstruction without gradient.

        Args:
            weight_B: of each token's squared error; None: 1.
            x_BD: normalised inputs of a coder with a skip connection, whose part every prefix has whole.
        """
        assert x_BD is not None or not self.has_skip
        beside = self.b_dec if x_BD is None else self.skipped_past(self.b_dec, x_BD)
        parts_BGE, centred = decode_groups(codes, W_dec_FE, self.prefixes), target_BE - beside
        if weight_B is None:
            errors_G, whole = prefix_errors(parts_BGE, centred)
            return errors_G, whole + beside.detach()
        root_B1 = weight_B.sqrt()[:, None]
        errors_G, whole = prefix_errors(parts_BGE * root_B1[:, None], centred * root_B1)
        return errors_G, whole / root_B1.detach() + beside.detach()


def fvu_by_level(errors_G: Tensor, x_BD: Tensor) -> dict[str, Tensor]:
    """``fvu_1``, ``fvu_2``, ...: squared errors of prefixes as shares of the variance, for the log."""
    with torch.no_grad():
        together = processes()
        variance = together.mean((x_BD - together.mean_row(x_BD)).square().sum(1).mean())
        shares_G = together.mean(errors_G.detach()) / variance
        return {f"fvu_{i}": share for i, share in enumerate(shares_G.unbind(), 1)}
