"""Values of a run's evaluations, as these were measured last. Imports no torch."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from qsae_core.results.files import read_json
from qsae_core.results.run import MAIN, Run, slug

FROM = "atom_errors_from"
"""Of an entry, and of a stored result: what errors of atoms are measured against."""


def with_evaluated(
    entry: Mapping[str, Any],
    run: Run,
    name: str,
    layer: str | None = None,
    *,
    only_then: Collection[str] = (),
) -> dict[str, Any]:
    """A coder's entry of ``metrics.json`` with what ``qsae evaluate`` has measured of it since: evaluations
    that the entry lacks first, and in those that it has the values that are stored now.

    Args:
        only_then: names of values that could be known at the end of the run alone: an evaluation of the entry
            that has one of them stays as it was.
        name: of the coder in the run: ``MAIN`` or ``FLOAT_TWIN``.
        layer: of whose coder the entry is, where there is one for each.

    Raises:
        ArtifactError: if what is stored cannot be read.
    """
    folder = run.evaluations if name == MAIN else run.evaluations / name
    records = _records(folder if layer is None else folder / "layers" / slug(layer))
    stored, before = {name: _values(record) for name, record in records.items()}, entry["evaluations"]
    fixed = {e for e, values in before.items() if _has(values, only_then)}
    since = {e: values for e, values in stored.items() if e not in before}
    kept = {e: values if e in fixed else stored.get(e, values) for e, values in before.items()}
    found = {**entry, "evaluations": {**since, **kept}}
    rests_on = [records[e].get(FROM) for e in stored if e not in fixed and _has(stored[e], only_then)]
    source = next((source for source in rests_on if source is not None), None)
    return found if source is None else {**found, FROM: source}


def _has(values: Mapping[str, Any], names: Collection[str]) -> bool:
    return any(values.get(name) is not None for name in names)


def _values(record: Mapping[str, Any]) -> dict[str, Any]:
    """As in ``metrics.json``."""
    reason = record.get("reason")
    return {**record["values"], **({"unavailable": reason} if reason else {})}


def _records(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Evaluation -> what is stored of it, of each that came to its end."""
    found = {file.parent.name: read_json(file) for file in sorted(folder.glob("*/result.json"))}
    return {name: record for name, record in found.items() if not record.get("failed")}
