"""Evaluating a stored coder on data that may differ from what it was trained on."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from qsae_core import artifact
from qsae_core.coder import SparseCoder
from qsae_core.compose import compose_data, compose_evaluations, compose_metrics
from qsae_core.data import DataSource
from qsae_core.errors import DataError
from qsae_core.evaluation import evaluate
from qsae_core.run_setup import resolve_device, shape_of

if TYPE_CHECKING:
    from qsae_core.registry import Registry
    from qsae_core.run_config import RunConfig


def evaluate_artifact(
    path: pathlib.Path,
    config: RunConfig,
    registry: Registry,
    *,
    n_tokens: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Load the coder at ``path`` and run the config's evaluations on the config's data.

    Returns:
        ``model`` and ``layer`` of the data, the artifact's measurements, and evaluation name -> values.

    Raises:
        DataError: if the data's width is not the coder's.
        ArtifactError: if there is no sound coder at ``path``.
    """
    device = resolve_device(device)
    folder = artifact.artifact_folder(path)
    coder = artifact.load(folder, device=device, registry=registry)
    data = compose_data(config, registry, device=device)
    try:
        _check_widths(coder, data, folder)
        values = evaluate(
            coder,
            data,
            compose_evaluations(config, registry),
            lambda: list(compose_metrics(config, registry).values()),
            n_tokens=n_tokens or config.train.eval_tokens,
            batch_size=batch_size or config.train.batch_size,
        )
        return {
            "path": str(folder),
            "model": data.model_name,
            "layer": data.layer,
            "artifact": artifact.measurements(coder, folder),
            "evaluations": values,
        }
    finally:
        data.close()


def _check_widths(coder: SparseCoder, data: DataSource, folder: pathlib.Path) -> None:
    shape = shape_of(data)
    if shape != coder.shape:
        raise DataError(
            f"the data does not fit the coder: {shape._asdict()} against {coder.shape._asdict()}",
            where=str(folder),
            next="choose the model, layer and site that the coder was trained on (coder.json: config.data)",
        )
