"""What each of several training processes reads. Shapes: B tokens."""

from __future__ import annotations

import json

import pytest
import torch

from qsae_core.conformance.toy_data import ToyData
from qsae_core.contracts import CoderShape, RankSlices, shard
from qsae_core.errors import ConfigError


def source(seed: int = 0) -> ToyData:
    return ToyData(CoderShape(4, 4), seed=seed)


def test_processes_read_the_rows_of_a_single_ones_batch_in_turn() -> None:
    """Of 6 rows, process 0 of 3 takes 0 and 3, process 1 takes 1 and 4, process 2 takes 2 and 5."""
    whole = source().next_batch(6)
    for rank, rows in enumerate(([0, 3], [1, 4], [2, 5])):
        batch = shard(source(), rank, 3).next_batch(2)
        assert torch.equal(batch.x, whole.x[rows])
        assert batch.y is batch.x


def test_one_process_is_the_source_itself() -> None:
    data = source()
    assert shard(data, 0, 1) is data


def test_another_number_of_processes_goes_on_from_the_same_place() -> None:
    single = source()
    for _ in range(3):
        single.next_batch(12)
    of_two = shard(source(), 1, 2)
    for _ in range(3):
        of_two.next_batch(6)
    state = json.loads(json.dumps(of_two.state_dict()))
    expected = single.next_batch(12).x
    for rank in range(4):
        resumed = shard(source(), rank, 4)
        resumed.load_state_dict(state)
        assert torch.equal(resumed.next_batch(3).x, expected[rank::4])


def test_a_part_is_described() -> None:
    part = shard(source(), 1, 2)
    assert isinstance(part, RankSlices)
    assert part.describe() == {"processes": 2, "divided": "rows of each batch"}


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 2), (0, 0)])
def test_a_process_that_is_not_there(rank: int, world: int) -> None:
    with pytest.raises(ConfigError, match=f"no process {rank} among {world}"):
        shard(source(), rank, world)
