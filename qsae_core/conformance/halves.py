"""Two threads that stand for two processes, each with half of the latents."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from qsae_core.kernels.processes import Processes, acting
from qsae_core.training.torch_processes import TorchGroup, TorchPartners, TorchProcesses

PATIENCE = 60.0
"""Seconds that one waits for the other's tensor."""
COMBINED: dict[Any, Callable[[Tensor], Tensor]] = {
    dist.ReduceOp.SUM: lambda both: both.sum(0),
    dist.ReduceOp.MAX: lambda both: both.amax(0),
    dist.ReduceOp.MIN: lambda both: both.amin(0),
}
Found = TypeVar("Found")


class Meeting:
    """Where two threads leave tensors for each other."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)
        self.left: list[Tensor] = [torch.empty(0), torch.empty(0)]


class _OfTwo(TorchGroup):
    def __init__(self, rank: int, meeting: Meeting) -> None:
        self.rank, self.world, self.meeting = rank, 2, meeting

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """Both threads'."""
        self.meeting.left[self.rank] = tensor.detach()
        self.meeting.barrier.wait(PATIENCE)
        both = [left.clone() for left in self.meeting.left]
        self.meeting.barrier.wait(PATIENCE)
        return both

    def reduced(self, tensor: Tensor, operation: Any) -> Tensor:
        """Combined over both."""
        return COMBINED[operation](torch.stack(self.gathered(tensor)))


class HalfPartners(_OfTwo, TorchPartners):
    """``kernels.partners()`` of one thread."""


class HalfProcesses(_OfTwo, TorchProcesses):
    """``kernels.everyone()`` of one thread."""


def one_after_the_other(make: Callable[[], Found]) -> list[Found]:
    """What is made of each half, where nothing is asked: two coders."""
    made = []
    for rank in (0, 1):
        with acting(Processes(), HalfPartners(rank, Meeting())):
            made.append(make())
    return made


def at_the_same_time(work: Callable[[int], None]) -> None:
    """Carry out two halves of some work, which ask each other.

    Raises:
        Exception: what ended one of them.
    """
    meeting, faults = Meeting(), []

    def half(rank: int) -> None:
        partners, everyone = HalfPartners(rank, meeting), HalfProcesses(rank, meeting)
        try:
            with acting(Processes(), partners, everyone):
                work(rank)
        except Exception as error:
            faults.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=half, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    own = [fault for fault in faults if not isinstance(fault, threading.BrokenBarrierError)]
    for fault in own or faults:
        raise fault
