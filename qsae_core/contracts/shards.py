"""What of a source each of several training processes reads. Shapes: B tokens."""

from __future__ import annotations

from typing import Any

from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.source_view import SourceView
from qsae_core.errors import ConfigError


def shard(source: DataSource, rank: int, world: int) -> DataSource:
    """The source that process ``rank`` of ``world`` trains on; each takes an equal part of a step's batch.

    There are two ways, for there are two costs:

    * A source whose vectors cost more than their reading (a language model computes them) divides itself
      (``DataSource.divide``): each vector is made by one process alone, so that ``world`` processes make
      ``world`` times as many. Together they give the whole of each pass, but which vectors meet in one step
      is not what it is with a single process.
    * Any other source is read whole by each process, which keeps every ``world``-th row (``RankSlices``).
      The processes' batches are then those of a single one, bit for bit, cut in parts.

    Held-out vectors are the same in all processes, so that each can evaluate on its own.

    Args:
        source: fresh; nothing was read from it yet. It is not used any more but through what is returned.

    Raises:
        ConfigError: if there is no such process.
    """
    if not 0 <= rank < world:
        raise ConfigError(
            f"there is no process {rank} among {world}",
            allowed=f"ranks 0 to {world - 1} of {world} processes" if world > 0 else "1 process or more",
            next="torchrun sets RANK and WORLD_SIZE",
        )
    return source if world == 1 or source.divide(rank, world) else RankSlices(source, rank, world)


class RankSlices(SourceView):
    """Rows ``rank``, ``rank + world``, ... of each batch that all processes make up together.

    The place in the stream is the same in every process, so any number of processes goes on from it.
    """

    def __init__(self, source: DataSource, rank: int, world: int) -> None:
        super().__init__(source)
        self.rank, self.world = rank, world

    def next_batch(self, size: int) -> Batch:
        """Of the source's next ``size * world`` vectors, this process's."""
        return self.source.next_part(size, self.rank, self.world)

    def next_whole(self, size: int) -> Batch:
        """The source's next ``size`` vectors, the same ones in every process."""
        return self.source.next_batch(size)

    def describe(self) -> dict[str, Any]:
        """What the source says, and that its batches are divided."""
        return self.source.describe() | {"processes": self.world, "divided": "rows of each batch"}
