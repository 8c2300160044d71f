"""What of a store is held out: documents of their own, which were harvested apart. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from qsae_core.contracts import HeldOutPart, Overlap
from qsae_store.manifest import Manifest, ShardRecord, Side


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

    def record(self) -> dict[str, Any]:
        """By what the harvest's source knows its text again."""
        return {"source": self._manifest.plan.source["use"], "text": self._manifest.held_out}

    def overlap(self, record: Mapping[str, Any]) -> Overlap:
        """A store of the same text, split in the same way, holds the same documents out."""
        return Overlap.TRAINING if record == self.record() else Overlap.NONE

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
