"""OneLayer: the data of a coder of one layer, where a source gives several. Shapes: B tokens, D width."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.language_model import Site, TokenBatch
from qsae_core.contracts.source_view import SourceView


class OneLayer(SourceView):
    """One layer of a source that gives as many target layers as it reads; the source itself does the work.

    Args:
        source: gives vectors ``[B, L, D]``.
        number: which layer, as it stands in ``x``.
    """

    def __init__(self, source: DataSource, number: int) -> None:
        super().__init__(source)
        self.number = number
        self.layers_in = self.layers_out = 1
        self.layer = source.layer_names[number]

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

    def describe(self) -> dict[str, Any]:
        """What the source says, with the sites of this layer alone."""
        sites = {"source_sites": self.source_sites, "target_sites": self.target_sites}
        said = self.source.describe()
        return said | {name: [str(site) for site in own] for name, own in sites.items() if name in said}

    @property
    def source_sites(self) -> tuple[Site, ...]:
        """The one of this layer."""
        return self.source.source_sites[self.number : self.number + 1]

    @property
    def target_sites(self) -> tuple[Site, ...]:
        """The one of this layer."""
        return self.source.target_sites[self.number : self.number + 1]
