"""Base classes of parts that are no quantizers: activations, sparsity rules, trackers, formats, kernels.

Shapes: B tokens, F latents, N entries of SparseCodes.
Every part is built as ``Class(config, ...)`` with the arguments that its base class documents. Parts with
parameters or counters are ``nn.Module``; ``eval()`` mode must change no state.
"""

from __future__ import annotations

import abc
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from qsae_core.codes import SparseCodes
from qsae_core.component import ComponentConfig

if TYPE_CHECKING:
    from qsae_core.coder import SparseCoder
    from qsae_core.results.run import Run


class Activation(nn.Module, abc.ABC):
    """An elementwise function of pre-activations. Built as ``Class(config, n_latents)``."""

    straight_through: ClassVar[bool] = False
    """Whether its gradient is a surrogate and not the derivative; checked by the conformance suite."""
    keeps_order: ClassVar[bool] = False
    """Whether latents rank as their pre-activations do: one function for all latents, non-decreasing, with
    ``f(c z) = c f(z)`` for c > 0. The largest latents are then found among pre-activations, and only those
    are passed through the activation."""

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

    def candidates(self, pre_BF: Tensor) -> Tensor:
        """``[B, F]``: what sparsity rules select among, without gradient.

        ``forward``, but that an entry is not zero here where only its gradient is wanted: a jump's threshold
        learns from the pre-activations on both sides. Values are those of ``forward`` in any case.
        """
        latents: Tensor = self(pre_BF)
        return latents

    has_gates: ClassVar[bool] = False
    """Whether ``gates`` is defined: rules that price the number of active latents need it."""

    def gates(self, pre_N: Tensor, latent_N: Tensor) -> Tensor:
        """``[N]``: 1 where an entry is active, else 0; its gradient is that of a surrogate."""
        raise NotImplementedError(f"{type(self).__name__} has no gates")


class SparsityRule(nn.Module, abc.ABC):
    """Decides which latents stay in the code, and what sparsity costs. Built as ``Class(config, n_latents)``.

    ``select`` sees a chunk of rows of a batch, never the whole ``[B, F]`` tensor at once. A rule that ranks
    the latents of different tokens against each other keeps its budget in ``begin_batch``, gives a superset
    in ``select``, chunk after chunk, and decides in ``finish_batch``.
    """

    fixed_k: int | None = None
    """Entries per token where that is constant (at most n_latents); None where it varies."""
    selects_largest: ClassVar[bool] = True
    """Whether a fixed number of entries means the largest ones; checked by the conformance suite. Such a rule
    may see the largest candidates of each token alone (``train.screen``), as a chunk ``[C, m]``."""
    counts: ClassVar[str | None] = None
    """The option that says how many latents per token are to be active, where there is one and it is set."""

    def begin_batch(self, batch_size: int) -> None:
        """Called before the first ``select`` of a batch of that many tokens."""

    needs_gates: ClassVar[bool] = False
    """Whether ``penalty`` reads ``codes.gates``; only activations with ``has_gates`` give them."""

    def finish_batch(self, codes: SparseCodes, importance_F: Tensor | None = None) -> SparseCodes:
        """Called with what ``select`` kept of all chunks; gives the codes of the batch. Without gradient."""
        return codes

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


class KernelSet(abc.ABC):
    """Compiled operations of ``qsae_core.kernels`` for one type of device. Built as ``Class(config)``.

    Core compares every operation with its own on small inputs when the set is activated, and uses those that
    agree. An operation takes and gives what the function of its name in ``qsae_core.kernels`` does:
    contiguous float32 tensors (indices int32, offsets int64), without gradient.
    """

    device: ClassVar[str]
    """``torch.device.type`` of the tensors it works on: ``cpu``, ``cuda``."""

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    @abc.abstractmethod
    def unavailable(self) -> str | None:
        """Why the set cannot be used on this machine, in a sentence; None where it can."""

    @abc.abstractmethod
    def operations(self) -> Mapping[str, Callable[..., Any]]:
        """Name -> function, for the operations that this machine supports."""

    def describe(self) -> dict[str, str]:
        """What it runs on (``{"isa": "avx512"}``), for tables and records."""
        return {}
