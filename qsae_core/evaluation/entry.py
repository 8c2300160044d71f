"""A stored coder's entry of ``metrics.json``, and of what ``qsae evaluate --json`` prints."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from qsae_core.artifact import artifact, places
from qsae_core.artifact.coder_sets import set_measurements
from qsae_core.coders.coder_set import CoderSet
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.contracts.data import DataSource
from qsae_core.evaluation.evaluate import Outcome, entries
from qsae_core.evaluation.of_layers import WHOLE


def set_entry(
    coders: CoderSet, folder: pathlib.Path, outcomes: Mapping[str, Mapping[str, Outcome]]
) -> dict[str, Any]:
    """``artifact`` and ``evaluations`` of all coders together, and ``layers``: layer -> those of its own."""
    members = places.member_folders(folder)
    layers = {
        name: {
            "path": str(place),
            "artifact": artifact.measurements(coders[name], place),
            "evaluations": entries(outcomes[name]),
        }
        for name, place in members.items()
    }
    return {
        "artifact": set_measurements(coders, folder),
        "evaluations": entries(outcomes[WHOLE]),
        "layers": layers,
    }


def coder_entry(
    coder: MatrixCoder, data: DataSource, folder: pathlib.Path, level: int | None
) -> dict[str, Any]:
    """What was evaluated, on what, and what the artifact costs."""
    entry = {
        "path": str(folder),
        "model": data.model_name,
        "layer": data.layer,
        "artifact": _measured(coder, folder, level),
    }
    return entry if level is None else {**entry, "level": level, "n_latents": coder.n_latents}


def _measured(coder: MatrixCoder, folder: pathlib.Path, level: int | None) -> dict[str, Any]:
    """The artifact's measurements; of a level with the bytes of tensors that it reads."""
    measured = artifact.measurements(coder, folder)
    if level is None:
        return measured
    n_bytes = artifact.level_bytes(folder)[level - 1]
    return {**measured, "bytes": n_bytes, "times_smaller": measured["float_bytes"] / n_bytes}
