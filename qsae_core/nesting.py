"""Levels: coders that hold smaller or coarser ones, in memory and on disk. Shapes: F latents."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from qsae_core.errors import ConfigError
from qsae_core.export import Cut

if TYPE_CHECKING:
    from qsae_core.coder_matrices import CoderMatrices
    from qsae_core.quantizer import Packed

Coder = TypeVar("Coder", bound="CoderMatrices")


def level_count(coder: CoderMatrices) -> int:
    """Groups of latents where the configuration nests them, else the decoder's bit planes, else 1."""
    prefixes = coder.config.prefixes()
    if prefixes is not None:
        return len(prefixes)
    decoder = coder.matrices().get("W_dec")
    return 1 if decoder is None else decoder.levels


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


def shell_of_level(coder: Coder, level: int) -> Coder:
    """A coder of the same class, as large as a level is, with initial weights; ``restore`` fills it."""
    config = coder.config if coder.config.prefixes() is None else coder.config.first_groups(level)
    with torch.random.fork_rng(devices=[]):
        return type(coder)(config, coder.shape, coder.parts)


def cuts_of(
    coder: CoderMatrices, packed: dict[str, Packed], state: dict[str, Tensor]
) -> tuple[dict[str, Cut], dict[str, list[int]]]:
    """What each level needs of the exported tensors, and the rows of each matrix at each level.

    Args:
        packed: matrix -> its packed form.
        state: the exported tensors that belong to no matrix.
    """
    if coder.levels == 1:
        return {}, {}
    if coder.config.prefixes() is None:
        matrix = coder.matrices()["W_dec"]
        dims = matrix.quantizer.level_dims(packed["W_dec"])
        ends = tuple(range(1, coder.levels + 1))
        return {f"W_dec.{part}": Cut(dim, ends) for part, dim in dims.items()}, {}
    shells = [shell_of_level(coder, level) for level in range(1, coder.levels)]
    return _prefix_cuts(coder, shells, packed, state)


def _prefix_cuts(
    coder: CoderMatrices, shells: list[CoderMatrices], packed: dict[str, Packed], state: dict[str, Tensor]
) -> tuple[dict[str, Cut], dict[str, list[int]]]:
    cuts: dict[str, Cut] = {}
    level_rows: dict[str, list[int]] = {}
    smaller = [shell.matrices() for shell in shells]
    for name, form in packed.items():
        rows = [m[name].shape[0] if name in m else 0 for m in smaller] + [form.shape[0]]
        if min(rows) == form.shape[0]:
            continue
        level_rows[name] = rows
        quantizer = coder.matrices()[name].quantizer
        dims = quantizer.row_dims(form)
        for part, tensor in form.tensors.items():
            # a tensor that serves all rows is whole wherever there are any
            whole = [tensor.shape[0] if n else 0 for n in rows]
            ends = [quantizer.row_end(form, part, n) for n in rows] if part in dims else whole
            if tensor.dim():
                cuts[f"{name}.{part}"] = Cut(dims.get(part, 0), tuple(ends))
    states: list[dict[str, Any]] = [shell.inference_state() for shell in shells]
    for name, tensor in state.items():
        sizes = [s[name].shape if name in s else None for s in states] + [tensor.shape]
        dim = next((d for d in range(tensor.dim()) if any(z and z[d] != tensor.shape[d] for z in sizes)), 0)
        # a scalar counts as one entry
        entries = tuple(0 if z is None else z[dim] if len(z) else 1 for z in sizes)
        if min(entries) != max(entries):
            cuts[name] = Cut(dim, entries)
    return cuts, level_rows
