"""The launched processes become a team, each with a device of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from qsae_core.config.run import RunConfig
from qsae_core.errors import ConfigError
from qsae_core.launched import Launched, command
from qsae_core.training.team import ALONE, Team


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


def own_device(device: str, place: Launched) -> str:
    """The device of this process: of several with GPUs each has its own.

    Args:
        device: as resolved: ``cpu``, ``cuda``, ``cuda:1``.

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
            next=command("train ...", there),
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
