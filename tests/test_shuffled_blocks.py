"""The stream of shuffled blocks: every row once in a pass, whoever reads it and however it is taken."""

from __future__ import annotations

import itertools

import pytest
import torch

from qsae_core.contracts import ShuffledBlocks
from qsae_core.contracts.block_lanes import LANES, lanes_for
from qsae_core.errors import DataError


class Rows:
    """Row n is the number n; ``read`` has the first rows of the blocks that were read."""

    def __init__(self, sizes):
        ends = list(itertools.accumulate(sizes, initial=0))
        self.blocks, self.read = list(itertools.pairwise(ends)), []

    def empty(self, rows):
        return (torch.empty(rows, 1),)

    def read_into(self, columns, start):
        self.read.append(start)
        columns[0].copy_(torch.arange(start, start + len(columns[0]))[:, None])


def stream(rows, *, pool=40, norms=None, seed=0):
    return ShuffledBlocks(rows, rows.blocks, pool, seed, norms=norms, vectors=lambda columns: columns)


def numbers(columns):
    return columns[0].squeeze(1).int().tolist()


UNEVEN = [64] * 30 + [17] + [64] * 30 + [1, 40]  # 63 blocks, 3,898 rows: 6 lanes, of 649 or 650


def test_how_many_lanes():
    assert lanes_for(1024, 10**6) == 192
    assert lanes_for(1024, 191 * 4) == 96
    assert lanes_for(40, 63) == 6
    assert lanes_for(23, 63) == lanes_for(1, 63) == lanes_for(1024, 0) == 1
    assert all(192 % lanes == 0 for lanes in LANES)


@pytest.mark.parametrize("pool", [1, 7, 24, 40, 63, 1000])
def test_every_row_once_in_a_pass(pool):
    rows = stream(Rows(UNEVEN), pool=pool)
    passes = [numbers(rows.take(rows.rows)) for _ in range(3)]
    assert all(sorted(some) == list(range(rows.rows)) for some in passes)
    assert passes[0] != passes[1] != passes[2]


@pytest.mark.parametrize("pool", [1, 24, 40, 1000])
def test_the_rows_do_not_depend_on_how_many_are_taken(pool):
    whole, parts = (stream(Rows(UNEVEN), pool=pool) for _ in range(2))
    sizes = [1, 5, 700, 64, 3000, 2, 3000, 2000, 28]
    assert numbers(whole.take(sum(sizes))) == [n for size in sizes for n in numbers(parts.take(size))]
    assert whole.place() == parts.place()


@pytest.mark.parametrize("world", [2, 3, 6])
def test_processes_share_the_rows_of_one(world):
    """From pass to pass, whose 3,898 rows no number of processes but 2 divides."""
    one = stream(Rows(UNEVEN))
    each = [stream(Rows(UNEVEN)) for _ in range(world)]
    for size in (10, 600, 1, 1500, 33):
        expected = numbers(one.take(size * world))
        for rank, rows in enumerate(each):
            assert numbers(rows.take_part(size, rank, world)) == expected[rank::world]
            assert rows.place() == one.place()


def test_each_process_reads_its_own_blocks():
    """A third of them, and those that a lane shares with its neighbours."""
    readers = [Rows([64] * 1536) for _ in range(3)]
    for rank, reader in enumerate(readers):
        stream(reader, pool=1536).take_part(64, rank, 3)
        assert len(reader.read) <= 512 + 64
    assert len({start for reader in readers for start in reader.read}) == 1536


def test_a_number_of_processes_that_no_lanes_make_up_reads_everything():
    one, reader = stream(Rows(UNEVEN)), Rows(UNEVEN)
    assert numbers(stream(reader).take_part(20, 3, 5)) == numbers(one.take(100))[3::5]


def test_going_on_with_other_processes():
    one, two = stream(Rows(UNEVEN)), stream(Rows(UNEVEN))
    two.take_part(1000, 1, 2)
    one.take(2000)
    place = two.place()
    three = [stream(Rows(UNEVEN)) for _ in range(3)]
    for rows in three:
        rows.go_to(place)
    expected = numbers(one.take(900))
    assert [numbers(rows.take_part(300, rank, 3)) for rank, rows in enumerate(three)] == [
        expected[rank::3] for rank in range(3)
    ]


def test_a_process_that_takes_all_and_then_its_part():
    """As at the start of a run, where coders begin from the first vectors, whole."""
    one, other = stream(Rows(UNEVEN)), stream(Rows(UNEVEN))
    place = other.place()
    other.take(100)
    other.go_to(place)
    assert numbers(other.take_part(50, 1, 2)) == numbers(one.take(100))[1::2]
    other.close()
    assert numbers(other.take_part(50, 0, 2)) == numbers(one.take(100))[0::2]


def test_a_limit_of_norms_is_that_of_the_first_rows_wherever_one_goes_on():
    """Of rows 0 to 3,897 the median is about 1,949: 1.5 times of it leaves a quarter out, wherever one is."""
    one = stream(Rows(UNEVEN), norms=1.5)
    first = numbers(one.take(4000))
    limit = max(first)
    assert 2 * limit == pytest.approx(3 * 1949, abs=6)
    assert sorted(set(first)) == list(range(limit + 1))
    parts = stream(Rows(UNEVEN), norms=1.5)
    assert [n for size in (1, 999, 3000) for n in numbers(parts.take(size))] == first
    assert parts.place() == one.place()
    again = stream(Rows(UNEVEN), norms=1.5)
    again.go_to(one.place())
    assert numbers(again.take(500)) == numbers(one.take(500))
    shared = stream(Rows(UNEVEN), norms=1.5)
    assert numbers(shared.take_part(2000, 1, 2)) == first[1::2]
    assert "vectors, whose norm was more than 1.5 times the median" in one.left_out()


def test_a_place_that_is_not_there_is_refused():
    rows = stream(Rows(UNEVEN))
    for wrong in ({"epoch": 0, "row": 3898}, {"epoch": -1, "row": 0}, {"epoch": 0, "row": -1}):
        with pytest.raises(DataError, match="there is no row"):
            rows.go_to(rows.place() | wrong)


def test_a_block_that_cannot_be_read_leaves_the_others():
    class Failing(Rows):
        fails = True

        def read_into(self, columns, start):
            super().read_into(columns, start)
            if self.fails and len(self.read) == 20:
                raise DataError("the disk")

    reader = Failing(UNEVEN)
    rows, expected = stream(reader), stream(Rows(UNEVEN))
    with pytest.raises(DataError, match="the disk"):
        rows.take(10)
    reader.fails = False
    rows.go_to(expected.place())
    assert numbers(rows.take(500)) == numbers(expected.take(500))
