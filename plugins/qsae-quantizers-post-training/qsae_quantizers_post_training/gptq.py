"""The quantizer ``gptq``. Shapes: N tokens, F latents, D width; C latents of a cluster."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qsae_core import kernels
from qsae_core.contracts import Calibration, SparseCodes
from qsae_quantizers_post_training import GptqConfig, MixedConfig, VectorConfig
from qsae_quantizers_post_training.rtn import Rtn


class Gptq(Rtn):
    """Rounding that minimises ``||f W - f W_hat||^2`` over calibration codes f; without these it is rtn."""

    config: GptqConfig

    @torch.no_grad()
    def calibrate(self, weight_FD: Tensor, calibration: Calibration) -> Tensor:
        """float32 ``[F, D]`` on the grid, of no more calibration error than rounding to nearest has."""
        weight = weight_FD.detach().float()
        return calibrated(weight, self.fake_quantize(weight), self._round, calibration.codes, self.config)

    def _round(self, weight_RD: Tensor, rows_R: Tensor) -> Tensor:
        scale_R = self.points.best(weight_RD)
        return self.points.round(weight_RD, scale_R) * scale_R[:, None]


def calibrated(
    weight_FD: Tensor,
    nearest_FD: Tensor,
    rounding: Callable[[Tensor, Tensor], Tensor],
    codes: SparseCodes,
    config: GptqConfig | MixedConfig | VectorConfig,
    turn_F: Tensor | None = None,
) -> Tensor:
    """float32 ``[F, D]`` on a quantizer's grid, of no more error in ``f W`` than ``nearest_FD`` has.

    Args:
        weight_FD: float32.
        nearest_FD: float32, what ``fake_quantize`` makes of it: the result where that is no worse.
        rounding: rows ``[R, D]`` and their numbers ``[R]`` -> the same rows on the grid.
        codes: f.
        turn_F: rows of a smaller number are rounded first; within one, and without it, by falling energy.
    """
    codes, quantized = codes.detach(), nearest_FD.clone()
    for latents_C in clusters(codes, config.block):
        f_NC = columns(codes, latents_C)
        H_CC = f_NC.T @ f_NC
        order_C = H_CC.diagonal().argsort(descending=True)
        if turn_F is not None:
            order_C = order_C[turn_F[latents_C][order_C].argsort(stable=True)]
        latents_C, H_CC = latents_C[order_C], H_CC[order_C][:, order_C]
        quantized[latents_C] = _compensated(weight_FD[latents_C], latents_C, rounding, H_CC, config.damping)
    better = error(codes, weight_FD - quantized) < error(codes, weight_FD - nearest_FD)
    return quantized if better else nearest_FD


def _compensated(
    weight_CD: Tensor,
    latents_C: Tensor,
    rounding: Callable[[Tensor, Tensor], Tensor],
    H_CC: Tensor,
    damping: float,
) -> Tensor:
    """Rows rounded in their order; each one's error is spread over those still to come."""
    H_CC.diagonal().add_(damping * H_CC.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(H_CC))
    U = torch.linalg.cholesky(inverse, upper=True)  # H^-1 = U^T U; row j: the latents from j on
    left, quantized = weight_CD.clone(), torch.empty_like(weight_CD)
    for j in range(left.shape[0]):
        row = quantized[j] = rounding(left[j : j + 1], latents_C[j : j + 1])[0]
        left[j + 1 :].addr_(U[j, j + 1 :], (left[j] - row) / U[j, j], alpha=-1)
    return quantized


def clusters(codes: SparseCodes, size: int) -> list[Tensor]:
    """Latents that fire, in groups of at most ``size``: around the strongest left, those active with it."""
    energy_F = codes.values.new_zeros(codes.n_latents)
    energy_F.index_add_(0, codes.indices.long(), codes.values.square())
    left, found, rows = energy_F > 0, [], codes.rows
    while left.any():
        seed = int(torch.where(left, energy_F, -1).argmax())
        of_seed = codes.indices == seed
        with_seed_N = codes.values.new_zeros(codes.batch_size)
        with_seed_N.index_add_(0, rows[of_seed], codes.values[of_seed])
        together_F = codes.values.new_zeros(codes.n_latents)
        together_F.index_add_(0, codes.indices.long(), codes.values * with_seed_N[rows])
        together_F = together_F.abs().masked_fill_(~left, -1)
        together_F[seed] = torch.inf
        found.append(together_F.topk(min(size, int(left.sum()))).indices)
        left[found[-1]] = False
    return found


def columns(codes: SparseCodes, latents_C: Tensor) -> Tensor:
    """float32 ``[N, C]``: the dense codes of these latents."""
    place_F = torch.full((codes.n_latents,), -1, device=latents_C.device)
    place_F[latents_C] = torch.arange(latents_C.numel(), device=latents_C.device)
    place = place_F[codes.indices.long()]
    dense = codes.values.new_zeros(codes.batch_size, latents_C.numel())
    dense[codes.rows[place >= 0], place[place >= 0]] = codes.values[place >= 0]
    return dense


def error(codes: SparseCodes, difference_FD: Tensor) -> float:
    """``||f (W - W_hat)||^2``."""
    product = kernels.sparse_product(codes.indices, codes.offsets, codes.values, difference_FD)
    return product.double().square().sum().item()
