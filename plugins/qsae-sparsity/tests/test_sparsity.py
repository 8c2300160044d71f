"""Sparsity rules on numbers worked by hand, then the property that batches do not matter."""

from __future__ import annotations

import itertools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from pydantic import ValidationError
from qsae_activations import JumpReLUConfig
from qsae_activations.jumprelu import JumpReLU
from qsae_sparsity import L1Config, NoRuleConfig, TanhConfig, TopKConfig
from qsae_sparsity.l1 import L1
from qsae_sparsity.none import NoRule
from qsae_sparsity.tanh import Tanh
from qsae_sparsity.topk import TopK

from qsae_core.contracts.codes import SparseCodes
from qsae_core.errors import ConfigError
from qsae_core.kernels import encode


def support(codes: SparseCodes) -> list[dict[int, float]]:
    """For each token: latent -> value."""
    bounds = codes.offsets.tolist()
    pairs = list(zip(codes.indices.tolist(), codes.values.tolist(), strict=True))
    return [dict(pairs[a:b]) for a, b in itertools.pairwise(bounds)]


# --- topk


def test_topk_keeps_the_two_largest():
    latents = torch.tensor([[0.0, 3.0, 1.0, 2.0], [5.0, 0.0, 4.0, 0.5]])
    codes = TopK(TopKConfig(k=2), 4).select(latents)
    assert support(codes) == [{1: 3.0, 3: 2.0}, {0: 5.0, 2: 4.0}]
    assert codes.k == 2
    assert codes.l0().tolist() == [2, 2]


def test_topk_ranks_by_importance_and_keeps_the_latents_own_values():
    latents = torch.tensor([[3.0, 2.0, 1.0]])
    codes = TopK(TopKConfig(k=2), 3).select(latents, torch.tensor([1.0, 1.0, 4.0]))  # ranks 3, 2, 4
    assert support(codes) == [{0: 3.0, 2: 1.0}]


def test_topk_fills_up_with_zeros_that_do_not_count():
    latents = torch.tensor([[0.0, 7.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    codes = TopK(TopKConfig(k=2), 4).select(latents)
    assert codes.offsets.tolist() == [0, 2, 4]
    assert codes.l0().tolist() == [1, 0]
    assert torch.equal(codes.to_dense(), latents)


def test_topk_of_signed_latents_ranks_by_signed_value():
    codes = TopK(TopKConfig(k=2), 3).select(torch.tensor([[-5.0, 1.0, -0.5]]))
    assert support(codes) == [{1: 1.0, 2: -0.5}]


def test_k_above_the_number_of_latents_is_refused_with_both_numbers():
    with pytest.raises(ConfigError, match=r"k = 65 .* only 64 latents") as error:
        TopK(TopKConfig(k=65), 64)
    assert error.value.allowed == "1 to 64"
    assert TopK(TopKConfig(k=64), 64).fixed_k == 64


def test_k_must_be_positive():
    with pytest.raises(ValidationError):
        TopKConfig(k=0)


@settings(max_examples=40)
@given(st.integers(1, 6), st.integers(1, 24), st.data())
def test_topk_chooses_for_each_token_alone(tokens, n_latents, data):
    k = data.draw(st.integers(1, n_latents))
    levels = data.draw(st.integers(1, 5))  # few levels make many ties
    seed = data.draw(st.integers(0, 1000))
    latents = torch.randint(
        0, levels, (tokens, n_latents), generator=torch.Generator().manual_seed(seed)
    ).float()
    rule = TopK(TopKConfig(k=k), n_latents)
    together = support(rule.select(latents))
    assert together == [support(rule.select(row[None]))[0] for row in latents]
    for row, kept in zip(latents, together, strict=True):
        assert len(kept) == k
        assert sorted(kept.values(), reverse=True) == row.sort(descending=True).values[:k].tolist()


# --- l1


def test_l1_keeps_all_and_prices_them_by_hand():
    # token 0: 2 * 1 + 1 * 3 = 5; token 1: nothing; mean 2.5; times 0.1
    latents = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    norms = torch.tensor([1.0, 10.0, 3.0])
    rule = L1(L1Config(coefficient=0.1), 3)
    codes = rule.select(latents)
    assert support(codes) == [{0: 2.0, 2: 1.0}, {}]
    assert codes.k is None
    assert rule.penalty(codes, norms).item() == pytest.approx(0.25)


def test_l1_is_a_sum_over_latents_and_does_not_shrink_with_the_width():
    narrow, wide = torch.ones(1, 2), torch.cat([torch.ones(1, 2), torch.zeros(1, 998)], dim=1)
    penalties = []
    for latents in (narrow, wide):
        rule = L1(L1Config(coefficient=1.0), latents.shape[1])
        penalties.append(rule.penalty(rule.select(latents), torch.ones(latents.shape[1])).item())
    assert penalties == [2.0, 2.0]


def test_l1_gradients_by_hand():
    # d/df_j = coefficient * sign(f_j) * norm_j / B, d/dnorm_j = coefficient * sum_b |f_bj| / B
    rule = L1(L1Config(coefficient=2.0), 2)
    codes = rule.select(torch.tensor([[3.0, -1.0], [0.0, 4.0]]))
    values, norms = codes.values.clone().requires_grad_(), torch.tensor([1.0, 5.0], requires_grad=True)
    rule.penalty(codes.with_values(values), norms).backward()
    assert values.grad.tolist() == [1.0, -5.0, 5.0]
    assert norms.grad.tolist() == [3.0, 5.0]


def test_l1_of_an_empty_batch_is_zero():
    rule = L1(L1Config(), 3)
    assert rule.penalty(rule.select(torch.zeros(0, 3)), torch.ones(3)).item() == 0.0


@pytest.mark.parametrize("coefficient", [-1.0, float("nan"), float("inf")])
def test_l1_coefficient_must_be_a_finite_non_negative_number(coefficient):
    with pytest.raises(ValidationError):
        L1Config(coefficient=coefficient)


# --- tanh


def test_tanh_keeps_all_and_prices_them_by_hand():
    # token 0: tanh(2 * 1 * ln(3) / 2) = tanh(ln 3) = (9 - 1) / (9 + 1) = 0.8, and latent 2, whose norm is ten
    # times as large, is saturated: 1; token 1: nothing; mean 0.9; times 0.1
    half_ln3 = math.log(3) / 2
    latents = torch.tensor([[half_ln3, 0.0, 2.0], [0.0, 0.0, 0.0]])
    norms = torch.tensor([1.0, 1.0, 10.0])
    rule = Tanh(TanhConfig(coefficient=0.1, c=2.0), 3)
    codes = rule.select(latents)
    assert support(codes) == [{0: pytest.approx(half_ln3), 2: 2.0}, {}]
    assert codes.k is None
    assert rule.penalty(codes, norms).item() == pytest.approx(0.09)


def test_tanh_gradients_by_hand():
    # d tanh(u) = 1 - tanh(u)^2 = 1 - 0.8^2 = 0.36 at u = c f norm = ln 3, of either sign of f; B = 1.
    # d/df = coefficient * 0.36 * c * norm = 0.5 * 0.36 * 4 * 2 = 1.44, d/dnorm = 0.5 * 0.36 * 4 * |f|
    f = math.log(3) / 8
    rule = Tanh(TanhConfig(coefficient=0.5, c=4.0), 2)
    codes = rule.select(torch.tensor([[f, -f]]))
    values, norms = codes.values.clone().requires_grad_(), torch.tensor([2.0, 2.0], requires_grad=True)
    rule.penalty(codes.with_values(values), norms).backward()
    assert values.grad.tolist() == pytest.approx([1.44, -1.44])
    assert norms.grad.tolist() == pytest.approx([0.72 * f, 0.72 * f])


def test_tanh_prices_a_number_of_latents_and_not_their_size():
    rule = Tanh(TanhConfig(coefficient=1.0), 4)
    priced = [
        rule.penalty(rule.select(size * torch.ones(1, 4)), torch.ones(4)).item() for size in (10.0, 100.0)
    ]
    assert priced == pytest.approx([4.0, 4.0])


def test_tanh_of_an_empty_batch_is_zero():
    rule = Tanh(TanhConfig(), 3)
    assert rule.penalty(rule.select(torch.zeros(0, 3)), torch.ones(3)).item() == 0.0


# --- none


def test_none_keeps_all_and_costs_nothing():
    latents = torch.tensor([[0.5, 0.0, -1.0], [0.0, 0.0, 2.0]])
    rule = NoRule(NoRuleConfig(), 3)
    codes = rule.select(latents)
    assert support(codes) == [{0: 0.5, 2: -1.0}, {2: 2.0}]
    assert rule.penalty(codes, torch.ones(3)) is None
    assert rule.max_l0() is None


# --- prices and thresholds


@pytest.mark.parametrize(
    ("rule", "slope"),
    [
        (L1(L1Config(coefficient=3.0), 3), lambda f: 1.0),
        (Tanh(TanhConfig(coefficient=3.0, c=2.0), 3), lambda f: 2 / math.cosh(2 * f) ** 2),
    ],
)
def test_a_threshold_learns_from_entries_on_both_of_its_sides(rule, slope):
    """df/dtheta = -theta / bandwidth within half a bandwidth (0.4) of theta = 0.5: at 0.4, where f is 0, and
    at 0.6; not at 0.2 and 0.9. Of two tokens, with norms of 1."""
    activation = JumpReLU(JumpReLUConfig(theta0=0.5, bandwidth=0.4), 3).train()
    pre_acts = torch.tensor([[0.4, 0.6, 0.2], [0.9, 0.4, 0.9]])
    codes = encode(pre_acts, torch.eye(3), torch.zeros(3), activation, rule)
    rule.penalty(codes, torch.ones(3)).backward()
    below, above = -1.25 * 3 / 2 * slope(0.0), -1.25 * 3 / 2 * slope(0.6)
    torch.testing.assert_close(activation.theta.grad, torch.tensor([below, above + below, 0.0]))
