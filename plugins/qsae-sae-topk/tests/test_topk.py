"""The TopK SAE by hand: two dimensions, three latents, one active."""

import pytest
import torch
from qsae_sae_topk import TopKConfig
from qsae_sae_topk.model import TopKSAE

from qsae_core.config.settings import TrainConfig
from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.contracts.coder import Budget, CoderShape
from qsae_core.contracts.data import Batch
from qsae_core.training.trainer import Trainer


def make(k=1, n_latents=3, **options):
    parts = plain_parts(k=k)
    config = TopKConfig(n_latents=n_latents, normalize="none", rotate=False, **options)
    return TopKSAE(config, CoderShape(2, 2), parts)


def worked_example(**options):
    coder = make(**options)
    with torch.no_grad():
        coder.W_enc.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
        coder.W_dec.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
        coder.b_enc.copy_(torch.tensor([0.5, 0.0, 0.0]))
        coder.b_dec.copy_(torch.tensor([1.0, 0.0]))
    return coder


def test_encode_decode_and_squared_error():
    coder = worked_example(auxk_coefficient=0.0).eval()
    x = torch.tensor([[3.0, 2.0]])
    # x - b_dec = (2, 2); pre-activations 2.5, 2, -2; the largest is latent 0
    assert coder.encode(x).to_dense().tolist() == [[2.5, 0.0, 0.0]]
    # x_hat = 2.5 (1, 0) + (1, 0) = (3.5, 0); squared error 0.25 + 4
    assert coder(x).tolist() == [[3.5, 0.0]]
    output = coder.loss(Batch(x, x))
    assert output.terms["mse"].item() == pytest.approx(4.25)
    assert set(output.terms) == {"mse"}


def test_a_negative_pre_activation_never_survives_the_selection():
    coder = make(k=3).eval()
    x = torch.randn(64, 2)
    codes = coder.encode(x)
    positive = (x @ coder.W_enc().T > 0).sum(1)
    assert torch.equal(codes.l0(), positive)  # a bare top-3 would keep all three latents of every token
    assert positive.min() < 3


def test_auxk_lets_a_dead_latent_model_the_residual():
    coder = worked_example(auxk_coefficient=1 / 8, k_aux=1, restart=False)
    coder.units.variance.fill_(3.0)
    coder.dead.batches.fill_(63)  # the next batch is the 64th, an eighth one; its tokens 0, 8, ... are read
    coder.begin_training(Budget(steps=10, tokens=80, batch_size=2))  # dead after 10 tokens
    coder.dead.tokens_since_fired.copy_(torch.tensor([0, 10, 0]))
    x = torch.tensor([[9.0, 0.0]]).repeat(16, 1)  # latent 0 takes these
    x[0], x[8] = torch.tensor([3.0, 1.0]), torch.tensor([3.0, 0.0])
    # latent 0 wins both tokens with 2.5: x_hat = (3.5, 0); residuals (-0.5, 1) and (-0.5, 0).
    # the dead latent 1 has pre-activations 1 and 0: e_hat = (0, 1) and (0, 0).
    # ||e - e_hat||^2 = 0.25 + 0.25; spread of e around its mean (-0.5, 0.5): 0.25 + 0.25
    terms = coder.loss(Batch(x, x)).terms
    # times 1/8, times 8 as it comes at every eighth step alone, in units of the data's variance 3
    assert terms["auxk"].item() == pytest.approx(3.0)
    terms["auxk"].backward()
    gradient = coder.W_dec.weight.grad
    assert gradient is not None
    assert gradient[0].tolist() == [0.0, 0.0]  # only the dead latent learns from it
    assert gradient[1].abs().sum() > 0


def test_evaluation_mode_counts_nothing_and_has_no_auxk():
    coder = worked_example(auxk_coefficient=1.0).eval()
    before = coder.dead.tokens_since_fired.clone()
    assert set(coder.loss(Batch(torch.ones(4, 2), torch.ones(4, 2))).terms) == {"mse"}
    assert torch.equal(coder.dead.tokens_since_fired, before)


def test_rows_keep_unit_norm_and_move_along_the_sphere():
    coder = make(n_latents=16)
    before = coder.W_dec.master.detach().clone()
    trainer = Trainer(coder, TrainConfig(steps=10, lr=1e-3, warmup=0.0, decay=0.0), "coder")
    x = torch.randn(32, 2)
    trainer.step(Batch(x, x), 0)
    after = coder.W_dec.master.detach()
    torch.testing.assert_close(after.norm(dim=1), torch.ones(16))
    moment = trainer.optimizer.state()["exp_avg.W_dec.weight"]
    along = (moment * before).sum(1)  # what Adam saw has no part along the rows
    assert along.abs().max() < 1e-5 * moment.abs().max()
    assert not torch.equal(after, before)
