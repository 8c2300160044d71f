"""The matryoshka transcoder by hand: from two dimensions to two, two groups of one latent."""

import pytest
import torch
from pydantic import ValidationError
from qsae_transcoder_matryoshka import MatryoshkaTranscoderConfig
from qsae_transcoder_matryoshka.model import MatryoshkaTranscoder

from qsae_core.conformance import plain_parts
from qsae_core.contracts import Batch, CoderShape


def worked_example(skip: bool) -> MatryoshkaTranscoder:
    config = MatryoshkaTranscoderConfig(
        n_latents=2, group_sizes=(1, 1), normalize="none", skip=skip, auxk_coefficient=0.0
    )
    coder = MatryoshkaTranscoder(config, CoderShape(2, 2), plain_parts(k=1))
    coder.sparsity.fixed_k = 2
    with torch.no_grad():
        coder.W_enc.weight.copy_(torch.eye(2))
        coder.W_dec.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        coder.b_dec.copy_(torch.tensor([10.0, 0.0]))
        if coder.W_skip is not None:
            coder.W_skip.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    return coder


X, Y = torch.tensor([[3.0, 2.0]]), torch.tensor([[15.0, 4.0]])
"""Codes 3 and 2, of which the first is written to the second dimension and the other to the first."""


def test_every_prefix_is_in_the_loss_and_has_the_bias():
    output = worked_example(skip=False).loss(Batch(X, Y))
    # y_hat_1 = (10, 3): (5, 1) is left, 26; y_hat_2 = (12, 3): (3, 1), 10
    assert output.terms["mse"].item() == pytest.approx((26.0 + 10.0) / 2)
    assert output.reconstruction.tolist() == [[12.0, 3.0]]
    assert output.values.keys() == {"fvu_1", "fvu_2"}


def test_every_prefix_has_the_skip_connection_whole():
    coder = worked_example(skip=True)
    output = coder.loss(Batch(X, Y))
    # 3 more in the first dimension: (2, 1) is left, 5; and (0, 1), 1
    assert output.terms["mse"].item() == pytest.approx((5.0 + 1.0) / 2)
    assert output.reconstruction.tolist() == [[15.0, 3.0]]
    output.terms["mse"].backward()
    # of each prefix -2 e x^T; their mean: -(2 + 0) in the first dimension, -(1 + 1) in the second
    assert coder.W_skip is not None
    assert coder.W_skip.grad is not None
    assert coder.W_skip.grad.tolist() == [[-6.0, -4.0], [-6.0, -4.0]]
    assert coder.b_dec.grad is not None
    assert coder.b_dec.grad.tolist() == [-2.0, -2.0]


def test_a_level_is_a_truncation_with_bias_and_skip_connection():
    coder = worked_example(skip=True).eval()
    coder.sparsity.fixed_k = 1  # at level 1 the first latent, which is the larger one anyway
    assert coder.at_level(1)(X).tolist() == [[13.0, 3.0]]
    assert coder.levels == 2


def test_the_usual_groups():
    config = MatryoshkaTranscoderConfig(n_latents=18432)
    assert config.prefixes() == (1152, 3456, 8064, 18432)
    assert config.first_groups(2).prefixes() == (1152, 3456)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_latents": 64, "group_sizes": (8, 8)}, "add up to 16, and n_latents is 64"),
        ({"n_latents": 60}, "60.* does not divide into groups of 1:2:4:9; give group_sizes"),
    ],
)
def test_group_sizes_that_do_not_fit(options, message):
    with pytest.raises(ValidationError, match=message):
        MatryoshkaTranscoderConfig(**options)
