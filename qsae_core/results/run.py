"""The results/ layout: ``results/{model_type}/{layer}/{steps}/``. Importing this needs no torch."""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from qsae_core.launched import command, launched
from qsae_core.results.files import atomic_file, disk_errors, read_json, write_json

if TYPE_CHECKING:
    from qsae_core.config.run import RunConfig

LONGEST_SLUG = 120
"""Characters of a name made out of others: file systems take 255 bytes, and a seed or a hash is added."""


@dataclass(frozen=True)
class Run:
    """One training run on disk.

    Attributes:
        path: ``results/{model_type}/{layer}/{steps}``.
    """

    path: pathlib.Path

    @property
    def config_file(self) -> pathlib.Path:
        """The resolved configuration, versions, and when the run started and completed."""
        return self.path / "config.json"

    @property
    def evaluations(self) -> pathlib.Path:
        """What the evaluations found: a folder each; of the float twin below ``float_twin``, of coders of
        single layers below ``layers/LAYER``."""
        return self.path / "evaluations"

    def evaluations_at(self, step: int) -> pathlib.Path:
        """What evaluations found while the coder was trained, after a step; in itself as ``evaluations``."""
        return self.evaluations / f"step_{step:08d}"

    @property
    def metrics_file(self) -> pathlib.Path:
        """The final summary."""
        return self.path / "metrics.json"

    @property
    def checkpoints(self) -> pathlib.Path:
        """Resume states ``step_XXXXXXXX`` and the artifact ``final``."""
        return self.path / "checkpoints"

    @property
    def final(self) -> pathlib.Path:
        """The packed artifact."""
        return self.checkpoints / "final"

    def record(self) -> dict[str, Any]:
        """``config.json``."""
        return read_json(self.config_file)

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.config_file.exists() and self.record().get("completed_at") is not None

    @property
    def quantized_from(self) -> dict[str, Any] | None:
        """How ``qsae quantize`` made it: ``path`` of the source, ``sha256`` (``artifact.places.identity``) of
        that, ``method``, and ``of_masters``: whether it is of the float masters beside what is there; None
        for a trained one."""
        for file in (self.config_file, self.metrics_file):  # the record of an older run does not say it
            tree = read_json(file) if file.exists() else None
            made = tree.get("quantized_from") if isinstance(tree, dict) else None
            if isinstance(made, dict):
                return {key: made.get(key) for key in ("path", "sha256", "method", "of_masters")}
        return None

    @property
    def resume_command(self) -> str:
        """What goes on with the run from its last checkpoint, with as many processes as there are now."""
        return command(f"train --config {self.config_file} --resume", launched().world)

    def resume_states(self) -> list[pathlib.Path]:
        """Complete resume states, oldest first."""
        return sorted(p for p in self.checkpoints.glob("step_*") if (p / "state.json").exists())

    def update_record(self, **values: Any) -> None:
        """Change keys of ``config.json``."""
        write_json(self.config_file, self.record() | values)

    def write_step_metrics(self, step: int, values: dict[str, Any]) -> None:
        """``metrics/step_XXXXXXXX.json``."""
        write_json(self.path / "metrics" / f"step_{step:08d}.json", values)

    def append_log(self, step: int, values: Mapping[str, Any]) -> None:
        """One line of ``metrics/log.jsonl``.

        Raises:
            UnwritableError: where the disk refuses it; half a line goes when the run is taken up again.
        """
        with disk_errors(self._log):
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("a", encoding="utf-8") as log:
                log.write(json.dumps({"step": step, **values}) + "\n")

    def truncate_log(self, step: int) -> None:
        """Drop the lines of ``metrics/log.jsonl`` after a step: a resumed run writes them again."""
        if self._log.exists():
            lines = self._log.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            with atomic_file(self._log) as temporary:
                temporary.write_text("".join(kept), encoding="utf-8")

    def add_screens(self, name: str, decisions: list[dict[str, Any]]) -> None:
        """Add to ``screens`` of the record, which has each coder's: from which ``step`` on what is used."""
        screens: dict[str, Any] = self.record().get("screens", {})
        self.update_record(screens={**screens, name: [*screens.get(name, []), *decisions]})

    def truncate_screens(self, step: int) -> None:
        """Drop what was decided at a step or after it: a resumed run decides it again."""
        screens: dict[str, Any] = self.record().get("screens", {})
        kept = {name: [d for d in decisions if d["step"] < step] for name, decisions in screens.items()}
        if kept != screens:
            self.update_record(screens=kept)

    @property
    def _log(self) -> pathlib.Path:
        return self.path / "metrics" / "log.jsonl"


MAIN = "coder"
"""What a run calls the coder that was asked for."""
FLOAT_TWIN = "float_twin"
"""What a run calls the coder that it trains beside a quantized one."""


def run_path(config: RunConfig, model_name: str, layer: str, steps: int) -> pathlib.Path:
    """Where a run's results go: below its name as it was given, or one made of the coder and the model."""
    model_type = config.run.name or slug(f"{config.coder.use}-{model_name}")
    return pathlib.Path(config.run.out) / model_type / slug(layer) / str(steps)


def find_runs(out: pathlib.Path) -> Iterator[Run]:
    """Every run below a results folder, in the order of paths."""
    for config_file in sorted(out.glob("*/*/*/config.json")):
        yield Run(config_file.parent)


NO_VALUES = ("unavailable", "failed")
"""Keys of an evaluation's entry that say why values are missing, and that this is a failure."""


def values_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """All evaluations' values of a coder's entry of ``metrics.json`` in one mapping."""
    merged: dict[str, Any] = {}
    for values in entry["evaluations"].values():
        merged |= {name: value for name, value in values.items() if name not in NO_VALUES}
    return merged


def now() -> str:
    """The time in ISO 8601, UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def git_state() -> dict[str, Any] | None:
    """Commit and cleanliness of the current folder's repository, or None where there is none."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def slug(text: str) -> str:
    """The text as a folder's name: lower case, and dashes for what does not belong there.

    Different texts stay apart: where letters of other scripts or symbols are lost to that, where nothing is
    left, or where the text is longer than ``LONGEST_SLUG``, a hash of it stands behind what is left.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.").lower()
    if plain and text.isascii() and len(plain) <= LONGEST_SLUG:
        return plain
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    return "-".join(filter(None, (plain[:LONGEST_SLUG].rstrip("-."), digest)))
