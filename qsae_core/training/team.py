"""What the processes of a run do together outside of coders: here, what a process alone makes of that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from qsae_core.errors import ConfigError, LostError, QsaeError, StoppedError
from qsae_core.kernels.partners import Partners
from qsae_core.kernels.processes import Processes, alone

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Team:
    """The processes of a run, seen from one of them. All ask the same, in the same order."""

    rank: int = 0
    world: int = 1
    processes: Processes = Processes()
    """Those with other tokens, whom coders ask meanwhile: all, until ``split``."""
    partners: Partners = Partners()
    """Those with other latents: none, until ``split``."""

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
        """Sums over the processes with other tokens, number by number."""
        return list(numbers)

    def backward(
        self, loss: Tensor, alike: Sequence[nn.Parameter], of_latents: Sequence[nn.Parameter] = ()
    ) -> None:
        """Gradients of the mean of the losses of different tokens; None where no process has one.

        Args:
            alike: parameters that all processes have: their gradients are sums over partners.
            of_latents: parameters of which partners have other rows, each with its gradient.
        """
        loss.backward()

    def align(self, alike: Sequence[Tensor], of_latents: Sequence[Tensor] = ()) -> None:
        """Make tensors those of the first process, in place.

        Args:
            of_latents: tensors of which partners have other rows: those of the first process with the same.
        """

    def states(self, own: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """JSON values of each process."""
        return [own]

    @contextmanager
    def split(self, parts: int) -> Iterator[None]:
        """A block in which each dictionary is divided over so many of the processes, neighbours in rank.

        Args:
            parts: divides ``world``.
        """
        yield

    partner_group: ProcessGroup | None = None
    """Of torch.distributed: this process and its partners, where there are any."""

    @property
    def among_first(self) -> bool:
        """Whether this process and its partners are those with the first part of a batch: together they
        measure and save."""
        return self.processes.rank == 0

    def partners_alone(self) -> AbstractContextManager[None]:
        """A block in which only partners ask each other: for what those ``among_first`` do by themselves."""
        return alone()

    def watched(self) -> AbstractContextManager[None]:
        """A block that calls torch.distributed: where another process is gone, the error says so."""
        return nullcontext()

    def leave(self) -> None:
        """Wait for the others, and ask them nothing any more."""

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """A block after which all go on, or none: ``stop_if`` for the QsaeError that it ends with.

        What may fail in one process alone is not to come before a question to the others in the same block,
        nor is another such block: whoever fails would ask something else than they do. Where one that is
        gone, or that ended and said why, was noticed already, there is nobody to ask.
        """
        error: QsaeError | None = None
        try:
            yield
        except (LostError, StoppedError):
            raise
        except QsaeError as found:
            error = found
        self.stop_if(error)


ALONE = Team()


def share_of(number: int, team: Team, option: str) -> int:
    """What of a number falls to a process and its partners, which is that option of ``train``.

    Raises:
        ConfigError: if it does not divide evenly.
    """
    parts = team.processes.world
    if number % parts:
        below = number - number % parts
        of_whom = "process" if team.partners.world == 1 else f"{team.partners.world} processes"
        raise ConfigError(
            f"{number} does not divide into {parts} equal parts, one for each {of_whom}",
            where=f"train.{option}",
            allowed=f"a multiple of {parts}",
            next=f"--{option.replace('_', '-')} {below or parts}",
        )
    return number // parts
