"""Several processes that torchrun started, as one team: torch.distributed, gloo on CPUs and NCCL on GPUs."""

from __future__ import annotations

import contextlib
import datetime
import json
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store

from qsae_core.errors import LostError, QsaeError, StoppedError
from qsae_core.kernels.processes import Processes, acting
from qsae_core.launched import Launched
from qsae_core.training.team import Team
from qsae_core.training.torch_processes import TorchPartners, TorchProcesses

TIMEOUT = datetime.timedelta(minutes=30)
"""How long a process waits for the others: a read of data, or a measurement, of one of them is within it."""
ROLL_CALL = 3.0
"""Seconds without an answer after which those that did not answer are missed, where one was lost."""
CALL = "who is here"
"""In the store: asks all processes, each of which answers with ``here/RANK``."""
SMALL = 2**18
"""Entries of a gradient up to which it travels with others."""


class TorchTeam(Team):
    """One of several processes.

    Args:
        place: which it is.
        store: where the processes leave words for each other, also when they are connected no more.
        backend: what carries their messages.
    """

    def __init__(self, place: Launched, store: Store, backend: str) -> None:
        self.rank, self.world, self.store, self.backend = place.rank, place.world, store, backend
        self.everyone = TorchProcesses(range(place.world), place.rank, None, self._explained)
        self.processes: Processes = self.everyone
        self._among_partners: Processes = Processes()
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

    def backward(
        self, loss: Tensor, alike: Sequence[nn.Parameter], of_latents: Sequence[nn.Parameter] = ()
    ) -> None:
        """As Team. A parameter without a gradient in some processes has one of zeros there."""
        (loss / self.processes.world).backward()
        parameters = [*alike, *of_latents]
        here = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
        anywhere = self.everyone.largest(here).tolist()
        found = [p for p, somewhere in zip(parameters, anywhere, strict=True) if somewhere]
        for parameter in found:
            gradient = parameter.grad
            parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient.contiguous()
        _sum_gradients(alike, self.everyone)
        if isinstance(self.processes, TorchProcesses):
            _sum_gradients(of_latents, self.processes)

    def align(self, alike: Sequence[Tensor], of_latents: Sequence[Tensor] = ()) -> None:
        """As Team."""
        for tensor in alike:
            self.everyone.from_first(tensor)
        if isinstance(self.processes, TorchProcesses):
            for tensor in of_latents:
                self.processes.from_first(tensor)

    def states(self, own: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """As Team; the values travel as text."""
        text = torch.tensor(list(json.dumps(own).encode()), dtype=torch.uint8)
        longest = int(self.everyone.largest(torch.tensor(text.numel())))
        padded = torch.full((1, longest), ord(" "), dtype=torch.uint8)
        padded[0, : text.numel()] = text
        return [json.loads(bytes(row.tolist())) for row in self.everyone.rows(padded)]

    def leave(self) -> None:
        """As Team: whoever closes its connections while another still reads from them would be missed."""
        if dist.is_initialized():
            self.store.set(f"done/{self.rank}", "")
            with self.watched():
                self.store.wait([f"done/{rank}" for rank in range(self.world)], TIMEOUT)
            dist.destroy_process_group()

    @contextmanager
    def split(self, parts: int) -> Iterator[None]:
        """As Team. Process r has tokens ``r // parts`` and latents ``r % parts``."""
        if parts == 1:
            yield
            return
        by_tokens = [range(first, first + parts) for first in range(0, self.world, parts)]
        by_latents = [range(first, self.world, parts) for first in range(parts)]
        groups = [self._own_group(by_tokens), self._own_group(by_latents)]
        (own_tokens, group), (own_latents, others) = groups
        self.partner_group = group
        self.partners = partners = TorchPartners(own_tokens, self.rank, group, self._explained)
        self._among_partners = TorchProcesses(own_tokens, self.rank, group, self._explained)
        one_part = len(by_tokens) == 1
        self.processes = (
            Processes() if one_part else TorchProcesses(own_latents, self.rank, others, self._explained)
        )
        with acting(self.processes, partners, self.everyone):
            yield

    def _own_group(self, of_ranks: Sequence[range]) -> tuple[range, dist.ProcessGroup]:
        """That which this process is in; all are made by all processes."""
        with self.watched():
            made = [(ranks, dist.new_group(list(ranks), TIMEOUT, self.backend)) for ranks in of_ranks]
        return next(found for found in made if self.rank in found[0])

    def partners_alone(self) -> AbstractContextManager[None]:
        """As Team."""
        return acting(Processes(), self.partners, self._among_partners)

    def watched(self) -> AbstractContextManager[None]:
        """As Team."""
        return self.everyone.watched()

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
        least = self.everyone.least(torch.tensor([self.rank] if flag else [], dtype=torch.float64))
        return None if least is None else int(least)

    def _explained(self, error: RuntimeError) -> Exception:
        """What an operation that failed between processes means: who is gone, or who says why it ended."""
        self.ending = True
        traceback.clear_frames(error.__traceback__)  # they hold the connections, which would stay open
        self.disconnect()
        try:
            self.store.set(f"waits/{self.rank}", "")
            missing, left = self._roll_call()
            stuck = [] if missing or left else self._without("waits")
        except RuntimeError:  # the launcher is gone, and the store with it
            return LostError(f"process {self.rank} of {self.world} has lost its connection to the others")
        if left:
            return self._stopped_with(left[0])
        if missing:
            return LostError(f"{self._named(missing)} did not answer any more")
        return self._stalled(stuck, error) if stuck else error  # what failed is the operation itself

    def _stalled(self, stuck: Sequence[int], error: RuntimeError) -> LostError:
        """All answer, by a thread of their own. Whoever waits for another one as this process did says so as
        soon as one of them has closed its connections; who does not is busy with something else."""
        minutes = f"{TIMEOUT.total_seconds() / 60:.0f} minutes"
        said = (str(error).splitlines() or [""])[0]
        return LostError(
            f"{self._named(stuck)} answered, and did not go on",
            allowed=f"what each does between two steps within {minutes}: to read data, to measure, to save",
            next=f"see what it waits for: a disk, a server, a GPU ({said})",
        )

    def _named(self, ranks: Sequence[int]) -> str:
        names = ", ".join(map(str, ranks))
        who = f"process {names}" if len(ranks) == 1 else f"processes {names}"
        return f"{who} of {self.world} (counted from 0)"

    def _stopped_with(self, rank: int) -> StoppedError:
        return StoppedError(f"process {rank}: {self.store.get(f'left/{rank}').decode()}")

    def _roll_call(self) -> tuple[list[int], list[int]]:
        """Who does not answer (``_answering``), and who left with a word."""
        self.store.set(CALL, "")
        silent = self._without("here")
        return silent, self._with("left")

    def _without(self, key: str) -> list[int]:
        """Other processes that have not left a key, when none has for a while; or as soon as one left."""
        silent, since = [r for r in range(self.world) if r != self.rank], time.monotonic()
        while True:
            there = self._with(key)
            still = [rank for rank in silent if rank not in there]
            if still != silent:
                silent, since = still, time.monotonic()
            if not silent or time.monotonic() - since > ROLL_CALL or self._with("left"):
                return silent
            time.sleep(0.05)

    def _with(self, key: str) -> list[int]:
        return [rank for rank in range(self.world) if self.store.check([f"{key}/{rank}"])]


def _sum_gradients(parameters: Sequence[nn.Parameter], together: TorchProcesses) -> None:
    """Sums of the gradients that there are, in place; small ones travel as one."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    small = [g for g in gradients if g.numel() <= SMALL]
    together.sum_in_place([g for g in gradients if g.numel() > SMALL])
    if small:
        joined = torch.cat([g.flatten() for g in small])
        together.sum_in_place([joined])
        for gradient, part in zip(small, joined.split([g.numel() for g in small]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _in_a_line(error: BaseException) -> str:
    lines = str(error).splitlines() or [""]
    return lines[0] if isinstance(error, QsaeError) else f"{type(error).__name__}: {lines[0]}"
