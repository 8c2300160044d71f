"""The JumpReLU SAE by hand; the surrogates' numbers are in qsae-activations."""

import pytest
import torch
from qsae_sae_jumprelu import JumpReLUConfig
from qsae_sae_jumprelu.model import JumpReLUSAE

from qsae_core.component import ComponentConfig
from qsae_core.conformance.reference_parts import L1, PlainConfig, ReLU, plain_parts
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import Batch
from qsae_core.errors import ConfigError


class Above(ReLU):
    """z where it is above theta."""

    def __init__(self, n):
        super().__init__(ComponentConfig(), n)
        self.theta = torch.nn.Parameter(torch.full((n,), 1.5))

    def forward(self, pre_acts, latent_index=None):
        return pre_acts * (pre_acts > 1.5)


def worked_example(**options):
    config = JumpReLUConfig(n_latents=2, normalize="none", rotate=False, **options)
    parts = plain_parts(activation=Above, sparsity=lambda n: L1(PlainConfig(), n))
    coder = JumpReLUSAE(config, CoderShape(2, 2), parts)
    with torch.no_grad():
        coder.W_enc.weight.copy_(torch.eye(2))
        coder.W_dec.weight.copy_(torch.eye(2))
    return coder


X = torch.tensor([[3.0, 1.0]])


def test_what_is_below_the_threshold_is_zero():
    coder = worked_example()
    output = coder.loss(Batch(X, X))
    assert output.codes.to_dense().tolist() == [[3.0, 0.0]]
    assert output.terms["mse"].item() == pytest.approx(1.0)
    assert set(output.terms) == {"mse", "sparsity"}


def test_the_pre_activation_loss_lifts_dead_latents_alone():
    coder = worked_example(preact_coefficient=2.0)
    assert coder.loss(Batch(X, X)).terms["preact"].item() == 0.0
    coder.dead.threshold = 10
    coder.dead.tokens_since_fired.copy_(torch.tensor([0, 10]))
    # latent 1 is 1.5 - 1 below its threshold; 2 * 0.5 * ||w|| = 1, in units of sqrt(V) = 3 times V
    coder.units.variance.fill_(9.0)
    assert coder.loss(Batch(X, X)).terms["preact"].item() == pytest.approx(3.0)
    assert "preact" not in coder.eval().loss(Batch(X, X)).terms


def test_the_pre_activation_loss_needs_thresholds():
    config = JumpReLUConfig(n_latents=2, preact_coefficient=1.0)
    with pytest.raises(ConfigError, match="activation 'ReLU' has no threshold"):
        JumpReLUSAE(config, CoderShape(2, 2), plain_parts(k=1))
