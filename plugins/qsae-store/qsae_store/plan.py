"""What decides every byte of a store. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from pydantic import NonNegativeInt, PositiveInt

Storage = Literal["bf16", "fp16", "fp32", "int8"]
STORAGES: tuple[Storage, ...] = get_args(Storage)
Side = Literal["training", "held-out"]
SIDES: tuple[Side, ...] = ("held-out", "training")
"""In the order in which they are harvested."""


class StoredPlace(NamedTuple):
    """A place of the language model whose vectors are stored."""

    layer: NonNegativeInt
    site: str
    width: PositiveInt

    @property
    def name(self) -> str:
        """``9.resid_post``: the name of its tensors."""
        return f"{self.layer}.{self.site}"


@dataclass(frozen=True)
class Plan:
    """What decides every byte of a store.

    Attributes:
        source: block of the data source whose text and language model are read.
        seed: of the order of training text, and of the order of vectors within a shard.
        places: whose vectors are stored.
        sources: names of the places that the source reads as ``x``, which the store gives where nothing is
            chosen.
        targets: names of those that it reads as ``y``; none where ``y`` is ``x``.
        storage: their number format.
        shard_contexts: contexts of a shard; the last one of a side may have fewer.
        tokens: training vectors of a place, in whole contexts; None: one pass over the text.
        held_out_tokens: held-out vectors of a place, in whole contexts; at most.
    """

    source: Mapping[str, Any]
    seed: int
    places: tuple[StoredPlace, ...]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    storage: Storage
    shard_contexts: PositiveInt
    tokens: NonNegativeInt | None
    held_out_tokens: NonNegativeInt

    def limit(self, side: Side) -> int | None:
        """Vectors of a place that are asked for."""
        return self.tokens if side == "training" else self.held_out_tokens
