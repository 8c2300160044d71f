"""The launched processes become a team, each with a device of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from qsae_core.config.run import RunConfig
from qsae_core.errors import ConfigError
from qsae_core.launched import Launched, command, machines
from qsae_core.training.team import ALONE, Team

LONGEST = 100
"""Characters of an entry of a state that travels, and is shown, as it is."""


@contextmanager
def joined(place: Launched, device: str) -> Iterator[Team]:
    """A block in which the launched processes are one team; a process alone is one at once.

    Args:
        device: where this process trains.

    Raises:
        ConfigError: if the launcher does not say where the others are.
        StoppedError: where another process shows what ended the block.
    """
    if place.world == 1:
        yield ALONE
        return
    from qsae_core.training.torch_join import join  # torch.distributed is for those who need it

    with join(place, device) as team:
        yield team


def own_device(device: str, place: Launched, name: str = "train") -> str:
    """The device of this process: of several with GPUs each has its own.

    Args:
        device: as resolved: ``cpu``, ``cuda``, ``cuda:1``.
        name: of the command that they carry out, for the error.

    Raises:
        ConfigError: if all were to use the same GPU, or there are fewer GPUs than processes.
    """
    if place.world == 1 or not device.startswith("cuda"):
        return device
    there = torch.cuda.device_count()
    if device != "cuda" or place.local_rank is None or place.local_rank >= there:
        fault = (
            f"{place.world} processes cannot share {device}"
            if device != "cuda"
            else f"LOCAL_RANK is {place.local_rank}, and there are {there} CUDA devices"
        )
        raise ConfigError(
            fault,
            where="--device",
            allowed="cuda or auto: each process takes the GPU of its LOCAL_RANK; or cpu",
            next=command(f"{name} ...", there * machines(), there),
        )
    torch.cuda.set_device(place.local_rank)
    return f"cuda:{place.local_rank}"


def check_same(config: RunConfig, team: Team) -> None:
    """Refuse processes that were not started alike: they would wait for each other, or add up what does not
    belong together.

    Raises:
        ConfigError: in all of them.
    """
    start = {"resume": config.run.resume, "overwrite": config.run.overwrite}
    text = json.dumps(config.to_dict() | start, sort_keys=True)
    digests = team.states({"digest": hashlib.sha256(text.encode()).hexdigest()})
    others = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    if others:
        raise ConfigError(
            f"process {others[0]} of {team.world} (counted from 0) was started with other options, or other "
            "versions of torch, Python or plugins, than process 0",
            where="configuration",
            allowed="the same command and the same packages on all machines",
            next="--dry-run shows what each resolves to",
        )


def check_same_data(state: Mapping[str, Any], team: Team) -> None:
    """Refuse processes that found other data each, which their configuration does not tell: a store that
    still grows, a file that is another one on another machine. Their parts would not be those of one batch.

    Args:
        state: that of the source, from which nothing was read and which is not divided yet.

    Raises:
        ConfigError: in all of them.
    """
    of_each = team.states({name: _in_short(value) for name, value in state.items()})
    for rank, other in enumerate(of_each):
        odd = [name for name in {**of_each[0], **other} if of_each[0].get(name) != other.get(name)]
        if odd:
            there, here = (found.get(odd[0], "missing") for found in (other, of_each[0]))
            raise ConfigError(
                f"process {rank} of {team.world} (counted from 0) found other data than process 0: {odd[0]} "
                f"is {there} there, and {here} here",
                where="data",
                allowed="the same data in all processes, whole before the run begins",
                next="wait for whoever still writes it; on several machines, the same copy on each",
            )


def _in_short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= LONGEST else f"(sha256) {hashlib.sha256(text.encode()).hexdigest()[:16]}"
