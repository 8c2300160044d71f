"""Resume states: everything from which a run continues bit for bit. Tensors and JSON, nothing pickled.

A state is a folder: ``state.json`` with the step, the data's position and a checksum of every file, and files
of tensors (``state_files``). It is that of the run, whatever number of processes wrote it.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.contracts.data import DataSource
from qsae_core.contracts.shards import RankSlices
from qsae_core.errors import ArtifactError, TrainingError
from qsae_core.results.files import COPY, atomic_folder, read_json, write_json
from qsae_core.results.run import Run
from qsae_core.training import state_files
from qsae_core.training.state_files import StoredTensors
from qsae_core.training.team import ALONE, Team
from qsae_core.training.trainer import Trainer

STATE = "state.json"
KEEP = 2
"""How many resume states stay; older ones are removed once a newer one is complete."""


class Position(NamedTuple):
    """Where a run's data stands."""

    data: Mapping[str, Any]
    """The state of the source of the first process."""
    of_each: list[Mapping[str, Any]] | None = None
    """Of every part of a batch, where each is read by itself; None where all stand at the same place."""


def position(data: DataSource, state: Mapping[str, Any], team: Team) -> Position:
    """Of all processes' data, of which this one's (``shard``) has that state."""
    return Position(state, team.states(state)[:: team.partners.world] if _divided(data, team) else None)


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
    about = {"step": step, "coders": list(trainers), "data": data.data}
    if data.of_each is not None:
        about["data_of_each"] = data.of_each
    together = team if team.partners.world > 1 else ALONE
    with _new_folder(folder, together) as temporary:
        with together.watched(), together.all_or_none():
            if together.among_first:
                state_files.write(temporary, tensors, divided, together.partner_group)
        about["files"] = _digests(temporary, together)
        if together.is_first:
            write_json(temporary / STATE, {**about, "sha256": _digest(about)})
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
            state = _read_about(folder)
            _check_position(state, data, team, folder)
        tensors = _read(folder, state, trainers, team)
    with team.all_or_none():
        for name, trainer in trainers.items():
            own = _below(name, tensors)
            _check_names(folder, name, own, trainer)
            trainer.load_state(own)
        of_each = state.get("data_of_each")
        try:
            data.load_state_dict(state["data"] if of_each is None else of_each[team.processes.rank])
            step = int(state["step"])
            torch.set_rng_state(tensors["random.cpu"])
        except KeyError as error:  # whoever reads a state takes its entries for granted
            raise _of_other_versions(folder, f"it has no {error.args[0]!r}") from error
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])
    return step


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


def _check_names(folder: pathlib.Path, name: str, found: Iterable[str], trainer: Trainer) -> None:
    wanted = {f"coder.{key}" for key in trainer.coder.state_dict()}
    if odd := wanted ^ {key for key in found if key.startswith("coder.")}:
        here = ", ".join(sorted(wanted & odd)) or "nothing"
        there = ", ".join(sorted(odd - wanted)) or "nothing"
        raise _of_other_versions(folder, f"of the tensors of {name} it lacks {here}, and has besides {there}")


def _of_other_versions(folder: pathlib.Path, what: str) -> TrainingError:
    return TrainingError(
        f"the state does not fit: {what}",
        where=str(folder),
        allowed="a state that the installed versions of qsae and its plugins wrote",
        next="resume with those that wrote it (config.json: versions), or begin anew with --overwrite",
    )


def load_coders(run: Run, step: int, coders: Mapping[str, MatrixCoder]) -> None:
    """Give whole coders the weights and buffers of a state, in whatever parts it was written.

    Raises:
        ArtifactError: as ``load_state``.
    """
    folder = _folder(run, step)
    _check_files(folder, _read_about(folder)["files"], ALONE)
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
    folder: pathlib.Path, state: Mapping[str, Any], trainers: Mapping[str, Trainer], team: Team
) -> dict[str, Tensor]:
    """Of the whole state what this process holds."""
    _check_files(folder, state["files"], team)
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


def _read_about(folder: pathlib.Path) -> dict[str, Any]:
    """``state.json``, after its checksum."""
    about = read_json(folder / STATE)
    if isinstance(about, dict) and "files" not in about:
        raise _of_other_versions(folder, "it names no files")
    digest = about.pop("sha256", None) if isinstance(about, dict) else None
    if digest is None or digest != _digest(about):
        raise ArtifactError(
            "was altered: its contents do not match the checksum in it" if digest else "holds no checksum",
            where=str(folder / STATE),
            allowed="the file as this version of qsae wrote it",
            next=COPY,
        )
    found: dict[str, Any] = about
    return found


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


def _digest(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _check_position(state: Mapping[str, Any], data: DataSource, team: Team, folder: pathlib.Path) -> None:
    of_each, now = state.get("data_of_each"), team.processes.world
    before = 1 if of_each is None else len(of_each)
    if before == now or (of_each is None and not _divided(data, team)):
        return
    world = before * team.partners.world
    launcher = f"torchrun --nproc-per-node {world} --no-python " if world > 1 else ""
    raise TrainingError(
        f"processes read a part of this data each: {before} of them before, and {now} now",
        where=str(folder),
        allowed=f"{before}",
        next=f"{launcher}qsae train ... --resume",
    )


def _folder(run: Run, step: int) -> pathlib.Path:
    return run.checkpoints / f"step_{step:08d}"
