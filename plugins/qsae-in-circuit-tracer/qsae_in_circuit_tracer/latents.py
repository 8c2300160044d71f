"""What circuit-tracer computes apart: latents of given pre-activations, some rows of a matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qsae_core.coders import QuantizedMatrix
from qsae_core.contracts import Activation, SparseCodes, SparsityRule

NOT_WRITTEN = (
    "packed weights are not written by circuit-tracer: `qsae export RUN --format circuit-tracer --out "
    "FOLDER` writes float weights, and a copy of the folder that was loaded has the packed ones"
)


@dataclass(frozen=True)
class LatentsOf:
    """A coder's latents of given pre-activations: its activation, its rule and its code quantizer."""

    activation: Activation
    sparsity: SparsityRule
    code_quantizer: nn.Module
    importance: Callable[[], Tensor | None] = lambda: None
    """``[F]``: what the rule multiplies latents with; None: nothing."""

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        """``[..., F]`` -> ``[..., F]``."""
        pre_BF, importance_F = as_rows(features), self.importance()
        self.sparsity.begin_batch(len(pre_BF))
        kept = self.sparsity.select(self.activation(pre_BF), importance_F)
        codes: SparseCodes = self.code_quantizer(self.sparsity.finish_batch(kept, importance_F))
        return codes.to_dense().to(features.dtype).view_as(features)


def unpacked(matrix: QuantizedMatrix, feat_ids: Tensor | None) -> Tensor:
    """float32 ``[N, D]``: rows of a stored matrix, each unpacked once however often it is named; all where
    none are."""
    if feat_ids is None:
        return matrix()
    rows_R, place_N = torch.as_tensor(feat_ids, device=matrix.device).unique(return_inverse=True)
    return matrix.quantizer.unpack_rows(matrix.pack(), rows_R)[place_N]


def as_rows(x: Tensor) -> Tensor:
    """float32 ``[B, D]`` of ``[..., D]``."""
    return x.reshape(-1, x.shape[-1]).float()
