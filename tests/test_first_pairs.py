"""How transcoders begin: small numbers by hand."""

from __future__ import annotations

import pytest
import torch
from qsae_transcoder_transcoder import SparseTranscoderConfig
from qsae_transcoder_transcoder.model import SparseTranscoder

from qsae_core.coders.first_pairs import first_pairs
from qsae_core.conformance import plain_parts
from qsae_core.contracts import Batch, CoderShape


def test_pairs_are_those_of_tokens_with_both_sides_each_once():
    """Of four tokens one has no target and one no source: (3, 4) to (0, 2), and (0, 5) to (1, 0)."""
    x = torch.tensor([[3.0, 4.0], [1.0, 1.0], [0.0, 0.0], [0.0, 5.0]])
    y = torch.tensor([[0.0, 2.0], [0.0, 0.0], [9.0, 9.0], [1.0, 0.0]])
    sources, atoms = first_pairs(x, y, 10)
    pairs = sorted(torch.cat([sources, atoms], dim=1).tolist())
    torch.testing.assert_close(
        torch.tensor(pairs), torch.tensor([[0.0, 1.0, 1.0, 0.0], [0.6, 0.8, 0.0, 1.0]])
    )
    assert len(first_pairs(x, y, 1)[0]) == 1
    assert len(first_pairs(x, torch.zeros_like(y), 10)[0]) == 0


def test_tokens_with_larger_targets_are_drawn_more_often():
    x = torch.randn(4000, 3)
    y = torch.nn.functional.normalize(torch.randn(4000, 3), dim=1)
    y[2000:] *= 2  # four times the square
    (sources, _), far = first_pairs(x, y, 400), torch.nn.functional.normalize(x[2000:], dim=1)
    share = torch.isin(sources[:, 0], far[:, 0]).float().mean().item()
    assert share == pytest.approx(0.8, abs=0.07)  # of few of many: 2000 * 4 / (2000 * 5)


def make(n_latents: int) -> SparseTranscoder:
    torch.manual_seed(0)
    config = SparseTranscoderConfig(n_latents=n_latents, normalize="none")
    return SparseTranscoder(config, CoderShape(3, 2), plain_parts(k=1))


def test_latents_beyond_the_tokens_keep_their_random_rows():
    coder, sample = make(8), Batch(torch.randn(5, 3), torch.randn(5, 2))
    before = coder.W_enc.master.clone(), coder.W_dec.master.clone()
    coder.initialize(sample)
    assert not torch.equal(coder.W_dec.master[:5], before[1][:5])
    assert torch.equal(coder.W_enc.master[5:], before[0][5:])
    assert torch.equal(coder.W_dec.master[5:], before[1][5:])
    torch.testing.assert_close(coder.W_dec.master.norm(dim=1), torch.ones(8))
    torch.testing.assert_close(coder.W_enc.master.norm(dim=1), torch.full((8,), coder.encoder_scale))
