"""Order, split, resuming, pairs and memory of the stream of rows."""

from __future__ import annotations

import itertools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qsae_data_tensors import TensorsConfig
from qsae_data_tensors.blocks import cut_blocks
from qsae_data_tensors.files import TensorFile
from qsae_data_tensors.source import TensorsSource
from qsae_data_tensors.split import held_out_units, split_rows
from safetensors.torch import save_file
from torch import Tensor

from qsae_core.errors import DataError


@pytest.fixture
def numbered(tmp_path: pathlib.Path) -> pathlib.Path:
    """1000 rows whose first entry is their number, in two chunks."""
    rows = torch.arange(1000.0)[:, None].repeat(1, 3)
    np.save(tmp_path / "0.npy", rows[:600].numpy())
    np.save(tmp_path / "1.npy", rows[600:].numpy())
    return tmp_path


def make(path: pathlib.Path, seed: int = 0, **options: object) -> TensorsSource:
    return TensorsSource(TensorsConfig(path=str(path), **options), seed=seed)


def numbers(x: Tensor) -> list[int]:
    return x[:, 0].int().tolist()


def held_out_rows(source: TensorsSource, n_tokens: int = 10**6, batch_size: int = 64) -> list[int]:
    return [n for batch in source.held_out(n_tokens, batch_size) for n in numbers(batch.x)]


def test_one_pass_gives_each_training_row_once(numbered: pathlib.Path) -> None:
    """5% of 1000 rows: blocks of 15 (at least 64 blocks), one of every 20 blocks held out."""
    source = make(numbered)
    held = held_out_rows(source)
    assert source.training_tokens == 1000 - len(held)
    assert 30 <= len(held) <= 70
    first = numbers(source.next_batch(source.training_tokens).x)
    assert sorted(first + held) == list(range(1000))
    second = numbers(source.next_batch(source.training_tokens).x)
    assert sorted(second) == sorted(first)
    assert second != first


def test_rows_are_shuffled_across_blocks(numbered: pathlib.Path) -> None:
    """Neighbours in the file are seldom neighbours in the stream (as seldom as in a random order: 2 in n)."""
    stream = numbers(make(numbered).next_batch(900).x)
    neighbours = sum(abs(a - b) == 1 for a, b in itertools.pairwise(stream))
    assert neighbours < 30
    assert sum(a < b for a, b in itertools.pairwise(stream)) == pytest.approx(450, abs=60)


def test_a_batch_is_from_all_over_the_data(tmp_path: pathlib.Path) -> None:
    """Of 200 stretches of 1024 rows in 16 blocks, 7 are held out. 1,152 of the 3,051 blocks are in memory, of
    a stretch 6 on average, and each gives 1.8 rows to a batch of 2048: a stretch gives none once in two
    batches. A pool of 36 whole stretches would leave out 157."""
    np.save(tmp_path / "x.npy", np.arange(200 * 1024, dtype=np.float32)[:, None])
    batches = [make(tmp_path / "x.npy", seed=seed).next_batch(2048).x for seed in range(8)]
    found = [len(set((rows[:, 0] // 1024).int().tolist())) for rows in batches]
    assert sum(found) / len(found) >= 191


def test_the_stream_does_not_depend_on_batch_sizes(numbered: pathlib.Path) -> None:
    whole = make(numbered).next_batch(1500).x
    source = make(numbered)
    parts = [source.next_batch(size).x for size in (1, 7, 500, 480, 512)]
    assert torch.equal(torch.cat(parts), whole)


def test_seeds(numbered: pathlib.Path) -> None:
    """The run's seed changes the order alone; the split has its own."""
    assert numbers(make(numbered).next_batch(50).x) == numbers(make(numbered).next_batch(50).x)
    assert numbers(make(numbered).next_batch(50).x) != numbers(make(numbered, seed=1).next_batch(50).x)
    assert held_out_rows(make(numbered)) == held_out_rows(make(numbered, seed=1))
    assert held_out_rows(make(numbered)) != held_out_rows(make(numbered, split_seed=1))


def test_held_out_batches(numbered: pathlib.Path) -> None:
    source = make(numbered, held_out=0.2)
    batches = list(source.held_out(100, 32))
    assert [len(batch) for batch in batches] == [32, 32, 32, 4]
    in_one = held_out_rows(source, 100, 1000)
    assert in_one == [n for batch in batches for n in numbers(batch.x)]
    assert held_out_rows(source)[:100] == in_one
    assert held_out_rows(source, 0) == []


def test_held_out_batches_leave_the_stream_alone(numbered: pathlib.Path) -> None:
    source = make(numbered)
    source.next_batch(10)
    held_out_rows(source)
    assert numbers(source.next_batch(10).x) == numbers(make(numbered).next_batch(20).x)[10:]


@pytest.mark.parametrize("taken", [0, 1, 333, 950, 2500])
def test_resuming(numbered: pathlib.Path, taken: int) -> None:
    source = make(numbered, shuffle_blocks=4)
    for size in (taken // 2, taken - taken // 2):
        if size:
            source.next_batch(size)
    state = json.loads(json.dumps(source.state_dict()))
    resumed = make(numbered, shuffle_blocks=4)
    resumed.load_state_dict(state)
    assert torch.equal(resumed.next_batch(700).x, source.next_batch(700).x)


def test_resuming_on_other_files(numbered: pathlib.Path) -> None:
    state = make(numbered).state_dict()
    (numbered / "1.npy").unlink()
    with pytest.raises(DataError, match="600 rows, but 1000 when the run was interrupted"):
        make(numbered).load_state_dict(state)


def test_resuming_on_files_that_were_replaced(numbered: pathlib.Path) -> None:
    """By as many rows of the same width, and back."""
    source = make(numbered)
    source.next_batch(100)
    state = json.loads(json.dumps(source.state_dict()))
    expected = source.next_batch(50).x
    rows = np.load(numbered / "1.npy")
    np.save(numbered / "1.npy", rows + 1)
    with pytest.raises(DataError, match="the rows are other ones than when the run was interrupted"):
        make(numbered).load_state_dict(state)
    np.save(numbered / "1.npy", rows)
    again = make(numbered)
    again.load_state_dict(state)
    assert torch.equal(again.next_batch(50).x, expected)


def test_resuming_on_replaced_targets(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(300.0)[:, None])
    np.save(tmp_path / "y.npy", np.arange(300.0)[:, None])
    state = make(tmp_path / "x.npy", target_path=str(tmp_path / "y.npy")).state_dict()
    np.save(tmp_path / "y.npy", -np.arange(300.0)[:, None])
    with pytest.raises(DataError, match=r"y\.npy: the rows are other ones"):
        make(tmp_path / "x.npy", target_path=str(tmp_path / "y.npy")).load_state_dict(state)


def test_rows_with_outlying_norms_are_left_out_of_training_alone(tmp_path: pathlib.Path) -> None:
    """Rows (n, 1) of norm 1, but for every 50th of 1000, which is a hundred times as long."""
    rows = torch.nn.functional.normalize(torch.stack([torch.arange(1000.0), torch.ones(1000)], 1))
    rows[::50] *= 100
    torch.save(rows, tmp_path / "x.pt")
    limited, plain = make(tmp_path / "x.pt", max_norm_multiple=10), make(tmp_path / "x.pt")
    n = plain.training_tokens
    assert n is not None
    seen = plain.next_batch(n).x
    inside = int((seen.norm(dim=1) < 10).sum())
    assert inside < n
    x = limited.next_batch(inside).x
    assert sorted(map(tuple, x.tolist())) == sorted(map(tuple, seen[seen.norm(dim=1) < 10].tolist()))
    told = "left out of training: {out:,} of {all:,} vectors, whose norm was more than 10 times the median"
    assert limited.left_out() == told.format(out=n - inside, all=n)
    assert plain.left_out() is None
    held_out = [torch.cat([batch.x for batch in s.held_out(10**6, 64)]) for s in (limited, plain)]
    assert torch.equal(*held_out)
    assert limited.training_tokens is None
    state = json.loads(json.dumps(limited.state_dict()))
    expected = limited.next_batch(2500).x
    resumed = make(tmp_path / "x.pt", max_norm_multiple=10)
    resumed.load_state_dict(state)
    assert torch.equal(resumed.next_batch(2500).x, expected)
    assert resumed.left_out() == limited.left_out()
    assert resumed.describe()["outlying_norms"] == limited.left_out()


def test_paired_files(tmp_path: pathlib.Path) -> None:
    """Chunked otherwise, row i of the source still goes with row i of the target."""
    source, target = tmp_path / "source", tmp_path / "target.pt"
    source.mkdir()
    rows = torch.arange(300.0)
    for i, part in enumerate(rows.split(120)):
        np.save(source / f"{i}.npy", part[:, None].repeat(1, 4).numpy())
    torch.save(-rows.reshape(10, 30, 1).repeat(1, 1, 2), target)
    data = make(source, target_path=str(target))
    assert (data.d_in, data.d_out) == (4, 2)
    for batch in (data.next_batch(500), *data.held_out(300, 7)):
        assert torch.equal(batch.x[:, 0], -batch.y[:, 1])


def test_without_a_target_the_rows_are_their_own(numbered: pathlib.Path) -> None:
    data = make(numbered)
    batch = data.next_batch(4)
    assert batch.y is batch.x
    assert next(data.held_out(4, 4)).y is not None
    assert (data.d_in, data.d_out, data.layer, data.model_name) == (3, 3, "tensors", numbered.name)


def test_pairs_that_do_not_fit(tmp_path: pathlib.Path, numbered: pathlib.Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    np.save(target / "0.npy", np.zeros((600, 2), np.float32))
    with pytest.raises(DataError, match="600 target rows for 1000 source rows"):
        make(numbered, target_path=str(target))
    np.save(target / "1.npy", np.zeros((399, 2), np.float32))
    with pytest.raises(DataError, match=r"target/1.npy: 399 target rows for 400 rows in .*/1.npy"):
        make(numbered, target_path=str(target))


@pytest.mark.parametrize("n", [2, 3, 20, 129])
def test_small_files_still_have_both_sides(tmp_path: pathlib.Path, n: int) -> None:
    np.save(tmp_path / "x.npy", np.arange(float(n))[:, None])
    source = make(tmp_path / "x.npy")
    held = held_out_rows(source)
    assert 1 <= len(held) < n
    assert sorted(numbers(source.next_batch(n - len(held)).x) + held) == list(range(n))


def test_whole_sequences_are_held_out_but_for_the_first(tmp_path: pathlib.Path) -> None:
    """80 sequences of 50 positions: held-out rows are those of whole sequences, and a few of sequence 0."""
    sequences = torch.arange(80.0)[:, None, None].expand(80, 50, 2).contiguous()
    torch.save(sequences, tmp_path / "x.pt")
    source = make(tmp_path / "x.pt")
    held = held_out_rows(source)
    later = [sequence for sequence in held if sequence > 0]
    assert len(later) == 50 * len(set(later)) > 0
    assert 0 < held.count(0) < 50
    training = numbers(source.next_batch(4000 - len(held)).x)
    assert not set(later) & set(training)
    assert training.count(0) == 50 - held.count(0)


def files(*shapes: tuple[int, int]) -> list[TensorFile]:
    return [TensorFile(pathlib.Path("x"), n, length, 4, "float32") for n, length in shapes]


SHAPES = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 300)), min_size=1, max_size=4)


@settings(max_examples=60)
@given(SHAPES, st.integers(1, 200), st.floats(0.01, 0.9), st.integers(0, 5))
def test_blocks_partition_the_rows(shapes: list[tuple[int, int]], size: int, share: float, seed: int) -> None:
    rows = sum(n * length for n, length in shapes)
    if rows < 2:
        return
    blocks = cut_blocks(files(*shapes), split_rows(files(*shapes), share, seed), size)
    covered = [row for start, stop in blocks.training + blocks.held_out for row in range(start, stop)]
    assert sorted(covered) == list(range(rows))
    assert blocks.training
    assert blocks.held_out
    assert all(stop - start <= size for start, stop in blocks.training + blocks.held_out)


@settings(max_examples=60)
@given(st.integers(2, 3000), st.floats(0.01, 0.9), st.integers(0, 100))
def test_the_share_that_is_held_out(count: int, share: float, seed: int) -> None:
    held = held_out_units(count, share, seed)
    assert 1 <= len(held) < count
    assert held <= set(range(count))
    # one in every stretch; for shares that are no 1/n two stretches may meet in one index
    assert len(held) <= count * share + 1
    if share <= 0.1:
        assert len(held) >= int(count * share) * 0.9 - 1


def test_the_share_of_the_rows(tmp_path: pathlib.Path) -> None:
    """Units grow to 1024 rows; of 400,000 rows the held-out ones are a twentieth, to a unit or two."""
    held = split_rows(files((400_000, 1)), 0.05, 0).held_out
    assert sum(stop - start for start, stop in held) == pytest.approx(20_000, abs=2048)
    assert max(stop - start for start, stop in held) <= 2 * 1024


@settings(max_examples=60)
@given(SHAPES, SHAPES, st.integers(0, 200), st.floats(0.01, 0.9), st.integers(0, 5))
def test_rows_stay_on_their_side_when_rows_and_files_are_appended(
    shapes: list[tuple[int, int]], further: list[tuple[int, int]], more: int, share: float, seed: int
) -> None:
    rows = sum(n * length for n, length in shapes)
    if rows < 2:
        return
    *others, (n, length) = shapes
    before, after = (
        held_rows(split_rows(files(*f), share, seed).held_out)
        for f in (shapes, [*others, (n + more, length), *further])
    )
    assert before == {row for row in after if row < rows}


def held_rows(ranges: list[tuple[int, int]]) -> set[int]:
    return {row for start, stop in ranges for row in range(start, stop)}


def test_rows_stay_held_out_when_as_many_are_appended(tmp_path: pathlib.Path) -> None:
    """4,000 rows, and 4,000 more behind them."""
    np.save(tmp_path / "small.npy", np.arange(4000.0)[:, None])
    np.save(tmp_path / "large.npy", np.arange(8000.0)[:, None])
    small, large = (set(held_out_rows(make(tmp_path / f"{name}.npy"))) for name in ("small", "large"))
    assert len(small) == pytest.approx(200, abs=64)
    assert small == {row for row in large if row < 4000}


MEASURE = """
import pathlib, re, sys
from qsae_data_tensors import TensorsConfig
from qsae_data_tensors.source import TensorsSource

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024

for path in sys.argv[1:]:
    source = TensorsSource(TensorsConfig(path=path, shuffle_blocks=4))
    source.next_batch(64)
    before = anonymous()
    for _ in range(60):
        source.next_batch(1000)
    print(anonymous() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_bounded(tmp_path: pathlib.Path) -> None:
    """60000 rows of 256 float16: 29 MB on disk, 59 MB as float32; a pool of 4 blocks is 4 MB."""
    rows = torch.randn(60_000, 256).half()
    np.save(tmp_path / "x.npy", rows.numpy())
    torch.save(rows, tmp_path / "x.pt")
    save_file({"x": rows}, tmp_path / "x.safetensors")
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, check=True, timeout=120
    )
    grown = [float(line) for line in done.stdout.split()]
    assert len(grown) == 3
    assert max(grown) < 20, grown


def test_the_middle_dimension_as_layers(tmp_path):
    values = torch.arange(200 * 3 * 4, dtype=torch.float32).reshape(200, 3, 4)
    torch.save(values, tmp_path / "states.pt")
    config = TensorsConfig(path=str(tmp_path / "states.pt"), middle="layers")
    source = TensorsSource(config)
    assert (source.layers_in, source.layers_out, source.d_in, source.d_out) == (3, 3, 4, 4)
    x = source.next_batch(8).x
    assert x.shape == (8, 3, 4)
    for token in x:  # a token keeps its layers, in their order
        assert torch.equal(token, values[int(token[0, 0]) // 12])
    torch.save(values[:, 0].clone(), tmp_path / "flat.pt")
    with pytest.raises(DataError, match="its middle dimension should be layers"):
        TensorsSource(TensorsConfig(path=str(tmp_path / "flat.pt"), middle="layers"))
