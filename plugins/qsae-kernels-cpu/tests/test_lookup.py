"""Products with packed codes: the layout by hand, and the bits of the products with the unpacked matrix."""

from __future__ import annotations

import pytest
import torch
from qsae_kernels_cpu.lookup import lookup_gather_dot, lookup_pack, lookup_product
from qsae_kernels_cpu.sparse import gather_dot, sparse_product

pytestmark = pytest.mark.usefixtures("lanes")


def test_the_layout_by_hand():
    """20 columns of 2 bits: column 16 t + i is bits 2 t, 2 t + 1 of word i."""
    codes = torch.zeros(1, 20, dtype=torch.uint8)
    codes[0, 0], codes[0, 1], codes[0, 16] = 3, 2, 1
    words = lookup_pack(codes, 2)
    assert words.shape == (1, 64)
    # word 0: column 0 in bits 0-1, column 16 in bits 2-3: 3 + 1 * 4 = 7; word 1: column 1: 2
    assert words.view(torch.int32)[0, :3].tolist() == [7, 2, 0]
    assert lookup_pack(codes, 8).shape == (1, 32)


@pytest.mark.parametrize("width", [1, 7, 64, 256, 500, 512, 576])
@pytest.mark.parametrize(("bits", "n_points"), [(1, 2), (2, 3), (2, 4), (4, 16), (4, 5), (8, 256), (8, 200)])
@pytest.mark.parametrize("even", [True, False])
def test_lookup_has_the_bits_of_the_unpacked_matrix(width, bits, n_points, even):
    generator = torch.Generator().manual_seed(width)
    latents, batch = 33, 50
    codes = torch.randint(0, n_points, (latents, width), dtype=torch.uint8, generator=generator)
    points = torch.arange(n_points) - (n_points - 1) / 2 if even else torch.randn(n_points)
    scales = torch.rand(latents, generator=generator) + 0.1
    counts = torch.randint(0, 20, (batch,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    indices = torch.randint(0, latents, (int(offsets[-1]),), dtype=torch.int32, generator=generator)
    values, left = torch.randn(indices.numel()), torch.randn(batch, width)
    dense, words = points[codes.int()] * scales[:, None], lookup_pack(codes, bits)
    packed = (words, points, scales, width, bits)
    product = lookup_product(*packed, indices, offsets, values)
    assert torch.equal(product, sparse_product(indices, offsets, values, dense))
    dots = lookup_gather_dot(*packed, left, indices, offsets)
    assert torch.equal(dots, gather_dot(left, dense, indices, offsets))


def test_what_is_no_packed_matrix_is_refused():
    codes, nothing = torch.zeros(3, 8, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
    words, empty = lookup_pack(codes, 2), torch.zeros(0)
    with pytest.raises(ValueError, match="bits must be"):
        lookup_pack(codes, 3)
    with pytest.raises(ValueError, match="up to 4 points"):
        lookup_product(words, torch.zeros(5), torch.ones(3), 8, 2, empty.int(), nothing, empty)
    with pytest.raises(ValueError, match="words"):
        lookup_product(words, torch.zeros(3), torch.ones(3), 800, 2, empty.int(), nothing, empty)
