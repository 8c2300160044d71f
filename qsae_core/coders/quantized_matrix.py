"""QuantizedMatrix: a float master and the quantizer through which it is used. Shapes: F rows, D columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from qsae_core.contracts.quantizer import Packed, Quantizer
from qsae_core.kernels import DenseRows, Rows
from qsae_core.kernels.packed_rows import ROWS_AT_ONCE, Arithmetic, MasterRows, PackedRows
from qsae_core.reading import LARGE, let_go


class QuantizedMatrix(nn.Module):
    """A matrix ``[F, D]`` that a coder reads through ``rows()``, or whole by calling it.

    Training reads ``quantizer.fake_quantize(weight)``, or the master itself while ``quantizing`` is False
    (a float warm start); evaluation always reads the quantized matrix and computes it once. After
    ``restore`` the master is gone: ``rows()`` reads packed codes, and only a call unpacks them to floats.
    """

    weight: nn.Parameter | None

    def __init__(self, weight_FD: Tensor, quantizer: Quantizer) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_FD)
        self.quantizer = quantizer
        self.quantizing = True
        self.shape = (weight_FD.shape[0], weight_FD.shape[1])
        self.arithmetic: Arithmetic = "exact"
        self.keeps_floats = True
        self._packed: Packed | None = None
        self._cache: tuple[int, Tensor] | None = None
        self._rows: tuple[int, Rows] | None = None
        self._level: int | None = None
        self.frozen = False

    def __getstate__(self) -> dict[str, Any]:
        """Without what was derived for this process: compiled layouts, and the functions that read them."""
        return {**self.__dict__, "_cache": None, "_rows": None}

    def rows(self) -> Rows:
        """The matrix for the operations of ``qsae_core.kernels``; read it once a step and pass it on."""
        if self._packed is not None:
            if self._rows is None:
                self._rows = (0, self._stored_rows(self._packed))
            return self._rows[1]
        if self._learns and self.quantizing and not self.quantizer.is_identity:
            return MasterRows(self.master, self.quantizer)
        if self._learns or (torch.is_grad_enabled() and self.master.requires_grad):
            return DenseRows(self())
        version = self.master._version
        if self._rows is None or self._rows[0] != version:
            self._rows = (version, DenseRows(self()))
        return self._rows[1]

    def _stored_rows(self, packed: Packed) -> Rows:
        if self.quantizer.is_identity:
            return DenseRows(self.quantizer.unpack(packed))
        return PackedRows(packed, self.quantizer, self.arithmetic, keeps_floats=self.keeps_floats)

    def forward(self) -> Tensor:
        """The whole matrix as the coder uses it, ``[F, D]`` floats; a packed one is unpacked at each call."""
        if self._packed is not None:
            return self.quantizer.unpack(self._packed)
        assert self.weight is not None
        if self._learns:
            return (
                self.quantizer.fake_quantize(self.weight)
                if self.quantizing
                else self.before_quantization(self.weight)
            )
        if torch.is_grad_enabled() and self.weight.requires_grad:
            return self.quantizer.fake_quantize(self.weight)
        if self._cache is None or self._cache[0] != self.weight._version:
            self._cache = (self.weight._version, self.quantizer.fake_quantize(self.weight))
        return self._cache[1]

    @property
    def master(self) -> nn.Parameter:
        """The float32 master.

        Raises:
            RuntimeError: after ``restore``, when only the packed form is left.
        """
        if self.weight is None:
            raise RuntimeError("this matrix was loaded from its packed form and has no float master")
        return self.weight

    def before_quantization(self, master: Tensor) -> Tensor:
        """``[F, D]``: the float matrix that a master stands for; the master itself, unless a subclass keeps
        another one (logits of bits), whose first dimension runs over the rows all the same."""
        return master

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        kept = self.master if self._packed is None else next(iter(self._packed.tensors.values()))
        return kept.device

    @property
    def is_restored(self) -> bool:
        """Whether only the packed form is left, which nothing changes any more."""
        return self._packed is not None

    @property
    def is_plain(self) -> bool:
        """Whether the master is the matrix before quantization, and not a subclass's own form of it."""
        return type(self).before_quantization is QuantizedMatrix.before_quantization

    def read_before_quantization(self, read: Callable[[str], Tensor]) -> Tensor:
        """The same from stored masters: ``read`` gives a tensor of this module's ``state_dict``."""
        return read("weight")

    @property
    def _learns(self) -> bool:
        return self.training and not self.frozen

    def freeze(self, frozen: bool) -> None:
        """Whether training uses the matrix as evaluation does, and leaves it as it is."""
        if frozen == self.frozen:
            return
        self.frozen = frozen
        for parameter in self.parameters():
            parameter.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> QuantizedMatrix:
        """Switch mode; the cached quantized matrix is dropped, and stays where nothing changes it."""
        if self._packed is None and not (self.frozen and mode == self.training):
            self._cache, self._rows = None, None
        super().train(mode)
        if self.frozen:
            self.quantizer.eval()
        return self

    @torch.no_grad()
    def pack(self) -> Packed:
        """The stored form: what evaluation mode computes with."""
        if self._packed is not None:
            return self._packed
        was_training = self.quantizer.training
        self.quantizer.eval()
        packed = packed_in_blocks(self.quantizer, self.master.detach())
        self.quantizer.train(was_training)
        return packed

    @torch.no_grad()
    def blocks(self) -> Iterator[Tensor]:
        """``[R, D]``, some rows after the others, as evaluation uses them; memory of rows of a file is given
        back when the next ones are asked for."""
        if self._packed is None:
            for rows_RD in self().detach().split(ROWS_AT_ONCE):
                yield rows_RD
                let_go(rows_RD)
            return
        for part in torch.arange(self.shape[0], device=self.device).split(ROWS_AT_ONCE):
            yield self.quantizer.unpack_rows(self._packed, part)
            for tensor in self._packed.tensors.values():
                let_go(tensor)

    def floats(self) -> Tensor | None:
        """``[F, D]``: the matrix in the float type in which it is stored; None if it is stored otherwise."""
        return self.quantizer.floats(self.pack())

    @torch.no_grad()
    def replace(self, rows_FD: Tensor) -> None:
        """Have this tensor as the master, without a copy; an optimiser of the master goes on with it."""
        self.master.data = rows_FD
        self._cache, self._rows = None, None

    def keep_packed(self) -> None:
        """Have the stored form alone, without a master."""
        packed = self.pack()
        self.restore(packed.tensors, packed.shape, packed.layout)

    @torch.no_grad()
    def take(self, rows_FD: Tensor) -> None:
        """Become this matrix: its master does, or, where it is stored as floats of another type than float32,
        the stored form alone, without a master."""
        packed = None if self.quantizer.is_identity else self.quantizer.pack(rows_FD)
        if packed is not None and self.quantizer.floats(packed) is not None:
            self.restore(packed.tensors, packed.shape, packed.layout)
        else:
            self.master.copy_(rows_FD)

    def restore(
        self,
        tensors: dict[str, Tensor],
        shape: tuple[int, int],
        layout: dict[str, Any],
        level: int | None = None,
    ) -> None:
        """Become the matrix of a stored form; ``forward`` then gives ``quantizer.unpack`` of it.

        Args:
            level: the precision at which it is read; None: as it is.
        """
        self.weight, self._cache, self._rows = None, None, None
        packed = Packed(tensors, shape, layout)
        self._packed = packed if level is None else self.quantizer.at_level(packed, level)
        self._level = level

    def check_stored(self) -> None:
        """Unpack the last row of a stored form, so that a layout that no quantizer wrote is noticed now; what
        it raises is the quantizer's own."""
        if self._packed is not None and self.shape[0]:
            last = torch.tensor([self.shape[0] - 1], device=self.device)
            self.quantizer.unpack_rows(self._packed, last)

    @property
    def levels(self) -> int:
        """Precisions at which the packed matrix can be read."""
        return self.quantizer.levels if self._level is None else self._level

    def _apply(self, fn: Any, recurse: bool = True) -> QuantizedMatrix:
        if self._packed is not None:  # move the stored tensors without changing their dtype
            moved = {n: t.to(fn(torch.empty(0)).device) for n, t in self._packed.tensors.items()}
            self._packed = Packed(moved, self._packed.shape, self._packed.layout)
        self._cache, self._rows = None, None
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]


def packed_in_blocks(quantizer: Quantizer, weight_FD: Tensor) -> Packed:
    """``quantizer.pack(weight)``, of a large matrix some rows at a time where the quantizer packs so."""
    if not quantizer.packs_by_row or weight_FD.numel() < LARGE:
        return quantizer.pack(weight_FD)
    parts = []
    for rows_RD in weight_FD.split(ROWS_AT_ONCE):
        parts.append(quantizer.pack(rows_RD))
        let_go(rows_RD)
    dims = quantizer.row_dims(parts[0])
    tensors = {
        name: torch.cat([part.tensors[name] for part in parts], dims[name]) if name in dims else tensor
        for name, tensor in parts[0].tensors.items()
    }
    return Packed(tensors, (weight_FD.shape[0], weight_FD.shape[1]), parts[0].layout)


def gathered(parts: Iterator[Tensor], n_rows: int) -> Tensor:
    """What is made of some rows after the others, one behind the other, without a second copy on the way."""
    first = next(parts)
    found, place = first.new_empty(n_rows, *first.shape[1:]), len(first)
    found[:place] = first
    for part in parts:
        found[place : place + len(part)] = part
        place += len(part)
    return found


@torch.no_grad()
def normalize_rows_(weight_FD: Tensor) -> None:
    """Scale every row of a matrix to unit norm, in place; zero rows stay zero."""
    norms = weight_FD.norm(dim=1, keepdim=True)
    weight_FD.div_(norms.clamp_min_(torch.finfo(weight_FD.dtype).tiny))
