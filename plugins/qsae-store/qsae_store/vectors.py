"""From contexts to a shard's tensors. Shapes: C contexts, T positions, N vectors, D width."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from qsae_core.contracts import Columns, LanguageModel, Site, TokenBatch, permutation
from qsae_core.errors import DataError
from qsae_store.plan import Plan, Side, Storage, StoredPlace
from qsae_store.shards import checksums
from qsae_store.storage import stored, suffixes

Norms = dict[str, float | None]
"""Of a shard's vectors ``sum``, ``least`` and ``largest`` of their norms (these two None where there is no
vector), and ``squares``, their squares' sum."""


class PlaceVectors:
    """The vectors of one place, collected in their number format.

    Attributes:
        sum: float64 ``[D]``, of the vectors before they are rounded.
    """

    def __init__(self, place: StoredPlace, storage: Storage) -> None:
        self.place, self.storage = place, storage
        self._parts: list[Columns] = [stored(torch.empty(0, place.width), storage)]  # no vector may come
        self.sum = torch.zeros(place.width, dtype=torch.float64)
        self._norms = {"sum": 0.0, "squares": 0.0, "least": math.inf, "largest": -math.inf}

    def add(self, vectors_ND: Tensor) -> None:
        """Take float32 vectors that are finite.

        Raises:
            DataError: if fp16 cannot hold a value.
        """
        if not len(vectors_ND):
            return
        norms_N = torch.linalg.vector_norm(vectors_ND, dim=1, dtype=torch.float64)
        self._norms["sum"] += float(norms_N.sum())
        self._norms["squares"] += float(norms_N.square().sum())
        self._norms["least"] = min(self._norms["least"], float(norms_N.min()))
        self._norms["largest"] = max(self._norms["largest"], float(norms_N.max()))
        self.sum += vectors_ND.sum(0, dtype=torch.float64)
        try:
            self._parts.append(stored(vectors_ND, self.storage))
        except OverflowError as error:
            raise DataError(
                f"{self.place.name} has values that are too large: {error}",
                where="--storage fp16",
                allowed="values up to 65,504",
                next="--storage bf16",
            ) from error

    @property
    def norms(self) -> Norms:
        """Of the vectors so far."""
        return {name: value if math.isfinite(value) else None for name, value in self._norms.items()}

    def tensors(self, order_N: Tensor) -> dict[str, Tensor]:
        """The shard's tensors of this place, its vectors in the given order."""
        columns = tuple(torch.cat(column)[order_N] for column in zip(*self._parts, strict=True))
        self._parts.clear()
        names = [self.place.name + suffix for suffix in suffixes(self.storage)]
        found = dict(zip(names, columns, strict=True))
        return found | {f"{names[0]}.crc32": checksums(columns)}


class ShardContent(NamedTuple):
    """What a shard is made of."""

    tensors: dict[str, Tensor]
    """Of its file."""
    norms: dict[str, Norms]
    """Place -> its norms."""
    sums: dict[str, list[float]]
    """Place -> the sum of its vectors."""


def read_shard(
    model: LanguageModel, contexts: TokenBatch, plan: Plan, side: Side, number: int, first_context: int
) -> ShardContent:
    """What the model computes over some contexts, as a shard.

    Args:
        number: of the shard.
        first_context: number of its first context.

    Raises:
        DataError: if the model computes NaN or infinity; if fp16 cannot hold a value.
    """
    places = [PlaceVectors(place, plan.storage) for place in plan.places]
    at_once = max(1, model.forward_positions // contexts.ids.shape[1])
    sites = [Site(place.layer, place.site) for place in plan.places]
    for start in range(0, len(contexts.ids), at_once):
        batch = contexts.rows(slice(start, start + at_once))
        with torch.inference_mode():
            found = model.read(batch, sites)
        for site, vectors in zip(sites, places, strict=True):
            counted = found[site][batch.counted.to(found[site].device)].cpu()
            _check_finite(counted, batch, site, first_context + start, model)
            vectors.add(counted)
    n_vectors = int(contexts.counted.sum())
    order_N = torch.arange(n_vectors) if side == "held-out" else permutation(n_vectors, plan.seed, number)
    tensors = {
        "ids": contexts.ids.int(),
        "counted": contexts.counted,
        "documents": _documents(contexts).int(),
        "tokens": _tokens(contexts, first_context)[order_N],
    }
    if contexts.segments is not None:
        tensors["segments"] = contexts.segments.int()
    for vectors in places:
        tensors |= vectors.tensors(order_N)
    norms = {vectors.place.name: vectors.norms for vectors in places}
    return ShardContent(tensors, norms, {vectors.place.name: vectors.sum.tolist() for vectors in places})


def _tokens(contexts: TokenBatch, first_context: int) -> Tensor:
    """int32 ``[N, 4]``: token id, document, context and position of each counted position."""
    context_N, position_N = contexts.counted.nonzero(as_tuple=True)
    columns = (
        contexts.ids[contexts.counted],
        _documents(contexts)[contexts.counted],
        context_N + first_context,
        position_N,
    )
    return torch.stack(columns, dim=1).int()


def _documents(contexts: TokenBatch) -> Tensor:
    return torch.full_like(contexts.ids, -1) if contexts.documents is None else contexts.documents


def _check_finite(
    vectors_ND: Tensor, batch: TokenBatch, site: Site, first_context: int, model: LanguageModel
) -> None:
    bad_N = ~vectors_ND.isfinite().all(1)
    if not bool(bad_N.any()):
        return
    context, position = batch.counted.nonzero()[int(bad_N.nonzero()[0])].tolist()
    token = model.decode([int(batch.ids[context, position])])
    raise DataError(
        f"the language model computes NaN or infinity at {site}: context {first_context + context}, position "
        f"{position}, token {token!r}",
        where=model.name,
        next="try --data.dtype fp32, another layer, or other text",
    )
