"""The cross-layer transcoder by hand: two layers of two dimensions, one latent in each."""

import math

import pytest
import torch
from qsae_sparsity import TanhConfig
from qsae_sparsity.tanh import Tanh
from qsae_transcoder_cross_layer import CrossLayerConfig
from qsae_transcoder_cross_layer.model import CrossLayerTranscoder

from qsae_core.conformance import plain_parts
from qsae_core.contracts import Batch, CoderShape
from qsae_core.errors import ConfigError, DataError

X = torch.tensor([[[2.0, 1.0], [1.0, 3.0]]])


def worked_example(skip=False, **parts):
    config = CrossLayerConfig(n_latents=2, normalize="none", rotate=False, auxk_coefficient=0.0, skip=skip)
    coder = CrossLayerTranscoder(config, CoderShape(2, 2, 2, 2), plain_parts(k=1, **parts)).eval()
    with torch.no_grad():
        # the latent of layer 0 reads dimension 0 and writes into both layers; that of layer 1 into its own
        coder.W_enc[0].weight.copy_(torch.tensor([[1.0, 0.0]]))
        coder.W_enc[1].weight.copy_(torch.tensor([[0.0, 1.0]]))
        coder.W_dec[0].weight.copy_(torch.tensor([[0.0, 0.6, 0.8, 0.0]]))
        coder.W_dec[1].weight.copy_(torch.tensor([[1.0, 0.0]]))
        coder.b_enc.copy_(torch.tensor([0.0, -1.0]))
        coder.b_dec.copy_(torch.tensor([1.0, 0.0, 0.0, 5.0]))
        if skip:
            coder.W_skip.copy_(torch.tensor([[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [10.0, 0.0]]]))
    return coder


def test_a_latent_writes_into_its_own_layer_and_later_ones():
    coder = worked_example()
    # f_0 = 2; f_1 = 3 - 1
    assert coder.encode(X).to_dense().tolist() == [[2.0, 2.0]]
    # layer 0: 2 (0, 0.6) + (1, 0); layer 1: 2 (0.8, 0) + 2 (1, 0) + (0, 5)
    torch.testing.assert_close(coder(X), torch.tensor([[[1.0, 1.2], [3.6, 5.0]]]))
    y = torch.zeros(1, 2, 2)
    # 1 + 1.44 + 12.96 + 25
    assert coder.loss(Batch(X, y)).terms["mse"].item() == pytest.approx(40.4)
    assert [coder.layers_read(layer) for layer in (0, 1)] == [(0,), (0, 1)]
    torch.testing.assert_close(coder.reconstruct_layer(X[:, :1], 0), torch.tensor([[1.0, 1.2]]))
    torch.testing.assert_close(coder.reconstruct_layer(X, 1), torch.tensor([[3.6, 5.0]]))


def test_a_skip_connection_stays_within_its_layer():
    coder = worked_example(skip=True)
    # layer 0: + (1, 0); layer 1: + (0, 10)
    torch.testing.assert_close(coder(X), torch.tensor([[[2.0, 1.2], [3.6, 15.0]]]))
    torch.testing.assert_close(coder.reconstruct_layer(X, 1), torch.tensor([[3.6, 15.0]]))


def test_the_penalty_takes_the_norm_of_all_vectors_of_a_latent_as_one():
    coder = worked_example(sparsity=lambda n: Tanh(TanhConfig(coefficient=0.1, c=math.log(3) / 2), n))
    # both norms are 1 (0.36 + 0.64; the sum of norms would be 1.4) and both latents 2: 2 tanh(ln 3) = 1.6
    terms = coder.train().loss(Batch(X, torch.zeros(1, 2, 2))).terms
    # units.variance is 1 over two layers: rms = sqrt(1/2), and the price is of 1/2
    half = 0.5
    wanted = 0.1 * half * 2 * math.tanh(math.log(3) / math.sqrt(half))
    assert terms["sparsity"].item() == pytest.approx(wanted)
    with torch.no_grad():
        coder.units.variance.fill_(2.0)
    assert coder.loss(Batch(X, torch.zeros(1, 2, 2))).terms["sparsity"].item() == pytest.approx(0.16)


def test_a_later_layer_is_shown_what_earlier_ones_miss():
    coder = worked_example(skip=True)
    y = torch.tensor([[[5.0, 5.0], [6.0, 7.0]]])
    calibrations = coder.calibrations(Batch(X, y), coder.encode(X))
    name, (codes, target, missed) = next(calibrations)
    # without b_dec (1, 0, 0, 5), the skip connection's (1, 0, 0, 10) and the other latent's (0, 0, 2, 0)
    assert (name, codes.to_dense().tolist()) == ("W_dec.0", [[2.0]])
    assert target.tolist() == [[3.0, 5.0, 4.0, -8.0]]
    assert missed is None
    with torch.no_grad():
        coder.W_dec[0].weight.copy_(torch.tensor([[0.0, 0.5, 1.0, 0.25]]))
    name, (codes, target, missed) = next(calibrations)
    # f_0 is 2: of (1.6, 0) in layer 1 it now gives (2, 0.5); what is left of y is 6 - 2 and 7 - 5 - 10 - 0.5
    assert (name, codes.to_dense().tolist()) == ("W_dec.1", [[2.0]])
    torch.testing.assert_close(missed, torch.tensor([[-0.4, -0.5]]))
    torch.testing.assert_close(target, torch.tensor([[4.0, -8.5]]))
    assert next(calibrations, None) is None


def test_atoms_are_those_that_decoding_adds_and_none_writes_before_its_layer():
    torch.manual_seed(0)
    config = CrossLayerConfig(n_latents=12, rotate=True)
    coder = CrossLayerTranscoder(config, CoderShape(4, 5, 3, 3), plain_parts(k=2))
    x, y = 3 * torch.randn(60, 3, 4) + 1, torch.randn(60, 3, 5) * torch.tensor([1.0, 10, 100])[:, None] - 2
    coder.initialize(Batch(x, y))
    coder.eval()
    codes = coder.encode(x)
    silent = codes.with_values(torch.zeros_like(codes.values))
    added = coder.decode(codes) - coder.decode(silent)
    summed = torch.einsum("bf,fld->bld", codes.to_dense(), coder.dictionary())
    torch.testing.assert_close(summed, added, rtol=1e-4, atol=1e-3)
    assert coder.atoms()[4:8, 0].norm() == coder.atoms()[8:, :2].norm() == 0
    assert (coder.atoms()[8:, 2].norm(dim=1) > 0).all()
    torch.testing.assert_close(coder.atom_norms(), coder.atoms().norm(dim=2))
    # on either side each layer has a mean and a scale of its own
    torch.testing.assert_close(coder.norm_target(y).square().mean((0, 2)), torch.ones(3))
    # without a code it gives the targets' means
    torch.testing.assert_close(coder.decode(silent)[0], y.mean(0), rtol=1e-4, atol=1e-4)


def test_latents_are_at_zero_for_the_mean_input():
    config = CrossLayerConfig(n_latents=4, normalize="none")
    coder = CrossLayerTranscoder(config, CoderShape(3, 3, 2, 2), plain_parts(k=1))
    x = torch.randn(50, 2, 3) + 7
    coder.initialize(Batch(x, torch.randn(50, 2, 3)))
    for layer in (0, 1):
        rows = slice(2 * layer, 2 * layer + 2)
        at_mean = coder.W_enc[layer].master @ x[:, layer].mean(0) + coder.b_enc[rows]
        torch.testing.assert_close(at_mean, torch.zeros(2), atol=1e-5, rtol=0)


def test_what_does_not_fit():
    parts = plain_parts(k=1)
    with pytest.raises(ConfigError, match="7 latents do not divide into 3 layers") as caught:
        CrossLayerTranscoder(CrossLayerConfig(n_latents=7), CoderShape(2, 2, 3, 3), parts)
    assert caught.value.next == "--n-latents 9"
    with pytest.raises(ConfigError, match="reads 3 layers and would write into 2"):
        CrossLayerTranscoder(CrossLayerConfig(n_latents=6), CoderShape(2, 2, 3, 2), parts)
    with pytest.raises(ConfigError, match="layer 1 of 3 has 2 of the 6 latents"):
        CrossLayerTranscoder(CrossLayerConfig(n_latents=6), CoderShape(2, 2, 3, 3), plain_parts(k=3))
    coder = worked_example()
    with pytest.raises(DataError, match="the vectors have the shape"):
        coder.reconstruct_layer(X, 0)
    with pytest.raises(ConfigError, match="more than one encoder and one decoder"):
        coder.dense()
    with pytest.raises(ConfigError, match="the decoder is 2 matrices"):
        coder.codes_and_scales()
