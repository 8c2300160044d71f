"""How vectors are stored: bf16, fp16, fp32, or int8 with a scale a vector. Shapes: N vectors, D width."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.contracts import Columns
from qsae_store.plan import Storage

_FLOATS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_LARGEST = 127
"""Of an int8 code, of either sign."""


def suffixes(storage: Storage) -> tuple[str, ...]:
    """What the names of a place's tensors end in, in the order of ``stored``."""
    return ("", ".scale") if storage == "int8" else ("",)


def bytes_per_vector(storage: Storage, width: int) -> int:
    """Bytes that a vector takes."""
    return width + 4 if storage == "int8" else width * _FLOATS[storage].itemsize


def stored(vectors_ND: Tensor, storage: Storage) -> Columns:
    """Float32 vectors as they are stored: numbers ``[N, D]``, and for int8 the scales float32 ``[N]``.

    An int8 code is ``round(x / s)`` with ``s = max|x| / 127``, which is 0 for a vector of zeros.

    Raises:
        OverflowError: if fp16 cannot hold a value.
    """
    if storage == "int8":
        scale_N = vectors_ND.abs().amax(1) / _LARGEST
        codes_ND = (vectors_ND / scale_N.where(scale_N > 0, 1)[:, None]).round_()
        return codes_ND.clamp_(-_LARGEST, _LARGEST).to(torch.int8), scale_N
    numbers = vectors_ND.to(_FLOATS[storage])
    if storage == "fp16" and not bool(numbers.isfinite().all()):
        raise OverflowError(f"{float(vectors_ND.abs().max()):.3g} is more than fp16 holds")
    return (numbers,)


def restore_into(vectors_ND: Tensor, columns: Columns) -> None:
    """Fill float32 ``[N, D]`` with what ``stored`` columns stand for."""
    vectors_ND.copy_(columns[0])
    if len(columns) > 1:
        vectors_ND.mul_(columns[1][:, None])
