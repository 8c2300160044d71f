"""How a run's folder begins: anew, taken up again, or as one that appears when it is complete."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from qsae_core.config.layers import RECORD_KEYS
from qsae_core.errors import TrainingError
from qsae_core.launched import is_another, this_process
from qsae_core.results.files import disk_errors, remove_leftovers, swapped_folder, write_json
from qsae_core.results.run import Run, git_state, now

if TYPE_CHECKING:
    from qsae_core.config.run import RunConfig

ALIKE = ("seed", "compare_float", "per_layer")
"""Of the ``run`` section: what has to be the same where a run is taken up again."""

FREE = "latent_parallel"
"""Of the ``train`` section: what may be another then."""


def open_run(config: RunConfig, path: pathlib.Path, data_record: dict[str, Any]) -> Run:
    """Make a run's folder, or take up the one that is there if the configuration says so.

    Raises:
        TrainingError: if there is a run already and neither ``--overwrite`` nor ``--resume`` was given,
            if there is nothing to resume, or if what would be resumed had another configuration; if another
            process goes on with it.
    """
    run = Run(path)
    if config.run.resume:
        _check_resumable(run, config)
        _check_left(run)
        remove_leftovers(run.path)
        run.update_record(train=config.to_dict()["train"], process=this_process())
        return run
    if run.config_file.exists():
        resumable = not run.finished and bool(run.resume_states())
        _check_replaceable(run, config, ", or --resume" if resumable else "")
        _check_left(run)
        with disk_errors(path):
            shutil.rmtree(path)
    _write_record(run, config, {"data_record": data_record}, fresh=True)  # of two that begin, one goes on
    return run


@contextlib.contextmanager
def late_run(config: RunConfig, path: pathlib.Path, record: Mapping[str, Any]) -> Iterator[Run]:
    """Give a run in another folder, which becomes ``path``, a finished run, when the block ends well.

    Until then what is at ``path`` stays as it is, and so it does where the block fails.

    Args:
        record: what its record has beside the configuration.

    Raises:
        TrainingError: if there is a run already and ``--overwrite`` was not given, or something else; if a
            process goes on with it.
    """
    there = Run(path)
    with disk_errors(path):
        is_run, is_free = there.config_file.exists(), not path.exists() or _is_empty(path)
    if is_run:
        _check_replaceable(there, config)
        _check_left(there)
    elif not is_free:
        raise TrainingError(
            "is there already, and is no run", where=str(path), allowed="another --name or --out"
        )
    with swapped_folder(path, fresh=not is_run) as folder:
        run = Run(folder)
        _write_record(run, config, record)
        yield run
        run.update_record(status="finished", completed_at=now())


def _is_empty(path: pathlib.Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _check_replaceable(run: Run, config: RunConfig, besides: str = "") -> None:
    if not config.run.overwrite:
        state = "a finished run" if run.finished else "an unfinished run"
        raise TrainingError(
            f"{state} is there already",
            where=str(run.path),
            allowed=f"--overwrite, another --name or --out{besides}",
            next=f"qsae evaluate {run.path}" if run.finished else "add --overwrite to begin again",
        )


def _check_left(run: Run) -> None:
    """Two that write the same run would remove each other's checkpoints."""
    record = run.record()
    process = record.get("process")
    if record.get("status") == "running" and process is not None and is_another(process):
        raise TrainingError(
            f"process {process['pid']} of this machine goes on with this run",
            where=str(run.path),
            allowed="one run at a time in this folder; another --name or --out",
            next=f"wait for it, or end it: kill {process['pid']} (it saves a checkpoint first)",
        )


def _write_record(run: Run, config: RunConfig, more: Mapping[str, Any], *, fresh: bool = False) -> None:
    started = {"status": "running", "started_at": now(), "completed_at": None, "git": git_state()}
    started["process"] = this_process()
    write_json(run.config_file, {**config.to_dict(), **started, **more}, fresh=fresh)


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
    changed = changes(run, config)
    if changed:
        raise TrainingError(
            f"the run was started with another configuration; different: {', '.join(changed)}",
            where=str(run.config_file),
            next=run.resume_command,
        )


def changes(run: Run, config: RunConfig) -> list[str]:
    """What a run's record has otherwise than a configuration, of what makes the coder what it is."""
    before, now_ = run.record(), config.to_dict()
    before["train"] |= {FREE: now_["train"][FREE]}
    skip = {"run", "versions", *RECORD_KEYS}
    others = [k for k in now_ if k not in skip and now_[k] != before.get(k)]
    changed = [_difference(k, before.get(k), now_[k]) for k in others]
    changed = [difference for difference in changed if difference]  # none: an option that was not there yet
    return changed + [f"run.{k}" for k in ALIKE if now_["run"][k] != before["run"].get(k, False)]


def _difference(section: str, before: Any, now_: Any) -> str:
    """``train.lr (auto, now 0.1)``, of each option that differs."""
    if not isinstance(before, dict) or not isinstance(now_, dict):
        return section
    options = [key for key in {**before, **now_} if before.get(key) != now_.get(key)]
    return ", ".join(f"{section}.{key} ({before.get(key)}, now {now_.get(key)})" for key in options)
