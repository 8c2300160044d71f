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
    """
    with alone():
        if team.processes.world == 1:
            return data.next_batch(size).to("cpu")
        if isinstance(data, RankSlices):
            return data.next_whole(size).to("cpu")
        part = data.next_batch(-(-size // team.processes.world)).to("cpu")
    x = team.processes.rows(part.x)[:size]
    return Batch(x, x if part.y is part.x else team.processes.rows(part.y)[:size])
