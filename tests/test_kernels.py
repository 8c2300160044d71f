"""The sparse kernels against the dense formula and autograd, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qsae_core import kernels
from qsae_core.codes import SparseCodes
from qsae_core.component import ComponentConfig
from qsae_core.kernels import products
from qsae_core.parts import Activation, SparsityRule


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


@settings(max_examples=60, deadline=None)
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
