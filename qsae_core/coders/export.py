"""A coder as it is stored: tensors, how to read them, and which part of each its levels need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor


class Cut(NamedTuple):
    """What the levels of a coder need of one tensor: the first entries along a dimension."""

    dim: int
    ends: tuple[int, ...]
    """Entries at level 1, 2, ...; 0 where a level does without the tensor, 1 for a scalar that it needs."""


class Export(NamedTuple):
    """A coder as it is stored, or the part of it that a level needs."""

    tensors: dict[str, Tensor]
    layout: dict[str, Any]
    """JSON values that ``restore`` needs beside the tensors: matrix -> shape, parts, the quantizer's layout,
    and ``level_rows`` where levels have fewer rows."""
    cuts: Mapping[str, Cut] = {}
    """Tensor -> what levels need of it; one that is not here is needed whole at each level."""
    level: int | None = None
    """Which level the tensors are cut to; None: they are whole."""

    def at_level(self, level: int) -> Export:
        """The part that a level needs; tensors are views."""
        tensors = {}
        for name, tensor in self.tensors.items():
            cut = self.cuts.get(name)
            if cut is None or (not tensor.dim() and cut.ends[level - 1]):
                tensors[name] = tensor
            elif cut.ends[level - 1]:
                tensors[name] = tensor.narrow(cut.dim, 0, cut.ends[level - 1])
        return Export(tensors, layout_at_level(self.layout, level), {}, level)


def layout_at_level(layout: Mapping[str, Any], level: int) -> dict[str, Any]:
    """The layout of a level's part: matrices have fewer rows; those without any are left out."""
    found = {}
    for name, entry in layout.items():
        rows = entry.get("level_rows")
        if rows is None:
            found[name] = entry
        elif rows[level - 1]:
            shape = [rows[level - 1], *entry["shape"][1:]]
            found[name] = {k: v for k, v in entry.items() if k != "level_rows"} | {"shape": shape}
    return found
