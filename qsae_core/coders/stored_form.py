"""Whether a stored form is one that a coder writes: names, types and shapes of tensors, and layouts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from qsae_core.coders.export import Export
from qsae_core.coders.quantized_matrix import QuantizedMatrix
from qsae_core.contracts.quantizer import Packed, PackedTensor

SHOWN = 3
"""Of names that are missing or too many."""


class StoredParts(NamedTuple):
    """Of what an export of a coder is made. Values of its tensors are not looked at: it may be on the device
    ``meta``, where it takes no memory."""

    matrices: Mapping[str, QuantizedMatrix]
    unpacked: Mapping[str, Tensor]
    """All other tensors."""
    in_planes: frozenset[str]
    """Matrices of which a level reads the first bit planes."""


def check_export(coder: StoredParts, export: Export) -> None:
    """Refuse an export that is not one of a coder with these parts.

    Raises:
        ValueError: with the first thing that is otherwise, in words.
    """
    _check_layouts(coder, export)
    expected = {name: _form(tensor) for name, tensor in coder.unpacked.items()}
    packed = _packed(coder, export)
    for name, (form, wanted) in packed.items():
        expected |= {f"{name}.{part}": tensor for part, tensor in wanted.items()}
        if form.tensors.keys() != wanted.keys():
            raise ValueError(f"{name} is stored as {sorted(form.tensors)}, and not as {sorted(wanted)}")
    _check_names(export.tensors, expected)
    for name, tensor in expected.items():
        check_tensor(name, export.tensors[name], tensor)
    for name, (form, _) in packed.items():
        try:
            coder.matrices[name].quantizer.check(form)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def _check_layouts(coder: StoredParts, export: Export) -> None:
    matrices = coder.matrices
    if export.layout.keys() != matrices.keys():
        raise ValueError(f"matrices are {_some(export.layout)}, and those of the coder {_some(matrices)}")
    for name, matrix in matrices.items():
        if tuple(export.layout[name]["shape"]) != matrix.shape:
            raise ValueError(
                f"{name} is {export.layout[name]['shape']}, and in the coder {list(matrix.shape)}"
            )


def _packed(coder: StoredParts, export: Export) -> dict[str, tuple[Packed, Mapping[str, PackedTensor]]]:
    """Matrix -> its stored form, and what its quantizer stores, cut to the planes that are read."""
    found: dict[str, tuple[Packed, Mapping[str, PackedTensor]]] = {}
    for name, matrix in coder.matrices.items():
        entry = export.layout[name]
        parts = {part: export.tensors.get(f"{name}.{part}") for part in entry["parts"]}
        tensors = {part: tensor for part, tensor in parts.items() if tensor is not None}
        form = Packed(tensors, matrix.shape, entry["layout"])
        wanted = dict(matrix.quantizer.packed_tensors())
        if export.level is not None and name in coder.in_planes:
            for part, dim in matrix.quantizer.level_dims(form).items():
                wanted[part] = _cut(wanted[part], dim, export.level)
        found[name] = form, wanted
    return found


def _cut(tensor: PackedTensor, dim: int, n: int) -> PackedTensor:
    return PackedTensor(tensor.dtype, (*tensor.shape[:dim], n, *tensor.shape[dim + 1 :]))


def _check_names(found: Mapping[str, Tensor], expected: Mapping[str, PackedTensor]) -> None:
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or extra:
        raise ValueError(f"the tensors do not fit the coder: missing {missing}, unexpected {extra}")


def check_tensor(name: str, found: Tensor, expected: PackedTensor) -> None:
    """Refuse a tensor of another type or shape.

    Raises:
        ValueError: with both.
    """
    sizes = zip(found.shape, expected.shape, strict=False)
    same = len(found.shape) == len(expected.shape) and all(n in (size, None) for size, n in sizes)
    if found.dtype != expected.dtype or not same:
        raise ValueError(f"{name} is {_words(_form(found))}, and in the coder {_words(expected)}")


def _form(tensor: Tensor) -> PackedTensor:
    return PackedTensor(tensor.dtype, tuple(tensor.shape))


def _words(tensor: PackedTensor) -> str:
    """uint8 [4, 24, 2]."""
    sizes = ", ".join("any" if n is None else str(n) for n in tensor.shape)
    return f"{str(tensor.dtype).removeprefix('torch.')} [{sizes}]"


def _some(names: Mapping[str, Any]) -> str:
    return ", ".join(_first(names)) or "none"


def _first(names: Mapping[str, Any]) -> Iterator[str]:
    for number, name in enumerate(names):
        if number == SHOWN:
            yield "..."
            return
        yield f"{name:.80}"
