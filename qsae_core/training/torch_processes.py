"""``kernels.processes`` and ``kernels.partners`` over torch.distributed.

Shapes: B tokens of a process, W processes, K entries per token, N partners.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from qsae_core.kernels.partners import Partners
from qsae_core.kernels.processes import Processes


class TorchGroup:
    """Some of the processes, and what travels between them.

    Args:
        ranks: theirs among all processes, ascending.
        rank: of this process, among all.
        group: torch's; None: the default group, of all processes.
        explained: what is raised in place of the error of an operation that another process did not take
            part in.
    """

    def __init__(
        self,
        ranks: Sequence[int],
        rank: int,
        group: dist.ProcessGroup | None,
        explained: Callable[[RuntimeError], Exception],
    ) -> None:
        self.rank, self.world, self.first = ranks.index(rank), len(ranks), ranks[0]
        self.group, self._explained = group, explained

    def sum_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Their sums over the processes, all under way at once."""
        with self.watched():
            for work in [dist.all_reduce(tensor, group=self.group, async_op=True) for tensor in tensors]:
                work.wait()

    def from_first(self, tensor: Tensor) -> None:
        """Make a tensor that of the first process, in place."""
        whole = tensor.contiguous()
        with self.watched():
            dist.broadcast(whole, self.first, group=self.group)
        if whole is not tensor:
            tensor.copy_(whole)

    def reduced(self, tensor: Tensor, operation: Any) -> Tensor:
        """Combined over the processes, in place."""
        with self.watched():
            dist.all_reduce(tensor, operation, group=self.group)
        return tensor

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """Each process's, all of one shape."""
        mine = tensor.detach().contiguous()
        of_each = [torch.empty_like(mine) for _ in range(self.world)]
        with self.watched():
            dist.all_gather(of_each, mine, group=self.group)
        return of_each

    @contextmanager
    def watched(self) -> Iterator[None]:
        """torch.distributed has no one error for a process that is gone."""
        try:
            yield
        except RuntimeError as error:
            raise self._explained(error) from error


class TorchProcesses(TorchGroup, Processes):
    """Those with other tokens."""

    def sum(self, part: Tensor) -> Tensor:
        """As Processes."""
        return self.reduced(part.detach(), dist.ReduceOp.SUM)

    def largest(self, part: Tensor) -> Tensor:
        """As Processes."""
        return self.reduced(part.detach(), dist.ReduceOp.MAX)

    def least(self, values: Tensor) -> Tensor | None:
        """As Processes."""
        own = values.min() if values.numel() else values.new_tensor(torch.inf)
        least = self.reduced(own.detach().clone(), dist.ReduceOp.MIN)
        return None if torch.isinf(least) else least

    def mean(self, part: Tensor) -> Tensor:
        """As Processes."""
        mean = self.reduced(part.detach().clone(), dist.ReduceOp.SUM) / self.world
        return part + (mean - part.detach())  # the value of the mean, the gradient of the part

    def mean_row(self, rows: Tensor) -> Tensor:
        """As Processes; the sum and the number of rows travel together."""
        flat = rows.detach().flatten(1)
        both = torch.cat(
            [flat.sum(0, dtype=torch.float64), flat.new_tensor([len(flat)], dtype=torch.float64)]
        )
        both = self.reduced(both, dist.ReduceOp.SUM)
        return (both[:-1] / both[-1]).to(rows.dtype).view(rows.shape[1:])

    def share(self, part: Tensor) -> Tensor:
        """As Processes: the gradients are divided by their number afterwards."""
        return part * self.world

    def rows(self, rows: Tensor) -> Tensor:
        """As Processes."""
        return torch.stack(self.gathered(rows), dim=1).flatten(0, 1)

    def take(self, rows: Tensor, places: Tensor) -> Tensor:
        """As Processes: each adds its own rows to zeros."""
        if not len(places):
            return rows.detach()[places]
        own = places % self.world == self.rank
        taken = rows.detach().new_zeros(len(places), *rows.shape[1:])
        taken[own] = rows.detach()[places[own] // self.world]
        return self.reduced(taken, dist.ReduceOp.SUM)


class TorchPartners(TorchGroup, Partners):
    """Those with other latents."""

    def sum(self, part: Tensor) -> Tensor:
        """As Partners."""
        return self.reduced(part.detach(), dist.ReduceOp.SUM) if part.numel() else part

    def largest(self, part: Tensor) -> Tensor:
        """As Partners."""
        return self.reduced(part.detach(), dist.ReduceOp.MAX)

    def total(self, part: Tensor) -> Tensor:
        """As Partners."""
        total: Tensor = _Total.apply(part, self)  # type: ignore[no-untyped-call]
        return total

    def share(self, whole: Tensor) -> Tensor:
        """As Partners."""
        value = whole.detach()
        return value + (whole - value) / self.world

    def join(self, rows: Tensor) -> Tensor:
        """As Partners."""
        return torch.cat(self.gathered(rows))

    def each(self, rows: Tensor) -> list[Tensor]:
        """As Partners; shorter ones are padded on the way."""
        sizes = [int(n) for n in self.gathered(torch.tensor(len(rows), device=rows.device))]
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows.detach()
        return [found[:n] for found, n in zip(self.gathered(padded), sizes, strict=True)]

    def among_largest(self, scores_BK: Tensor, k: int) -> Tensor:
        """As Partners; k scores of each token travel from each."""
        if not len(scores_BK):
            return torch.ones_like(scores_BK, dtype=torch.bool)
        own_Bk = scores_BK.new_full((len(scores_BK), k), -torch.inf)
        own_Bk[:, : scores_BK.shape[1]] = scores_BK
        of_each = self.gathered(own_Bk)
        all_BN = torch.cat(of_each, dim=1)
        least_B1 = torch.topk(all_BN, k, dim=1).values[:, -1:]
        left_B1 = k - (all_BN > least_B1).sum(1, keepdim=True)
        for lower in of_each[: self.rank]:
            left_B1 -= (lower == least_B1).sum(1, keepdim=True)
        equal_BK = scores_BK == least_B1
        return (scores_BK > least_B1) | (equal_BK & (equal_BK.cumsum(1) <= left_B1))


class _Total(torch.autograd.Function):
    """The sum over partners; each part has the gradient of the sum."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, partners: TorchPartners) -> Tensor:
        return partners.sum(part.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
