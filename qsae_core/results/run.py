"""The results/ layout: ``results/{model_type}/{layer}/{steps}/``. Importing this needs no torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from qsae_core.config.layers import RECORD_KEYS
from qsae_core.errors import TrainingError
from qsae_core.results.files import atomic_file, read_json, swapped_folder, write_json

if TYPE_CHECKING:
    from qsae_core.config.run import RunConfig

LONGEST_SLUG = 120
"""Characters of a name made out of others: file systems take 255 bytes, and a seed or a hash is added."""


ALIKE = ("seed", "compare_float", "per_layer")
"""Of the ``run`` section: what has to be the same where a run is taken up again."""


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
        """What the evaluations found: a folder each; of the float twin below ``float_twin``."""
        return self.path / "evaluations"

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
        """How ``qsae quantize`` made it: ``path`` of the source, ``method``; None for a trained one."""
        for file in (self.config_file, self.metrics_file):  # the record of an older run does not say it
            tree = read_json(file) if file.exists() else None
            made = tree.get("quantized_from") if isinstance(tree, dict) else None
            if isinstance(made, dict):
                return {key: made.get(key) for key in ("path", "method")}
        return None

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
        """One line of ``metrics/log.jsonl``."""
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


def open_run(config: RunConfig, path: pathlib.Path, data_record: dict[str, Any]) -> Run:
    """Make a run's folder, or take up the one that is there if the configuration says so.

    Raises:
        TrainingError: if there is a run already and neither ``--overwrite`` nor ``--resume`` was given,
            if there is nothing to resume, or if what would be resumed had another configuration.
    """
    run = Run(path)
    if config.run.resume:
        _check_resumable(run, config)
        return run
    if run.config_file.exists():
        resumable = not run.finished and bool(run.resume_states())
        _check_replaceable(run, config, ", or --resume" if resumable else "")
        shutil.rmtree(path)
    _write_record(run, config, {"data_record": data_record})
    return run


@contextlib.contextmanager
def late_run(config: RunConfig, path: pathlib.Path, record: Mapping[str, Any]) -> Iterator[Run]:
    """Give a run in another folder, which becomes ``path``, a finished run, when the block ends well.

    Until then what is at ``path`` stays as it is, and so it does where the block fails.

    Args:
        record: what its record has beside the configuration.

    Raises:
        TrainingError: if there is a run already and ``--overwrite`` was not given, or something else.
    """
    there = Run(path)
    if there.config_file.exists():
        _check_replaceable(there, config)
    elif path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise TrainingError(
            "is there already, and is no run", where=str(path), allowed="another --name or --out"
        )
    with swapped_folder(path) as folder:
        run = Run(folder)
        _write_record(run, config, record)
        yield run
        run.update_record(status="finished", completed_at=now())


def _check_replaceable(run: Run, config: RunConfig, besides: str = "") -> None:
    if not config.run.overwrite:
        state = "a finished run" if run.finished else "an unfinished run"
        raise TrainingError(
            f"{state} is there already",
            where=str(run.path),
            allowed=f"--overwrite, another --name or --out{besides}",
            next=f"qsae evaluate {run.path}" if run.finished else "add --overwrite to begin again",
        )


def _write_record(run: Run, config: RunConfig, more: Mapping[str, Any]) -> None:
    started = {"status": "running", "started_at": now(), "completed_at": None, "git": git_state()}
    write_json(run.config_file, {**config.to_dict(), **started, **more})


def _check_resumable(run: Run, config: RunConfig) -> None:
    if not run.config_file.exists():
        raise TrainingError("there is no run to resume", where=str(run.path), next="leave --resume out")
    if run.finished:
        raise TrainingError(
            "this run is finished", where=str(run.path), next="qsae evaluate " + str(run.path)
        )
    if not run.resume_states():
        raise TrainingError(
            "the run has no checkpoint to resume from",
            where=str(run.path),
            next="--overwrite starts it again",
        )
    before, now_ = run.record(), config.to_dict()
    skip = {"run", "versions", *RECORD_KEYS}
    changed = [k for k in now_ if k not in skip and now_[k] != before.get(k)]
    changed += [
        f"run.{k}"
        for k in ("seed", "compare_float", "per_layer")
        if now_["run"][k] != before["run"].get(k, False)
    ]
    if changed:
        raise TrainingError(
            f"the run was started with another configuration; different: {', '.join(changed)}",
            where=str(run.config_file),
            next=f"qsae train --config {run.config_file} --resume",
        )


def find_runs(out: pathlib.Path) -> Iterator[Run]:
    """Every run below a results folder, in the order of paths."""
    for config_file in sorted(out.glob("*/*/*/config.json")):
        yield Run(config_file.parent)


def values_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """All evaluations' values of a coder's entry of ``metrics.json`` in one mapping."""
    merged: dict[str, Any] = {}
    for values in entry["evaluations"].values():
        merged |= {name: value for name, value in values.items() if name != "unavailable"}
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
