"""The crosscoder by hand: two layers of two dimensions, two latents."""

import pytest
import torch
from qsae_sae_crosscoder import CrosscoderConfig
from qsae_sae_crosscoder.model import Crosscoder

from qsae_core.conformance.reference_parts import L1, PlainConfig, plain_parts
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import Batch


def worked_example(normalize="none", **parts):
    config = CrosscoderConfig(n_latents=2, normalize=normalize, rotate=False, auxk_coefficient=0.0)
    coder = Crosscoder(config, CoderShape(2, 2, 2, 2), plain_parts(k=1, **parts))
    with torch.no_grad():
        # latent 0 reads dimension 0 of both layers; latent 1 dimension 1 of layer 1 alone
        coder.W_enc.weight.copy_(torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]))
        coder.W_dec.weight.copy_(torch.tensor([[0.6, 0.0, 0.8, 0.0], [0.0, 0.0, 0.0, 1.0]]))
        coder.b_dec.copy_(torch.tensor([0.0, 0.0, 1.0, 0.0]))
    return coder


def test_one_code_sums_layers_and_decodes_each():
    coder = worked_example().eval()
    x = torch.tensor([[[2.0, 5.0], [4.0, 1.0]]])
    # x - b_dec = (2, 5), (3, 1): z = (2 + 3, 1); latent 0 stays with 5
    assert coder.encode(x).to_dense().tolist() == [[5.0, 0.0]]
    # layers: 5 (0.6, 0) and 5 (0.8, 0) + (1, 0)
    torch.testing.assert_close(coder(x), torch.tensor([[[3.0, 0.0], [5.0, 0.0]]]))
    # squared errors: (2 - 3)^2 + 5^2 and (4 - 5)^2 + 1
    assert coder.loss(Batch(x, x)).terms["mse"].item() == pytest.approx(26 + 2)


def test_the_penalty_takes_the_sum_over_layers_of_norms():
    coder = worked_example(sparsity=lambda n: L1(PlainConfig(), n))
    x = torch.tensor([[[2.0, 5.0], [4.0, 1.0]]])
    # 0.01 (5 (0.6 + 0.8) + 1 (0 + 1)); the joint norms would give 0.01 (5 + 1)
    assert coder.loss(Batch(x, x)).terms["sparsity"].item() == pytest.approx(0.08)


def test_every_layer_has_its_own_mean_and_scale():
    torch.manual_seed(0)
    coder = worked_example(normalize="scale")
    x = torch.randn(1000, 2, 2) * torch.tensor([1.0, 100.0])[None, :, None] + 7
    coder.initialize(Batch(x, x))
    z = coder.norm_in(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(2, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.square().mean((0, 2)), torch.ones(2))


def test_atoms_are_those_that_decoding_adds():
    torch.manual_seed(0)
    coder = worked_example(normalize="scale")
    x = torch.randn(50, 2, 2) * 3 + 1
    coder.initialize(Batch(x, x))
    coder.eval()
    codes = coder.encode(x)
    silent = codes.with_values(torch.zeros_like(codes.values))
    added = coder.decode(codes) - coder.decode(silent)
    torch.testing.assert_close(torch.einsum("bf,fld->bld", codes.to_dense(), coder.dictionary()), added)
    assert coder.dictionary(quantized=False).shape == (2, 2, 2)
    torch.testing.assert_close(coder.atom_norms(), coder.atoms().norm(dim=2))
