"""The processes that torchrun started become one team, and end as one."""

from __future__ import annotations

import contextlib
import datetime
import functools
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from qsae_core.errors import ConfigError
from qsae_core.kernels.processes import acting
from qsae_core.launched import Launched, command
from qsae_core.training.torch_team import CALL, TIMEOUT, TorchTeam

FOREVER = datetime.timedelta(days=10_000)
ENDS_WITHIN = 10.0
"""Seconds for the thread that answers to end in."""
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
            next=f"{command('train ...', 'N')}; or unset WORLD_SIZE",
        ) from error
    return store


@contextmanager
def join(place: Launched, device: str) -> Iterator[TorchTeam]:
    """Connect this process with the others, and disconnect it at the end."""
    store = PrefixStore(f"qsae/{next(_JOINED)}", _launchers_store(place.world))
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"  # of tensors on either
    dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.world, timeout=TIMEOUT)
    words = PrefixStore("words", store)
    team = TorchTeam(place, words, backend)
    with _answering(words, place.rank), _last_words(lambda: team.ending), acting(team.everyone):
        try:
            yield team
            team.leave()
        except BaseException as error:
            team.ended_by(error)
            raise


@contextmanager
def _answering(words: Store, rank: int) -> Iterator[None]:
    """A block in which this process answers a roll call, once, whatever else it does.

    Whoever waits for another process in the middle of an operation does not come to it, and would be missed
    with the one that is lost.
    """
    connection: Store = words.clone()  # type: ignore[attr-defined]  # one is not for two threads

    def answer() -> None:
        with contextlib.suppress(RuntimeError):  # the launcher is gone, and the store with it
            connection.wait([CALL], FOREVER)
            connection.set(f"here/{rank}", "")

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(RuntimeError):
            words.set(CALL, "")  # the thread is to end before Python does
        thread.join(ENDS_WITHIN)


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
