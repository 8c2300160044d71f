"""SourceView: a source whose work another one does. Shapes: B tokens, L layers, D width."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.held_out_part import HeldOutPart
from qsae_core.contracts.language_model import LanguageModel, Site, TokenBatch


class SourceView(DataSource):
    """Everything is the source's own; what derives from this changes some of it.

    The training stream and the place in it are the source's: two views of one source take turns.

    Args:
        source: does the work, and belongs to whoever opened it.
    """

    def __init__(self, source: DataSource) -> None:
        super().__init__(source.config, seed=source.seed, device=source.device)
        self.source = source
        self.d_in, self.d_out = source.d_in, source.d_out
        self.layers_in, self.layers_out = source.layers_in, source.layers_out
        self.model_name, self.layer = source.model_name, source.layer
        self.prefetch = source.prefetch

    def next_batch(self, size: int) -> Batch:
        """The source's."""
        return self.source.next_batch(size)

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        """The source's."""
        return self.source.held_out(n_tokens, batch_size)

    def held_out_contexts(self, n_tokens: int, batch_size: int) -> Iterator[tuple[TokenBatch, Batch]]:
        """The source's."""
        return self.source.held_out_contexts(n_tokens, batch_size)

    def contexts(
        self, n_contexts: int, place: Mapping[str, Any] | None = None, *, held_out: bool = False
    ) -> Iterator[tuple[TokenBatch, dict[str, Any]]]:
        """The source's."""
        return self.source.contexts(n_contexts, place, held_out=held_out)

    def state_dict(self) -> dict[str, Any]:
        """The source's."""
        return self.source.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Move the source."""
        self.source.load_state_dict(state)

    @property
    def training_tokens(self) -> int | None:
        """The source's."""
        return self.source.training_tokens

    def describe(self) -> dict[str, Any]:
        """The source's."""
        return self.source.describe()

    def left_out(self) -> str | None:
        """The source's."""
        return self.source.left_out()

    def warning(self) -> str | None:
        """The source's."""
        return self.source.warning()

    def language_model(self) -> LanguageModel | None:
        """The source's."""
        return self.source.language_model()

    def held_out_part(self) -> HeldOutPart | None:
        """The source's."""
        return self.source.held_out_part()

    @property
    def source_sites(self) -> tuple[Site, ...]:
        """The source's."""
        return self.source.source_sites

    @property
    def target_sites(self) -> tuple[Site, ...]:
        """The source's."""
        return self.source.target_sites

    def close(self) -> None:
        """Nothing: the source belongs to whoever opened it."""
