"""Resume states: everything from which a run continues bit for bit. Tensors and JSON, nothing pickled.

A state is a folder: ``state.json`` (``state_description``) and files of tensors (``state_files``). It is that
of the run, whatever number of processes wrote it.
"""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.contracts.data import DataSource
from qsae_core.contracts.shards import RankSlices
from qsae_core.errors import ArtifactError, TrainingError
from qsae_core.launched import command
from qsae_core.results.files import COPY, atomic_folder
from qsae_core.results.run import Run
from qsae_core.training import state_files
from qsae_core.training.state_description import (
    STATE,
    Position,
    StateDescription,
    of_other_versions,
    read_state_description,
)
from qsae_core.training.state_files import StoredTensors
from qsae_core.training.team import ALONE, Team
from qsae_core.training.trainer import Trainer

KEEP = 2
"""How many resume states stay; older ones are removed once a newer one is complete."""


def position(data: DataSource, state: Mapping[str, Any], team: Team) -> Position:
    """Of all processes' data, of which this one's (``shard``) has that state."""
    if not _divided(data, team):
        return Position(data=dict(state))
    of_each = team.states(state)[:: team.partners.world]
    return Position(data=dict(state), data_of_each=[dict(one) for one in of_each])


def _divided(data: DataSource, team: Team) -> bool:
    """Whether each process reads vectors of its own, instead of its rows of those that all read."""
    return team.processes.world > 1 and not isinstance(data, RankSlices)


def save_state(
    run: Run, step: int, trainers: Mapping[str, Trainer], data: Position, team: Team = ALONE
) -> pathlib.Path:
    """Write the state after ``step`` steps: weights, moments, counters, generators, the data's position.

    Where a dictionary is divided, all processes of the team call this at the same time, and each writes its
    part; else the first one alone.
    """
    folder = _folder(run, step)
    tensors: dict[str, Tensor] = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    divided: set[str] = set()
    for name, trainer in trainers.items():
        own = trainer.state()
        tensors |= {f"{name}/{key}": value for key, value in own.items()}
        divided |= {f"{name}/{key}" for key in trainer.divided_state(own)}
    together = team if team.partners.world > 1 else ALONE
    with _new_folder(folder, together) as temporary:
        with together.watched(), together.all_or_none():
            if together.among_first:
                state_files.write(temporary, tensors, divided, together.partner_group)
        files = _digests(temporary, together)
        if together.is_first:
            description = StateDescription(**dict(data), step=step, coders=list(trainers), files=files)
            description.write(temporary)
    if together.is_first:
        for old in run.resume_states()[:-KEEP]:
            shutil.rmtree(old)
    return folder


@contextmanager
def _new_folder(folder: pathlib.Path, team: Team) -> Iterator[pathlib.Path]:
    """A folder for all processes of a team, which becomes ``folder`` when the block ends well."""
    with ExitStack() as opened:
        made = None
        with team.all_or_none():
            if team.is_first:
                made = opened.enter_context(atomic_folder(folder))
        yield pathlib.Path(team.states({"folder": str(made)})[0]["folder"])


def load_state(
    folder: pathlib.Path, trainers: Mapping[str, Trainer], data: DataSource, team: Team = ALONE
) -> int:
    """Put trainers, generators and data where ``save_state`` left them; returns the number of steps done.

    Raises:
        ArtifactError: if the state is truncated or altered.
        TrainingError: if it is of other versions, with other entries or tensors; if each of the processes
            read vectors of its own, and there are more or fewer now.
        StoppedError: in the other processes.
    """
    with _or_from_an_older_one(folder):
        with team.all_or_none():
            state = read_state_description(folder)
            _check_about(state, trainers, folder)
            _check_position(state, data, team, folder)
        tensors = _read(folder, state, trainers, team)
    with team.all_or_none():
        of_each = state.data_of_each
        try:
            for name, trainer in trainers.items():
                own = _below(name, tensors)
                _check_tensors(folder, name, own, trainer)
                trainer.load_state(own)
            data.load_state_dict(state.data if of_each is None else of_each[team.processes.rank])
            generator = tensors["random.cpu"]
        except KeyError as error:  # whoever reads a state takes its entries for granted
            raise of_other_versions(folder, f"it has no {error.args[0]!r}") from error
        try:
            torch.set_rng_state(generator)
        except (RuntimeError, TypeError) as error:
            raise of_other_versions(folder, f"random.cpu is of another torch ({error})") from error
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])
    return state.step


@contextmanager
def _or_from_an_older_one(folder: pathlib.Path) -> Iterator[None]:
    """A block that reads a state: where that is damaged, the error says what else there is to go on from."""
    try:
        yield
    except ArtifactError as error:
        older = sorted(path for path in folder.parent.glob("step_*") if path.name < folder.name)
        error.next = (
            f"remove {folder}; --resume then goes on from {older[-1].name}"
            if older
            else "there is no older checkpoint; begin anew with --overwrite"
        )
        raise


def _check_tensors(folder: pathlib.Path, name: str, found: Mapping[str, Tensor], trainer: Trainer) -> None:
    """Of a coder, and of moments (there from the first step on) those that have its types and shapes."""
    wanted = {f"coder.{key}": _form(tensor) for key, tensor in trainer.coder.state_dict().items()}
    if odd := wanted.keys() ^ {key for key in found if key.startswith("coder.")}:
        here = ", ".join(sorted(wanted.keys() & odd)) or "nothing"
        there = ", ".join(sorted(found.keys() & odd)) or "nothing"
        raise of_other_versions(folder, f"of the tensors of {name} it lacks {here}, and has besides {there}")
    for key, tensor in found.items():
        form = wanted.get(key.replace("adam.exp_avg_sq.", "coder.").replace("adam.exp_avg.", "coder."))
        if form is not None and form != _form(tensor):
            raise of_other_versions(folder, f"{key} of {name} is {_form(tensor)}, and {form} is wanted")


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _check_about(state: StateDescription, trainers: Mapping[str, Trainer], folder: pathlib.Path) -> None:
    """Of the folder's step, and of the coders that are trained."""
    if folder.name != _name(state.step):
        raise of_other_versions(folder, f"it is of step {state.step}, and the folder of another")
    if sorted(state.coders) != sorted(trainers):
        found, wanted = (", ".join(names) or "none" for names in (state.coders, trainers))
        raise of_other_versions(folder, f"it has the coders {found}, and {wanted} are trained")


def load_coders(run: Run, step: int, coders: Mapping[str, MatrixCoder]) -> None:
    """Give whole coders the weights and buffers of a state, in whatever parts it was written.

    Raises:
        ArtifactError: as ``load_state``.
    """
    folder = _folder(run, step)
    _check_files(folder, read_state_description(folder).files, ALONE)
    stored = StoredTensors(folder)
    for name, coder in coders.items():
        prefix = f"{name}/coder."
        tensors = stored.empty([found for found in stored.shapes if found.startswith(prefix)], (), 1)
        stored.read(tensors, (), None)
        coder.load_state_dict({found[len(prefix) :]: tensor for found, tensor in tensors.items()})


def remove_state(run: Run, step: int) -> None:
    """Remove the state after the last step: a finished run has nothing to resume."""
    shutil.rmtree(_folder(run, step))


def _read(
    folder: pathlib.Path, state: StateDescription, trainers: Mapping[str, Trainer], team: Team
) -> dict[str, Tensor]:
    """Of the whole state what this process holds."""
    _check_files(folder, state.files, team)
    with team.all_or_none():
        stored, divided = StoredTensors(folder), set()
        for name, trainer in trainers.items():
            divided |= {f"{name}/{key}" for key in trainer.divided_state(_below(name, stored.shapes))}
        names = [n for n in stored.shapes if n.startswith(("random.", *(f"{t}/" for t in trainers)))]
        tensors = stored.empty(names, divided, team.partners.world)
    with team.watched(), team.all_or_none():
        stored.read(tensors, divided, team.partner_group)
    return tensors


def _below(name: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    prefix = f"{name}/"
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def _check_files(folder: pathlib.Path, recorded: Mapping[str, str], team: Team) -> None:
    """Compare the files with their checksums; each process reads some of them.

    Raises:
        ArtifactError: for one that is missing, one too many, truncated or altered.
    """
    found = _digests(folder, team)
    with team.all_or_none():
        wrong = [n for n in sorted({*found, *recorded}) if found.get(n) != recorded.get(n)]
        if wrong:
            missing = wrong[0] not in found
            raise ArtifactError(
                "there is no such file"
                if missing
                else f"is truncated or altered: its contents do not match the checksum in {STATE}",
                where=str(folder / wrong[0]),
                allowed="a folder as qsae wrote it, which all processes see",
                next=COPY,
            )


def _digests(folder: pathlib.Path, team: Team) -> dict[str, str]:
    """File of tensors -> checksum. Where there are several, each process reads some."""
    divided = team.partners.world > 1
    with team.all_or_none():
        files = state_files.names(folder)
        digests = state_files.digests(folder, files[team.rank :: team.world] if divided else files)
    of_each = team.states(digests) if divided else [digests]
    return {name: digest for found in of_each for name, digest in found.items()}


def _check_position(state: StateDescription, data: DataSource, team: Team, folder: pathlib.Path) -> None:
    of_each, now = state.data_of_each, team.processes.world
    before = 1 if of_each is None else len(of_each)
    if before == now or (of_each is None and not _divided(data, team)):
        return
    world = before * team.partners.world
    raise TrainingError(
        f"processes read a part of this data each: {before} of them before, and {now} now",
        where=str(folder),
        allowed=f"{before}",
        next=command("train ... --resume", world),
    )


def _folder(run: Run, step: int) -> pathlib.Path:
    return run.checkpoints / _name(step)


def _name(step: int) -> str:
    return f"step_{step:08d}"
