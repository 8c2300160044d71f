"""The tracker ``wandb``: one run of theirs for one of ours, however often ours is taken up again."""

from __future__ import annotations

import os
import pathlib
import secrets
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from qsae_core import Run
from qsae_core.conformance import Case
from qsae_core.contracts import Tracker
from qsae_core.errors import ConfigError, PluginError
from qsae_core.runs import FLOAT_TWIN, MAIN, atomic_file, read_json
from qsae_tracker_wandb import WandbConfig

if TYPE_CHECKING:
    import types

    import wandb

ID_FILE = pathlib.Path("wandb", "run-id.txt")
"""In the run's folder: by what wandb knows the run again when it is taken up again."""
NO_CONFIGURATION = ("status", "started_at", "completed_at", "process", "screens")
"""Of a run's record: what is about its course."""


class WandbTracker(Tracker):
    """Sends loss terms and measurements step by step, and what the run came to.

    Raises:
        PluginError: where wandb cannot be imported.
        ConfigError: of ``mode: online``, where wandb knows no key.
    """

    config: WandbConfig

    def __init__(self, config: WandbConfig) -> None:
        super().__init__(config)
        if config.mode == "offline":  # else wandb reports on itself to its makers, from offline runs too
            os.environ["WANDB_ERROR_REPORTING"] = "false"
        self._library = _library()
        if config.mode == "online":
            _check_key(self._library)

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """All but ``online``, which needs an account."""
        return [Case(), Case({"name": "a", "group": "b", "tags": ["c", "d"]})]

    def start(self, run: Run) -> None:
        """Begin a run of theirs in the run's folder, or go on with the one that was begun there.

        Raises:
            ConfigError: of ``mode: online``, where the server cannot be reached, or refuses.
        """
        self._run = run
        try:
            self._theirs: wandb.Run = self._library.init(
                mode=self.config.mode,
                dir=run.path,
                id=_run_id(run),
                resume="allow",
                reinit="create_new",  # whatever else the process logs to wandb is none of our business
                project=self.config.project,
                entity=self.config.entity,
                name=self.config.name or "/".join(run.path.resolve().parts[-3:]),
                group=self.config.group,
                tags=self.config.tags,
                config={key: value for key, value in run.record().items() if key not in NO_CONFIGURATION},
                settings=self._library.Settings(console="off", quiet=True),
            )
        except self._library.Error as error:
            raise ConfigError(
                f"wandb could not begin a run: {error}",
                where="mode",
                allowed="offline, or online where the server can be reached and takes the key",
                next=f"--tracker.wandb.mode offline, and later: wandb sync {run.path}/wandb/offline-run-*",
            ) from error

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Numbers of a step; what is not defined is left out, since wandb has no word for it."""
        self._theirs.log({name: value for name, value in metrics.items() if value is not None}, step=step)

    def measured(self, step: int, metrics: Mapping[str, Mapping[str, Any]]) -> None:
        """Held-out metrics as ``held_out/NAME``, of any but the run's own coder ``held_out/CODER/NAME``."""
        for coder, values in metrics.items():
            before = "held_out" if coder == MAIN else f"held_out/{coder}"
            self.log(step, {f"{before}/{name}": value for name, value in values.items()})

    def finish(self) -> None:
        """What the run came to, as its summary; then the last of it is written, or sent. A run that broke off
        is shown as failed."""
        if self._run.metrics_file.exists():
            for coder, entry in read_json(self._run.metrics_file)["coders"].items():
                before = f"final/{FLOAT_TWIN}" if coder == FLOAT_TWIN else "final"
                self._theirs.summary.update(dict(final_values(entry, before)))
        self._theirs.finish(exit_code=0 if self._run.record()["status"] == "finished" else 1)


def final_values(entry: Mapping[str, Any], before: str) -> Iterator[tuple[str, float]]:
    """Of a coder's entry of ``metrics.json``: ``BEFORE/EVALUATION/NAME`` and the value, where it is defined;
    below ``BEFORE/layer`` those of the coders of single layers."""
    for evaluation, values in entry["evaluations"].items():
        for name, value in values.items():
            if isinstance(value, int | float):  # a sentence where the evaluation could not run
                yield f"{before}/{evaluation}/{name}", value
    for layer, of_layer in entry.get("layers", {}).items():
        yield from final_values(of_layer, f"{before}/layer/{layer}")


def _run_id(run: Run) -> str:
    """That of the run, made up when it is begun. It lies in its folder, so that it moves along and goes with
    it, and no two runs of one path share it."""
    file = run.path / ID_FILE
    if not file.exists():
        with atomic_file(file) as temporary:
            temporary.write_text(secrets.token_hex(4), encoding="ascii")
    return file.read_text(encoding="ascii")


def _library() -> types.ModuleType:
    try:
        import wandb
    except ImportError as error:
        raise PluginError(
            f"wandb cannot be imported: {error}",
            allowed="wandb 0.31 or later",
            next="pip install 'wandb>=0.31'",
        ) from error
    return wandb


def _check_key(library: types.ModuleType) -> None:
    """Look for wandb's key where wandb does; at a terminal it asks for one."""
    try:
        library.login()
    except library.Error as error:
        raise ConfigError(
            f"wandb has no key to log in with: {error}",
            where="mode",
            allowed="offline, or online with the environment variable WANDB_API_KEY, or after wandb login",
            next="wandb login",
        ) from error
