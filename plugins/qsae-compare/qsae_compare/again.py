"""Trained coders measured once more, on their own data or on other data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qsae_compare.measured import OF_FLOAT_ATOMS, Measured
from qsae_core import runs
from qsae_core.runs import values_of

if TYPE_CHECKING:
    from qsae_core.runs import Layer, Registry

SAME_FVU = 1e-4
"""Relative difference up to which two FVUs of a coder are those of the same vectors, on whatever device."""


def measure_again(
    measured: Measured,
    registry: Registry,
    on: Layer | None = None,
    *,
    n_tokens: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
) -> Measured:
    """The same coder, evaluated again.

    Where its float masters are gone, what ``kappa`` says is that of its record if this measurement repeats
    the recorded one. Otherwise it rests on the float twin's atoms; without a twin nothing is predicted.

    Args:
        on: the data, metrics and evaluations that it changes; None: those of its run.
        n_tokens: None: as ``evaluate_artifact`` takes it.
    """
    config = runs.recorded_config(measured.folder, registry, on)
    found = runs.evaluate_artifact(
        measured.folder, config, registry, n_tokens=n_tokens, batch_size=batch_size, device=device
    ).entry
    values, source = values_of(found), found["atom_errors_from"]
    same_size = on is None and n_tokens in (None, config.train.eval_tokens)
    known = source != "masters" and measured.errors_from == "masters" and same_size
    if known and values.get("kappa") is not None and _same_vectors(values, measured.values):
        source = "masters"
        values |= {n: measured.values[n] for n in OF_FLOAT_ATOMS}
    known_now = {"artifact": found["artifact"], "values": values, "errors_from": source}
    known_now |= {"vectors": runs.measured_on(found), "warning": found["measured"]["warning"]}
    recorded = runs.stored_description(measured.folder)["config"].get("data", {})
    own = {key: v for key, v in measured.config.get("data", {}).items() if recorded.get(key) != v}
    measured_on = config.to_dict()["data"] | own  # a coder of a set reads its layer of other data too
    return dataclasses.replace(measured, **known_now, measured_on=measured_on, made_from=None)


def _same_vectors(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two measurements of a coder saw the same vectors: their FVUs then differ by rounding alone."""
    before, after = one.get("fvu"), other.get("fvu")
    return before is not None and after is not None and math.isclose(before, after, rel_tol=SAME_FVU)
