"""The rows of a quantized matrix: masters while training, packed codes after loading.

Shapes: F rows, D width, R some rows, N entries.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.quantizer import Lookup, Packed, Quantizer
from qsae_core.kernels.dispatch import current, installed
from qsae_core.kernels.fused import Weights
from qsae_core.kernels.gather_dot import gather_dot
from qsae_core.kernels.lookup import byte_product, byte_rows, lookup_bits
from qsae_core.kernels.products import is_dense
from qsae_core.kernels.rows import DenseRows, Rows
from qsae_core.kernels.sparse_product import sparse_product

Arithmetic = Literal["exact", "fast"]
ROWS_AT_ONCE = 4096
"""Unpacked rows that are held at once."""


class MasterRows(Rows):
    """A master ``[F, D]`` in training: quantized whole where it is read whole, by rows where few are read."""

    def __init__(self, master: nn.Parameter, quantizer: Quantizer) -> None:
        super().__init__((master.shape[0], master.shape[1]))
        self._master, self._quantizer = master, quantizer
        self._whole: Tensor | None = None

    @property
    def trains(self) -> bool:
        """Whether the master requires a gradient."""
        return self._master.requires_grad

    def dense(self) -> Tensor:
        """The quantized matrix, made once."""
        if self._whole is None:
            self._whole = self._quantizer.fake_quantize(self._master)
        return self._whole

    def take(self, rows_R: Tensor) -> Tensor:
        """Some rows, quantized alone where the quantizer works row by row."""
        if self._whole is None and self._quantizer.by_row:
            return self._quantizer.fake_quantize(self._master.index_select(0, rows_R))
        return super().take(rows_R)

    def touched(self, codes: SparseCodes) -> tuple[Rows, SparseCodes]:
        """The named rows alone, where that is at most half of the matrix and it is not quantized yet."""
        if self._whole is not None or not self._quantizer.by_row:
            return DenseRows(self.dense()), codes
        rows_R, compact = compact_codes(codes)
        if rows_R.numel() > self.shape[0] // 2:
            return DenseRows(self.dense()), codes
        return DenseRows(self.take(rows_R)), compact


class PackedRows(Rows):
    """A matrix in its packed form; only rows that are named are unpacked.

    Args:
        packed: what the quantizer stored.
        quantizer: reads it.
        arithmetic: ``exact``: the bits that the unpacked float matrix gives. ``fast``: also torch's byte bag
            where no compiled operation is active; float32 sums in another order of rounding (relative error
            below 1e-6), from one byte a weight.
    """

    def __init__(self, packed: Packed, quantizer: Quantizer, arithmetic: Arithmetic) -> None:
        super().__init__(packed.shape)
        self._packed, self._quantizer, self.arithmetic = packed, quantizer, arithmetic
        self._floats: Tensor | None = None
        self._lookup: _CompiledLookup | None = None
        self._bytes: Tensor | None = None
        found = quantizer.lookup(packed)
        if found is None or found.scales.dim() > 1:  # compiled operations and byte bags know a scale per row
            return
        device = found.codes.device.type
        if installed("lookup_product", device) and installed("lookup_gather_dot", device):
            self._lookup = _CompiledLookup(found)
        elif arithmetic == "fast" and device == "cpu":
            self._bytes = byte_rows(*found)

    def dense(self) -> Tensor:
        """All rows as float32, unpacked at the first call: an encoder without a screen multiplies by them."""
        if self._floats is None:
            self._floats = self._quantizer.unpack(self._packed)
        return self._floats

    def pre_activations(self, x_CD: Tensor, bias_F: Tensor, out_CF: Tensor) -> None:
        """As Rows; floats of 16 bits are widened a few thousand rows at a time, and not kept."""
        narrow_FD = self._quantizer.floats(self._packed)
        if narrow_FD is None:
            super().pre_activations(x_CD, bias_F, out_CF)
            return
        blocks = zip(
            narrow_FD.split(ROWS_AT_ONCE),
            bias_F.split(ROWS_AT_ONCE),
            out_CF.split(ROWS_AT_ONCE, dim=1),
            strict=True,
        )
        for narrow_RD, bias_R, out_CR in blocks:
            torch.addmm(bias_R, x_CD, narrow_RD.float().T, out=out_CR)

    def _whole_once(self) -> Tensor:
        return self._quantizer.unpack(self._packed) if self._floats is None else self._floats

    def take(self, rows_R: Tensor) -> Tensor:
        """Some rows as float32."""
        return self._quantizer.unpack_rows(self._packed, rows_R)

    def product(self, codes: SparseCodes, values: Tensor) -> Tensor:
        """Each token's sum of values times rows, from packed codes where few rows are named."""
        if is_dense(codes):
            return super().product(codes, values)
        if self._lookup is not None:
            return self._lookup.product(codes, values.contiguous())
        if self._bytes is not None:
            return byte_product(self._bytes, codes.indices, codes.offsets, values.contiguous())
        rows_R, compact = compact_codes(codes)
        return sparse_product(compact.indices, compact.offsets, values, self.take(rows_R))

    def dots(self, left_BD: Tensor, codes: SparseCodes) -> Tensor:
        """The dot product of each entry, from packed codes where few rows are named."""
        if is_dense(codes):
            return super().dots(left_BD, codes)
        left_BD = left_BD.contiguous()
        if self._lookup is not None:
            return self._lookup.dots(left_BD, codes)
        rows_R, compact = compact_codes(codes)
        return gather_dot(left_BD, self.take(rows_R), compact.indices, compact.offsets)

    def norms(self) -> Tensor:
        """The norm of each row, from a few thousand unpacked rows at a time."""
        if self._norms is None:
            everything = torch.arange(self.shape[0], device=self._device)
            self._norms = torch.cat([self.take(part).norm(dim=1) for part in everything.split(ROWS_AT_ONCE)])
        return self._norms

    def fusable(self) -> Weights | None:
        """What compiled lookups read."""
        return None if self._lookup is None else self._lookup.head

    @property
    def row_bytes(self) -> float:
        """Bytes that are read for one row: packed codes and scale."""
        if self._lookup is not None:
            return self._lookup.words.numel() / self.shape[0] + 4
        return (self._packed.n_bytes if self._bytes is None else self._bytes.numel()) / self.shape[0]

    @property
    def _device(self) -> torch.device:
        return next(iter(self._packed.tensors.values())).device


class _CompiledLookup:
    """Codes in a kernel set's own order, with the functions of that set which read them."""

    def __init__(self, found: Lookup) -> None:
        bits, codes = lookup_bits(found.points.numel()), found.codes.contiguous()
        self.words: Tensor = current("lookup_pack", codes)(codes, bits)
        points, scales = found.points.contiguous(), found.scales.contiguous()
        self.head = (self.words, points, scales, found.codes.shape[1], bits)
        self._product = current("lookup_product", codes)
        self._gather_dot = current("lookup_gather_dot", codes)

    def product(self, codes: SparseCodes, values: Tensor) -> Tensor:
        product: Tensor = self._product(*self.head, codes.indices, codes.offsets, values)
        return product

    def dots(self, left_BD: Tensor, codes: SparseCodes) -> Tensor:
        dots: Tensor = self._gather_dot(*self.head, left_BD, codes.indices, codes.offsets)
        return dots


def compact_codes(codes: SparseCodes) -> tuple[Tensor, SparseCodes]:
    """The latents that codes name, int64 ``[R]`` ascending, and the codes with indices into these."""
    rows_R, place_N = torch.unique(codes.indices, return_inverse=True)
    compact = SparseCodes(place_N.to(torch.int32), codes.values, codes.offsets, rows_R.numel(), codes.k)
    return rows_R.long(), compact
