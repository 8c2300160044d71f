"""Edits and directions as the command line says them. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

from qsae_core.errors import ConfigError
from qsae_splice.edits import AnyEdit, DirectionEdit, Edit

GRAMMAR = (
    "[LAYER/]ID[:OPERATION[:active]]=VALUE[UNIT][@POSITIONS], as 123=2max, 77:add=0.3norm@generated; or, "
    "along a direction, [LAYER/]NAME:add=VALUE[UNIT][@POSITIONS] or [LAYER/]NAME:project-out[@POSITIONS]"
)
NAME = r"[A-Za-z_][\w.-]*"
DIRECTION_GRAMMAR = (
    "NAME=FILE[:KEY][:ROW] (.npy, .safetensors), or NAME=CODER:[LAYER/]ID, a decoder row of a stored coder"
)
_LAYER = r"(?:(?P<layer>[^/@=:]+)/)?"
_POSITIONS = r"(?:@(?P<positions>.+))?"
_VALUE = r"=(?P<value>[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)(?P<unit>[a-z]*)"
_EDIT = re.compile(
    rf"{_LAYER}(?P<latent>\d+)(?::(?P<op>\w+))?(?P<active>:active)?{_VALUE}{_POSITIONS}", re.DOTALL
)
_ALONG = re.compile(rf"{_LAYER}(?P<name>{NAME}):(?P<op>[\w-]+)(?:{_VALUE})?{_POSITIONS}", re.DOTALL)
_ABLATED = re.compile(rf"{_LAYER}(?P<latent>\d+){_POSITIONS}", re.DOTALL)
_NAMED = re.compile(rf"(?P<name>{NAME})=(?P<place>.+)", re.DOTALL)


def read_edit(text: str, positions: str = "all") -> AnyEdit:
    """What ``--steer`` says.

    Args:
        positions: where it holds, if the text does not say.

    Raises:
        ConfigError: if it is not of the grammar, or an operation, a unit or positions are unknown.
    """
    found = _EDIT.fullmatch(text)
    if found is not None:
        return Edit(
            int(found["latent"]),
            found["op"] or "set",
            float(found["value"]),
            found["unit"] or None,
            found["positions"] or positions,
            active=found["active"] is not None,
            layer=found["layer"],
        )
    found = _ALONG.fullmatch(text)
    if found is None:
        raise ConfigError(f"{text!r} is no edit", where="--steer", allowed=GRAMMAR)
    return DirectionEdit(
        found["name"],
        found["op"],
        None if found["value"] is None else float(found["value"]),
        found["unit"] or None,
        found["positions"] or positions,
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


class Named(NamedTuple):
    """A direction, before it is read."""

    name: str
    place: str
    """``FILE[:KEY][:ROW]`` or ``CODER:[LAYER/]ID``."""


def read_named(text: str) -> Named:
    """What ``--direction`` says.

    Raises:
        ConfigError: if it is not of the grammar.
    """
    found = _NAMED.fullmatch(text)
    if found is None:
        raise ConfigError(f"{text!r} names no direction", where="--direction", allowed=DIRECTION_GRAMMAR)
    return Named(found["name"], found["place"])
