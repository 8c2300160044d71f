"""Weights as two's-complement bits with a logit each. Shapes: F rows, D columns, n bits, lowest bit first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from qsae_core import ComponentConfig
from qsae_core.contracts import Lookup, Packed, PackedTensor, Quantizer, check_layout
from qsae_core.kernels import pack_planes, planes_shape, unpack_planes

SATURATION = 0.02
"""A re-coded bit that is settled has p so far from 0 or 1, so that its logit still gets a gradient."""


def place_values(n_bits: int) -> Tensor:
    """float ``[n]``: 1, 2, 4, ..., and ``-2^(n-1)`` for the sign bit."""
    places = 2.0 ** torch.arange(n_bits, dtype=torch.float32)
    places[-1] = -places[-1]
    return places


def bits_of(integers: Tensor, n_bits: int) -> Tensor:
    """Bool ``[..., n]``: the two's-complement bits of integers from ``-2^(n-1)`` to ``2^(n-1) - 1``."""
    shifts = torch.arange(n_bits, dtype=torch.int16, device=integers.device)
    return (integers.to(torch.int16)[..., None] >> shifts & 1).bool()


def least_error_step(rows_FD: Tensor, n_bits: int) -> float:
    """The step at which rounding these rows to n bits has the least squared error."""
    low, high = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
    largest = float(rows_FD.abs().max()) / max(1, high)
    shares = torch.linspace(0.02, 1.0, 99, dtype=torch.float32, device="cpu")
    candidates = [largest * share for share in shares.tolist()]

    def error(step: float) -> float:
        rounded = (rows_FD / step).round().clamp(low, high) * step
        return float((rounded - rows_FD).square().sum())

    return min(candidates, key=error)


class Bits(Quantizer):
    """``W = step_j (sum_{i<n-1} 2^i b_i - 2^(n-1) b_(n-1))`` with ``b_i = 1[theta_i > 0]``.

    The master is theta, ``[F, D, n]``. Its gradient is that of the same sum over
    ``p_i = sigma(theta_i / T_i)``, straight through the step from p to b. ``T_i = 2^i T``: Adam moves every
    logit by as much, and so moves what each bit adds to the weight by as much; with one T the sign bit would
    move it 2^(n-1) times as far as the lowest one. Scales ``step_j`` are learned as ``log_step`` and stored
    as float16.
    """

    log_step: nn.Parameter
    temperature: Tensor
    progress: Tensor
    """Share of training that is over."""

    def __init__(
        self, shape: tuple[int, int], n_bits: int, *, step: float, per_row: bool, temperature: float
    ) -> None:
        super().__init__(ComponentConfig(), shape)
        self.n_bits, self.levels = n_bits, n_bits
        self.places = place_values(n_bits)
        rows = shape[0] if per_row else 1
        self.log_step = nn.Parameter(torch.full((rows,), step, dtype=torch.float32).log())
        self.register_buffer("temperature", torch.tensor(temperature, dtype=torch.float32))
        self.register_buffer("progress", torch.zeros((), dtype=torch.float32))

    def step(self) -> Tensor:
        """float32 ``[F]`` or ``[1]``: what float16 can hold of the scales; its gradient is the identity's."""
        exact = self.log_step.exp()
        return exact + (exact.detach().half().float() - exact.detach())

    def probabilities(self, logits: Tensor) -> Tensor:
        """``p_i = sigma(theta_i / T_i)``."""
        return torch.sigmoid(logits / self.temperatures(logits))

    def temperatures(self, like: Tensor) -> Tensor:
        """float ``[n]``: ``T_i = 2^i T``."""
        return self._places(like).abs() * self.temperature

    def soft(self, logits_FDn: Tensor) -> Tensor:
        """``[F, D]``: the weights that the probabilities stand for."""
        integers: Tensor = self.probabilities(logits_FDn) @ self._places(logits_FDn)
        return integers * self.step()[:, None]

    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        """theta ``[F, D, n]`` -> ``[F, D]``: the weights that the bits stand for."""
        integers: Tensor = _HardBits.apply(weight_FD, self._places(weight_FD), self.temperatures(weight_FD))  # type: ignore[no-untyped-call]
        return integers * self.step()[:, None]

    @torch.no_grad()
    def logits_of(self, integers: Tensor, strength: float) -> Tensor:
        """theta ``[..., n]`` of integers: ``+-strength T_i``."""
        signs = bits_of(integers, self.n_bits).float() * 2 - 1
        return signs * strength * self.temperatures(signs)

    @torch.no_grad()
    def recode_(self, logits_FDn: Tensor) -> None:
        """Move theta, in place, to where each weight's bits lie on the line between its two nearest integers.

        The soft integer ``u = sum_i place_i p_i`` stays as it is. Between q and q + 1 every bit in which the
        two differ has ``p = (1 - f) b_i(q) + f b_i(q + 1)`` with ``f = u - q``, so that all of them change
        together at f = 1/2, and the hard weight is the integer nearest to the soft one. Without this a weight
        that goes from 0 (0000) to -1 (1111) passes -8 (1000), since the bits change one after the other.
        """
        low, high = -(2 ** (self.n_bits - 1)), 2 ** (self.n_bits - 1) - 1
        for part in logits_FDn.split(max(1, 2**18 // max(1, logits_FDn[0].numel()))):
            share = (self.probabilities(part) - SATURATION).div_(1 - 2 * SATURATION).clamp_(0, 1)
            u = (share @ self._places(part)).clamp_(low, high)
            below = u.floor().clamp_(low, max(low, high - 1))
            f = (u - below)[..., None]
            first, second = (bits_of(q, self.n_bits).float() for q in (below, (below + 1).clamp(max=high)))
            p = torch.lerp(first, second, f).mul_(1 - 2 * SATURATION).add_(SATURATION)
            part.copy_(torch.logit(p).mul_(self.temperatures(p)))

    def pack(self, weight_FD: Tensor) -> Packed:
        """``codes``: bit planes ``[n, F, ceil(D / 8)]`` of the integers, the sign bit first and inverted (so
        that codes ascend with the weights); ``scales``: float16 ``[F]`` or ``[1]``."""
        codes = torch.zeros(weight_FD.shape[:2], dtype=torch.uint8, device=weight_FD.device)
        for i in range(self.n_bits):
            bit = (weight_FD[..., i] > 0) if i < self.n_bits - 1 else (weight_FD[..., i] <= 0)
            codes += bit.to(torch.uint8) << i
        tensors = {"codes": pack_planes(codes, self.n_bits), "scales": self.log_step.detach().exp().half()}
        return Packed(tensors, self.shape, {"n_bits": self.n_bits, "level": self.n_bits})

    def unpack(self, packed: Packed) -> Tensor:
        """float32 ``[F, D]``."""
        return self._weights(packed.tensors["codes"], packed.tensors["scales"].float(), packed)

    def unpack_rows(self, packed: Packed, rows_R: Tensor) -> Tensor:
        """float32 ``[R, D]``."""
        scales = packed.tensors["scales"].float().expand(packed.shape[0])
        return self._weights(packed.tensors["codes"].index_select(1, rows_R), scales[rows_R], packed)

    def lookup(self, packed: Packed) -> Lookup:
        """Codes into the integers that they stand for."""
        codes = unpack_planes(packed.tensors["codes"], packed.shape[1])
        points = _integers(torch.arange(2 ** packed.layout["level"]), packed)
        scales = packed.tensors["scales"].float().expand(packed.shape[0]).contiguous()
        return Lookup(codes, points.to(codes.device), scales)

    def packed_tensors(self) -> Mapping[str, PackedTensor]:
        """The bit planes, and the scales."""
        codes = PackedTensor(torch.uint8, planes_shape(self.n_bits, *self.shape))
        return {"codes": codes, "scales": PackedTensor(torch.float16, tuple(self.log_step.shape))}

    def check(self, packed: Packed) -> None:
        """As many bits as the options say."""
        check_layout(packed, ("n_bits", "level"))
        n_bits, level = packed.layout["n_bits"], packed.layout["level"]
        stored = packed.tensors["codes"].shape[0]
        if type(n_bits) is not int or n_bits != self.n_bits:
            raise ValueError(f"n_bits {n_bits!r:.80}, and the options say {self.n_bits}")
        if type(level) is not int or not stored <= level <= n_bits:  # less: read at a lower level
            raise ValueError(f"level {level!r:.80} with {stored} of {n_bits} bit planes")

    def row_dims(self, packed: Packed) -> Mapping[str, int]:
        """Rows are the second dimension of the planes."""
        return {"codes": 1} | ({"scales": 0} if packed.tensors["scales"].shape[0] > 1 else {})

    def level_dims(self, packed: Packed) -> Mapping[str, int]:
        """The first b planes are the weights at b bits."""
        return {"codes": 0}

    def at_level(self, packed: Packed, level: int) -> Packed:
        """The first ``level`` planes; the bits that are left out count as their mean."""
        codes = packed.tensors["codes"][:level].contiguous()
        layout = {**packed.layout, "level": level}
        return Packed({**packed.tensors, "codes": codes}, packed.shape, layout)

    def _weights(self, planes: Tensor, scales: Tensor, packed: Packed) -> Tensor:
        return _integers(unpack_planes(planes, packed.shape[1]), packed) * scales[:, None]

    def _places(self, like: Tensor) -> Tensor:
        return self.places.to(like)


def _integers(codes: Tensor, packed: Packed) -> Tensor:
    """float32: ``code - 2^(n-1)`` with all planes; with b of them the middle of what the code may become."""
    n_bits, level = packed.layout["n_bits"], packed.layout["level"]
    width = 2 ** (n_bits - level)
    return codes.float() * width + ((width - 1) / 2 - 2 ** (n_bits - 1))


class _HardBits(torch.autograd.Function):
    """``sum_i place_i 1[theta_i > 0]``; backward: that of ``sum_i place_i sigma(theta_i / T_i)``."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, places_n: Tensor, temperatures_n: Tensor) -> Tensor:
        ctx.save_for_backward(logits, places_n, temperatures_n)
        integers: Tensor = (logits > 0).to(logits.dtype) @ places_n
        return integers

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        logits, places_n, temperatures_n = ctx.saved_tensors
        p = torch.sigmoid(logits / temperatures_n)
        slope = p.mul_(1 - p).mul_(places_n / temperatures_n)
        return slope.mul_(gradients[0][..., None]), None, None
