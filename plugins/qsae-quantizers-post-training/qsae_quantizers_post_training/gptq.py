"""The quantizer ``gptq``. Shapes: N tokens, F latents, D width; C latents of a cluster."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qsae_core import kernels
from qsae_core.contracts import Calibration, SparseCodes, split_latents
from qsae_core.reading import let_go, put_rows, rows_of
from qsae_quantizers_post_training import GptqConfig, MixedConfig, VectorConfig
from qsae_quantizers_post_training.rtn import Rtn

BATCH = 128
"""Rows whose errors are spread over later rows together."""
LATENTS = 4096
"""Rows of a matrix that are held a second time."""
TOKENS = 2048
"""Tokens whose codes are dense at one time."""


class Gptq(Rtn):
    """Rounding that minimises ``||f W - f W_hat||^2`` over calibration codes f; without these it is rtn."""

    config: GptqConfig

    @torch.no_grad()
    def calibrate(self, weight_FD: Tensor, calibration: Calibration) -> Tensor:
        """float32 ``[F, D]`` on the grid, of no more calibration error than rounding to nearest has."""
        weight = weight_FD.detach().float()
        return calibrated(weight, self.fake_quantize, self._round, calibration.codes, self.config)

    def _round(self, weight_RD: Tensor, rows_R: Tensor) -> Tensor:
        scale_R = self.points.best(weight_RD)
        return self.points.round(weight_RD, scale_R) * scale_R[:, None]


def calibrated(
    weight_FD: Tensor,
    nearest: Callable[[Tensor], Tensor],
    rounding: Callable[[Tensor, Tensor], Tensor],
    codes: SparseCodes,
    config: GptqConfig | MixedConfig | VectorConfig,
    turn_F: Tensor | None = None,
) -> Tensor:
    """float32 ``[F, D]`` on a quantizer's grid, of no more error in ``f W`` than rounding to nearest has.

    Args:
        weight_FD: float32.
        nearest: the quantizer's ``fake_quantize``: what it makes of the weight is the result where that is no
            worse. It is asked again then, rather than kept: matrices may be large.
        rounding: rows ``[R, D]`` and their numbers ``[R]`` -> the same rows on the grid.
        codes: f.
        turn_F: rows of a smaller number are rounded first; within one, and without it, by falling energy.
    """
    codes, quantized = codes.detach(), nearest(weight_FD)
    of_nearest = error(codes, weight_FD, quantized)
    energy_F = _energies(codes)
    for latents_C in clusters(codes, config.block):
        order_C = energy_F[latents_C].argsort(descending=True)
        if turn_F is not None:
            order_C = order_C[turn_F[latents_C][order_C].argsort(stable=True)]
        latents_C = latents_C[order_C]
        # of two groups no two products are alive: they are the largest of what is in memory
        rows_CD = _compensated(
            rows_of(weight_FD, latents_C), latents_C, rounding, _gram(codes, latents_C), config.damping
        )
        put_rows(quantized, latents_C, rows_CD)
    return quantized if error(codes, weight_FD, quantized) < of_nearest else nearest(weight_FD)


def _compensated(
    left_CD: Tensor,
    latents_C: Tensor,
    rounding: Callable[[Tensor, Tensor], Tensor],
    H_CC: Tensor,
    damping: float,
) -> Tensor:
    """Rows rounded in order, in place; the error of each is spread over those still to come: at once over
    those of its batch, and from the whole batch over the others, in one product. H is lost: LAPACK works on
    columns, which a symmetric matrix has in its transpose, and then needs no copy of it."""
    H_CC = H_CC.mT
    H_CC.diagonal().add_(damping * H_CC.diagonal().mean())
    torch.linalg.cholesky(H_CC, out=H_CC)
    torch.cholesky_inverse(H_CC, out=H_CC)
    U = torch.linalg.cholesky(H_CC, upper=True, out=H_CC)  # H^-1 = U^T U; row j: the latents from j on
    for begin in range(0, left_CD.shape[0], BATCH):
        rows_RD, U_RR = left_CD[begin : begin + BATCH], U[begin : begin + BATCH, begin : begin + BATCH]
        errors_RD = torch.empty_like(rows_RD)
        for j in range(rows_RD.shape[0]):
            row = rounding(rows_RD[j : j + 1], latents_C[begin + j : begin + j + 1])[0]
            errors_RD[j] = (rows_RD[j] - row) / U_RR[j, j]
            rows_RD[j] = row
            rows_RD[j + 1 :].addr_(U_RR[j, j + 1 :], errors_RD[j], alpha=-1)
        left_CD[begin + BATCH :].addmm_(U[begin : begin + BATCH, begin + BATCH :].T, errors_RD, alpha=-1)
    return left_CD


def clusters(codes: SparseCodes, size: int) -> list[Tensor]:
    """Latents that fire, in groups of at most ``size``: around the strongest left, those active with it."""
    energy_F = _energies(codes)
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


def _energies(codes: SparseCodes) -> Tensor:
    """float32 ``[F]``: ``sum f_j^2``."""
    energy_F = codes.values.new_zeros(codes.n_latents)
    return energy_F.index_add_(0, codes.indices.long(), codes.values.square())


def _gram(codes: SparseCodes, latents_C: Tensor) -> Tensor:
    """float32 ``[C, C]``: ``f^T f`` of these latents; dense codes of some tokens at a time."""
    place_F = torch.full((codes.n_latents,), -1, device=latents_C.device)
    place_F[latents_C] = torch.arange(latents_C.numel(), device=latents_C.device)
    place_N = place_F[codes.indices.long()]
    inside_N = place_N >= 0
    token_N, place_N, value_N = codes.rows[inside_N], place_N[inside_N], codes.values[inside_N]
    gram_CC = value_N.new_zeros(latents_C.numel(), latents_C.numel())
    begins = torch.arange(0, codes.batch_size + TOKENS, TOKENS, device=token_N.device)
    places = torch.searchsorted(token_N, begins).tolist()  # tokens ascend
    for begin, first, last in zip(begins.tolist(), places, places[1:], strict=False):
        part = slice(first, last)
        dense_TC = value_N.new_zeros(TOKENS, latents_C.numel())
        dense_TC[token_N[part] - begin, place_N[part]] = value_N[part]
        gram_CC.addmm_(dense_TC.T, dense_TC)
    return gram_CC


def error(codes: SparseCodes, weight_FD: Tensor, quantized_FD: Tensor) -> float:
    """``||f (W - W_hat)||^2``, some latents at a time."""
    ends = [min(first + LATENTS, codes.n_latents) for first in range(0, codes.n_latents, LATENTS)]
    parts = split_latents(codes, ends)
    product_TD = weight_FD.new_zeros(codes.batch_size, weight_FD.shape[1])
    for some, rows, others in zip(parts, weight_FD.split(LATENTS), quantized_FD.split(LATENTS), strict=True):
        product_TD += kernels.sparse_product(some.indices, some.offsets, some.values, rows - others)
        let_go(rows)
        let_go(others)
    return sum(tokens.double().square().sum().item() for tokens in product_TD.split(TOKENS))
