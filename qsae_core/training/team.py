"""What the processes of a run do together outside of coders: here, what a process alone makes of that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from qsae_core.errors import ConfigError, QsaeError
from qsae_core.kernels.processes import Processes


class Team:
    """The processes of a run, seen from one of them. All ask the same, in the same order."""

    rank: int = 0
    world: int = 1
    processes: Processes = Processes()
    """What coders are to ask meanwhile."""

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes, shows and evaluates."""
        return self.rank == 0

    def stop_if(self, error: QsaeError | None) -> None:
        """End all processes if one has an error.

        Raises:
            QsaeError: the error, in the first process that has one.
            StoppedError: in the others.
        """
        if error is not None:
            raise error

    def any(self, flag: bool) -> bool:
        """Whether it is so in one of the processes."""
        return flag

    def totals(self, numbers: Sequence[float]) -> list[float]:
        """Sums over the processes, number by number."""
        return list(numbers)

    def backward(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Gradients of the mean of the processes' losses; None where no process has one."""
        loss.backward()

    def align(self, tensors: Sequence[Tensor]) -> None:
        """Make tensors those of the first process, in place."""

    def states(self, own: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """JSON values of each process."""
        return [own]

    def leave(self) -> None:
        """Wait for the others, and ask them nothing any more."""

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """A block after which all go on, or none: ``stop_if`` for the QsaeError that it ends with."""
        error: QsaeError | None = None
        try:
            yield
        except QsaeError as found:
            error = found
        self.stop_if(error)


ALONE = Team()


def share_of(number: int, team: Team, option: str) -> int:
    """A process's part of a number that all have together, which is that option of ``train``.

    Raises:
        ConfigError: if it does not divide evenly.
    """
    if number % team.world:
        below = number - number % team.world
        raise ConfigError(
            f"{number} does not divide into {team.world} equal parts, one for each process",
            where=f"train.{option}",
            allowed=f"a multiple of {team.world}",
            next=f"--{option.replace('_', '-')} {below or team.world}",
        )
    return number // team.world
