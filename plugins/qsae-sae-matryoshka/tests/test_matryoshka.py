"""The matryoshka SAE by hand: two dimensions, two groups of one latent."""

import pytest
import torch
from pydantic import ValidationError
from qsae_sae_matryoshka import MatryoshkaConfig
from qsae_sae_matryoshka.model import MatryoshkaSAE

from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import Batch
from qsae_core.contracts.metric import observe
from qsae_core.errors import ConfigError


def worked_example():
    config = MatryoshkaConfig(
        n_latents=2, group_sizes=(1, 1), normalize="none", rotate=False, auxk_coefficient=0.0
    )
    parts = plain_parts(k=1)
    coder = MatryoshkaSAE(config, CoderShape(2, 2), parts)
    with torch.no_grad():
        coder.W_enc.weight.copy_(torch.eye(2))
        coder.W_dec.weight.copy_(torch.eye(2))
        coder.b_dec.copy_(torch.tensor([1.0, 0.0]))
    return coder


def test_every_prefix_is_in_the_loss_with_the_same_weight():
    coder = worked_example()
    coder.sparsity.fixed_k = 2
    x = torch.tensor([[4.0, 2.0]])
    # x - b_dec = (3, 2): codes 3 and 2; prefix 1 leaves (0, 2), error 4; prefix 2 leaves nothing
    output = coder.loss(Batch(x, x))
    assert output.terms["mse"].item() == pytest.approx((4.0 + 0.0) / 2)
    assert output.reconstruction.tolist() == [[4.0, 2.0]]
    assert output.values.keys() == {"fvu_1", "fvu_2"}


def test_gradients_of_both_prefixes_by_hand():
    coder = worked_example()
    coder.sparsity.fixed_k = 2
    x = torch.tensor([[4.0, 2.0]])
    coder.loss(Batch(x, x)).terms["mse"].backward()
    # e_1 = (0, 2), e_2 = 0; d/dw_1 = -2 f_1 (e_1 + e_2) / 2 = -3 (0, 2); latent 2 has no error left
    assert coder.W_dec.weight.grad.tolist() == [[0.0, -6.0], [0.0, 0.0]]


def test_a_level_is_a_truncation_without_retraining():
    coder = worked_example().eval()
    coder.sparsity.fixed_k = 1
    x = torch.tensor([[3.0, 1.0]])  # x - b_dec = (2, 1): latent 1 is the largest
    level = coder.at_level(1)
    assert level.n_latents == 1
    assert torch.equal(level(x), torch.tensor([[3.0, 0.0]]))
    assert coder.levels == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_latents": 64, "group_sizes": (8, 8)}, "add up to 16, and n_latents is 64"),
        ({"n_latents": 60}, "does not divide into 8 groups"),
        ({"n_latents": 8, "group_sizes": (0, 8)}, "greater than 0"),
    ],
)
def test_group_sizes_that_do_not_fit(options, message):
    with pytest.raises(ValidationError, match=message):
        MatryoshkaConfig(**options)


def test_k_above_the_first_group_is_refused():
    config = MatryoshkaConfig(n_latents=16, group_sizes=(4, 12))
    with pytest.raises(ConfigError, match="k = 8 latents per token, and the first group has 4"):
        MatryoshkaSAE(config, CoderShape(8, 8), plain_parts(k=8))


def test_a_metric_can_ask_for_what_each_prefix_decodes_to():
    coder = worked_example().eval()
    coder.sparsity.fixed_k = 2
    x = torch.tensor([[4.0, 2.0]])  # codes 3 and 2, b_dec = (1, 0)
    observation = observe(coder, Batch(x, x))
    assert observation.reconstruction.tolist() == [[4.0, 2.0]]
    assert [part.tolist() for part in observation.shorter()] == [[[4.0, 0.0]]]
    assert observe(coder.at_level(1), Batch(x, x)).shorter is None
