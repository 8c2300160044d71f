"""Edits as a file: ``--spec`` and ``--dump-spec``. Imports no torch.

The file also keeps the scales that units were measured by, so that it means the same on any machine.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from qsae_core.errors import ConfigError
from qsae_core.runs import read_json
from qsae_splice.edits import Edit

FORMAT, VERSION = "qsae-splice", 1
MODES = ("delta", "replace")
_FIELDS = {field.name for field in dataclasses.fields(Edit)}


@dataclasses.dataclass(frozen=True)
class Spec:
    """What is done to a model.

    Attributes:
        edits: in the order in which they are applied.
        mode: ``delta``: the coder's error is kept; ``replace``: vectors become reconstructions.
        scales: layer (``""`` of a single coder) -> what ``Scales.to_json`` gave; none where nothing was
            measured.
    """

    edits: tuple[Edit, ...]
    mode: str = "delta"
    scales: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON values that ``read_spec`` reads."""
        edits = [{k: v for k, v in dataclasses.asdict(edit).items() if v is not None} for edit in self.edits]
        head = {"format": FORMAT, "format_version": VERSION, "mode": self.mode}
        return {**head, "edits": edits, "scales": self.scales}


def read_spec(path: pathlib.Path) -> Spec:
    """The spec in a file.

    Raises:
        ConfigError: if it is no spec, of a later version, or an edit in it is none.
    """
    found, where = read_json(path), str(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ConfigError("is no spec of edits", where=where, next="qsae splice ... --dump-spec writes one")
    if found.get("format_version") != VERSION:
        raise ConfigError(
            f"is of version {found.get('format_version')!r}", where=where, allowed=f"version {VERSION}"
        )
    unknown = set(found) - {"format", "format_version", "mode", "edits", "scales"}
    if unknown or found.get("mode") not in MODES or not isinstance(found.get("edits"), list):
        raise ConfigError(
            f"has unknown keys {sorted(unknown)}" if unknown else "has no mode and list of edits",
            where=where,
            allowed=f"mode ({', '.join(MODES)}), edits, scales",
        )
    return Spec(read_edits(found["edits"], where), found["mode"], dict(found.get("scales", {})))


def read_edits(entries: Sequence[Any], where: str) -> tuple[Edit, ...]:
    """Edits as JSON values, in order.

    Raises:
        ConfigError: if one is none; it says which.
    """
    edits = []
    for number, entry in enumerate(entries):
        place = f"{where}: edits[{number}]"
        if not isinstance(entry, dict) or set(entry) - _FIELDS or not isinstance(entry.get("latent"), int):
            raise ConfigError(f"{entry!r} is no edit", where=place, allowed=", ".join(sorted(_FIELDS)))
        try:
            edits.append(Edit(**entry))
        except ConfigError as error:
            raise ConfigError(error.what, where=place, allowed=error.allowed, next=error.next) from error
        except (TypeError, AttributeError) as error:
            raise ConfigError(f"{entry!r} is no edit: {error}", where=place) from error
    return tuple(edits)
