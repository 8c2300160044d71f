"""What keeps latents alive, and the units of what is added to the error: small numbers by hand."""

from __future__ import annotations

import pytest
import torch
from qsae_activations.relu import ReLU
from qsae_sae_topk import TopKConfig
from qsae_sae_topk.model import TopKSAE
from qsae_sae_vanilla import VanillaConfig
from qsae_sae_vanilla.model import VanillaSAE
from qsae_sparsity import L1Config
from qsae_sparsity.l1 import L1

from qsae_core import ComponentConfig
from qsae_core.coders.dead_latents import DeadLatents, auxk_loss
from qsae_core.coders.loss_units import LossUnits
from qsae_core.coders.restarts import ENCODER_NORM, SOURCE_NORM, Restarts, restart
from qsae_core.config.settings import TrainConfig
from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.contracts.coder import Budget, CoderShape
from qsae_core.contracts.data import Batch
from qsae_core.training.trainer import Trainer


@pytest.mark.parametrize("tokens", [1, 3])
def test_auxk_of_a_residual_without_spread_is_zero_and_so_is_its_gradient(tokens):
    torch.manual_seed(0)
    W_enc, bias, W_dec = (torch.randn(*s).requires_grad_() for s in ((8, 4), (8,), (8, 4)))
    x = torch.randn(1, 4).repeat(tokens, 1)
    dead, relu = torch.ones(8, dtype=torch.bool), ReLU(ComponentConfig(), 8)
    loss = auxk_loss(x, x - x / 3, W_enc, bias, W_dec, dead, relu, 2)
    assert loss.item() == 0.0
    for gradient in torch.autograd.grad(loss, (W_enc, bias, W_dec)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_auxk_that_is_not_finite_stays_so():
    """A residual that overflowed is no residual without spread."""
    x = torch.tensor([[torch.inf, 0.0], [1.0, 2.0]])
    W, dead = torch.eye(2), torch.ones(2, dtype=torch.bool)
    loss = auxk_loss(x, x, W, torch.zeros(2), W, dead, ReLU(ComponentConfig(), 2), 1)
    assert not loss.isfinite()


def test_the_unit_is_the_total_variance():
    units = LossUnits()
    units.fit(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))  # mean (2, 2); distances^2 1 + 4 of both
    assert units.variance.item() == pytest.approx(5.0)
    units.fit(torch.tensor([[7.0, 7.0]]))
    assert units.variance.item() == 1.0


@pytest.mark.parametrize("factor", [1.0, 100.0])
def test_terms_keep_their_share_of_the_loss_at_any_scale_of_the_data(factor):
    """x = (+-2, 0) c: V = 4 c^2. Encoder and decoder (1, 0) at latent 0: f = 2 c for the first token, x_hat =
    (2 c, 0), and nothing for the second: squared errors 0 and 4 c^2, mean 2 c^2, half of V. The penalty:
    0.5 * mean(f) / sqrt(V) * V = 0.5 * c / (2 c) * V = V / 4: half of the error, whatever c is.
    """
    parts = plain_parts()._replace(sparsity=lambda n: L1(L1Config(coefficient=0.5), n))
    coder = VanillaSAE(VanillaConfig(n_latents=1, normalize="none"), CoderShape(2, 2), parts)
    x = factor * torch.tensor([[2.0, 0.0], [-2.0, 0.0]])
    coder.initialize(Batch(x, x))
    with torch.no_grad():
        coder.W_enc.weight.copy_(torch.tensor([[1.0, 0.0]]))
        coder.W_dec.weight.copy_(torch.tensor([[1.0, 0.0]]))
    terms = coder.loss(Batch(x, x)).terms
    assert terms["mse"].item() == pytest.approx(2 * factor**2)
    assert terms["sparsity"].item() == pytest.approx(factor**2)


def make(width=4, **options):
    config = TopKConfig(n_latents=8, normalize="none", rotate=False, **options)
    return TopKSAE(config, CoderShape(width, width), plain_parts(k=1))


def test_auxk_of_vectors_of_width_one():
    assert make(width=1).k_aux == 1  # half of 1, rounded down, would be none


def test_restarts_are_spread_over_the_run_and_end_before_it():
    """80 steps: every second, and none after 72."""
    restarts, dead = Restarts(), DeadLatents(3)
    restarts.begin(Budget(steps=80, tokens=320, batch_size=4))
    dead.set_threshold("auto", 320)  # 40 tokens; silent after 10
    dead.tokens_since_fired.copy_(torch.tensor([0, 10, 9]))
    x, x_hat = torch.eye(4), torch.zeros(4, 4)
    turns = []
    for batch in range(1, 81):
        dead.batches.fill_(batch)
        restarts.look(x, x_hat, dead)
        found = restarts.take()
        if found is not None:
            turns.append(batch)
            assert found.latents.tolist() == [1]
    assert turns == list(range(2, 73, 2))


def test_directions_are_errors_of_badly_reconstructed_tokens():
    restarts, dead = Restarts(), DeadLatents(2)
    restarts.begin(Budget(steps=1, tokens=8, batch_size=8))
    restarts.begin(Budget(steps=40, tokens=320, batch_size=8))
    dead.set_threshold(2, 320)
    dead.tokens_since_fired.fill_(1)
    dead.batches.fill_(1)
    x = torch.randn(8, 3)
    x_hat = x.clone()
    x_hat[5] -= torch.tensor([0.0, 3.0, 4.0])  # the only token with an error, (0, 3, 4)
    restarts.look(x, x_hat, dead)
    found = restarts.take()
    assert found is not None
    torch.testing.assert_close(found.atoms, torch.tensor([[0.0, 0.6, 0.8]]))
    assert restarts.take() is None
    W_enc, W_dec, b_enc = torch.randn(2, 3), torch.randn(2, 3), torch.randn(2)
    (latent,), (other,) = found.latents.tolist(), [1 - found.latents.item()]
    before = W_enc[other].clone()
    anew = restart(found, W_enc, W_dec, b_enc, dead)
    torch.testing.assert_close(W_dec[latent], torch.tensor([0.0, 0.6, 0.8]))
    torch.testing.assert_close(W_enc[latent], ENCODER_NORM * W_dec[latent])
    assert b_enc[latent] == 0
    assert torch.equal(W_enc[other], before)
    assert dead.tokens_since_fired[[latent, other]].tolist() == [0, 1]
    assert {name: int(mask.sum()) for name, mask in anew.items()} == {
        "W_enc.weight": 3,
        "W_dec.weight": 3,
        "b_enc": 1,
    }


def test_a_transcoders_latents_begin_anew_from_source_to_error():
    """The source (0, 6, 8) of the only token with an error, (3, -4), at width 2."""
    restarts, dead = Restarts(), DeadLatents(2)
    restarts.begin(Budget(steps=40, tokens=320, batch_size=8))
    dead.set_threshold(2, 320)
    dead.tokens_since_fired.copy_(torch.tensor([0, 1]))
    dead.batches.fill_(1)
    x, y = torch.randn(8, 3), torch.randn(8, 2)
    x[2], y_hat = torch.tensor([0.0, 6.0, 8.0]), y.clone()
    y_hat[2] -= torch.tensor([3.0, -4.0])
    restarts.look(y, y_hat, dead, x)
    found = restarts.take()
    assert found is not None
    W_enc, W_dec, b_enc = torch.randn(2, 3), torch.randn(2, 2), torch.randn(2)
    anew = restart(found, W_enc, W_dec, b_enc, dead)
    torch.testing.assert_close(W_dec[1], torch.tensor([0.6, -0.8]))
    torch.testing.assert_close(W_enc[1], SOURCE_NORM * torch.tensor([0.0, 0.6, 0.8]))
    assert {name: int(mask.sum()) for name, mask in anew.items()} == {
        "W_enc.weight": 3,
        "W_dec.weight": 2,
        "b_enc": 1,
    }


def test_a_source_is_seen_beside_its_mean_where_inputs_are_not_centred():
    """The source (3, 5) of the only token with an error, beside the batch's mean (3, 1): (0, 4)."""
    restarts, dead = Restarts(), DeadLatents(2)
    restarts.begin(Budget(steps=40, tokens=160, batch_size=4))
    dead.set_threshold(2, 160)
    dead.tokens_since_fired.copy_(torch.tensor([0, 1]))
    dead.batches.fill_(1)
    x = torch.tensor([[3.0, 5.0], [1.0, -3.0], [5.0, 1.0], [3.0, 1.0]])
    y, y_hat = torch.zeros(4, 2), torch.zeros(4, 2)
    y[0] = torch.tensor([0.0, 2.0])
    restarts.look(y, y_hat, dead, x, centred=False)
    found = restarts.take()
    assert found is not None
    W_enc, W_dec, b_enc = torch.randn(2, 2), torch.randn(2, 2), torch.randn(2)
    restart(found, W_enc, W_dec, b_enc, dead)
    torch.testing.assert_close(W_enc[1], SOURCE_NORM * torch.tensor([0.0, 1.0]))
    assert b_enc[1].item() == pytest.approx(-SOURCE_NORM)


def test_auxk_models_what_is_left_of_a_target_of_another_width():
    """Two tokens x = 1 and -1 with errors e = (2, 0) and (0, 0), mean (1, 0): the spread is 1 + 1. The dead
    latent is ReLU(3 x) = 3 and 0 with the atom (1, 0): it leaves (2 - 3, 0), and so 1 / 2 of the spread.
    """
    x, error = torch.tensor([[1.0], [-1.0]]), torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    W_enc, W_dec = torch.tensor([[9.0], [3.0]]), torch.tensor([[5.0, 5.0], [1.0, 0.0]])
    dead, relu = torch.tensor([False, True]), ReLU(ComponentConfig(), 2)
    assert auxk_loss(x, error, W_enc, torch.zeros(2), W_dec, dead, relu, 4).item() == pytest.approx(0.5)


@pytest.mark.parametrize("on", [True, False])
def test_a_latent_that_can_never_fire_begins_anew_in_training(on):
    torch.manual_seed(0)
    coder = make(restart=on, auxk_coefficient=0.0)
    x = torch.randn(64, 4)
    coder.initialize(Batch(x, x))
    with torch.no_grad():
        coder.b_enc[3] = -100.0
    trainer = Trainer(coder, TrainConfig(steps=40, batch_size=64), "coder")
    for step in range(20):
        trainer.step(Batch(x, x), step)
    assert (coder.b_enc[3] > -50) == on
