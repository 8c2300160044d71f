"""How far a long step of an evaluation is, told to whoever watches, without either knowing the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")
Told = Callable[[int, int], None]
"""Is told how many are done, of how many."""
_TOLD: ContextVar[Told | None] = ContextVar("told", default=None)


def steps(items: Sequence[Item]) -> Iterator[Item]:
    """The items, while whoever watches the evaluation learns how many of them are done: for a loop behind the
    last observation that takes seconds."""
    told = _TOLD.get()
    for done, item in enumerate(items):
        if told is not None:
            told(done, len(items))
        yield item
    if told is not None:
        told(len(items), len(items))


@contextlib.contextmanager
def telling(told: Told | None) -> Iterator[None]:
    """Within the block, ``steps`` tell this one."""
    token = _TOLD.set(told)
    try:
        yield
    finally:
        _TOLD.reset(token)
