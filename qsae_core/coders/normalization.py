"""Input normalisation: mean, RMS and a structured rotation. Shapes: B tokens, D width, D = S * T."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from qsae_core import kernels
from qsae_core.kernels.precision import full_precision

ROTATION_SEED = 0x5AE
ALL = slice(None)


class Normalization(nn.Module):
    """``x -> ((x - mean) / scale) R`` and back; statistics are measured once and stored with the coder.

    ``R = diag(signs) (H_S kron Q_T)``: random signs, then the Kronecker product of a normalised Hadamard
    matrix and a small dense orthogonal factor that holds what of D is no power of two (576 = 16 x 36).
    Real residual streams have a few enormous dimensions; a rotation spreads them evenly, so that rows of
    the dictionary look Gaussian to a quantizer's grid (as in QuaRot, Ashkboos et al., 2024). FVU does not
    change under it, and one application costs ``S + T`` multiply-adds per entry.

    Args:
        width: D.
        mode: ``none`` (identity), ``center`` (subtract the mean) or ``scale`` (also divide by the RMS of
            the centred data per dimension, one number for all dimensions).
        layers: L, where each of several layers ``[B, L, D]`` has a mean and a scale of its own.
    """

    mean: Tensor
    scale: Tensor
    signs: Tensor
    left: Tensor
    right: Tensor
    rotated: Tensor

    def __init__(self, width: int, mode: str, layers: int = 1) -> None:
        super().__init__()
        self.mode, self.layers = mode, layers
        left, right = _split_width(width)
        mean = torch.zeros(width if layers == 1 else (layers, width), dtype=torch.float32)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", torch.ones(() if layers == 1 else (layers, 1), dtype=torch.float32))
        self.register_buffer("signs", torch.ones(width, dtype=torch.int8))
        self.register_buffer("left", _hadamard(left), persistent=False)
        self.register_buffer("right", torch.eye(right, dtype=torch.float32))
        self.register_buffer("rotated", torch.zeros((), dtype=torch.bool))

    @property
    def centres(self) -> bool:
        """Whether what it gives has the mean 0 over the data."""
        return self.mode != "none"

    @property
    def changes(self) -> bool:
        """Whether vectors are other ones in the normalised space."""
        return bool(self.rotated) or bool(self.mean.any()) or bool((self.scale != 1).any())

    @torch.no_grad()
    def fit(self, sample_BD: Tensor, *, rotate: bool) -> None:
        """Measure mean and RMS on ``[B, D]`` (or ``[B, L, D]``) vectors and draw the rotation.

        The rotation depends on D alone, so that coders of one width share it.
        """
        # one group of vectors for each mean: every layer alone, or all together
        groups_NLD = sample_BD.double().reshape(-1, self.layers, sample_BD.shape[-1])
        mean_LD = groups_NLD.mean(0)
        if self.mode != "none":
            self.mean.copy_(mean_LD.view_as(self.mean))
        if self.mode == "scale":
            rms_L = (groups_NLD - mean_LD).square().mean((0, 2)).sqrt()
            self.scale.copy_(rms_L.where(rms_L > 0, 1.0).view_as(self.scale))
        self.rotated.fill_(False)
        if rotate:
            self.rotate()

    @torch.no_grad()
    def rotate(self) -> None:
        """Draw the rotation, and leave mean and scale as they are."""
        generator = torch.Generator().manual_seed(ROTATION_SEED)
        self.signs.copy_(torch.randint(0, 2, self.signs.shape, generator=generator) * 2 - 1)
        gaussian = torch.randn(self.right.shape, generator=generator, dtype=torch.float64)
        self.right.copy_(torch.linalg.qr(gaussian).Q)
        self.rotated.fill_(True)

    def check_stored(self, name: str) -> None:
        """Refuse statistics that no data have.

        Raises:
            ValueError: which calls this module by the name.
        """
        if not bool((self.scale > 0).all()):
            raise ValueError(f"{name}.scale is to be above 0")
        if not bool((self.signs.abs() == 1).all()):
            raise ValueError(f"{name}.signs are to be -1 and 1")

    def forward(self, x: Tensor, layers: slice = ALL) -> Tensor:
        """Data space -> normalised space, ``[..., D]``.

        Args:
            layers: those that x has, where each has a mean and a scale of its own.
        """
        mean, scale = self._of(layers)
        return self.direction((x - mean).div_(scale))

    def inverse(self, z: Tensor, layers: slice = ALL) -> Tensor:
        """Normalised space -> data space, ``[..., D]``; ``layers`` as in ``forward``."""
        mean, scale = self._of(layers)
        return self.unrotated(z) * scale + mean

    def _of(self, layers: slice) -> tuple[Tensor, Tensor]:
        return (self.mean, self.scale) if self.layers == 1 else (self.mean[layers], self.scale[layers])

    @full_precision
    def direction(self, x: Tensor) -> Tensor:
        """The rotation alone, ``[..., D]`` (or ``[..., L D]``): for what is already centred and scaled."""
        if not self.rotated:
            return x
        return self._turned(x, back=False)

    @full_precision
    def unrotated(self, z: Tensor) -> Tensor:
        """What ``direction`` made ``z`` of, ``[..., D]``."""
        if not self.rotated:
            return z
        return self._turned(z, back=True)

    def _turned(self, rows: Tensor, *, back: bool) -> Tensor:
        flat = rows.reshape(-1, self.signs.numel())
        return kernels.turned(flat, self.signs, self.left, self.right, back=back).reshape(rows.shape)

    def by_layer(self, rows: Tensor) -> Tensor:
        """``[N, L D] -> [N, L, D]`` where layers are normalised one by one; else as they are."""
        return rows if self.layers == 1 else rows.unflatten(1, (self.layers, self.signs.numel()))

    def inverse_direction(self, z: Tensor) -> Tensor:
        """Rotate back and scale, without the mean: for rows of a decoder, ``[..., D]``."""
        return self.unrotated(z) * self.scale


def _split_width(width: int) -> tuple[int, int]:
    """D = S * T, where S is the largest power of two that divides D and is at most sqrt(D)."""
    left = 1
    while width % (left * 2) == 0 and (left * 2) ** 2 <= width:
        left *= 2
    return left, width // left


def _hadamard(size: int) -> Tensor:
    """Sylvester's Hadamard matrix of a power of two, normalised to be orthogonal (and symmetric)."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while matrix.shape[0] < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return (matrix / math.sqrt(size)).float()
