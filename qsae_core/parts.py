"""Base classes of what plugins bring besides coders and data: quantizers, metrics, trackers, ...

Shapes: B tokens, D width of a row, F latents (rows of a matrix), N entries of SparseCodes.
Every part is built as ``Class(config, ...)`` with the arguments that its base class documents. Parts with
parameters or counters are ``nn.Module``; ``eval()`` mode must change no state.
"""

from __future__ import annotations

import abc
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from qsae_core.codes import SparseCodes
from qsae_core.component import ComponentConfig

if TYPE_CHECKING:
    from qsae_core.coder import SparseCoder
    from qsae_core.results import Run


@dataclass(frozen=True)
class Packed:
    """A matrix as it is stored.

    Attributes:
        tensors: what goes into the file: bit-packed codes (uint8), scales (float16), masks, codebooks;
            names are the quantizer's own (``codes``, ``scales``).
        shape: ``(F, D)`` of the matrix.
        layout: JSON values that ``unpack`` needs besides the tensors (``{"grid": "ternary"}``).
    """

    tensors: dict[str, Tensor]
    shape: tuple[int, int]
    layout: dict[str, Any] = field(default_factory=dict)

    @property
    def n_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values())

    @property
    def bits_per_weight(self) -> float:
        """Everything that is stored (codes, scales, masks, codebooks), in bits, per weight of the matrix."""
        return 8 * self.n_bytes / (self.shape[0] * self.shape[1])


class Quantizer(nn.Module, abc.ABC):
    """Maps a float matrix to one whose entries lie on a grid; one instance serves one matrix.

    Built as ``Class(config, shape)`` with ``shape = (F, D)``; rows are what a scale belongs to. Masters
    stay float32 outside; a quantizer holds only what it learns itself (scales, offsets).
    """

    def __init__(self, config: ComponentConfig, shape: tuple[int, int]) -> None:
        super().__init__()
        self.config, self.shape = config, shape

    def initialize(self, weight_FD: Tensor) -> None:
        """Set learned scales from the initial float weights ``[F, D]``; called once before training."""

    @abc.abstractmethod
    def fake_quantize(self, weight_FD: Tensor) -> Tensor:
        """``[F, D]`` float -> ``[F, D]`` on the grid, same dtype; differentiable, if only straight through.

        Deterministic in evaluation mode; applying it twice gives what applying it once gives.
        """

    @abc.abstractmethod
    def pack(self, weight_FD: Tensor) -> Packed:
        """The stored form of ``fake_quantize(weight)`` in evaluation mode."""

    @abc.abstractmethod
    def unpack(self, packed: Packed) -> Tensor:
        """float32 ``[F, D]``; equals ``fake_quantize(weight)`` in evaluation mode bit for bit.

        Works from the config and ``packed`` alone: a fresh quantizer reads what another one stored.
        """

    def grid(self) -> Tensor | None:
        """float ``[G]``: the values of ``W_hat / scale`` in ascending order; None if not a fixed grid."""
        return None

    @property
    def is_identity(self) -> bool:
        """Whether this quantizer leaves weights as they are (only ``none`` says so)."""
        return False


class Activation(nn.Module, abc.ABC):
    """An elementwise function of pre-activations. Built as ``Class(config, n_latents)``."""

    straight_through: ClassVar[bool] = False
    """Whether its gradient is a surrogate and not the derivative; checked by the conformance suite."""

    def __init__(self, config: ComponentConfig, n_latents: int) -> None:
        super().__init__()
        self.config, self.n_latents = config, n_latents

    @abc.abstractmethod
    def forward(self, pre_acts: Tensor, latent_index: Tensor | None = None) -> Tensor:
        """Latents from pre-activations, differentiable.

        Args:
            pre_acts: ``[B, F]``, or ``[N]`` gathered entries of it.
            latent_index: for ``[N]`` input, int ``[N]``: the latent of each entry (per-latent parameters
                are gathered by it); None for ``[B, F]``.
        """


class SparsityRule(nn.Module, abc.ABC):
    """Decides which latents stay in the code, and what sparsity costs. Built as ``Class(config, n_latents)``.

    ``select`` sees a chunk of rows of a batch, never the whole ``[B, F]`` tensor at once.
    """

    fixed_k: int | None = None
    """Entries per token where that is constant (at most n_latents); None where it varies."""
    selects_largest: ClassVar[bool] = True
    """Whether a fixed number of entries means the largest ones; checked by the conformance suite."""

    def __init__(self, config: ComponentConfig, n_latents: int) -> None:
        super().__init__()
        self.config, self.n_latents = config, n_latents

    @abc.abstractmethod
    def select(self, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
        """Which latents of each row stay. Called without gradient; the caller recomputes values with it.

        In evaluation mode a token's code does not depend on the other tokens of the chunk.

        Args:
            latents_BF: activations of a chunk of tokens.
            importance_F: weight of each latent in the ranking (the norm of its atom); None: equal.
        """

    def penalty(self, codes: SparseCodes, atom_norms_F: Tensor) -> Tensor | None:
        """A scalar to add to the loss (mean over tokens), or None where the rule has no penalty."""
        return None

    def max_l0(self) -> int | None:
        """The most active latents that the rule admits per token; None where it sets no bound."""
        return self.fixed_k


class Tracker(abc.ABC):
    """Sends a run's numbers somewhere. Built as ``Class(config)``; methods mirror the life-cycle hooks."""

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    @abc.abstractmethod
    def start(self, run: Run) -> None:
        """The run starts or resumes."""

    @abc.abstractmethod
    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Numbers of one logged step."""

    def finish(self) -> None:  # noqa: B027 (nothing to close in most trackers)
        """The run has ended."""


class CheckpointFormat(abc.ABC):
    """Another library's checkpoint. Built as ``Class(config)``; never unpickles what it reads."""

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    @abc.abstractmethod
    def recognizes(self, path: pathlib.Path) -> bool:
        """Whether the file or folder looks like this format."""

    @abc.abstractmethod
    def read(self, path: pathlib.Path) -> SparseCoder:
        """A coder in evaluation mode with the checkpoint's weights."""

    @abc.abstractmethod
    def write(self, coder: SparseCoder, path: pathlib.Path) -> None:
        """Write the coder as that library would have."""
