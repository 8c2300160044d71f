"""What is done to one latent, or along one direction. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from qsae_core.errors import ConfigError, did_you_mean
from qsae_splice.positions import read_positions

OPERATIONS = {
    "add": "f + v",
    "set": "v",
    "scale": "f * v",
    "ablate": "0",
    "cap": "min(f, v)",
    "floor": "max(f, v)",
}
"""Operation -> what the activation f becomes with a value v."""
DIRECTION_OPERATIONS = {
    "add": "h + v d",
    "project-out": "h - (h . d) d / ||d||^2",
}
"""Operation -> what the vector h becomes with a direction d and a value v."""
UNITS = {
    "raw": "1, in the coder's own units of activation; of a direction the vector as it was given",
    "max": "the latent's largest activation on held-out data",
    "sd": "the standard deviation of its activation over held-out tokens, zeros included",
    "norm": "as much activation as moves the vector by its mean norm",
}
"""Unit -> what 1 of it is."""
DIRECTION_UNITS = ("raw", "norm")
"""A direction has no activation, so that there is no largest one."""
USUAL_UNIT = {"add": "norm", "set": "max", "cap": "max", "floor": "max"}
WITHOUT_VALUE = ("ablate", "project-out")


@dataclass(frozen=True)
class Edit:
    """What a latent's activation becomes, and where.

    Attributes:
        latent: its number.
        op: one of ``OPERATIONS``.
        value: v; ``ablate`` takes none.
        unit: of the value, one of ``UNITS``; None: the usual one (``norm`` for add, else ``max``). ``scale``
            multiplies by a plain number and has none.
        positions: ``all``, ``prompt``, ``generated``, ``last``, ``I:J``, ``token:/REGEX/``.
        active: only where the latent is active.
        layer: where there are several coders, which one is meant.

    Raises:
        ConfigError: for a value that is none of these.
    """

    latent: int
    op: str = "set"
    value: float | None = None
    unit: str | None = None
    positions: str = "all"
    active: bool = False
    layer: str | None = None

    def __post_init__(self) -> None:
        where = f"edit of latent {self.latent}"
        if self.latent < 0:
            raise ConfigError("latents are counted from 0", where=where)
        _check(self, OPERATIONS, UNITS, where)
        if self.unit is None and self.op in USUAL_UNIT:
            object.__setattr__(self, "unit", USUAL_UNIT[self.op])

    def __str__(self) -> str:
        return _as_text(self, str(self.latent), ":active" if self.active else "")


@dataclass(frozen=True)
class DirectionEdit:
    """What a vector becomes along a direction, and where.

    Attributes:
        direction: what it is called.
        op: one of ``DIRECTION_OPERATIONS``.
        value: v; ``project-out`` takes none.
        unit: of the value, one of ``DIRECTION_UNITS``; None: ``norm``.
        positions: as of an ``Edit``.
        layer: where there are several coders, or a coder writes at several sites, which one is meant.

    Raises:
        ConfigError: for a value that is none of these.
    """

    direction: str
    op: str = "add"
    value: float | None = None
    unit: str | None = None
    positions: str = "all"
    layer: str | None = None

    def __post_init__(self) -> None:
        where = f"edit along {self.direction}"
        _check(self, DIRECTION_OPERATIONS, DIRECTION_UNITS, where)
        if self.unit is None and self.op in USUAL_UNIT:
            object.__setattr__(self, "unit", USUAL_UNIT[self.op])

    def __str__(self) -> str:
        return _as_text(self, self.direction)


AnyEdit = Edit | DirectionEdit


def _as_text(edit: AnyEdit, name: str, active: str = "") -> str:
    layer = "" if edit.layer is None else f"{edit.layer}/"
    value = "" if edit.value is None else f"={edit.value:g}{edit.unit or ''}"
    return f"{layer}{name}:{edit.op}{active}{value}@{edit.positions}"


def _check(edit: AnyEdit, operations: Mapping[str, str], units: Collection[str], where: str) -> None:
    if edit.op not in operations:
        hint = did_you_mean(edit.op, list(operations))
        raise ConfigError(f"unknown operation {edit.op!r}{hint}", where=where, allowed=", ".join(operations))
    takes_value = edit.op not in WITHOUT_VALUE
    if takes_value == (edit.value is None):
        what = f"{edit.op} takes {'a' if takes_value else 'no'} value"
        raise ConfigError(what, where=where, allowed=f"{edit.op}: {operations[edit.op]}")
    if edit.value is not None and not math.isfinite(edit.value):
        raise ConfigError(f"the value is {edit.value}", where=where, allowed="a finite number")
    if edit.unit is not None and edit.op not in USUAL_UNIT:
        raise ConfigError(
            f"{edit.op} takes no unit, not {edit.unit!r}", where=where, allowed="a plain number"
        )
    if edit.unit is not None and edit.unit not in units:
        _refuse_unit(edit.unit, units, where)
    read_positions(edit.positions)


def _refuse_unit(unit: str, units: Collection[str], where: str) -> None:
    allowed = "; ".join(f"{name}: {UNITS[name]}" for name in units)
    if unit in UNITS:
        raise ConfigError(f"{unit} is of activations, and a direction has none", where=where, allowed=allowed)
    raise ConfigError(f"unknown unit {unit!r}{did_you_mean(unit, list(units))}", where=where, allowed=allowed)
