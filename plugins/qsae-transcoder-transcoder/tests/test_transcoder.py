"""The transcoder by hand: from three dimensions to two, through two latents."""

import pytest
import torch
from qsae_transcoder_transcoder import SparseTranscoderConfig
from qsae_transcoder_transcoder.model import SparseTranscoder

from qsae_core.conformance import plain_parts
from qsae_core.contracts import Batch, CoderShape


def worked_example(skip: bool) -> SparseTranscoder:
    config = SparseTranscoderConfig(n_latents=2, normalize="none", skip=skip, auxk_coefficient=0.0)
    coder = SparseTranscoder(config, CoderShape(3, 2), plain_parts(k=1))
    with torch.no_grad():
        coder.W_enc.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
        coder.W_dec.weight.copy_(torch.tensor([[1.0, 0.0], [0.6, 0.8]]))
        coder.b_enc.copy_(torch.tensor([0.0, 1.0]))
        coder.b_dec.copy_(torch.tensor([10.0, 20.0]))
        if coder.W_skip is not None:
            coder.W_skip.copy_(torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]))
    return coder


X, Y = torch.tensor([[3.0, 4.0, 7.0]]), torch.tensor([[13.0, 20.0]])
"""Pre-activations 3 and 4 + 1: latent 1 stays with 5. b_dec is not subtracted from the source."""


def test_without_a_skip_connection():
    coder = worked_example(skip=False)
    output = coder.loss(Batch(X, Y))
    assert output.codes.to_dense().tolist() == [[0.0, 5.0]]
    # 5 (0.6, 0.8) + (10, 20) = (13, 24): the error is (0, -4)
    assert output.reconstruction.tolist() == [[13.0, 24.0]]
    assert output.terms["mse"].item() == pytest.approx(16.0)
    assert coder.eval()(X).tolist() == [[13.0, 24.0]]


def test_with_one():
    coder = worked_example(skip=True)
    output = coder.loss(Batch(X, Y))
    # the same and (7, -7): (20, 17), the error is (-7, 3)
    assert output.terms["mse"].item() == pytest.approx(49.0 + 9.0)
    output.terms["mse"].backward()
    # d/dW_skip = -2 e x^T
    assert coder.W_skip is not None
    assert coder.W_skip.grad is not None
    assert coder.W_skip.grad.tolist() == [[42.0, 56.0, 98.0], [-18.0, -24.0, -42.0]]
    assert coder.eval()(X).tolist() == [[20.0, 17.0]]


def test_a_transcoders_auxk_is_of_its_target_and_what_went_past_the_latents():
    """k_aux is half of the width 6 of the target; what W_skip makes is no error that AuxK has to model."""
    torch.manual_seed(0)
    config = SparseTranscoderConfig(n_latents=8, normalize="none", skip=True, auxk_coefficient=1.0)
    coder = SparseTranscoder(config, CoderShape(4, 6), plain_parts(k=2))
    assert coder.k_aux == 3
    x = torch.randn(64, 4)
    y = x @ torch.randn(4, 6) + 0.1 * torch.randn(64, 6)
    coder.dead.tokens_since_fired.fill_(10**9)
    coder.dead.batches.fill_(7)  # the next batch is the eighth, and AuxK's turn
    with torch.no_grad():
        coder.W_enc.weight.mul_(0)
        coder.b_enc.fill_(-1.0)  # no latent fires, so that y_hat is the skip's alone
        coder.W_skip.copy_(torch.linalg.lstsq(x, y).solution.T)
    terms = coder.loss(Batch(x, y)).terms
    # e_hat = 0: ||e||^2 / ||e - mean(e)||^2 over every eighth token from the second on, times 8 for the turn
    error = (y - x @ coder.W_skip.T).detach()[1::8]
    expected = error.square().sum() / (error - error.mean(0)).square().sum()
    assert terms["auxk"].item() == pytest.approx(8 * expected.item(), rel=1e-4)
