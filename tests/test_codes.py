"""SparseCodes by hand: three tokens, four latents."""

import torch

from qsae_core.contracts.codes import SparseCodes, concatenate

DENSE = torch.tensor([[0.0, 2.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0], [5.0, 0.0, 0.0, 0.0]])


def test_from_dense_keeps_the_non_zero_entries_row_by_row():
    codes = SparseCodes.from_dense(DENSE)
    assert codes.indices.tolist() == [1, 3, 0]
    assert codes.values.tolist() == [2.0, -1.0, 5.0]
    assert codes.offsets.tolist() == [0, 2, 2, 3]
    assert codes.rows.tolist() == [0, 0, 2]
    assert codes.k is None
    assert torch.equal(codes.to_dense(), DENSE)


def test_l0_counts_negative_entries_and_not_the_zeros_that_pad_a_top_k():
    codes = SparseCodes.from_top_k(torch.tensor([[1, 3], [0, 2]]), torch.tensor([[2.0, -1.0], [4.0, 0.0]]), 4)
    assert codes.k == 2
    assert codes.l0().tolist() == [2, 1]
    assert codes.fired().tolist() == [1, 1, 0, 1]


def test_top_0_is_an_empty_code_of_every_token():
    codes = SparseCodes.from_top_k(torch.zeros(3, 0, dtype=torch.int64), torch.zeros(3, 0), 4)
    assert codes.batch_size == 3
    assert codes.l0().tolist() == [0, 0, 0]


def test_concatenating_chunks_gives_the_codes_of_the_whole():
    whole = SparseCodes.from_dense(DENSE)
    parts = concatenate([SparseCodes.from_dense(DENSE[:1]), SparseCodes.from_dense(DENSE[1:])])
    assert torch.equal(parts.indices, whole.indices)
    assert torch.equal(parts.offsets, whole.offsets)
    assert torch.equal(parts.to_dense(), DENSE)


def test_values_carry_the_gradient_through_to_dense():
    values = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    SparseCodes.from_dense(DENSE).with_values(values).to_dense().pow(2).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [2.0, 4.0, 6.0]
