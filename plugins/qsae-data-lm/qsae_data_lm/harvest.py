"""From contexts to vectors: runs the language model over contexts and keeps what counts.

C contexts, T positions, N counted vectors, L layers, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from qsae_core.contracts import Batch, Site, TokenBatch
from qsae_core.errors import DataError
from qsae_data_lm.language_model import HfLanguageModel
from qsae_data_lm.tokens import TextTokenizer


@dataclass(frozen=True)
class Harvester:
    """Reads vectors of one language model at fixed sites.

    Attributes:
        model: the language model.
        tokens: its tokenizer, which made the contexts.
        sites_in: what `x` is read from; several give `x` the shape [N, L, D].
        sites_out: what `y` is read from, likewise; none: `y` is `x`.
        forward_contexts: contexts of one forward pass.
    """

    model: HfLanguageModel
    tokens: TextTokenizer
    sites_in: tuple[Site, ...]
    sites_out: tuple[Site, ...]
    forward_contexts: int

    def read(self, contexts: TokenBatch, where: str) -> Iterator[Batch]:
        """The counted vectors of the contexts in order, one batch for each forward pass.

        Raises:
            DataError: on NaN or infinity, naming `where`, the context, the position and the token.
        """
        wanted = list(dict.fromkeys([*self.sites_in, *self.sites_out]))
        for start in range(0, len(contexts.ids), self.forward_contexts):
            batch = contexts.rows(slice(start, start + self.forward_contexts))
            with torch.inference_mode():
                found = self.model.read(batch, wanted)
            counted = batch.counted.to(self.model.model.device)
            # Copies made outside inference mode are ordinary tensors, which autograd can take.
            vectors = {site: found[site][counted] for site in wanted}
            for site, vector in vectors.items():
                # A sum of finite values is finite unless it overflows; a look at each costs far more.
                if not bool(vector.sum().isfinite()) and not bool(vector.isfinite().all()):
                    row = int((~vector.isfinite().all(dim=1)).nonzero()[0])
                    self._refuse(site, where, start, batch.counted, batch.ids, row)
            x = _stacked([vectors[site] for site in self.sites_in])
            y = _stacked([vectors[site] for site in self.sites_out]) if self.sites_out else x
            yield Batch(x, y, **batch.behind_vectors(x.device))

    def _refuse(self, site: Site, where: str, start: int, counted: Tensor, ids: Tensor, row: int) -> None:
        context, position = counted.nonzero()[row].tolist()
        token = self.tokens.token(int(ids[context, position]))
        raise DataError(
            f"the language model computes NaN or infinity at layer {site[0]}, {site[1]}: "
            f"context {start + context}, position {position}, token {token!r}",
            where=where,
            next="try --data.dtype fp32, another layer, or other text",
        )


def _stacked(parts: list[Tensor]) -> Tensor:
    """[N, D] of one site, [N, L, D] of several."""
    return parts[0] if len(parts) == 1 else torch.stack(parts, dim=1)
