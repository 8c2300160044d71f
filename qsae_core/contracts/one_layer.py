"""OneLayer: the data of a coder of one layer, where a source gives several. Shapes: B tokens, D width."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.held_out_part import HeldOutPart
from qsae_core.contracts.language_model import LanguageModel, Site, TokenBatch


class OneLayer(DataSource):
    """One layer of a source that gives as many target layers as it reads; the source itself does the work.

    The training stream and the place in it are the source's: two views of one source take turns.

    Args:
        source: gives vectors ``[B, L, D]``.
        number: which layer, as it stands in ``x``.
    """

    def __init__(self, source: DataSource, number: int) -> None:
        super().__init__(source.config, seed=source.seed, device=source.device)
        self.source, self.number = source, number
        self.d_in, self.d_out = source.d_in, source.d_out
        self.model_name, self.layer = source.model_name, source.layer_names[number]

    def next_batch(self, size: int) -> Batch:
        """The layer's vectors of the source's next batch."""
        return self.source.next_batch(size).layer(self.number)

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        """The layer's vectors of what the source holds out."""
        return (batch.layer(self.number) for batch in self.source.held_out(n_tokens, batch_size))

    def held_out_contexts(self, n_tokens: int, batch_size: int) -> Iterator[tuple[TokenBatch, Batch]]:
        """The contexts that the source holds out, and the layer's vectors."""
        contexts = self.source.held_out_contexts(n_tokens, batch_size)
        return ((tokens, batch.layer(self.number)) for tokens, batch in contexts)

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
        """What the source says, with the sites of this layer alone."""
        sites = {"source_sites": self.source_sites, "target_sites": self.target_sites}
        said = self.source.describe()
        return said | {name: [str(site) for site in own] for name, own in sites.items() if name in said}

    def left_out(self) -> str | None:
        """The source's."""
        return self.source.left_out()

    def language_model(self) -> LanguageModel | None:
        """The source's."""
        return self.source.language_model()

    def held_out_part(self) -> HeldOutPart | None:
        """The source's."""
        return self.source.held_out_part()

    @property
    def source_sites(self) -> tuple[Site, ...]:
        """The one of this layer."""
        return self.source.source_sites[self.number : self.number + 1]

    @property
    def target_sites(self) -> tuple[Site, ...]:
        """The one of this layer."""
        return self.source.target_sites[self.number : self.number + 1]

    def close(self) -> None:
        """Nothing: the source belongs to whoever opened it."""
