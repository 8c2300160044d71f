"""This process: which of how many it is, as a launcher (torchrun) says, and where. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

from qsae_core.errors import ConfigError

MEETING = "--rdzv-backend c10d --rdzv-endpoint HOST:29500"
"""How torchrun on several machines finds the others; HOST is one of them."""


class Launched(NamedTuple):
    """One of the processes that train together."""

    rank: int = 0
    """Its number among all, from 0."""
    world: int = 1
    """How many there are."""
    local_rank: int | None = None
    """Its number on its machine, which is that of its GPU; None where the launcher does not say."""

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes and shows what all of them do."""
        return self.rank == 0


def launched(environment: Mapping[str, str] | None = None) -> Launched:
    """This process, from ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``; a process alone where there is no
    ``WORLD_SIZE``, or it is 1.

    Raises:
        ConfigError: where these are no numbers, or do not fit one another.
    """
    given = os.environ if environment is None else environment
    world = _number(given, "WORLD_SIZE", 1)
    if world <= 1:
        return Launched()
    rank = _number(given, "RANK", -1)
    if not 0 <= rank < world:
        raise ConfigError(
            f"RANK is {given.get('RANK', 'missing')}, and WORLD_SIZE is {world}",
            where="environment",
            allowed=f"RANK from 0 to {world - 1}",
            next=f"torchrun sets them: {command('train ...', 'N')}",
        )
    local = _number(given, "LOCAL_RANK", -1)
    return Launched(rank, world, None if local < 0 else local)


def this_process() -> dict[str, Any]:
    """``host`` and ``pid``, from which ``is_gone`` tells on this machine whether the process goes on;
    where a system says it, also when it ``began``: numbers are given out again."""
    found: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid()}
    status = _status(os.getpid())
    return found if status is None else found | {"began": status.began}


def is_gone(process: Mapping[str, Any]) -> bool:
    """Whether a process of this machine, as ``this_process`` gave it, is known to be there no more."""
    if os.name != "posix" or process.get("host") != socket.gethostname():
        return False
    with contextlib.suppress(PermissionError):  # somebody else's
        try:
            os.kill(process["pid"], 0)  # sends nothing
        except ProcessLookupError:
            return True
    status = _status(process["pid"])
    return status is not None and (status.has_ended or process.get("began", status.began) != status.began)


def is_another(process: Mapping[str, Any]) -> bool:
    """Whether a process is known to go on, on this machine, and is not this one."""
    here = os.name == "posix" and process.get("host") == socket.gethostname()
    return here and process["pid"] != os.getpid() and not is_gone(process)


class _Status(NamedTuple):
    has_ended: bool
    """Whether nothing is left of it but what its parent has not asked for yet."""
    began: str
    """Which boot of the machine, and clock ticks since then."""


def _status(pid: int) -> _Status | None:
    """What Linux says of a process; None elsewhere, or where there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()  # behind the command's name, free text
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            return _Status(fields[0] in "ZX", f"{file.read().strip()} {fields[19]}")
    except (OSError, IndexError):
        return None


def command(
    arguments: str, world: int | str, local: int | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """``qsae ARGUMENTS`` as so many processes together run it.

    Args:
        local: how many of them are on each machine; None: as many as there are now (``LOCAL_WORLD_SIZE``).
            Where these are not all, and machines of as many make up all, it is the command of each machine.
    """
    if world == 1:
        return f"qsae {arguments}"
    if local is None:
        given = (os.environ if environment is None else environment).get("LOCAL_WORLD_SIZE", "").strip()
        local = int(given) if given.isdecimal() else 0
    launcher = f"torchrun --nproc-per-node {world}"
    if isinstance(world, int) and 0 < local < world and world % local == 0:
        launcher = f"torchrun --nnodes {world // local} --nproc-per-node {local} {MEETING}"
    return f"{launcher} --no-python qsae {arguments}"


def machines(environment: Mapping[str, str] | None = None) -> int:
    """How many machines the processes are on, where each has as many; 1 where a launcher does not say."""
    given = os.environ if environment is None else environment
    local = _number(given, "LOCAL_WORLD_SIZE", 0)
    return max(1, launched(given).world // local) if local else 1


def _number(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal():
        raise ConfigError(
            f"{name} is {text!r}",
            where="environment",
            allowed="a whole number, as torchrun sets it; or no such variable",
            next=f"unset {name}, for a run of a single process",
        )
    return int(text)
