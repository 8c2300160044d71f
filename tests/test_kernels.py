"""The sparse kernels against the dense formula and autograd, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qsae_core import kernels
from qsae_core.coders.dead_latents import auxk_loss
from qsae_core.component import ComponentConfig
from qsae_core.compose.kernels import activate_kernels
from qsae_core.contracts.activation import Activation
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.sparsity import SparsityRule
from qsae_core.kernels import products
from qsae_core.plugins.records import load_plugins


@pytest.fixture(autouse=True, params=["none", "auto"])
def kernel_sets(request):
    """Everything here holds with and without compiled operations (which leave float64 to torch)."""
    activate_kernels(request.param, load_plugins().registry)
    yield
    activate_kernels("auto", load_plugins().registry)


class Relu(Activation):
    def forward(self, pre_acts, latent_index=None):
        return torch.relu(pre_acts)


class Shifted(Activation):
    """Per-latent parameters: entry j is relu(z - shift_j)."""

    def __init__(self, n_latents):
        super().__init__(ComponentConfig(), n_latents)
        self.shift = torch.nn.Parameter(torch.linspace(-1, 1, n_latents, dtype=torch.float64))

    def forward(self, pre_acts, latent_index=None):
        shift = self.shift if latent_index is None else self.shift[latent_index.long()]
        return torch.relu(pre_acts - shift)


class TopK(SparsityRule):
    """The k largest of each token, ranked by latent * importance."""

    def __init__(self, k):
        super().__init__(ComponentConfig(), 48)
        self.fixed_k = k

    def select(self, latents, importance=None):
        ranking = latents if importance is None else latents * importance
        indices = torch.topk(ranking, self.fixed_k, dim=1).indices
        return SparseCodes.from_top_k(indices, latents.gather(1, indices), latents.shape[1])


class NonZero(SparsityRule):
    """Every latent that is not zero."""

    def __init__(self):
        super().__init__(ComponentConfig(), 48)

    def select(self, latents, importance=None):
        return SparseCodes.from_dense(latents)


class LargestOfBatch(SparsityRule):
    """The k * B largest of a batch of B tokens."""

    def __init__(self, k):
        super().__init__(ComponentConfig(), 48)
        self.k = k

    def begin_batch(self, batch_size):
        self.selection = kernels.BatchSelection(self.k * batch_size)

    def select(self, latents, importance=None):
        return self.selection.select(latents)

    def finish_batch(self, codes, importance=None):
        return self.selection.finish(codes)


RULES = {"top-2": TopK(2), "top-all": TopK(48), "non-zero": NonZero(), "2 a token": LargestOfBatch(2)}


def test_a_token_by_hand():
    # x = (1, 2), latents relu(x . w_j): 1, 2, 3, 0 -> the two largest are 3 and 2
    x = torch.tensor([[1.0, 2.0]])
    W_enc = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]])
    codes = kernels.encode(x, W_enc, torch.zeros(4), Relu(ComponentConfig(), 4), TopK(2))
    assert codes.to_dense().tolist() == [[0.0, 2.0, 3.0, 0.0]]
    W_dec = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
    assert kernels.decode(codes, W_dec).tolist() == [[2.0, 3.0]]


@pytest.mark.parametrize("dense_share", [0.0, 1.0], ids=["dense products", "sparse products"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("activation_type", ["relu", "shifted"])
def test_values_and_gradients_equal_those_of_the_dense_formula(
    monkeypatch, dense_share, rule, activation_type
):
    monkeypatch.setattr(products, "DENSE_SHARE", dense_share)
    monkeypatch.setattr(kernels.screening, "CHUNK_ENTRIES", 64 * 48)  # several chunks
    torch.manual_seed(0)
    batch, width, latents = 150, 7, 48
    tensors = [
        torch.randn(batch, width, dtype=torch.float64, requires_grad=True),
        torch.randn(latents, width, dtype=torch.float64, requires_grad=True),
        torch.randn(latents, dtype=torch.float64, requires_grad=True),
        torch.randn(latents, width, dtype=torch.float64, requires_grad=True),
        torch.randn(width, dtype=torch.float64, requires_grad=True),
    ]
    x, W_enc, bias, W_dec, b_dec = tensors
    activation = Relu(ComponentConfig(), latents) if activation_type == "relu" else Shifted(latents)
    tensors += list(activation.parameters())
    weights = torch.randn(batch, width, dtype=torch.float64)

    codes = kernels.encode(x, W_enc, bias, activation, RULES[rule], offset_D=b_dec)
    out = kernels.decode(codes, W_dec) + b_dec
    sparse = torch.autograd.grad((out * weights).sum() + codes.values.square().sum(), tensors)

    latents_BF = activation((x - b_dec) @ W_enc.T + bias)
    kept = torch.zeros_like(latents_BF)
    kept[codes.rows, codes.indices.long()] = 1.0
    expected = (latents_BF * kept) @ W_dec + b_dec
    loss = (expected * weights).sum() + (latents_BF * kept).square().sum()
    dense = torch.autograd.grad(loss, tensors)

    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    for ours, autograds in zip(sparse, dense, strict=True):
        torch.testing.assert_close(ours, autograds, rtol=1e-10, atol=1e-10)


def test_gradcheck_of_decode():
    codes = TopK(3).select(torch.rand(5, 11, dtype=torch.float64))
    W_dec = torch.randn(11, 4, dtype=torch.float64, requires_grad=True)
    values = torch.randn(15, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, w: kernels.decode(codes.with_values(v), w), (values, W_dec))


@settings(max_examples=60)
@given(batch=st.integers(1, 6), latents=st.integers(1, 40), keep=st.floats(0, 1), seed=st.integers(0, 99))
def test_products_agree_with_dense_matrices_for_any_support(batch, latents, keep, seed):
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(batch, latents, dtype=torch.float64, generator=generator)
    dense[torch.rand(batch, latents, generator=generator) > keep] = 0.0
    codes = SparseCodes.from_dense(dense)
    left = torch.randn(batch, 3, dtype=torch.float64, generator=generator)
    right = torch.randn(latents, 3, dtype=torch.float64, generator=generator)
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(products.weighted_rows(codes, codes.values, right), dense @ right, **close)
    torch.testing.assert_close(kernels.transposed_product(codes, codes.values, left), dense.T @ left, **close)
    every = (left @ right.T)[codes.rows, codes.indices.long()]
    torch.testing.assert_close(products.entry_dots(left, right, codes), every, **close)


def test_squared_error_against_autograd():
    target, reconstruction = (torch.randn(6, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(kernels.squared_error, (target, reconstruction))
    expected = (target - reconstruction).square().sum(1).mean()
    torch.testing.assert_close(kernels.squared_error(target, reconstruction), expected)


@pytest.mark.parametrize("screen", ["bf16", "int8"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_screened_code_has_the_gradient_of_the_dense_formula(screen, weighted):
    torch.manual_seed(1)
    x, W_enc, bias, offset = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((30, 9), (400, 9), (400,), (9,))
    )
    importance = torch.rand(400, dtype=torch.float64) + 0.5 if weighted else None
    relu = Relu(ComponentConfig(), 400)
    relu.keeps_order = True
    options = {"importance_F": importance, "offset_D": offset}
    codes = kernels.encode(x, W_enc, bias, relu, TopK(6), screen=screen, **options)
    exact = kernels.encode(x, W_enc, bias, relu, TopK(6), **options)
    same = (codes.indices.view(30, 6) == exact.indices.view(30, 6)).all(1)
    assert same.double().mean() > 0.95
    weights = torch.randn(180, dtype=torch.float64)
    tensors = (x, W_enc, bias, offset)
    sparse = torch.autograd.grad((codes.values * weights).sum(), tensors)
    dense = torch.relu((x - offset) @ W_enc.T + bias)[codes.rows, codes.indices.long()]
    torch.testing.assert_close(codes.values, dense, rtol=1e-12, atol=1e-12)
    autograds = torch.autograd.grad((dense * weights).sum(), tensors)
    for ours, theirs in zip(sparse, autograds, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dense_share", [0.0, 1.0], ids=["dense products", "sparse products"])
def test_auxk_has_the_gradient_of_the_dense_formula(monkeypatch, dense_share):
    monkeypatch.setattr(products, "DENSE_SHARE", dense_share)
    torch.manual_seed(2)
    x, x_hat = (torch.randn(20, 7, dtype=torch.float64) for _ in range(2))
    W_enc, bias, W_dec, offset = tensors = [
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((48, 7), (48,), (48, 7), (7,))
    ]
    dead = torch.rand(48) < 0.4
    loss = auxk_loss(x, x - x_hat, W_enc, bias, W_dec, dead, Relu(ComponentConfig(), 48), 5, offset)

    latents = torch.relu((x - offset) @ W_enc[dead].T + bias[dead])
    kept = torch.zeros_like(latents).scatter(1, latents.topk(5, dim=1).indices, 1.0)
    error = x - x_hat
    spread = (error - error.mean(0)).square().sum()
    expected = (error - (latents * kept) @ W_dec[dead]).square().sum() / spread
    torch.testing.assert_close(loss, expected)
    sparse, dense = (torch.autograd.grad(term, tensors) for term in (loss, expected))
    for ours, theirs in zip(sparse, dense, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
