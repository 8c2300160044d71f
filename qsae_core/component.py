"""What a plugin registers: a ComponentSpec, whose options are a ComponentConfig. Imports no torch."""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pluggy
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticUndefined

from qsae_core.errors import OptionsError, exclusive

FLOAT32 = "0, or a size from 1.4e-45 to 3.4e38"

hookimpl = pluggy.HookimplMarker("qsae")
"""Decorates the functions of a plugin's top module that implement hooks."""


class ComponentConfig(BaseModel):
    """Base of every component's options: unknown keys are errors and instances do not change.

    The class docstring is what ``qsae describe`` prints, and each field's description becomes the help
    of a command-line flag; so both are part of the contract.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        allow_inf_nan=False,
        defer_build=True,  # validators are built at first use: a third of start-up with 50 plugins
    )

    @model_validator(mode="before")
    @classmethod
    def _given_over_default(cls, values: Any) -> Any:
        """Where an option is given, the default of the one ``instead_of`` it does not count."""
        if not isinstance(values, dict):
            return values
        given = {usual for usual, _ in alternatives(cls) if values.get(usual) is not None}
        return values | {o: None for usual, o in alternatives(cls) if usual in given and o not in values}

    @model_validator(mode="after")
    def _one_of_alternatives(self) -> ComponentConfig:
        for pair in alternatives(type(self)):
            if all(name in self.model_fields_set and getattr(self, name) is not None for name in pair):
                raise exclusive(*pair)
        return self

    @model_validator(mode="after")
    def _numbers_are_float32(self) -> ComponentConfig:
        """Coders compute in float32, where other numbers are infinite or 0."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, float) and not _is_float32(value):
                raise OptionsError(f"{name} {value} is out of float32's range", allowed=FLOAT32)
        return self

    def for_latents(self, n_latents: int) -> ComponentConfig:
        """These options of a coder's part where the coder has so many latents: what was given as a share of
        them has become a number."""
        return self


def _is_float32(value: float) -> bool:
    """Whether a number stays finite there, and other than 0 if it is."""
    try:
        return bool(struct.unpack("<f", struct.pack("<f", value))[0]) == bool(value)
    except OverflowError:
        return False


def option(
    default: Any = PydanticUndefined,
    description: str = "",
    *,
    aliases: Sequence[str] = (),
    allowed: str | None = None,
    instead_of: str | None = None,
    **constraints: Any,
) -> Any:
    """Declare one option of a component (a pydantic ``Field`` with a description and flag aliases).

    Args:
        default: the value when neither YAML nor a flag gives one; leave it out for a required option.
        description: one sentence, with the unit; shown by ``qsae describe`` and ``--help``.
        aliases: other flag spellings that the field already uses, without dashes (``("top-k",)``).
        allowed: what an error says is allowed, where types and bounds do not tell (``sizes above 0``).
        instead_of: the option that says the same in another way. One of the two may be given; a later layer
            of the configuration that gives one takes back the other of the layers below it.
        constraints: what pydantic's ``Field`` takes: ``gt``, ``ge``, ``lt``, ``le``, ``default_factory``, ...
    """
    extra: dict[str, Any] = {"flags": list(aliases)} if aliases else {}
    if allowed is not None:
        extra["allowed"] = allowed
    if instead_of is not None:
        extra["instead_of"] = instead_of
    return Field(default, description=description, json_schema_extra=extra or None, **constraints)


class EvaluationConfig(ComponentConfig):
    """Options of an evaluation that may also run while a coder is trained.

    ``qsae train --eval NAME --NAME-every 500``, or ``evaluate: [{use: NAME, every: 500}]``: on at most a
    fortieth as many held-out vectors as were trained on since the last time, ``train.eval_tokens`` at most.
    """

    every: int = option(
        0, "steps of training between runs of it on the coder as it is then; 0: only at the end", ge=0
    )


@functools.cache
def alternatives(config: type[ComponentConfig]) -> tuple[tuple[str, str], ...]:
    """Pairs of options of which one alone may be given: the usual one, and the one ``instead_of`` it."""
    found = []
    for name, field_info in config.model_fields.items():
        extra = field_info.json_schema_extra
        if isinstance(extra, dict) and "instead_of" in extra:
            found.append((str(extra["instead_of"]), name))
    return tuple(found)


def replaced(options: ComponentConfig) -> set[str]:
    """The options in whose place another one is given; what is written of a configuration leaves them out."""
    return {o for o, other in alternatives(type(options)) if getattr(options, other) is not None}


def name_of(part: object) -> str:
    """What a user calls a part: its component's name (``hqq``), or the class's where it is none."""
    return str(getattr(part, "component_name", type(part).__name__))


@dataclass(frozen=True)
class ComponentSpec:
    """One pluggable thing.

    Attributes:
        kind: one of ``qsae_core.kinds.KINDS`` (``sae``, ``quantizer``, ...).
        name: what a user writes after ``--sae`` or ``use:``; lower-case letters, digits and dashes.
        config: the component's options.
        target: ``"package.module:Class"``, imported only when the component is used, so that listing
            and describing plugins needs no torch. The class is built as its kind's base class says.
        default_parts: for coders: slot -> block (``{"sparsity": {"use": "topk", "k": 32}}``), used where
            the user chooses nothing. ``None`` as a block says that the coder has no such slot's part.
        refuses: for coders: ``(kind, name)`` -> the reason why this coder cannot work with that part.
    """

    kind: str
    name: str
    config: type[ComponentConfig]
    target: str
    default_parts: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    refuses: Mapping[tuple[str, str], str] = field(default_factory=dict)
