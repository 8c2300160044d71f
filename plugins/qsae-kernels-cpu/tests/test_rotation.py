"""Rotations: by hand, beside the formula in float64, one row like many."""

from __future__ import annotations

import pytest
import torch
from qsae_kernels_cpu.rotation import rotate, unrotate

pytestmark = pytest.mark.usefixtures("lanes")
SHAPES = [(1, 1), (1, 61), (2, 37), (4, 18), (8, 9), (16, 32), (16, 36), (32, 72)]


def _rotation(blocks: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(blocks * size)
    half = torch.randn(blocks, blocks, generator=generator)
    signs = (2 * torch.randint(0, 2, (blocks * size,), generator=generator) - 1).to(torch.int8)
    return signs, half + half.T, torch.randn(size, size, generator=generator)


def test_by_hand():
    """Row 1 2 3 4, signs + - + +: X = [[1, -2], [3, 4]]; X right = [[-2, 1], [4, 3]] swaps the columns;
    left adds 1 times the other row: [[-2 + 4, 1 + 3], [-2 + 4, 1 + 3]] = 2 4 2 4."""
    row, signs = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([1, -1, 1, 1], dtype=torch.int8)
    left, right = torch.ones(2, 2), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert rotate(row, signs, left, right).tolist() == [[2.0, 4.0, 2.0, 4.0]]
    # left X = [[4, 6], [4, 6]], its columns swapped [[6, 4], [6, 4]], times the signs
    assert unrotate(row, signs, left, right).tolist() == [[6.0, -4.0, 6.0, 4.0]]


@pytest.mark.parametrize(("blocks", "size"), SHAPES)
@pytest.mark.parametrize("rows", [0, 1, 7, 300])
def test_the_formula_in_float64(blocks, size, rows):
    rotation = _rotation(blocks, size)
    signs, left, right = (part.double() for part in rotation)
    x = torch.randn(rows, blocks * size, generator=torch.Generator().manual_seed(rows))
    X = x.double().view(-1, blocks, size)
    forth = (left @ ((x.double() * signs).view(-1, blocks, size) @ right)).view(rows, blocks * size)
    back = ((left @ X) @ right.T).view(rows, blocks * size) * signs
    for run, expected in ((rotate, forth), (unrotate, back)):
        found = run(x, *rotation)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5 * blocks * size)
        if rows:
            assert torch.equal(run(x[-1:].clone(), *rotation), found[-1:])
