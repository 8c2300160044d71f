"""Bit packing: bytes worked by hand, then round trips of every shape, then errors and speed."""

from __future__ import annotations

import time

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from qsae_core.errors import ArtifactError
from qsae_core.kernels.packing import pack_planes, pack_trits, unpack_planes, unpack_trits

examples = settings(max_examples=60)

# --- bytes worked by hand


def test_five_trits_make_one_byte():
    # digits (trit + 1) 2, 1, 0, 1, 1 with weights 1, 3, 9, 27, 81: 2 + 3 + 0 + 27 + 81 = 113
    trits = torch.tensor([[1, 0, -1, 0, 0]], dtype=torch.int8)
    assert pack_trits(trits).tolist() == [[113]]
    assert unpack_trits(torch.tensor([[113]], dtype=torch.uint8), 5).tolist() == trits.tolist()


def test_extremes_of_a_trit_byte():
    assert pack_trits(torch.full((5,), -1)).tolist() == [0]
    assert pack_trits(torch.full((5,), 0)).tolist() == [121]  # 1 + 3 + 9 + 27 + 81
    assert pack_trits(torch.full((5,), 1)).tolist() == [242]


def test_rows_of_trits_start_on_a_byte_and_are_filled_up_with_zeros():
    # 6 trits: [+1 x 5] = 242, then [-1, 0, 0, 0, 0] = 0 + 3 + 9 + 27 + 81 = 120
    assert pack_trits(torch.tensor([[1, 1, 1, 1, 1, -1], [0] * 6])).tolist() == [[242, 120], [121, 121]]


def test_planes_worked_by_hand():
    # 3 = 11, 0 = 00, 1 = 01: high bits of entries 0, 1, 2 are 1, 0, 0, low bits 1, 0, 1
    planes = pack_planes(torch.tensor([3, 0, 1]), 2)
    assert planes.tolist() == [[0b001], [0b101]]
    assert unpack_planes(planes, 3).tolist() == [3, 0, 1]


def test_entry_eight_opens_the_second_byte_of_every_row():
    values = torch.tensor([[0, 0, 0, 0, 0, 0, 0, 1, 1], [1, 0, 0, 0, 0, 0, 0, 0, 0]])
    assert pack_planes(values, 1).tolist() == [[[128, 1], [1, 0]]]


@pytest.mark.parametrize(
    ("width", "trit_bytes", "plane_bytes"), [(512, 103, 64), (576, 116, 72), (1, 1, 1), (9, 2, 2)]
)
def test_what_a_row_costs(width, trit_bytes, plane_bytes):
    rows = torch.zeros(3, width, dtype=torch.uint8)
    assert pack_trits(rows).shape == (3, trit_bytes)
    assert pack_planes(rows, 4).shape == (4, 3, plane_bytes)


# --- properties

shapes = st.lists(st.integers(0, 4), max_size=2).flatmap(
    lambda leading: st.integers(1, 41).map(lambda width: (*leading, width))
)


@examples
@given(shapes, st.integers(0, 2**16))
def test_trits_round_trip(shape, seed):
    trits = torch.randint(-1, 2, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int8)
    packed = pack_trits(trits)
    assert packed.dtype == torch.uint8
    assert packed.shape == (*shape[:-1], -(-shape[-1] // 5))
    restored = unpack_trits(packed, shape[-1])
    assert restored.dtype == torch.int8
    assert torch.equal(restored, trits)


@examples
@given(shapes, st.integers(1, 8), st.integers(0, 2**16))
def test_planes_round_trip(shape, n_bits, seed):
    values = torch.randint(
        0, 2**n_bits, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )
    planes = pack_planes(values, n_bits)
    assert planes.shape == (n_bits, *shape[:-1], -(-shape[-1] // 8))
    restored = unpack_planes(planes, shape[-1])
    assert restored.dtype == torch.uint8
    assert torch.equal(restored, values)


@examples
@given(st.integers(1, 30), st.integers(1, 8), st.data())
def test_the_first_planes_are_the_most_significant_bits(width, n_bits, data):
    values = torch.tensor(data.draw(st.lists(st.integers(0, 2**n_bits - 1), min_size=width, max_size=width)))
    planes = pack_planes(values, n_bits)
    for kept in range(1, n_bits + 1):
        assert unpack_planes(planes[:kept], width).tolist() == (values >> (n_bits - kept)).tolist()


@examples
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**16))
def test_a_row_is_decoded_alone(rows, width, seed):
    generator = torch.Generator().manual_seed(seed)
    trits = torch.randint(-1, 2, (rows, width), generator=generator, dtype=torch.int8)
    wanted = torch.randint(0, rows, (5,), generator=generator)
    assert torch.equal(unpack_trits(pack_trits(trits)[wanted], width), trits[wanted])
    values = (trits + 1).to(torch.uint8)
    assert torch.equal(unpack_planes(pack_planes(values, 2)[:, wanted], width), values[wanted])


def test_every_byte_below_243_is_five_trits():
    every = torch.arange(243, dtype=torch.uint8)[:, None]
    trits = unpack_trits(every, 5)
    assert len({tuple(row) for row in trits.tolist()}) == 243
    assert torch.equal(pack_trits(trits), every)


def test_memory_layout_of_the_input_does_not_matter():
    values = torch.arange(60).view(5, 12) % 3
    assert torch.equal(pack_planes(values.T, 2), pack_planes(values.T.contiguous(), 2))
    assert torch.equal(pack_trits(values.T - 1), pack_trits(values.T.contiguous() - 1))


# --- errors


def test_a_byte_that_is_no_trits_is_refused_with_its_value():
    with pytest.raises(ArtifactError, match="243"):
        unpack_trits(torch.tensor([[0, 243]], dtype=torch.uint8), 10)


def test_values_off_the_grid_are_refused():
    with pytest.raises(ValueError, match="-1, 0 or"):
        pack_trits(torch.tensor([2]))
    with pytest.raises(ValueError, match="integers"):
        pack_trits(torch.tensor([0.5]))
    with pytest.raises(ValueError, match="from 0 to 3"):
        pack_planes(torch.tensor([4]), 2)
    with pytest.raises(ValueError, match="from 0 to 3"):
        pack_planes(torch.tensor([-1]), 2)
    with pytest.raises(ValueError, match="1 to 8 bits, not 9"):
        pack_planes(torch.tensor([0]), 9)


def test_a_width_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="2 bytes"):
        unpack_trits(torch.zeros(3, 1, dtype=torch.uint8), 6)
    with pytest.raises(ValueError, match="1 bytes"):
        unpack_planes(torch.zeros(1, 3, 2, dtype=torch.uint8), 8)


# --- speed


def test_a_large_dictionary_packs_in_seconds_at_most():
    # about 0.1 s on one free core; the bound is loose because machines that run tests are busy
    trits = torch.randint(-1, 2, (32768, 512), dtype=torch.int8)
    start = time.perf_counter()
    restored = unpack_trits(pack_trits(trits), 512)
    assert time.perf_counter() - start < 5
    assert torch.equal(restored, trits)
