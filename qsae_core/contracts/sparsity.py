"""SparsityRule: which latents stay in the code, and what sparsity costs. Shapes: B tokens, F latents."""

from __future__ import annotations

import abc
from typing import ClassVar

from torch import Tensor, nn

from qsae_core.component import ComponentConfig
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.dense import Kept


class SparsityRule(nn.Module, abc.ABC):
    """Decides which latents stay in the code, and what sparsity costs. Built as ``Class(config, n_latents)``.

    ``select`` sees a chunk of rows of a batch, never the whole ``[B, F]`` tensor at once. A rule that ranks
    the latents of different tokens against each other keeps its budget in ``begin_batch``, gives a superset
    in ``select``, chunk after chunk, and decides in ``finish_batch``.

    Where processes have a part of the latents each (``train.latent_parallel``), ``n_latents`` is that of the
    dictionary, and what the rule sees, codes and norms of atoms too, are those of one part.
    """

    fixed_k: int | None = None
    """Entries per token where that is constant (at most n_latents); None where it varies."""
    selects_largest: ClassVar[bool] = True
    """Whether a fixed number of entries means the largest ones; checked by the conformance suite. Such a rule
    may see the largest candidates of each token alone (``train.screen``), as a chunk ``[C, m]``."""
    splits: ClassVar[bool] = False
    """Whether the rule serves a part of the latents: it treats each latent alone, or asks
    ``kernels.partners()`` and ``kernels.everyone()``. Rules that keep a fixed number of the largest need not
    say so: core finds the largest of all parts among those of each, of which there may be fewer than k."""
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
        """A scalar (mean over tokens) beside the normalised error, or None where the rule has no penalty.

        The coder brings it into the units of its loss, so that a coefficient means the same at every width
        and scale of the data.

        Args:
            atom_norms_F: the norm of each atom in units of the data's RMS norm (about its mean), so that
                ``f_j ||w_j||`` is a pure number.
        """
        return None

    def max_l0(self) -> int | None:
        """The most active latents that the rule admits per token; None where it sets no bound."""
        return self.fixed_k

    def kept(self) -> Kept | None:
        """What evaluation keeps, as other libraries' files say it; None where they cannot.

        A rule with a fixed k keeps the largest; others say what they do. All keep latents that are 0 or leave
        them out as they like.
        """
        return None if self.fixed_k is None or not self.selects_largest else Kept(largest=self.fixed_k)
