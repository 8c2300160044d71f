"""Levels: coders that hold smaller or coarser ones, in memory and on disk. Shapes: F latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral

from torch import Tensor

from qsae_core.coders.export import Cut
from qsae_core.coders.quantized_matrix import QuantizedMatrix
from qsae_core.contracts.quantizer import Packed
from qsae_core.errors import ConfigError

Matrices = Mapping[str, QuantizedMatrix]
State = Mapping[str, Tensor]


def level_count(prefixes: Sequence[int] | None, decoders: Matrices) -> int:
    """Groups of latents where the configuration nests them, else bit planes that all decoders have, else
    1."""
    if prefixes is not None:
        return len(prefixes)
    return min((decoder.levels for decoder in decoders.values()), default=1)


def check_level(level: int, levels: int, where: str | None = None) -> None:
    """Refuse a level that is not there, or is no whole number.

    Raises:
        ConfigError: which says how many there are.
    """
    whole = isinstance(level, Integral) and not isinstance(level, bool)
    if whole and 1 <= level <= levels:
        return
    what = "1: it has one level alone" if levels == 1 else f"1 to {levels}"
    raise ConfigError(
        f"level {level} does not exist" if whole else f"a level is a whole number (got {level!r})",
        where=where,
        allowed=what,
        next=f"qsae evaluate {where} --all-levels" if where else "coder.levels says how many there are",
    )


def plane_cuts(decoders: Matrices, packed: Mapping[str, Packed]) -> dict[str, Cut]:
    """What each level needs of packed decoders whose levels are their first bit planes."""
    ends = tuple(range(1, level_count(None, decoders) + 1))
    return {
        f"{name}.{part}": Cut(dim, ends)
        for name, matrix in decoders.items()
        for part, dim in matrix.quantizer.level_dims(packed[name]).items()
    }


def prefix_cuts(
    matrices: Matrices,
    packed: Mapping[str, Packed],
    state: State,
    smaller: Sequence[tuple[Matrices, State]],
) -> tuple[dict[str, Cut], dict[str, list[int]]]:
    """What each level needs of the exported tensors, and the rows of each matrix at each level, where a level
    is the first groups of latents.

    Args:
        packed: matrix -> its packed form.
        state: the exported tensors; those of matrices are ignored.
        smaller: matrices and state of a coder as large as each level but the last.
    """
    cuts: dict[str, Cut] = {}
    level_rows: dict[str, list[int]] = {}
    for name, form in packed.items():
        rows = [m[name].shape[0] if name in m else 0 for m, _ in smaller] + [form.shape[0]]
        if min(rows) == form.shape[0]:
            continue
        level_rows[name] = rows
        quantizer = matrices[name].quantizer
        dims = quantizer.row_dims(form)
        for part, tensor in form.tensors.items():
            # a tensor that serves all rows is whole wherever there are any
            whole = [tensor.shape[0] if n else 0 for n in rows]
            ends = [quantizer.row_end(form, part, n) for n in rows] if part in dims else whole
            if tensor.dim():
                cuts[f"{name}.{part}"] = Cut(dims.get(part, 0), tuple(ends))
    for name, tensor in state.items():
        sizes = [s[name].shape if name in s else None for _, s in smaller] + [tensor.shape]
        dim = next((d for d in range(tensor.dim()) if any(z and z[d] != tensor.shape[d] for z in sizes)), 0)
        # a scalar counts as one entry
        entries = tuple(0 if z is None else z[dim] if len(z) else 1 for z in sizes)
        if min(entries) != max(entries):
            cuts[name] = Cut(dim, entries)
    return cuts, level_rows
