"""What becomes of a training run that does not come to its end: its record says why, and nothing is lost.

Before the first step there is nothing to keep, so the folder goes. After it the run stays, with a checkpoint
wherever the weights are good.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from qsae_core.errors import LostError, QsaeError, TrainingError, UnwritableError
from qsae_core.results.files import is_full
from qsae_core.results.run import Run


@contextlib.contextmanager
def removed(run: Run, if_fresh: bool) -> Iterator[None]:
    """A block before the first step: where it fails, a folder that was made for this run is removed.

    Args:
        if_fresh: whether the folder is this run's own; that of a resumed run stays.
    """
    try:
        yield
    except BaseException:
        if if_fresh:
            shutil.rmtree(run.path)
            for folder in (run.path.parent, run.path.parent.parent):
                with contextlib.suppress(OSError):  # other runs are in it
                    folder.rmdir()
        raise


@contextlib.contextmanager
def noted(run: Run) -> Iterator[None]:
    """The rest of the run: where it fails, ``status`` in its record says so, and why."""
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(QsaeError, OSError):  # a full disk; it is the error itself that is shown
            if run.path.exists() and run.record()["status"] == "running":
                run.update_record(status=_status(error))
        raise


def _status(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, QsaeError):
        return f"failed: {str(error).splitlines()[0]}"
    return f"failed: {type(error).__name__}: {error}"


def interrupted(run: Run, step: int, steps: int) -> TrainingError:
    """The error of a run that Ctrl-C ended, after a checkpoint."""
    return TrainingError(
        f"interrupted after step {step} of {steps}; everything up to here is saved",
        where=str(run.path),
        next=run.resume_command,
    )


@contextlib.contextmanager
def finishing(run: Run) -> Iterator[None]:
    """A block after the last step, whose state is saved: where Ctrl-C ends it, say how to go on.

    Raises:
        TrainingError: in place of the interrupt.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        run.update_record(status="interrupted")
        raise TrainingError(
            "interrupted after the last step, while the coder was evaluated; nothing is lost",
            where=str(run.path),
            next=f"{run.resume_command} evaluates it",
        ) from error


def explain_loss(error: TrainingError, run: Run) -> None:
    """Say where a non-finite loss occurred and what to go back to; these weights are worth no checkpoint."""
    states = run.resume_states()
    error.where = str(run.path)
    if states:
        error.next = f"the last good checkpoint is {states[-1]}; try a lower --lr or --clip"
    elif _is_elsewhere(run):
        error.next = f"checkpoints, if there are any yet, are {ELSEWHERE}; try a lower --lr or --clip"
    else:
        error.next = "there is no checkpoint yet; try a lower --lr or --clip, and --checkpoint-every N"


def explain_data(error: QsaeError, run: Run, step: int) -> None:
    """Say how to go on where data could not be read after ``step`` steps, which a checkpoint holds."""
    then = f"{step} steps are saved; when that is mended, {run.resume_command}"
    error.next = f"{error.next}; {then}" if error.next else then


@contextlib.contextmanager
def lost(run: Run) -> Iterator[None]:
    """A block in which another process may be lost, in the middle of a step: there is nothing to save then,
    and the error says from where to go on."""
    try:
        yield
    except LostError as error:
        error.where, states = str(run.path), run.resume_states()
        before = f"{error.next}; then " if error.next else ""
        if states:
            error.next = f"{before}{run.resume_command} goes on from {states[-1].name}"
        elif _is_elsewhere(run):
            error.next = (
                f"{before}the results are {ELSEWHERE}: where {run.checkpoints} has a checkpoint there, and "
                f"all machines see that folder, {run.resume_command}"
            )
        else:
            error.next = (
                f"{before}there is no checkpoint yet; begin again with --overwrite and --checkpoint-every N"
            )
        raise


ELSEWHERE = "on the machine of process 0, in a folder that this process does not see"


def _is_elsewhere(run: Run) -> bool:
    """Whether it is another machine that has the results: process 0 wrote the record before anything else."""
    return not run.config_file.exists()


@contextlib.contextmanager
def unwritten(run: Run) -> Iterator[None]:
    """A block in which the disk may refuse what a run writes: the error says how to go on."""
    try:
        yield
    except UnwritableError as error:
        states, mended = run.resume_states(), "there is room" if is_full(error) else "that is mended"
        error.next = (
            f"when {mended}, {run.resume_command} goes on from {states[-1].name}"
            if states
            else f"when {mended}, begin again with --overwrite; or choose another folder with --out"
        )
        raise
