"""Tracker ``wandb``: a run's numbers to Weights & Biases."""

from __future__ import annotations

from typing import Literal

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option


class WandbConfig(ComponentConfig):
    """Sends a run's numbers and its configuration to Weights & Biases.

    Offline, which it is unless told otherwise, everything stays in the run's folder until ``wandb sync``
    sends it.
    """

    mode: Literal["offline", "online"] = option(
        "offline", "offline: into files below the run's folder, and no network; online: to the server too"
    )
    project: str = option("qsae", "project that the run belongs to", min_length=1)
    entity: str | None = option(None, "user or team that the project belongs to; none: wandb's own default")
    name: str | None = option(None, "what the run is called there; none: its folder, as `mine/2/500`")
    group: str | None = option(None, "group of runs that it belongs to")
    tags: list[str] = option([], "words by which runs are found")


@hookimpl
def qsae_register_trackers() -> list[ComponentSpec]:
    """Register ``wandb``."""
    return [ComponentSpec("tracker", "wandb", WandbConfig, "qsae_tracker_wandb.tracker:WandbTracker")]
