"""Edits as a file: ``--spec`` and ``--dump-spec``. Imports no torch.

The file also keeps the scales that units were measured by, and the directions themselves, so that it means
the same on any machine. Files of version 1 know no directions.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from qsae_core.errors import ConfigError
from qsae_core.runs import read_json
from qsae_splice.edits import AnyEdit, DirectionEdit, Edit

FORMAT, VERSION = "qsae-splice", 2
READ = (1, 2)
"""Versions that are read."""
MODES = ("delta", "replace")
KEYS = ("format", "format_version", "mode", "edits", "directions", "scales")


@dataclasses.dataclass(frozen=True)
class Spec:
    """What is done to a model.

    Attributes:
        edits: in the order in which they are applied.
        mode: ``delta``: the coder's error is kept; ``replace``: vectors become reconstructions.
        scales: coder (``""`` of a single one) -> what ``Scales.to_json`` gave; none where nothing was
            measured.
        directions: name -> the vector.
    """

    edits: tuple[AnyEdit, ...]
    mode: str = "delta"
    scales: dict[str, Any] = dataclasses.field(default_factory=dict)
    directions: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON values that ``read_spec`` reads."""
        edits = [{k: v for k, v in dataclasses.asdict(edit).items() if v is not None} for edit in self.edits]
        head = {"format": FORMAT, "format_version": VERSION, "mode": self.mode}
        directions = {name: list(vector) for name, vector in self.directions.items()}
        return {**head, "edits": edits, "directions": directions, "scales": self.scales}


def read_spec(path: pathlib.Path) -> Spec:
    """The spec in a file.

    Raises:
        ConfigError: if it is no spec, of a later version, or an edit in it is none.
    """
    found, where = read_json(path), str(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ConfigError("is no spec of edits", where=where, next="qsae splice ... --dump-spec writes one")
    if found.get("format_version") not in READ:
        allowed = f"version {' or '.join(map(str, READ))}"
        raise ConfigError(f"is of version {found.get('format_version')!r}", where=where, allowed=allowed)
    unknown = set(found) - set(KEYS)
    if unknown or found.get("mode") not in MODES or not isinstance(found.get("edits"), list):
        raise ConfigError(
            f"has unknown keys {sorted(unknown)}" if unknown else "has no mode and list of edits",
            where=where,
            allowed=f"mode ({', '.join(MODES)}), edits, directions, scales",
        )
    scales, directions = dict(found.get("scales", {})), _directions(found.get("directions", {}), where)
    return Spec(read_edits(found["edits"], where), found["mode"], scales, directions)


def _directions(found: Any, where: str) -> dict[str, list[float]]:
    try:
        return {str(name): [float(value) for value in vector] for name, vector in found.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"no directions: {error}", where=f"{where}: directions", allowed="name -> list of numbers"
        ) from error


def read_edits(entries: Sequence[Any], where: str) -> tuple[AnyEdit, ...]:
    """Edits as JSON values, in order.

    Raises:
        ConfigError: if one is none; it says which.
    """
    edits: list[AnyEdit] = []
    for number, entry in enumerate(entries):
        place, kind = f"{where}: edits[{number}]", _kind(entry)
        fields = {field.name for field in dataclasses.fields(kind)}
        if not isinstance(entry, dict) or set(entry) - fields or not _is_named(entry):
            raise ConfigError(f"{entry!r} is no edit", where=place, allowed=", ".join(sorted(fields)))
        try:
            edits.append(kind(**entry))
        except ConfigError as error:
            raise ConfigError(error.what, where=place, allowed=error.allowed, next=error.next) from error
        except (TypeError, AttributeError) as error:
            raise ConfigError(f"{entry!r} is no edit: {error}", where=place) from error
    return tuple(edits)


def _kind(entry: Any) -> type[Edit] | type[DirectionEdit]:
    return DirectionEdit if isinstance(entry, dict) and "direction" in entry else Edit


def _is_named(entry: Mapping[str, Any]) -> bool:
    return isinstance(entry.get("latent"), int) or isinstance(entry.get("direction"), str)
