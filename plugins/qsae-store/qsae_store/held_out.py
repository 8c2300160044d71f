"""What of a store is held out: documents of their own, which were harvested apart. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from qsae_core.contracts import HeldOutPart, Overlap
from qsae_store.manifest import Manifest
from qsae_store.plan import Side
from qsae_store.records import ShardRecord

_LETTERS = 8


class HeldOutShards(HeldOutPart):
    """The held-out shards of a store: of documents that its training shards do not hold.

    Args:
        place: the store.
        manifest: its own.
        measured: gives the shards that evaluations read now.
        take_all: makes these all there are.
    """

    def __init__(
        self,
        place: str,
        manifest: Manifest,
        measured: Callable[[], Iterator[tuple[Side, ShardRecord]]],
        take_all: Callable[[], None],
    ) -> None:
        self._place, self._manifest, self._measured, self._take_all = place, manifest, measured, take_all
        self.component = manifest.plan.source["use"]

    def record(self) -> dict[str, Any]:
        """By what the harvest's source knows its text again: a coder that was trained from the store was
        trained on that text, wherever else it is read."""
        return dict(self._manifest.held_out or {})

    def overlap(self, record: Mapping[str, Any]) -> Overlap:
        """The same record is of the same text, split in the same way; one with a mark in common is of the
        same text, or of a part of it, split otherwise."""
        own = json.loads(json.dumps(self.record()))
        if record == own:
            return Overlap.TRAINING
        return Overlap.HELD_OUT if _marks(record) & _marks(own) else Overlap.NONE

    def take_all(self) -> None:
        """Hold out the training shards, too."""
        self._take_all()

    def name(self) -> str:
        """How many vectors of which store."""
        sides = {side for side, _ in self._measured()}
        which = "all" if "training" in sides else "the held-out"
        return f"{which} {self.size():,} vectors of the store {self._place}"

    def size(self) -> int:
        """Vectors of a place."""
        return sum(shard.vectors for _, shard in self._measured())


def _marks(record: Any) -> set[str]:
    """What in a record stands for content: its longer words, such as hashes."""
    if isinstance(record, Mapping):
        return set().union(*map(_marks, record.values()))
    if isinstance(record, list | tuple):
        return set().union(*map(_marks, record))
    return {record} if isinstance(record, str) and len(record) >= _LETTERS else set()
