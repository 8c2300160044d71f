"""Arguments of compiled functions: addresses of tensors that are what the sources take them for."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor


def address(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    """The address of a tensor's data.

    Raises:
        ValueError: the tensor is not a contiguous CPU tensor of this dtype and shape.
    """
    if tensor.dtype != dtype or tensor.shape != shape or not (tensor.is_contiguous() and tensor.is_cpu):
        raise ValueError(
            f"{name}: a contiguous CPU tensor {dtype} {shape} is needed, this is {tensor.device.type} "
            f"{tensor.dtype} {tuple(tensor.shape)}, strides {tensor.stride()}"
        )
    return tensor.data_ptr()


def codes(indices: Tensor, offsets: Tensor, batch: int) -> tuple[int, int]:
    """Compressed rows as the library takes them; offsets must cover the indices."""
    entries = indices.numel()
    addresses = (
        address("indices", indices, torch.int32, (entries,)),
        address("offsets", offsets, torch.int64, (batch + 1,)),
    )
    if ctypes.c_int64.from_address(addresses[1] + 8 * batch).value != entries:
        raise ValueError(f"offsets end at {int(offsets[-1])}, there are {entries} indices")
    return addresses


def raise_if(failed: bool) -> None:
    """Raise ``MemoryError`` where a compiled function found no memory."""
    if failed:
        raise MemoryError("no memory for the buffers of a compiled operation")
