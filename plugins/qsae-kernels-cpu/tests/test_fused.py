"""Fused operations: a coder small enough to follow by hand, and what is refused. Core compares all else."""

from __future__ import annotations

import pytest
import torch
from qsae_kernels_cpu.fused import fused_decode, fused_decoder, fused_encode, fused_encoder
from qsae_kernels_cpu.selection import screen_prepare

from qsae_core.kernels import Space


def _space(rotated: bool = False) -> Space:
    """Mean (1, 0), scale 2; the rotation, where there is one, swaps the two dimensions."""
    right = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    signs, left = torch.ones(2, dtype=torch.int8), torch.ones(1, 1)
    return Space(torch.tensor([1.0, 0.0]), torch.tensor(2.0), torch.tensor(rotated), signs, left, right)


@pytest.mark.usefixtures("screening")
def test_an_encoding_by_hand():
    """x = (7, -4): (3, -2) in the space, (3, -4) without the offset (0, 2). Rows (1, 0), (0, 1), (1, 1) and
    (0, -1), biases 0, 10, 0, 1: pre-activations 3, 6, -1, 5; the two largest are 1 and 3."""
    W = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, -1.0]])
    bias, offset = torch.tensor([0.0, 10.0, 0.0, 1.0]), torch.tensor([0.0, 2.0])
    x = torch.tensor([[7.0, -4.0]])
    coder = fused_encoder(bias, offset, None, _space(), W, screen_prepare(W))
    indices, pre_acts, offsets = fused_encode(coder, x, 2, 3)
    assert (indices.tolist(), pre_acts.tolist(), offsets.tolist()) == ([1, 3], [6.0, 5.0], [0, 2])
    # with importance 4 the first latent ranks as 12, before 6 and 5
    importance = torch.tensor([4.0, 1.0, 1.0, 1.0])
    coder = fused_encoder(bias, offset, importance, _space(), W, screen_prepare(W))
    assert fused_encode(coder, x, 2, 4)[1].tolist() == [3.0, 6.0]
    # swapped: (-2, 3), (-2, 1) without the offset: pre-activations -2, 11, -1, 0
    coder = fused_encoder(bias, offset, None, _space(rotated=True), W, screen_prepare(W))
    assert fused_encode(coder, x, 2, 4)[1].tolist() == [11.0, 0.0]
    x[0, 1] = torch.nan
    assert fused_encode(coder, x, 2, 4) is None
    bias[1] = -100.0  # the coder reads its tensors at each call
    assert fused_encode(coder, torch.tensor([[7.0, -4.0]]), 2, 4)[0].tolist() == [2, 3]


@pytest.mark.usefixtures("lanes")
def test_a_decoding_by_hand():
    """2 (1, 2) - 1 (0, 5) = (2, -1), plus the bias (1, 1) = (3, 0); times 2 plus (1, 0) = (7, 0); swapped
    first: (1, 6). The second token has no entry: the bias (1, 1), times 2 plus (1, 0) = (3, 2)."""
    W, bias = torch.tensor([[1.0, 2.0], [0.0, 5.0]]), torch.ones(2)
    indices, offsets = torch.tensor([0, 1], dtype=torch.int32), torch.tensor([0, 2, 2])
    values = torch.tensor([2.0, -1.0])
    coder = fused_decoder(bias, _space(), W)
    assert fused_decode(coder, indices, offsets, values).tolist() == [[7.0, 0.0], [3.0, 2.0]]
    turned = fused_decoder(bias, _space(rotated=True), W)
    assert fused_decode(turned, indices, offsets, values).tolist() == [[1.0, 6.0], [3.0, 2.0]]
    assert fused_decode(coder, indices[:0], torch.zeros(1, dtype=torch.int64), values[:0]).shape == (0, 2)
    for wrong in (-1, 2):
        outside = torch.tensor([0, wrong], dtype=torch.int32)
        assert fused_decode(coder, outside, offsets, values) is None
    for ends in ([0, 1, 1], [1, 2, 2], [0, 3, 2]):
        with pytest.raises(ValueError, match="offsets"):
            fused_decode(coder, indices, torch.tensor(ends), values)


@pytest.mark.usefixtures("lanes")
def test_a_coder_of_other_sizes_is_refused():
    space, W = _space(), torch.ones(2, 2)
    with pytest.raises(ValueError, match="bias"):
        fused_decoder(torch.ones(3), space, W)
    with pytest.raises(ValueError, match="weights"):
        fused_decoder(torch.ones(2), space, torch.ones(2, 3))
    with pytest.raises(ValueError, match="rotated"):
        fused_decoder(torch.ones(2), space._replace(rotated=torch.tensor(1.0)), W)
    coder = fused_decoder(torch.ones(2), space, W)
    index, offsets = torch.zeros(1, dtype=torch.int32), torch.tensor([0, 1])
    assert fused_decode(coder, index, offsets, torch.ones(1).double()) is None
    assert fused_decode(coder, index.long(), offsets, torch.ones(1)) is None
    with pytest.raises(ValueError, match="2 values"):
        fused_decode(coder, index, offsets, torch.ones(2))
