"""The plain TopK SAE by hand."""

import pytest
import torch
from qsae_sae_baseline import BaselineConfig
from qsae_sae_baseline.model import BaselineSAE

from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import Batch


def test_the_input_keeps_its_b_dec_and_the_loss_is_the_squared_error():
    config = BaselineConfig(n_latents=2, normalize="none", rotate=False)
    coder = BaselineSAE(config, CoderShape(2, 2), plain_parts(k=1))
    with torch.no_grad():
        coder.W_enc.weight.copy_(torch.eye(2))
        coder.W_dec.weight.copy_(torch.eye(2))
        coder.b_dec.copy_(torch.tensor([1.0, 0.0]))
    x = torch.tensor([[3.0, 2.0]])
    # z = (3, 2), not (2, 2): latent 0 with 3; x_hat = (3, 0) + (1, 0); error 1 + 4
    output = coder.loss(Batch(x, x))
    assert output.codes.to_dense().tolist() == [[3.0, 0.0]]
    assert set(output.terms) == {"mse"}
    assert output.terms["mse"].item() == pytest.approx(5.0)


def test_negative_pre_activations_do_not_survive():
    coder = BaselineSAE(BaselineConfig(n_latents=3, normalize="none"), CoderShape(2, 2), plain_parts(k=3))
    assert (coder.encode(torch.randn(50, 2)).values >= 0).all()
