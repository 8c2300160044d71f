"""Products of codes by hand, against float64 sums, and bit for bit against embedding_bag."""

from __future__ import annotations

import pytest
import torch
from qsae_kernels_cpu.sparse import gather_dot, sparse_product, transpose_codes
from torch import Tensor

pytestmark = pytest.mark.usefixtures("lanes")
widths = pytest.mark.parametrize("width", [1, 7, 64, 500, 512, 576])
shapes = pytest.mark.parametrize(("batch", "latents"), [(0, 15), (1, 1), (5, 33), (100, 1000)])


def codes(batch: int, latents: int, most: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Indices, offsets, values; every third token is empty."""
    generator = torch.Generator().manual_seed(batch + latents)
    counts = torch.randint(0, min(most, latents) + 1, (batch,), generator=generator)
    counts[::3] = 0
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    n = int(offsets[-1])
    indices = torch.randint(0, latents, (n,), generator=generator, dtype=torch.int32)
    return indices, offsets, torch.randn(n, generator=generator)


def bag(indices: Tensor, offsets: Tensor, values: Tensor, right: Tensor) -> Tensor:
    if offsets.numel() == 1:
        return right.new_zeros(0, right.shape[1])
    return torch.nn.functional.embedding_bag(
        indices.long(), right, offsets, mode="sum", per_sample_weights=values, include_last_offset=True
    )


def assert_bits_of_bag(found: Tensor, expected: Tensor) -> None:
    """A torch without FBGEMM, such as Debian's, adds in another order: up to 3000 numbers here."""
    if "fbgemm" in torch.backends.quantized.supported_engines:
        assert torch.equal(found, expected)
    else:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)


def test_by_hand():
    right = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    indices, offsets = torch.tensor([2, 0, 1], dtype=torch.int32), torch.tensor([0, 2, 2, 3])
    values = torch.tensor([10.0, 1.0, 2.0])
    # token 0: 10 (5, 6) + 1 (1, 2) = (51, 62); token 1: nothing; token 2: 2 (3, 4)
    assert sparse_product(indices, offsets, values, right).tolist() == [[51, 62], [0, 0], [6, 8]]
    left = torch.tensor([[1.0, 1.0], [9.0, 9.0], [0.0, 2.0]])
    assert gather_dot(left, right, indices, offsets).tolist() == [5 + 6, 1 + 2, 2 * 4]
    # latent 0: entry 1 of token 0; latent 1: entry 2 of token 2; latent 2: entry 0 of token 0; latent 3: none
    tokens, order, starts = transpose_codes(indices, offsets, 4)
    assert (tokens.tolist(), order.tolist(), starts.tolist()) == ([0, 2, 0], [1, 2, 0], [0, 1, 2, 3, 3])


@widths
@shapes
def test_sparse_product_has_the_bits_of_embedding_bag(width, batch, latents):
    indices, offsets, values = codes(batch, latents)
    right = torch.randn(latents, width)
    assert_bits_of_bag(sparse_product(indices, offsets, values, right), bag(indices, offsets, values, right))


@widths
@shapes
def test_gather_dot_is_the_dot_product(width, batch, latents):
    indices, offsets, _ = codes(batch, latents)
    left, right = torch.randn(batch, width), torch.randn(latents, width)
    rows = torch.repeat_interleave(torch.arange(batch), offsets.diff())
    expected = (left.double()[rows] * right.double()[indices.long()]).sum(1)
    found = gather_dot(left, right, indices, offsets)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-6 * width)


@pytest.mark.parametrize("width", [7, 64, 500])
def test_a_dot_product_depends_on_its_two_rows_alone(width):
    indices, offsets, _ = codes(100, 1000)
    left, right = torch.randn(100, width), torch.randn(1000, width)
    whole = gather_dot(left, right, indices, offsets)
    for b in (1, 50, 98):
        start, stop = int(offsets[b]), int(offsets[b + 1])
        alone = gather_dot(left[b : b + 1], right, indices[start:stop], torch.tensor([0, stop - start]))
        assert torch.equal(alone, whole[start:stop])
    shifted = (
        torch.randn(1001 * width + 1)[1:][: 1000 * width].view(1000, width).copy_(right)
    )  # unaligned rows
    assert torch.equal(gather_dot(left, shifted, indices, offsets), whole)


@shapes
def test_transposed_codes_are_a_stable_sort(batch, latents):
    indices, offsets, _ = codes(batch, latents)
    tokens, order, starts = transpose_codes(indices, offsets, latents)
    rows = torch.repeat_interleave(torch.arange(batch), offsets.diff())
    expected = torch.sort(indices, stable=True).indices
    assert torch.equal(order, expected)
    assert torch.equal(tokens.long(), rows[expected])
    assert torch.equal(starts.diff(), torch.bincount(indices, minlength=latents))


def test_transposed_bags_of_uneven_length_on_all_threads():
    """Large enough for several threads; latent 0 is in every token, most latents are in few."""
    batch, latents, width = 3000, 500, 48
    generator = torch.Generator().manual_seed(0)
    indices = (torch.rand(batch, 16, generator=generator) ** 4 * latents).int().flatten()
    indices[::16] = 0
    offsets = torch.arange(0, 16 * batch + 1, 16)
    tokens, order, starts = transpose_codes(indices, offsets, latents)
    assert torch.equal(order, torch.sort(indices, stable=True).indices)
    values, right = torch.randn(16 * batch), torch.randn(batch, width)
    found = sparse_product(tokens, starts, values[order], right)
    assert_bits_of_bag(found, bag(tokens, starts, values[order], right))


def test_what_is_no_code_is_refused():
    indices, offsets, values = codes(5, 33)
    right = torch.randn(33, 8)
    with pytest.raises(ValueError, match="offsets end at"):
        sparse_product(indices, offsets + 1, values, right)
    with pytest.raises(ValueError, match="right"):
        sparse_product(indices, offsets, values, torch.randn(8, 33).T)
    with pytest.raises(ValueError, match="indices"):
        sparse_product(indices.long(), offsets, values, right)
