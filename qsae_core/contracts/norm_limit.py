"""Leaving out training vectors with outlying norms. Shapes: N vectors, L layers, D width.

Language models have a few tokens whose vectors are a hundred times as long as all others (the first of a
context, some line breaks). A squared error is made of these alone, and a dictionary that follows them loses
most of its latents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qsae_core.errors import DataError


class NormLimit:
    """Which vectors are trained on, and how many are not.

    Args:
        multiple: of the median norm, above which a vector is left out; None: none is.
        state: of a run that goes on.

    Raises:
        DataError: if the state is none of this version.
    """

    def __init__(self, multiple: float | None, state: Mapping[str, Any] | None = None) -> None:
        self.multiple = multiple
        state = {"counts": (0, 0), "medians": None} if state is None else state
        if not isinstance(state, Mapping) or state.keys() != {"counts", "medians"}:
            raise DataError(
                "the place at which the run is to go on is one of another version of qsae",
                next="go on with that version, or start the run again with --overwrite",
            )
        self._before, self._now = tuple(state["counts"]), (0, 0)
        self._medians: list[list[float | None]] | None = state["medians"]

    def learn(self, *sides: Tensor) -> None:
        """Take the medians of these vectors for those of all that come."""
        known = [_medians(side).tolist() for side in sides]
        self._medians = [[None if math.isnan(m) else m for m in of_layers] for of_layers in known]

    @property
    def knows_medians(self) -> bool:
        """Whether they were learned."""
        return self._medians is not None

    def kept(self, *sides: Tensor) -> Tensor:
        """int64 ``[n]``: the numbers of the vectors to train on, in order.

        Args:
            sides: ``[N, D]`` or ``[N, L, D]``, x and its targets, of which each side and each layer has a
                median of its own: the one that was learned, or that of these vectors. One that is outlying in
                any of them is out. Vectors of zeros do not count for the median.
        """
        keep = torch.ones(len(sides[0]), dtype=torch.bool, device=sides[0].device)
        if self.multiple is not None:
            for number, side in enumerate(sides):
                medians_L = _medians(side) if self._medians is None else self._learned(number, side)
                # the median of zeros alone is not a number, above which nothing is
                keep &= ~(_norms(side) > self.multiple * medians_L).any(1)
        kept = keep.nonzero().squeeze(1)
        self._now = (len(keep), len(keep) - len(kept))
        return kept

    def _learned(self, number: int, side: Tensor) -> Tensor:
        assert self._medians is not None
        return side.new_tensor([math.nan if m is None else m for m in self._medians[number]])

    def next_block(self) -> None:
        """The vectors of the last ``kept`` are trained on, and others come."""
        self._before, self._now = self._sum(), (0, 0)

    def state(self) -> dict[str, Any]:
        """As JSON values: vectors read and left out before the last ``kept``, which a run that goes on reads
        again; and the medians that were learned."""
        return {"counts": list(self._before), "medians": self._medians}

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


def _medians(side: Tensor) -> Tensor:
    """``[L]``; NaN where there is no vector but those of zeros."""
    norms_NL = _norms(side)
    if not len(norms_NL):  # nothing of a block counts
        return norms_NL.new_full((norms_NL.shape[1],), torch.nan)
    return torch.where(norms_NL > 0, norms_NL, torch.nan).nanmedian(0).values


def _norms(side: Tensor) -> Tensor:
    """``[N, L]``."""
    norms = torch.linalg.vector_norm(side, dim=-1)
    return norms[:, None] if norms.dim() == 1 else norms
