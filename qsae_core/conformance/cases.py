"""Sample configurations that the checks try. Imports no torch.

Without any help the kit tries a component's defaults and the values of its ``Literal``, ``bool`` and
narrowly bounded ``int`` options. A component that needs more (a required path, a certain shape) says so
with a class method of its target::

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        numpy.save(folder / "x.npy", ...)
        return [Case({"data_path": str(folder / "x.npy")})]

``folder`` is an empty temporary folder that lives as long as the component's checks.
"""

from __future__ import annotations

import enum
import itertools
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from qsae_core.component import ComponentConfig

MAX_CASES = 24
"""Sample configurations per component, so that the checks of one component take seconds."""

WIDEST_INT_RANGE = 32
"""An int option whose bounds are at most this far apart is tried at both ends."""


@dataclass(frozen=True)
class Case:
    """One sample configuration.

    Attributes:
        options: what a user would write in YAML for this component, ``use`` left out.
        shape: for coders: fields of ``qsae_core.contracts.CoderShape`` that differ from the kit's own, as
            ``{"layers_in": 3}``.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    shape: Mapping[str, int] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The options as text, for messages."""
        chosen = {**self.options, **self.shape}
        return ", ".join(f"{k}={v}" for k, v in chosen.items()) or "defaults"


def choices(config: type[ComponentConfig], together: int = 2, **options: Any) -> list[Case]:
    """Cases for the combinations of the config's ``Literal``, ``bool`` and narrow ``int`` options.

    The first is the given options with every default, then each option is varied on its own, then pairs.
    Combinations that the config itself refuses are left out, and so is what goes beyond ``MAX_CASES``.

    Args:
        config: the component's options.
        together: how many options differ from their default at once.
        options: values that every case has; these options are not varied.
    """
    values = {n: v for n, f in config.model_fields.items() if n not in options and (v := _values(f))}
    cases: list[Case] = []
    seen: list[ComponentConfig] = []
    for change in _changes(values, together):
        candidate = {**options, **change}
        try:
            built = config(**candidate)
        except ValidationError:
            continue
        if built not in seen:
            seen.append(built)
            cases.append(Case(candidate))
        if len(cases) == MAX_CASES:
            break
    return cases or [Case(options)]


def _changes(values: Mapping[str, list[Any]], together: int) -> Iterator[dict[str, Any]]:
    """No change, then changes of one option, then of two, and so on."""
    for how_many in range(min(together, len(values)) + 1):
        for names in itertools.combinations(values, how_many):
            for combination in itertools.product(*(values[n] for n in names)):
                yield dict(zip(names, combination, strict=True))


def _values(info: FieldInfo) -> list[Any]:
    """The values of an option that are worth trying besides its default; empty where it cannot be listed."""
    found: list[Any] = []
    for kind in _alternatives(info.annotation):
        if typing.get_origin(kind) is Literal:
            found += typing.get_args(kind)
        elif kind is bool:
            found += [False, True]
        elif isinstance(kind, type) and issubclass(kind, enum.Enum):
            found += list(kind)
        elif kind is int:
            found += _ends(info)
    return [v for v in found if not (v == info.default and type(v) is type(info.default))]


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _ends(info: FieldInfo) -> list[int]:
    """Smallest and largest value of a narrowly bounded int option."""
    low = high = None
    for bound in info.metadata:
        low = bound.ge if hasattr(bound, "ge") else bound.gt + 1 if hasattr(bound, "gt") else low
        high = bound.le if hasattr(bound, "le") else bound.lt - 1 if hasattr(bound, "lt") else high
    if low is None or high is None or high - low > WIDEST_INT_RANGE:
        return []
    return [int(low), int(high)]
