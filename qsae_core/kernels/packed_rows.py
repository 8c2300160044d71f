"""The rows of a quantized matrix: masters while training, packed codes after loading.

Shapes: F rows, D width, R some rows, N entries.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from qsae_core.reading import mapped

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
        keeps_floats: ``dense`` keeps what it makes for the calls after it. Else a large matrix is unpacked
            some rows at a time, each time that all of it is needed, and has no compiled operations, which
            read a copy of its codes.
    """

    def __init__(
        self, packed: Packed, quantizer: Quantizer, arithmetic: Arithmetic, *, keeps_floats: bool = True
    ) -> None:
        super().__init__(packed.shape)
        self._keeps_floats = keeps_floats
        self._packed, self._quantizer, self.arithmetic = packed, quantizer, arithmetic
        self._floats: Tensor | None = None
        self._lookup: _CompiledLookup | None = None
        self._bytes: Tensor | None = None
        if self._is_large:  # the codes as bytes, and again as compiled operations read them
            return
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
        """As Rows; floats of 16 bits, and large matrices of which none are kept, some rows at a time."""
        if not self._in_blocks:
            super().pre_activations(x_CD, bias_F, out_CF)
            return
        for first, rows_RD in self._blocks():
            part = slice(first, first + rows_RD.shape[0])
            torch.addmm(bias_F[part], x_CD, rows_RD.T, out=out_CF[:, part])

    def blocks(self) -> Iterator[tuple[int, Tensor]] | None:
        """Of a large matrix of which no floats are kept."""
        return self._blocks() if self._is_large else None

    @property
    def _is_large(self) -> bool:
        is_large = self.shape[0] * self.shape[1] >= mapped.LARGE
        return is_large and not self._keeps_floats and self._floats is None

    def _takes_much(self, rows_R: Tensor) -> bool:
        return self._is_large and rows_R.numel() * self.shape[1] > mapped.LARGE // 4

    @property
    def _in_blocks(self) -> bool:
        return self._is_large or self._quantizer.floats(self._packed) is not None

    def _blocks(self) -> Iterator[tuple[int, Tensor]]:
        narrow_FD = self._quantizer.floats(self._packed)
        for first in range(0, self.shape[0], ROWS_AT_ONCE):
            last = min(first + ROWS_AT_ONCE, self.shape[0])
            if narrow_FD is None:
                yield first, self.take(torch.arange(first, last, device=self._device))
            else:
                yield first, narrow_FD[first:last].float()
                mapped.let_go(narrow_FD)

    def _once(self) -> Tensor | Iterator[Tensor]:
        return (rows_RD for _, rows_RD in self._blocks()) if self._floats is None else self._floats

    def take(self, rows_R: Tensor) -> Tensor:
        """Some rows as float32."""
        if not any(mapped.is_mapped(tensor) for tensor in self._packed.tensors.values()):
            return self._quantizer.unpack_rows(self._packed, rows_R)
        found_RD = torch.empty(rows_R.numel(), self.shape[1], dtype=torch.float32)
        for part, out in zip(rows_R.split(ROWS_AT_ONCE), found_RD.split(ROWS_AT_ONCE), strict=True):
            out.copy_(self._quantizer.unpack_rows(self._packed, part))
            for tensor in self._packed.tensors.values():
                mapped.let_go(tensor)
        return found_RD

    def product(self, codes: SparseCodes, values: Tensor) -> Tensor:
        """Each token's sum of values times rows, from packed codes where few rows are named."""
        if is_dense(codes):
            return super().product(codes, values)
        if self._lookup is not None:
            return self._lookup.product(codes, values.contiguous())
        if self._bytes is not None:
            return byte_product(self._bytes, codes.indices, codes.offsets, values.contiguous())
        rows_R, compact = compact_codes(codes)
        if self._takes_much(rows_R) and codes.batch_size > 1:
            halves = _halves(codes)
            some = values.split([half.indices.numel() for half in halves])
            return torch.cat([self.product(*half) for half in zip(halves, some, strict=True)])
        return sparse_product(compact.indices, compact.offsets, values, self.take(rows_R))

    def dots(self, left_BD: Tensor, codes: SparseCodes) -> Tensor:
        """The dot product of each entry, from packed codes where few rows are named."""
        if is_dense(codes):
            return super().dots(left_BD, codes)
        left_BD = left_BD.contiguous()
        if self._lookup is not None:
            return self._lookup.dots(left_BD, codes)
        rows_R, compact = compact_codes(codes)
        if self._takes_much(rows_R) and codes.batch_size > 1:
            halves = _halves(codes)
            some = left_BD.split([half.batch_size for half in halves])
            return torch.cat([self.dots(left, half) for left, half in zip(some, halves, strict=True)])
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


def _halves(codes: SparseCodes) -> list[SparseCodes]:
    """The codes of the first half of the tokens, and those of the others, of two tokens or more."""
    middle = codes.batch_size // 2
    end = int(codes.offsets[middle])
    parts = (slice(0, middle + 1), slice(0, end)), (slice(middle, None), slice(end, None))
    return [
        SparseCodes(
            codes.indices[entries],
            codes.values[entries],
            codes.offsets[tokens] - codes.offsets[tokens.start],
            codes.n_latents,
            codes.k,
        )
        for tokens, entries in parts
    ]


def compact_codes(codes: SparseCodes) -> tuple[Tensor, SparseCodes]:
    """The latents that codes name, int64 ``[R]`` ascending, and the codes with indices into these."""
    rows_R, place_N = torch.unique(codes.indices, return_inverse=True)
    compact = SparseCodes(place_N.to(torch.int32), codes.values, codes.offsets, rows_R.numel(), codes.k)
    return rows_R.long(), compact
