"""Files that ``torch.save`` wrote, by strangers: tensors and plain values, without an unpickler."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qsae_core.errors import ArtifactError
from qsae_core.reading.mapped import mapped_values
from qsae_core.reading.pickled import MOST_OPERATIONS, StoredTensor, contents
from qsae_core.reading.zips import Entry, zip_entries

SAVE_AGAIN = (
    "read it where you trust it, and store tensors alone: "
    "safetensors.torch.save_file({name: t.contiguous() for name, t in state_dict.items()}, path)"
)
ALLOWED = "a file of torch.save that holds tensors, numbers, text, lists and mappings"
KINDS = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
DEPTH = 100
"""Of lists and mappings within one another."""


def torch_contents(path: pathlib.Path) -> Any:
    """What a file holds: tensors, which are views of it, and plain values, in lists and mappings.

    The file is a zip of stored entries; its pickled part is read by an interpreter of the few operations that
    such contents take (``qsae_core.reading.pickled``). Files from before torch 1.6 and whole modules are
    refused.

    Raises:
        ArtifactError: if it is damaged, holds anything else, or describes tensors that it does not hold.
    """
    entries = zip_entries(path)
    names = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(names) != 1:
        raise ArtifactError(
            "is no file of torch.save, or one of a script module",
            where=str(path),
            allowed=ALLOWED,
            next=SAVE_AGAIN,
        )
    prefix = names[0].removesuffix("data.pkl")
    with path.open("rb") as file:
        try:
            order = _bytes(file, entries.get(f"{prefix}byteorder"), b"little")
            if order != b"little":
                raise ValueError("its numbers are not in little-endian order")
            found = contents(_bytes(file, entries[names[0]], b""))
            return _Filled(path, prefix, entries).value(found, 0)
        except ValueError as error:
            raise ArtifactError(
                f"is not read: {error}", where=str(path), allowed=ALLOWED, next=SAVE_AGAIN
            ) from error


def only_tensors(found: Any, path: pathlib.Path) -> dict[str, Tensor]:
    """A state dict: what ``torch_contents`` gave, if it is a mapping of names to tensors.

    Raises:
        ArtifactError: if it is not.
    """
    if not isinstance(found, Mapping):
        raise ArtifactError(f"holds {type(found).__name__}, and no mapping of tensors", where=str(path))
    others = [str(name) for name, value in found.items() if not isinstance(value, Tensor)]
    if others:
        raise ArtifactError(
            f"holds more than tensors: {', '.join(others[:5])}", where=str(path), allowed="a state dict"
        )
    return {str(name): value for name, value in found.items()}


def _bytes(file: Any, entry: Entry | None, missing: bytes) -> bytes:
    if entry is None:
        return missing
    file.seek(entry.start)
    data: bytes = file.read(entry.size)
    return data


class _Filled:
    """Contents with tensors in place of their descriptions."""

    def __init__(self, path: pathlib.Path, prefix: str, entries: Mapping[str, Entry]) -> None:
        self.path, self.prefix, self.entries = path, prefix, entries
        self.storages: dict[tuple[str, torch.dtype], Tensor] = {}
        self.n_values = 0

    def value(self, value: Any, depth: int) -> Any:
        self.n_values += 1
        if depth > DEPTH or self.n_values > MOST_OPERATIONS:  # one list may be in many others
            raise ValueError(f"values lie within one another more than {DEPTH} times, or are too many")
        if isinstance(value, StoredTensor):
            return self.tensor(value)
        if isinstance(value, dict):
            return {key: self.value(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item, depth + 1) for item in value]
        return value

    def tensor(self, described: StoredTensor) -> Tensor:
        """A view of its storage, if it lies within it."""
        storage, shape, stride = described.storage, described.shape, described.stride
        dtype = KINDS.get(storage.kind)
        if dtype is None:
            raise ValueError(f"it has a tensor of {storage.kind}, which is not read here")
        entry = self.entries.get(f"{self.prefix}data/{storage.key}")
        if entry is None or entry.size != storage.n_values * dtype.itemsize:
            there = "nothing" if entry is None else f"{entry.size} bytes"
            raise ValueError(f"{storage.n_values} values of {dtype} are described, and there is {there}")
        values = self.storages.get((storage.key, dtype))
        if values is None:
            values = mapped_values(self.path, entry, dtype)
            self.storages[storage.key, dtype] = values
        if len(shape) != len(stride) or len(shape) > 8:
            raise ValueError("a tensor has another number of strides than dimensions")
        n_values = 1
        for size in shape:
            n_values *= size
        last = described.offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        if not n_values or last >= storage.n_values or n_values > storage.n_values:
            raise ValueError(
                f"a tensor of shape {list(shape)} does not lie within its {storage.n_values} values"
            )
        return values.as_strided(shape, stride, described.offset)
