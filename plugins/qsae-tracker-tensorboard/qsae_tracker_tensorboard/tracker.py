"""The tracker ``tensorboard``: event files in the run's folder, in which a resumed run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from qsae_core import Run
from qsae_core.contracts import Tracker
from qsae_core.errors import PluginError
from qsae_core.runs import FLOAT_TWIN, MAIN, SLOTS, read_json
from qsae_tracker_tensorboard import TensorboardConfig

if TYPE_CHECKING:
    import types

FOLDER = "tensorboard"
"""In the run's folder."""
NO_CONFIGURATION = ("status", "started_at", "completed_at", "process", "screens")
"""Of a run's record: what is about its course."""
COMPARED = (*SLOTS, "train", "run")
"""Sections of a run's record whose options are hyperparameters."""


class TensorboardTracker(Tracker):
    """Writes scalars step by step, and what the run came to.

    Raises:
        PluginError: where tensorboardX cannot be imported.
    """

    config: TensorboardConfig

    def __init__(self, config: TensorboardConfig) -> None:
        super().__init__(config)
        self._library = _library()

    def start(self, run: Run) -> None:
        """Begin the files, or go on with them: steps after the one that is resumed do not count any more."""
        self._run, folder = run, run.path / FOLDER
        begun = folder.exists()
        first = _next_step(run) if begun else None
        suffix = "" if first is None else f".{first}"  # names of files are else alike within a second
        self._writer = self._library.SummaryWriter(
            str(folder),
            purge_step=first,
            flush_secs=self.config.flush_seconds,
            filename_suffix=suffix,
        )
        if not begun:
            record = {key: value for key, value in run.record().items() if key not in NO_CONFIGURATION}
            self._writer.add_text("config", f"```json\n{json.dumps(record, indent=2)}\n```", 0)
            self._describe(hyperparameters(record))

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Numbers of a step; what is not defined is left out."""
        for name, value in metrics.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)

    def measured(self, step: int, metrics: Mapping[str, Mapping[str, Any]]) -> None:
        """Held-out metrics as ``held_out/NAME``, of any but the run's own coder ``held_out/CODER/NAME``."""
        for coder, values in metrics.items():
            before = "held_out" if coder == MAIN else f"held_out/{coder}"
            self.log(step, {f"{before}/{name}": value for name, value in values.items()})

    def finish(self) -> None:
        """What the run came to, at its last step; then all is written."""
        if self._run.metrics_file.exists():
            found = read_json(self._run.metrics_file)
            for coder, entry in found["coders"].items():
                before = f"final/{FLOAT_TWIN}" if coder == FLOAT_TWIN else "final"
                self.log(found["steps"], dict(final_values(entry, before)))
        self._writer.close()

    def _describe(self, values: Mapping[str, bool | float | str]) -> None:
        """Hyperparameters of this very run; ``add_hparams`` would make another one below it. Which of the
        scalars are shown beside them is left to TensorBoard, which then offers all."""
        _, session, _ = self._library.summary.hparams(dict(values), {})
        self._writer.file_writer.add_summary(session)


def hyperparameters(record: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """``SECTION.OPTION`` and its value, of options that have one and are no lists."""
    return {
        f"{section}.{name}": value
        for section in COMPARED
        for name, value in record.get(section, {}).items()
        if isinstance(value, bool | int | float | str)
    }


def final_values(entry: Mapping[str, Any], before: str) -> Iterator[tuple[str, float]]:
    """Of a coder's entry of ``metrics.json``: ``BEFORE/EVALUATION/NAME`` and the value, where it is defined;
    below ``BEFORE/layer`` those of the coders of single layers."""
    for evaluation, values in entry["evaluations"].items():
        for name, value in values.items():
            if isinstance(value, int | float):  # a sentence where the evaluation could not run
                yield f"{before}/{evaluation}/{name}", value
    for layer, of_layer in entry.get("layers", {}).items():
        yield from final_values(of_layer, f"{before}/layer/{layer}")


def _next_step(run: Run) -> int | None:
    """The first step of a run that is taken up again."""
    states = run.resume_states()
    return int(read_json(states[-1] / "state.json")["step"]) + 1 if states else None


def _library() -> types.ModuleType:
    try:
        import tensorboardX  # type: ignore[import-untyped]
    except ImportError as error:
        raise PluginError(
            f"tensorboardX cannot be imported: {error}",
            allowed="tensorboardX 2.6.2.2 or later",
            next="pip install 'tensorboardX>=2.6.2.2'",
        ) from error
    return tensorboardX
