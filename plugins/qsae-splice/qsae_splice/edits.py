"""Edit: what is done to one latent, and the words for it on the command line. Imports no torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

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
UNITS = {
    "raw": "1, in the coder's own units of activation",
    "max": "the latent's largest activation on held-out data",
    "sd": "the standard deviation of its activation over held-out tokens, zeros included",
    "norm": "as much activation as moves the vector by its mean norm",
}
"""Unit -> what 1 of it is."""
USUAL_UNIT = {"add": "norm", "set": "max", "cap": "max", "floor": "max"}
GRAMMAR = "[LAYER/]ID[:OPERATION[:active]]=VALUE[UNIT][@POSITIONS], as 123=2max, 77:add=0.3norm@generated"
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
_EDIT = re.compile(
    r"(?:(?P<layer>[^/@=:]+)/)?(?P<latent>\d+)(?::(?P<op>\w+))?(?P<active>:active)?"
    rf"=(?P<value>{_NUMBER})(?P<unit>[a-z]*)(?:@(?P<positions>.+))?",
    re.DOTALL,
)
_ABLATED = re.compile(r"(?:(?P<layer>[^/@=:]+)/)?(?P<latent>\d+)(?:@(?P<positions>.+))?", re.DOTALL)


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
        layer: of a coder for each of several layers, the name of the one that is meant.

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
        if self.op not in OPERATIONS:
            hint = did_you_mean(self.op, list(OPERATIONS))
            raise ConfigError(
                f"unknown operation {self.op!r}{hint}", where=where, allowed=", ".join(OPERATIONS)
            )
        _check_value(self, where)
        read_positions(self.positions)
        if self.unit is None and self.op in USUAL_UNIT:
            object.__setattr__(self, "unit", USUAL_UNIT[self.op])

    def __str__(self) -> str:
        layer = "" if self.layer is None else f"{self.layer}/"
        value = "" if self.value is None else f"={self.value:g}{self.unit or ''}"
        active = ":active" if self.active else ""
        return f"{layer}{self.latent}:{self.op}{active}{value}@{self.positions}"


def _check_value(edit: Edit, where: str) -> None:
    takes_value = edit.op != "ablate"
    if takes_value == (edit.value is None):
        what = f"{edit.op} takes a value" if takes_value else "ablate takes no value"
        raise ConfigError(what, where=where, allowed=f"{edit.op}: {OPERATIONS[edit.op]}")
    if edit.value is not None and not math.isfinite(edit.value):
        raise ConfigError(f"the value is {edit.value}", where=where, allowed="a finite number")
    if edit.unit is not None and edit.op not in USUAL_UNIT:
        raise ConfigError(
            f"{edit.op} takes no unit, not {edit.unit!r}", where=where, allowed="a plain number"
        )
    if edit.unit is not None and edit.unit not in UNITS:
        hint = did_you_mean(edit.unit, list(UNITS))
        allowed = "; ".join(f"{unit}: {meaning}" for unit, meaning in UNITS.items())
        raise ConfigError(f"unknown unit {edit.unit!r}{hint}", where=where, allowed=allowed)


def read_edit(text: str, positions: str = "all") -> Edit:
    """What ``--steer`` says.

    Args:
        positions: where it holds, if the text does not say.

    Raises:
        ConfigError: if it is not of the grammar, or an operation, a unit or positions are unknown.
    """
    found = _EDIT.fullmatch(text)
    if found is None:
        raise ConfigError(f"{text!r} is no edit", where="--steer", allowed=GRAMMAR)
    return Edit(
        int(found["latent"]),
        found["op"] or "set",
        float(found["value"]),
        found["unit"] or None,
        found["positions"] or positions,
        active=found["active"] is not None,
        layer=found["layer"],
    )


def read_ablated(text: str, positions: str = "all") -> Edit:
    """What ``--ablate`` says.

    Raises:
        ConfigError: if it is not of the grammar, or the positions are unknown.
    """
    found = _ABLATED.fullmatch(text)
    if found is None:
        raise ConfigError(f"{text!r} is no latent", where="--ablate", allowed="[LAYER/]ID[@POSITIONS]")
    latent = Edit(int(found["latent"]), "ablate", positions=found["positions"] or positions)
    return replace(latent, layer=found["layer"])
