"""What has to be known of a whole batch where several processes have a part of it each.

Code that looks over the tokens of a batch (a coder's losses and counters, sparsity rules, code quantizers)
asks ``processes()``, and knows nothing of who else there is. The parts are equal: with W processes, token i
of process r is token ``i W + r`` of the batch. The gradients of a step are the mean of the processes' own, so
a mean over tokens needs nothing; only what is no mean does. All processes ask the same, in the same order.

Where the latents of the dictionary are divided too, ``processes()`` are those with other tokens and the same
latents, ``partners()`` those with the same tokens and other latents, and ``everyone()`` both.

Shapes: B tokens of a process, W processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.kernels.partners import Partners


class Processes:
    """A process that has the whole batch to itself: every answer is its own."""

    rank: int = 0
    world: int = 1

    def sum(self, part: Tensor) -> Tensor:
        """The elementwise sum of the processes' tensors, without gradient; it may be made in place."""
        return part

    def largest(self, part: Tensor) -> Tensor:
        """Their elementwise maximum, without gradient; it may be made in place."""
        return part

    def least(self, values: Tensor) -> Tensor | None:
        """The smallest of all processes' values, however many each has; None where there are none."""
        return values.min() if values.numel() else None

    def mean(self, part: Tensor) -> Tensor:
        """The mean of the processes' tensors.

        Its gradient is that of the process's own part: a loss that all processes compute alike from such
        means has, as mean of the processes' gradients, the gradient of the whole.
        """
        return part

    def mean_row(self, rows: Tensor) -> Tensor:
        """The mean over the first dimension, of all processes' rows; without gradient."""
        return rows.mean(0)

    def share(self, part: Tensor) -> Tensor:
        """What stands in a process's loss for its part of a sum over the batch (which is no mean)."""
        return part

    def rows(self, rows: Tensor) -> Tensor:
        """``[W B, ...]``: the rows of all, in the order of the batch; without gradient."""
        return rows

    def take(self, rows: Tensor, places: Tensor) -> Tensor:
        """``rows(rows)[places]``, of which only these travel; without gradient."""
        return rows[places]

    def own(self, first: int, step: int) -> slice:
        """Which of the process's tokens are tokens ``first``, ``first + step``, ... of the batch."""
        start = next((i for i in range(step) if (i * self.world + self.rank) % step == first), None)
        return slice(0, 0) if start is None else slice(start, None, step // math.gcd(step, self.world))


class Acting(NamedTuple):
    """Whom code asks at a time."""

    processes: Processes
    partners: Partners
    everyone: Processes


_ALONE = Acting(Processes(), Partners(), Processes())
_acting: ContextVar[Acting] = ContextVar("acting", default=_ALONE)


def processes() -> Processes:
    """Those that have the batch together now; a single one outside of ``acting``."""
    return _acting.get().processes


def partners() -> Partners:
    """Those that have the dictionary together now; a single one outside of ``acting``."""
    return _acting.get().partners


def everyone() -> Processes:
    """All processes, whatever part of the batch or of the dictionary they have: for entries that are ranked
    or counted over both. Of its answers those hold that do not say whose the tokens are."""
    return _acting.get().everyone


@contextmanager
def acting(
    together: Processes, partners: Partners | None = None, everyone: Processes | None = None
) -> Iterator[None]:
    """A block in which these are the processes that this thread asks.

    Args:
        partners: None: each process has the whole dictionary.
        everyone: None: the same as those that have the batch.
    """
    whole = _ALONE.partners if partners is None else partners
    before = _acting.set(Acting(together, whole, together if everyone is None else everyone))
    try:
        yield
    finally:
        _acting.reset(before)


@contextmanager
def alone() -> Iterator[None]:
    """A block in which this process asks nobody: for what the others do not do at the same time."""
    with acting(_ALONE.processes):
        yield


def nth_largest(values_N: Tensor, n: int) -> tuple[float, int]:
    """Of the positive float32 values of all processes the n-th largest, and how many that are equal to it
    this process may keep, so that n are kept in all. There are n at least.

    Bits of positive floats are in the order of the floats: three counts of digits, each of a few thousand
    numbers, and no value travels.
    """
    together, bits = everyone(), values_N.view(torch.int32)
    alive, found, left = torch.ones_like(bits, dtype=torch.bool), 0, n
    for shift, digits in ((20, 11), (10, 10), (0, 10)):
        digit = (bits >> shift) & (2**digits - 1)
        counts = together.sum(torch.bincount(digit[alive], minlength=2**digits)).cpu()
        at_least = counts.flip(0).cumsum(0).flip(0)
        chosen = int((at_least >= left).nonzero()[-1])
        left -= int(at_least[chosen] - counts[chosen])
        alive &= digit == chosen
        found |= chosen << shift
    equal = together.rows(alive.sum()[None]).tolist()
    before = sum(equal[: together.rank])
    threshold = torch.tensor(found, dtype=torch.int32).view(torch.float32).item()
    return threshold, max(0, min(equal[together.rank], left - before))
