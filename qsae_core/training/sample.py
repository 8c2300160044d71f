"""The vectors from which coders begin: the same ones in all processes of a run."""

from __future__ import annotations

from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.shards import RankSlices
from qsae_core.kernels.processes import alone
from qsae_core.training.team import Team


def statistics_sample(data: DataSource, size: int, team: Team) -> Batch:
    """The first vectors of a run's source, on the CPU, where coders begin.

    Of a source that every process reads whole these are the vectors of a run with a single process; where
    each reads a part of its own, they are collected.

    Args:
        data: this process's part (``shard``).

    Raises:
        QsaeError: where it cannot be read; StoppedError in the other processes. What is asked of them comes
            behind the reading, in which one may fail alone.
    """
    divided = team.processes.world > 1 and not isinstance(data, RankSlices)
    with team.all_or_none(), alone():
        if isinstance(data, RankSlices):
            part = data.next_whole(size).to("cpu")
        else:
            part = data.next_batch(-(-size // team.processes.world)).to("cpu")
    if not divided:
        return part
    x = team.processes.rows(part.x)[:size]
    return Batch(x, x if part.y is part.x else team.processes.rows(part.y)[:size])
