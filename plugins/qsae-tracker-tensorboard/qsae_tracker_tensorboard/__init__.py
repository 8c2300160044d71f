"""Tracker ``tensorboard``: a run's numbers as files that TensorBoard shows."""

from __future__ import annotations

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option


class TensorboardConfig(ComponentConfig):
    """Writes a run's numbers, its configuration and its hyperparameters for TensorBoard, into the folder
    ``tensorboard`` of the run."""

    flush_seconds: int = option(10, "how often what was logged is written, in seconds", ge=1)


@hookimpl
def qsae_register_trackers() -> list[ComponentSpec]:
    """Register ``tensorboard``."""
    target = "qsae_tracker_tensorboard.tracker:TensorboardTracker"
    return [ComponentSpec("tracker", "tensorboard", TensorboardConfig, target)]
