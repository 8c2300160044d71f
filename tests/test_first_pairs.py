"""How transcoders begin: small numbers by hand."""

from __future__ import annotations

import pytest
import torch
from qsae_transcoder_cross_layer import CrossLayerConfig
from qsae_transcoder_cross_layer.model import CrossLayerTranscoder
from qsae_transcoder_matryoshka import MatryoshkaTranscoderConfig
from qsae_transcoder_matryoshka.model import MatryoshkaTranscoder
from qsae_transcoder_transcoder import SparseTranscoderConfig
from qsae_transcoder_transcoder.model import SparseTranscoder

from qsae_core.coders.first_pairs import TRANSCODER_BIAS_RATE, first_pairs
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


EACH = pytest.mark.parametrize(
    ("config", "model", "layers"),
    [
        (SparseTranscoderConfig, SparseTranscoder, 1),
        (MatryoshkaTranscoderConfig, MatryoshkaTranscoder, 1),
        (CrossLayerConfig, CrossLayerTranscoder, 2),
    ],
)


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


@EACH
@pytest.mark.parametrize("normalize", ["none", "center"])
def test_latents_begin_beside_the_means_without_normalisation_too(config, model, layers, normalize):
    """Sources lie about (100, 100, 100): a latent is 0 for that, and reads what its token has beside it."""
    torch.manual_seed(0)
    shape, tokens = CoderShape(3, 2, layers, layers), 400
    coder = model(config(n_latents=64 * layers, normalize=normalize, rotate=False), shape, plain_parts(k=1))
    x = torch.randn(tokens, layers, 3) + 100
    y = torch.randn(tokens, layers, 2)
    coder.initialize(Batch(x, y) if layers > 1 else Batch(x[:, 0], y[:, 0]))
    names = [f"W_enc.{layer}" for layer in range(layers)] if layers > 1 else ["W_enc"]
    for layer, (name, bias_F) in enumerate(zip(names, coder.b_enc.split(64), strict=True)):
        rows_FD, mean_D = coder.matrices()[name].master, x[:, layer].mean(0)
        offset_D = mean_D if normalize == "none" else torch.zeros(3)
        torch.testing.assert_close(rows_FD @ offset_D + bias_F, torch.zeros(64), atol=1e-4, rtol=0)
        beside = torch.nn.functional.normalize(x[:, layer] - mean_D, dim=1)
        nearest = (torch.nn.functional.normalize(rows_FD, dim=1) @ beside.T).max(1).values
        torch.testing.assert_close(nearest, torch.ones(64), atol=1e-4, rtol=0)


@EACH
def test_biases_of_transcoders_learn_faster(config, model, layers):
    coder = model(config(n_latents=64 * layers), CoderShape(3, 2, layers, layers), plain_parts(k=1))
    assert coder.rate_factors() == {"b_enc": TRANSCODER_BIAS_RATE}
    assert TRANSCODER_BIAS_RATE > 1
