"""``kernels.processes`` over torch.distributed. Shapes: B tokens of a process, W processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from qsae_core.kernels.processes import Processes


class TorchProcesses(Processes):
    """The processes of the default group.

    Args:
        rank: of this process.
        world: how many there are.
        explained: what is raised in place of the error of an operation that another process did not take
            part in.
    """

    def __init__(self, rank: int, world: int, explained: Callable[[RuntimeError], Exception]) -> None:
        self.rank, self.world, self._explained = rank, world, explained

    def sum(self, part: Tensor) -> Tensor:
        """As Processes."""
        return self._reduced(part.detach(), dist.ReduceOp.SUM)

    def largest(self, part: Tensor) -> Tensor:
        """As Processes."""
        return self._reduced(part.detach(), dist.ReduceOp.MAX)

    def least(self, values: Tensor) -> Tensor | None:
        """As Processes."""
        own = values.min() if values.numel() else values.new_tensor(torch.inf)
        least = self._reduced(own.detach().clone(), dist.ReduceOp.MIN)
        return None if torch.isinf(least) else least

    def mean(self, part: Tensor) -> Tensor:
        """As Processes."""
        mean = self._reduced(part.detach().clone(), dist.ReduceOp.SUM) / self.world
        return part + (mean - part.detach())  # the value of the mean, the gradient of the part

    def mean_row(self, rows: Tensor) -> Tensor:
        """As Processes; the sum and the number of rows travel together."""
        flat = rows.detach().flatten(1)
        both = torch.cat(
            [flat.sum(0, dtype=torch.float64), flat.new_tensor([len(flat)], dtype=torch.float64)]
        )
        both = self._reduced(both, dist.ReduceOp.SUM)
        return (both[:-1] / both[-1]).to(rows.dtype).view(rows.shape[1:])

    def share(self, part: Tensor) -> Tensor:
        """As Processes: the gradients are divided by their number afterwards."""
        return part * self.world

    def rows(self, rows: Tensor) -> Tensor:
        """As Processes."""
        mine = rows.detach().contiguous()
        of_each = [torch.empty_like(mine) for _ in range(self.world)]
        with self._watched():
            dist.all_gather(of_each, mine)
        return torch.stack(of_each, dim=1).flatten(0, 1)

    def take(self, rows: Tensor, places: Tensor) -> Tensor:
        """As Processes: each adds its own rows to zeros."""
        own = places % self.world == self.rank
        taken = rows.detach().new_zeros(len(places), *rows.shape[1:])
        taken[own] = rows.detach()[places[own] // self.world]
        return self._reduced(taken, dist.ReduceOp.SUM)

    # --- for the team

    def sum_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Their sums over the processes, all under way at once."""
        with self._watched():
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()

    def from_first(self, tensor: Tensor) -> None:
        """Make a tensor that of the first process, in place."""
        whole = tensor.contiguous()
        with self._watched():
            dist.broadcast(whole, 0)
        if whole is not tensor:
            tensor.copy_(whole)

    def _reduced(self, tensor: Tensor, operation: Any) -> Tensor:
        with self._watched():
            dist.all_reduce(tensor, operation)
        return tensor

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """torch.distributed has no one error for a process that is gone."""
        try:
            yield
        except RuntimeError as error:
            raise self._explained(error) from error
