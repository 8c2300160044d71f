"""Leaving out training vectors with outlying norms. Shapes: N vectors, L layers, D width.

Language models have a few tokens whose vectors are a hundred times as long as all others (the first of a
context, some line breaks). A squared error is made of these alone, and a dictionary that follows them loses
most of its latents.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class NormLimit:
    """Which vectors are trained on, and how many are not.

    Args:
        multiple: of the median norm, above which a vector is left out; None: none is.
        counts: vectors that were read and left out before, of a run that goes on.
    """

    def __init__(self, multiple: float | None, counts: Sequence[int] = (0, 0)) -> None:
        self.multiple = multiple
        self._before, self._now = tuple(counts), (0, 0)

    def kept(self, *sides: Tensor) -> Tensor:
        """int64 ``[n]``: the numbers of the vectors to train on, in order.

        Args:
            sides: ``[N, D]`` or ``[N, L, D]``, x and its targets: vectors that are read together, of which
                each side and each layer has a median of its own. One that is outlying in any of them is out.
                Vectors of zeros do not count for the median.
        """
        keep = torch.ones(len(sides[0]), dtype=torch.bool, device=sides[0].device)
        if self.multiple is not None:
            for side in sides:
                keep &= _within(side, self.multiple)
        kept = keep.nonzero().squeeze(1)
        self._now = (len(keep), len(keep) - len(kept))
        return kept

    def next_block(self) -> None:
        """The vectors of the last ``kept`` are trained on, and others come."""
        self._before, self._now = self._sum(), (0, 0)

    @property
    def counts(self) -> list[int]:
        """Vectors read and left out before the last ``kept``; a run that reads these again begins with it."""
        return list(self._before)

    def sentence(self) -> str | None:
        """How many were left out so far; None without a limit."""
        if self.multiple is None:
            return None
        read, out = self._sum()
        return (
            f"left out of training: {out:,} of {read:,} vectors, whose norm was more than {self.multiple:g} "
            "times the median"
        )

    def _sum(self) -> tuple[int, ...]:
        return tuple(one + other for one, other in zip(self._before, self._now, strict=True))


def _within(side: Tensor, multiple: float) -> Tensor:
    if not len(side):  # nothing of a block counts, and there is no median
        return torch.ones(0, dtype=torch.bool, device=side.device)
    norms_NL = torch.linalg.vector_norm(side, dim=-1).reshape(len(side), -1)
    medians_L = torch.where(norms_NL > 0, norms_NL, torch.nan).nanmedian(0).values
    # the median of zeros alone is not a number, above which nothing is
    return ~(norms_NL > multiple * medians_L).any(1)
