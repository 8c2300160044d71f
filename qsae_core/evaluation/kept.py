"""What a run keeps of its evaluations: scalars in ``metrics.json``, all else in ``evaluations/``."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qsae_core.artifact import artifact
from qsae_core.artifact import description as coder_json
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.config.run import RunConfig
from qsae_core.contracts.coder import AtomErrors
from qsae_core.contracts.data import DataSource
from qsae_core.evaluation.evaluate import Outcome, entries
from qsae_core.evaluation.measured_part import MeasuredPart
from qsae_core.evaluation.run import evaluate_coder
from qsae_core.evaluation.stored import save_result
from qsae_core.results.files import read_json
from qsae_core.results.run import Run

if TYPE_CHECKING:
    from qsae_core.registry import Registry


def store_outcomes(
    outcomes: Mapping[str, Outcome], folder: pathlib.Path, registry: Registry, about: Mapping[str, Any]
) -> list[pathlib.Path]:
    """Write what was found into one folder an evaluation, below ``folder``; gives these folders.

    Args:
        about: JSON values that say what was evaluated on what.
    """
    written = []
    for name, outcome in outcomes.items():
        if outcome.result is None:
            continue
        provider = registry.provider("evaluation", name)
        definition = {
            "evaluation": name,
            "version": outcome.evaluation.version,
            "options": outcome.evaluation.config.model_dump(mode="json"),
            "plugin": {"name": provider.name, "version": provider.version},
        }
        save_result(folder / name, outcome.result, {**definition, **about})
        written.append(folder / name)
    return written


def own_folder(path: pathlib.Path, config: RunConfig, n_tokens: int | None) -> pathlib.Path | None:
    """Where a run keeps what its evaluations find, if ``path`` is a run's folder and the data are the run's
    own, as many of them; None elsewhere: what is found on other data does not replace it."""
    run = Run(path)
    if not run.config_file.is_file() or not (run.final / coder_json.DESCRIPTION).is_file():
        return None
    recorded = read_json(run.final / coder_json.DESCRIPTION)["config"]
    same = json.loads(json.dumps(config.to_dict()["data"])) == recorded["data"]
    return run.evaluations if same and n_tokens in (None, recorded["train"]["eval_tokens"]) else None


def finished_entry(
    folder: pathlib.Path,
    run: Run,
    data: DataSource,
    config: RunConfig,
    registry: Registry,
    *,
    part: MeasuredPart,
    atom_errors: AtomErrors | None,
    device: str,
    twin: MatrixCoder | None = None,
) -> dict[str, Any]:
    """A coder's entry of ``metrics.json``: the artifact in a run's folder, loaded, measured and evaluated.

    All that the evaluations found is stored below ``evaluations/`` of the run.
    """
    loaded = artifact.load(folder, device=device, registry=registry)
    measured = artifact.measurements(loaded, folder) | {"path": str(folder.relative_to(run.path))}
    outcomes = evaluate_coder(loaded, data, config, registry, atom_errors, twin=twin)
    place = run.evaluations if folder == run.final else run.evaluations / folder.name
    about = {"coder": measured["path"], "model": data.model_name, "layer": data.layer}
    about |= {"n_tokens": config.train.eval_tokens, "measured": part.entry()}
    store_outcomes(outcomes, place, registry, about)
    return {"artifact": measured, "measured": part.entry(), "evaluations": entries(outcomes)}
