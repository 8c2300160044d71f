"""Resume states: everything from which a run continues bit for bit. Tensors and JSON, nothing pickled."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsae_core.artifact.tensor_files import load_tensors, save_tensors
from qsae_core.contracts.data import DataSource
from qsae_core.contracts.shards import RankSlices
from qsae_core.errors import TrainingError
from qsae_core.results.files import atomic_folder, read_json
from qsae_core.results.run import Run
from qsae_core.training.team import ALONE, Team
from qsae_core.training.trainer import Trainer

TENSORS, STATE = "state.safetensors", "state.json"
KEEP = 2
"""How many resume states stay; older ones are removed once a newer one is complete."""


class Position(NamedTuple):
    """Where a run's data stands."""

    data: Mapping[str, Any]
    """The state of the source of the first process."""
    of_each: list[Mapping[str, Any]] | None = None
    """Of every process, where each reads vectors of its own; None where all stand at the same place."""


def position(data: DataSource, state: Mapping[str, Any], team: Team) -> Position:
    """Of all processes' data, of which this one's (``shard``) has that state."""
    return Position(state, team.states(state) if _divided(data, team) else None)


def _divided(data: DataSource, team: Team) -> bool:
    """Whether each process reads vectors of its own, instead of its rows of those that all read."""
    return team.world > 1 and not isinstance(data, RankSlices)


def save_state(run: Run, step: int, trainers: Mapping[str, Trainer], data: Position) -> pathlib.Path:
    """Write the state after ``step`` steps: weights, moments, counters, generators, the data's position."""
    folder = _folder(run, step)
    places = (
        {"data": data.data} if data.of_each is None else {"data": data.data, "data_of_each": data.of_each}
    )
    state = json.dumps({"step": step, "coders": list(trainers), **places})
    tensors: dict[str, Tensor] = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    for name, trainer in trainers.items():
        tensors |= {f"{name}/{key}": value for key, value in trainer.state().items()}
    with atomic_folder(folder) as temporary:
        save_tensors(temporary / TENSORS, _separate(tensors), state)
        (temporary / STATE).write_text(state, encoding="utf-8")
    for old in run.resume_states()[:-KEEP]:
        shutil.rmtree(old)
    return folder


def load_state(
    folder: pathlib.Path, trainers: Mapping[str, Trainer], data: DataSource, team: Team = ALONE
) -> int:
    """Put trainers, generators and data where ``save_state`` left them; returns the number of steps done.

    Raises:
        ArtifactError: if the state is truncated or altered.
        TrainingError: if it is of other versions, with other entries or tensors; if each of the processes
            read vectors of its own, and there are more or fewer now.
    """
    state: dict[str, Any] = read_json(folder / STATE)
    of_each = state.get("data_of_each")
    before = 1 if of_each is None else len(of_each)
    if before != team.world and (of_each is not None or _divided(data, team)):
        launcher = f"torchrun --nproc-per-node {before} --no-python " if before > 1 else ""
        raise TrainingError(
            f"processes read a part of this data each: {before} of them before, and {team.world} now",
            where=str(folder),
            allowed=f"{before}",
            next=f"{launcher}qsae train ... --resume",
        )
    tensors = load_tensors(folder / TENSORS, (folder / STATE).read_text(encoding="utf-8"))
    for name, trainer in trainers.items():
        prefix = f"{name}/"
        own = {k[len(prefix) :]: t for k, t in tensors.items() if k.startswith(prefix)}
        wanted = {f"coder.{key}" for key in trainer.coder.state_dict()}
        if odd := wanted ^ {key for key in own if key.startswith("coder.")}:
            here = ", ".join(sorted(wanted & odd)) or "nothing"
            there = ", ".join(sorted(odd - wanted)) or "nothing"
            raise _of_other_versions(
                folder, f"of the tensors of {name} it lacks {here}, and has besides {there}"
            )
        trainer.load_state(own)
    try:
        data.load_state_dict(state["data"] if of_each is None else of_each[team.rank])
        step = int(state["step"])
        torch.set_rng_state(tensors["random.cpu"])
    except KeyError as error:  # whoever reads a state takes its entries for granted
        raise _of_other_versions(folder, f"it has no {error.args[0]!r}") from error
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return step


def _of_other_versions(folder: pathlib.Path, what: str) -> TrainingError:
    return TrainingError(
        f"the state does not fit: {what}",
        where=str(folder),
        allowed="a state that the installed versions of qsae and its plugins wrote",
        next="resume with those that wrote it (config.json: versions), or begin anew with --overwrite",
    )


def remove_state(run: Run, step: int) -> None:
    """Remove the state after the last step: a finished run has nothing to resume."""
    shutil.rmtree(_folder(run, step))


def _folder(run: Run, step: int) -> pathlib.Path:
    return run.checkpoints / f"step_{step:08d}"


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors that share no memory (safetensors refuses those that do)."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        if plain.data_ptr() in seen:
            plain = plain.clone()
        seen.add(plain.data_ptr())
        separate[name] = plain
    return separate
