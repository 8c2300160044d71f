"""Loss and gradients against the formula in float64, written with plain torch operations and autograd.

Shapes: B tokens, L layers, D width in, E width out, F latents of a layer.
"""

import pytest
import torch
from qsae_sparsity import TanhConfig
from qsae_sparsity.tanh import Tanh
from qsae_transcoder_cross_layer import CrossLayerConfig
from qsae_transcoder_cross_layer.model import CrossLayerTranscoder

from qsae_core.conformance import plain_parts
from qsae_core.contracts import Batch, Budget, CoderShape

B, L, D, E, F, K = 40, 3, 6, 5, 8, 2
C, PRICE = 3.0, 0.05


def made(sparsity, skip, auxk=0.0):
    torch.manual_seed(1)
    parts = {"sparsity": lambda n: Tanh(TanhConfig(coefficient=PRICE, c=C), n)} if sparsity == "tanh" else {}
    config = CrossLayerConfig(n_latents=L * F, skip=skip, rotate=False, auxk_coefficient=auxk, restart=False)
    coder = CrossLayerTranscoder(config, CoderShape(D, E, L, L), plain_parts(k=K, **parts))
    x = 2 * torch.randn(B, L, D) + 1
    batch = Batch(x, torch.randn(B, L, E) * torch.tensor([1.0, 5.0, 20.0])[:, None] - 3)
    coder.initialize(batch)
    with torch.no_grad():
        for parameter in coder.parameters():  # biases and the skip connection begin at 0
            parameter.add_(0.1 * torch.randn_like(parameter))
    return coder.train(), batch


def normalized(vectors):
    vectors = vectors.double()
    centred = vectors - vectors.mean(0)
    return centred / centred.square().mean((0, 2)).sqrt()[:, None]


def formula(p, batch, sparsity, dead=None, auxk=0.0):
    """``sum_L ||y_L - y_hat_L||^2``, tanh prices, AuxK: each a mean over tokens; p: name -> float64."""
    x, y = normalized(batch.x), normalized(batch.y)
    variance = (y - y.mean(0)).square().sum((1, 2)).mean()
    unit = variance / L
    y_hat = p["b_dec"].view(L, E).expand(B, L, E)
    price, latents = torch.zeros((), dtype=torch.float64), []
    for layer in range(L):
        f = (x[:, layer] @ p[f"W_enc.{layer}.weight"].T + p["b_enc"][layer * F : (layer + 1) * F]).relu()
        latents.append(f)
        if sparsity == "topk":
            smallest = f.topk(K, dim=1).values[:, -1:]
            f = f * (f >= smallest)
        w = p[f"W_dec.{layer}.weight"]
        if sparsity == "tanh":
            price = price + PRICE * unit * torch.tanh(C * f * w.norm(dim=1) / unit.sqrt()).sum(1).mean()
        written = (f @ w).view(B, L - layer, E)
        y_hat = y_hat + torch.cat([torch.zeros(B, layer, E, dtype=torch.float64), written], dim=1)
    if "W_skip" in p:
        y_hat = y_hat + torch.einsum("bld,led->ble", x, p["W_skip"])
    loss = (y - y_hat).square().sum((1, 2)).mean() + price
    if dead is not None:
        # at the eighth batch, on the tokens 1, 9, ...; times 8, so that its weight is auxk on average
        for layer in range(L):
            e = (y - y_hat).detach()[1::8, layer:].flatten(1)
            f = latents[layer][1::8][:, dead[layer]]
            kept = f.topk(min(E // 2, f.shape[1]), dim=1)
            f = torch.zeros_like(f).scatter(1, kept.indices, kept.values)
            modelled = f @ p[f"W_dec.{layer}.weight"][dead[layer]]
            relative = (e - modelled).square().sum() / (e - e.mean(0)).square().sum()
            loss = loss + 8 * auxk * unit * relative
    return loss


def gradients_of_formula(coder, *arguments, **options):
    p = {n: t.detach().double().requires_grad_() for n, t in coder.named_parameters()}
    loss = formula(p, *arguments, **options)
    loss.backward()
    return loss, {name: tensor.grad for name, tensor in p.items()}


def expect_same(coder, batch, loss, gradients):
    total = torch.stack(list(coder.loss(batch).terms.values())).sum()
    total.backward()
    torch.testing.assert_close(total.double(), loss, rtol=1e-5, atol=0)
    named = dict(coder.named_parameters())
    assert named.keys() == gradients.keys()
    for name, parameter in named.items():
        size = gradients[name].abs().max().item()
        assert size > 0, name
        difference = (parameter.grad.double() - gradients[name]).abs().max().item()
        assert difference < 1e-5 * size, name


@pytest.mark.parametrize("sparsity", ["topk", "tanh"])
@pytest.mark.parametrize("skip", [False, True])
def test_loss_and_all_gradients(sparsity, skip):
    coder, batch = made(sparsity, skip)
    expect_same(coder, batch, *gradients_of_formula(coder, batch, sparsity))


def test_auxk_of_each_layer_is_for_what_it_writes_into():
    coder, batch = made("topk", False, auxk=0.25)
    dead = [torch.arange(1, 3 + layer) for layer in range(L)]
    with torch.no_grad():
        coder.b_enc.add_(5)  # K of those that live are always larger than any of the dead
        for layer, which in enumerate(dead):
            coder.W_enc[layer].master[which] *= 0.1
            coder.b_enc[layer * F + which] = 0.01
    for living, which in zip(coder.living, dead, strict=True):
        living.dead.batches.fill_(7)
        living.dead.threshold = 1000
        living.dead.tokens_since_fired[which] = 10_000
    expect_same(coder, batch, *gradients_of_formula(coder, batch, "topk", dead=dead, auxk=0.25))
    assert coder.dead_share() == sum(map(len, dead)) / (L * F)


def test_silent_latents_begin_anew_at_the_error_of_what_they_write_into():
    coder, batch = made("topk", False)
    coder.config = coder.config.model_copy(update={"restart": True})
    coder.begin_training(Budget(steps=40, tokens=40 * B, batch_size=B))  # every batch is its turn
    coder.living[1].dead.tokens_since_fired[3] = 10_000
    with torch.no_grad():
        coder.b_enc[F + 3] = -100
        out = coder.loss(batch)
    coder.after_step(1)
    chosen = coder.restarted()
    assert sorted(chosen) == ["W_dec.1.weight", "W_enc.1.weight", "b_enc"]
    assert chosen["b_enc"].nonzero().flatten().tolist() == [F + 3]
    assert all(
        chosen[f"{name}.1.weight"].any(1).nonzero().flatten().tolist() == [3] for name in ("W_enc", "W_dec")
    )
    error = (out.target - out.reconstruction)[:, 1:].flatten(1)
    cosines = torch.nn.functional.cosine_similarity(error, coder.W_dec[1].master[3][None])
    token = int(cosines.argmax())
    assert cosines[token].item() == pytest.approx(1, abs=1e-5)
    read = torch.nn.functional.cosine_similarity(
        coder.normalized(batch.x)[1][token], coder.W_enc[1].master[3], 0
    )
    assert read.item() == pytest.approx(1, abs=1e-5)
    coder.after_step(2)
    assert coder.restarted() == {}
