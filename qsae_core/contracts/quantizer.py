"""Quantizer: the grid of a matrix, and the form in which it is stored.

Shapes: D width of a row, F latents (rows of a matrix), N tokens.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from qsae_core.component import ComponentConfig
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.dense import ROWS_AT_ONCE


@dataclass(frozen=True)
class Packed:
    """A matrix as it is stored.

    Attributes:
        tensors: what goes into the file: bit-packed codes (uint8), scales (float16), masks, codebooks;
            names are the quantizer's own (``codes``, ``scales``).
        shape: ``(F, D)`` of the matrix.
        layout: JSON values that ``unpack`` needs besides the tensors (``{"grid": "ternary"}``).
    """

    tensors: dict[str, Tensor]
    shape: tuple[int, int]
    layout: dict[str, Any] = field(default_factory=dict)

    @property
    def n_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values())

    @property
    def bits_per_weight(self) -> float:
        """Everything that is stored (codes, scales, masks, codebooks), in bits, per weight of the matrix."""
        return 8 * self.n_bytes / (self.shape[0] * self.shape[1])


class PackedTensor(NamedTuple):
    """Type and shape of one tensor of a packed matrix."""

    dtype: torch.dtype
    shape: tuple[int | None, ...]
    """None: a size that hangs on the values of other tensors, which ``Quantizer.check`` knows."""


class Lookup(NamedTuple):
    """A matrix whose entry is ``points[code] * scale``, that product rounded to float32 once.

    The scale is that of the entry's row, or of its group: G groups of as many columns each, in order.
    """

    codes: Tensor
    """uint8 ``[F, D]``."""
    points: Tensor
    """float32 ``[P]``, ascending, at most 256."""
    scales: Tensor
    """float32 ``[F]``, or ``[F, G]``."""

    def matrix(self) -> Tensor:
        """float32 ``[F, D]``: the matrix, made a few thousand rows at a time."""
        width = self.codes.shape[1]
        n_groups = 1 if self.scales.dim() == 1 else self.scales.shape[1]
        matrix = self.points.new_empty(self.codes.shape)
        parts = (tensor.split(ROWS_AT_ONCE) for tensor in (self.codes, self.scales, matrix))
        for codes, scales, rows in zip(*parts, strict=True):  # there may be no row
            in_groups = (codes.shape[0], n_groups, width // n_groups)
            grouped = self.points[codes.int()].view(in_groups)
            torch.mul(grouped, scales.view(*in_groups[:2], 1), out=rows.view(in_groups))
        return matrix


class Calibration(NamedTuple):
    """What a decoder's quantizer may know of the data: codes, and what they should decode to."""

    codes: SparseCodes
    """Of the float coder, over N calibration tokens."""
    target: Tensor
    """float32 ``[N, D]``: what ``codes @ W`` approximates (normalised vectors without ``b_dec``)."""
    missed: Tensor | None = None
    """float32 ``[N, D]``: of that, what the float matrices before this one gave and the quantized ones do
    not; None where none is before it. The weights that a quantizer is shown make up for it already."""


class Quantizer(nn.Module, abc.ABC):
    """Maps a float matrix to one whose entries lie on a grid; one instance serves one matrix.

    Built as ``Class(config, shape)`` with ``shape = (F, D)``; rows are what a scale belongs to. Masters
    stay float32 outside; a quantizer holds only what it learns itself (scales, offsets).
    """

    def __init__(self, config: ComponentConfig, shape: tuple[int, int]) -> None:
        super().__init__()
        self.config, self.shape = config, shape

    def initialize(self, weight_FD: Tensor) -> None:
        """Set learned scales from the float weights ``[F, D]``: before training, and again when training
        begins to pass through the quantizer (after a float start the first ones are stale)."""

    @abc.abstractmethod
    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        """``[F, D]`` float -> ``[F, D]`` on the grid, same dtype; differentiable, if only straight through.

        Deterministic in evaluation mode; applying it twice gives what applying it once gives.
        """

    @abc.abstractmethod
    def pack(self, weight_FD: Tensor) -> Packed:
        """The stored form of ``fake_quantize(weight)`` in evaluation mode."""

    @abc.abstractmethod
    def unpack(self, packed: Packed) -> Tensor:
        """float32 ``[F, D]``; equals ``fake_quantize(weight)`` in evaluation mode bit for bit.

        Works from the config and ``packed`` alone: a fresh quantizer reads what another one stored.
        """

    @abc.abstractmethod
    def packed_tensors(self) -> Mapping[str, PackedTensor]:
        """What ``pack`` makes of any matrix of this quantizer's shape: the name, type and shape of each
        tensor. A file whose tensors are others is refused before one of them is used."""

    def check(self, packed: Packed) -> None:
        """Refuse what no ``pack`` of these options gave, of tensors with the types and shapes that
        ``packed_tensors`` says (fewer entries along ``level_dims`` where a part is read): a layout that is
        another or says something else than the tensors, codes that stand for nothing.

        The default takes a layout without values. A quantizer that has one overrides it, as does one with
        codes that are no point.

        Raises:
            ValueError: with what is wrong, in words: ``5 bits, and the options say 4``.
        """
        check_layout(packed, ())

    def grid(self) -> Tensor | None:
        """float ``[G]``: the values of ``W_hat / scale`` in ascending order; None if not a fixed grid."""
        return None

    by_row: bool = False
    """Whether a row's quantized values depend on that row alone (the last bit of its scale aside), so that
    training may call ``fake_quantize`` with the rows that a batch touches."""

    packs_by_row: bool = False
    """Whether ``pack`` of some rows is what ``pack`` of the matrix has of them. Large matrices are then
    packed some rows at a time, and tensors joined along ``row_dims``; other tensors and the layout are alike
    in all."""

    linear_gradient: bool = True
    """Whether the gradient through ``fake_quantize`` of a sum of losses is the sum of the gradients of each:
    that of a batch is then made of those of its parts, and several processes can have a part each."""

    def unpack_rows(self, packed: Packed, rows_R: Tensor) -> Tensor:
        """float32 ``[R, D]``: these rows of ``unpack(packed)``, bit for bit.

        Decoding reads packed matrices through this. The default unpacks the whole matrix; a quantizer whose
        codes lie row by row overrides it.
        """
        return self.unpack(packed).index_select(0, rows_R)

    def floats(self, packed: Packed) -> Tensor | None:
        """``[F, D]``: the stored matrix, where it is stored as floats (float32, float16, bfloat16): such a
        coder can be quantized like one of float32. None where it is stored otherwise."""
        return None

    def lookup(self, packed: Packed) -> Lookup | None:
        """The packed matrix as codes into a table of points, with scales; None where it is not one.

        Products read codes directly where a row has one scale; else ``unpack_rows`` serves them.
        """
        return None

    def row_dims(self, packed: Packed) -> Mapping[str, int]:
        """Packed tensor -> its dimension that runs over the rows; tensors without one are left out.

        Cut to the first n along it, with ``shape = (n, D)``, the tensors are the packed form of the first n
        rows: nested coders store and read a prefix of their dictionary so. The default takes the first
        dimension of every tensor that has F entries there.
        """
        return {name: 0 for name, t in packed.tensors.items() if t.dim() and t.shape[0] == packed.shape[0]}

    def row_end(self, packed: Packed, name: str, n_rows: int) -> int:
        """Where the first ``n_rows`` rows end along the dimension that ``row_dims`` gives a packed tensor:
        after as many entries, unless rows take several or different numbers of them."""
        return n_rows

    levels: int = 1
    """Precisions at which a packed matrix can be read (bit planes); 1: only as it is."""

    def level_dims(self, packed: Packed) -> Mapping[str, int]:
        """Packed tensor -> its dimension of which precision ``i`` needs the first ``i`` entries alone."""
        return {}

    def at_level(self, packed: Packed, level: int) -> Packed:
        """The packed form at precision ``level`` (1 to ``levels``), read by ``unpack`` like any other.

        Its tensors may be cut along ``level_dims`` already.
        """
        if level != self.levels:
            raise ValueError(f"precision {level} of {self.levels}")
        return packed

    def calibrate(self, weight_FD: Tensor, calibration: Calibration) -> Tensor:
        """The quantized matrix that serves best on calibration data, for post-training quantization, which
        calls it in place of ``initialize``.

        Returns:
            float32 ``[F, D]`` that ``fake_quantize`` leaves as it is, bit for bit.
        """
        self.initialize(weight_FD.detach())
        return self.fake_quantize(weight_FD.detach())

    @property
    def is_identity(self) -> bool:
        """Whether this quantizer leaves weights as they are (only ``none`` says so)."""
        return False


def check_layout(packed: Packed, keys: Collection[str]) -> None:
    """Refuse a layout with other keys than these.

    Raises:
        ValueError: which names them.
    """
    if packed.layout.keys() != set(keys):
        said = ", ".join(sorted(packed.layout)) or "nothing"
        raise ValueError(f"the layout says {said:.200}, and not {', '.join(sorted(keys)) or 'nothing'}")


def straight_through(weight: Tensor, quantized: Tensor) -> Tensor:
    """The second tensor, bit for bit, whose gradient goes to the first as it is (Bengio et al., 2013)."""
    passed: Tensor = _StraightThrough.apply(weight, quantized)  # type: ignore[no-untyped-call]
    return passed


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, quantized: Tensor) -> Tensor:
        return quantized

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
