"""Commands that one process carries out, where a launcher started several."""

from __future__ import annotations

from collections.abc import Iterable

from qsae_core.errors import ConfigError
from qsae_core.launched import launched


def refuse_several(name: str, shared: Iterable[str]) -> None:
    """Refuse a command to several processes of which each would do the same, and write over the others.

    Args:
        name: of the command.
        shared: those whose work several processes share.

    Raises:
        ConfigError: in each of the processes.
    """
    world = launched().world
    if world > 1:
        raise ConfigError(
            f"{world} processes were started, and qsae {name} does not share its work: "
            "each would do all of it",
            where="environment (WORLD_SIZE)",
            allowed=f"a single process; several for {' and '.join(sorted(shared))}",
            next=f"qsae {name} ... without torchrun; without a launcher: unset WORLD_SIZE",
        )
