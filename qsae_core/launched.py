"""What a launcher (torchrun) says of this process: which of how many it is. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from qsae_core.errors import ConfigError


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
            next="torchrun sets them: torchrun --nproc-per-node N --no-python qsae train ...",
        )
    local = _number(given, "LOCAL_RANK", -1)
    return Launched(rank, world, None if local < 0 else local)


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
