"""What compiled operations are compared on, and how.

Shapes: B tokens, F latents, D width, N entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

Functions = Mapping[str, Callable[..., Any]]


class Sizes(NamedTuple):
    """How large the inputs are."""

    batch: int = 37
    latents: int = 208
    width: int = 72
    k: int = 6


class Inputs:
    """Random inputs, always the same ones."""

    def __init__(self, device: str, sizes: Sizes) -> None:
        self.device = device
        self.batch, self.latents, self.width, self.k = sizes
        self._generator = torch.Generator().manual_seed(7)

    def normal(self, *shape: int) -> Tensor:
        """Of mean 0 and variance 1."""
        return torch.randn(*shape, generator=self._generator, dtype=torch.float32).to(self.device)

    def integers(self, high: int, *shape: int) -> Tensor:
        """From 0 to below ``high``."""
        return torch.randint(0, high, shape, generator=self._generator).to(self.device)

    def codes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Uneven codes, those of the last token empty: indices, offsets, values."""
        counts = self.integers(min(self.latents, 9) + 1, self.batch).cpu()
        counts[-1] = 0
        chosen = [
            torch.randperm(self.latents, generator=self._generator)[:count] for count in counts.tolist()
        ]
        indices, offsets = torch.cat(chosen).int(), torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return indices.to(self.device), offsets.to(self.device), self.normal(indices.numel())


def differ(ours: Any, theirs: Any, what: str, tolerance: float = 1e-5) -> Iterator[str]:
    """The first difference between tensors or tuples of tensors."""
    pairs = zip(ours, theirs, strict=True) if isinstance(theirs, tuple) else [(ours, theirs)]
    for one, other in pairs:
        if one.dtype != other.dtype or one.shape != other.shape:
            yield f"{what} gives {one.dtype} {list(one.shape)} instead of {other.dtype} {list(other.shape)}"
        elif not torch.allclose(one.double(), other.double(), rtol=tolerance, atol=tolerance):
            yield f"{what} differs by {(one.double() - other.double()).abs().max():.3g}"
