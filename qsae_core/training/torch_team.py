"""Several processes that torchrun started, as one team: torch.distributed, gloo on CPUs and NCCL on GPUs."""

from __future__ import annotations

import contextlib
import datetime
import functools
import itertools
import json
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from qsae_core.errors import ConfigError, LostError, QsaeError, StoppedError
from qsae_core.kernels.processes import acting
from qsae_core.launched import Launched
from qsae_core.training.team import Team
from qsae_core.training.torch_processes import TorchProcesses

TIMEOUT = datetime.timedelta(minutes=30)
"""How long a process waits for the others: a read of data, or a measurement, of one of them is within it."""
ROLL_CALL = 3.0
"""Seconds without an answer after which those that did not answer are missed, where one was lost."""
SMALL = 2**18
"""Entries of a gradient up to which it travels with others."""


class TorchTeam(Team):
    """One of several processes.

    Args:
        place: which it is.
        store: where the processes leave words for each other, also when they are connected no more.
    """

    processes: TorchProcesses

    def __init__(self, place: Launched, store: Store) -> None:
        self.rank, self.world, self.store = place.rank, place.world, store
        self.processes = TorchProcesses(place.rank, place.world, self._explained)
        self.ending = False
        """Whether it is on its way out: a launcher that ends it, too, is not to cut its last words off."""

    # --- Team

    def stop_if(self, error: QsaeError | None) -> None:
        """As Team: one number travels."""
        first = self._first_with(error is not None)
        if first is None:
            return
        self.ending = True
        if error is not None and first == self.rank:
            self.store.set(f"left/{first}", _in_a_line(error))
            raise error
        raise self._stopped_with(first)

    def any(self, flag: bool) -> bool:
        """As Team."""
        return self._first_with(flag) is not None

    def totals(self, numbers: Sequence[float]) -> list[float]:
        """As Team."""
        total: list[float] = self.processes.sum(torch.tensor(list(numbers), dtype=torch.float64)).tolist()
        return total

    def backward(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """As Team. A parameter without a gradient in some processes has one of zeros there."""
        (loss / self.world).backward()
        here = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
        anywhere = self.processes.largest(here).tolist()
        found = [p for p, somewhere in zip(parameters, anywhere, strict=True) if somewhere]
        for parameter in found:
            gradient = parameter.grad
            parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient.contiguous()
        gradients = [p.grad for p in found if p.grad is not None]
        small = [g for g in gradients if g.numel() <= SMALL]
        self.processes.sum_in_place([g for g in gradients if g.numel() > SMALL])
        if small:
            together = torch.cat([g.flatten() for g in small])
            self.processes.sum_in_place([together])
            for gradient, part in zip(small, together.split([g.numel() for g in small]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def align(self, tensors: Sequence[Tensor]) -> None:
        """As Team."""
        for tensor in tensors:
            self.processes.from_first(tensor)

    def states(self, own: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """As Team; the values travel as text."""
        text = torch.tensor(list(json.dumps(own).encode()), dtype=torch.uint8)
        longest = int(self.processes.largest(torch.tensor(text.numel())))
        padded = torch.full((1, longest), ord(" "), dtype=torch.uint8)
        padded[0, : text.numel()] = text
        return [json.loads(bytes(row.tolist())) for row in self.processes.rows(padded)]

    def leave(self) -> None:
        """As Team: whoever closes its connections while another still reads from them would be missed."""
        if dist.is_initialized():
            self.store.set(f"done/{self.rank}", "")
            with self._watched():
                self.store.wait([f"done/{rank}" for rank in range(self.world)], TIMEOUT)
            dist.destroy_process_group()

    # --- how it ends

    def disconnect(self) -> None:
        """Close the connections at once, so that whoever waits for this process notices."""
        if dist.is_initialized():
            with contextlib.suppress(RuntimeError):
                dist.destroy_process_group()

    def ended_by(self, error: BaseException) -> None:
        """Leave word of what ends this process, before the others miss it.

        Raises:
            StoppedError: where another process says the same already.
        """
        self.ending = True
        with contextlib.suppress(RuntimeError):  # the store is gone as well
            if not isinstance(error, LostError):
                self.store.set(f"left/{self.rank}", _in_a_line(error))
            elif self.store.add("said", 1) > 1:
                raise StoppedError(error.what) from error
        self.disconnect()

    def _first_with(self, flag: bool) -> int | None:
        least = self.processes.least(torch.tensor([self.rank] if flag else [], dtype=torch.float64))
        return None if least is None else int(least)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise self._explained(error) from error

    def _explained(self, error: RuntimeError) -> Exception:
        """What an operation that failed between processes means: who is gone, or who says why it ended."""
        self.ending = True
        traceback.clear_frames(error.__traceback__)  # they hold the connections, which would stay open
        self.disconnect()
        try:
            self.store.set(f"here/{self.rank}", "")
            missing, left = self._roll_call()
        except RuntimeError:  # the launcher is gone, and the store with it
            return LostError(f"process {self.rank} of {self.world} has lost its connection to the others")
        if left:
            return self._stopped_with(left[0])
        if missing:
            names = ", ".join(map(str, missing))
            who = f"process {names}" if len(missing) == 1 else f"processes {names}"
            return LostError(f"{who} of {self.world} (counted from 0) did not answer any more")
        return error

    def _stopped_with(self, rank: int) -> StoppedError:
        return StoppedError(f"process {rank}: {self.store.get(f'left/{rank}').decode()}")

    def _roll_call(self) -> tuple[list[int], list[int]]:
        """Who does not answer, and who left with a word."""
        silent, since = [r for r in range(self.world) if r != self.rank], time.monotonic()
        while True:
            left = [rank for rank in range(self.world) if self.store.check([f"left/{rank}"])]
            still = [rank for rank in silent if not self.store.check([f"here/{rank}"])]
            if still != silent:
                silent, since = still, time.monotonic()
            if left or not silent or time.monotonic() - since > ROLL_CALL:
                return silent, left
            time.sleep(0.05)


_JOINED = itertools.count()
"""Runs of these processes so far: each has keys of its own in the store that they share."""


@functools.cache
def _launchers_store(world: int) -> Store:
    try:
        store: Store = next(rendezvous("env://", timeout=TIMEOUT))[0]
    except ValueError as error:
        raise ConfigError(
            f"WORLD_SIZE is {world}, and it is not said where the other processes are ({error})",
            where="environment",
            allowed="RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT",
            next="torchrun --nproc-per-node N --no-python qsae train ...; or unset WORLD_SIZE",
        ) from error
    return store


@contextmanager
def join(place: Launched, device: str) -> Iterator[TorchTeam]:
    """Connect this process with the others, and disconnect it at the end."""
    store = PrefixStore(f"qsae/{next(_JOINED)}", _launchers_store(place.world))
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.world, timeout=TIMEOUT)
    team = TorchTeam(place, PrefixStore("words", store))
    with _last_words(lambda: team.ending), acting(team.processes):
        try:
            yield team
            team.leave()
        except BaseException as error:
            team.ended_by(error)
            raise


@contextmanager
def _last_words(ending: Callable[[], bool]) -> Iterator[None]:
    """A block in which SIGTERM ends this process as ever, but not where it is ending by itself: torchrun
    sends one to all others as soon as one of them is gone."""
    before = signal.getsignal(signal.SIGTERM)

    def unless_ending(number: int, frame: FrameType | None) -> None:
        if not ending():
            signal.signal(signal.SIGTERM, before)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, unless_ending)
    try:
        yield
    finally:
        if not ending():
            signal.signal(signal.SIGTERM, before)


def _in_a_line(error: BaseException) -> str:
    lines = str(error).splitlines() or [""]
    return lines[0] if isinstance(error, QsaeError) else f"{type(error).__name__}: {lines[0]}"
