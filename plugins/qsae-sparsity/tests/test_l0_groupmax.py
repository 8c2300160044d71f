"""The rules ``l0`` and ``groupmax`` by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from qsae_sparsity import GroupMaxConfig, L0Config
from qsae_sparsity.groupmax import GroupMax
from qsae_sparsity.l0 import L0

from qsae_core.errors import ConfigError


def priced(config: L0Config) -> tuple[float, list[float]]:
    """The penalty of 3 active latents in 2 tokens, and its gradient for each gate."""
    rule = L0(config, 3)
    codes = rule.select(torch.tensor([[2.0, 0.0, 1.0], [0.0, 9.0, 0.0]]))
    gates = torch.ones(3, requires_grad=True)
    penalty = rule.penalty(replace(codes, gates=gates), torch.ones(3))
    penalty.backward()
    return penalty.item(), gates.grad.tolist()


def test_l0_prices_the_mean_number_of_active_latents():
    # 3 active in 2 tokens: 1.5; each gate moves it by 2 / 2
    assert priced(L0Config(coefficient=2.0)) == (3.0, [1.0, 1.0, 1.0])


def test_l0_with_a_target_pulls_from_both_sides():
    # 2 (1.5 / 1 - 1)^2 = 0.5; gradient 2 * 2 * 0.5 * (1 / 2)
    assert priced(L0Config(coefficient=2.0, target=1.0)) == (0.5, [1.0, 1.0, 1.0])
    # 2 (1.5 / 3 - 1)^2 = 0.5; gradient 2 * 2 * -0.5 * (1 / 6)
    value, gradient = priced(L0Config(coefficient=2.0, target=3.0))
    assert value == 0.5
    assert gradient == pytest.approx([-1 / 3] * 3)


def test_l0_by_itself_prices_a_latent_alike_whatever_the_target():
    """Without a target one more costs 0.002, here of 2 tokens; at twice the target 20 times that."""
    value, gradient = priced(L0Config())
    assert value == pytest.approx(0.003)
    assert gradient == pytest.approx([0.001] * 3)
    for target in (0.75, 1.5 / 4):  # half and a quarter of the 1.5 that there are
        excess = 1.5 / target - 1
        value, gradient = priced(L0Config(target=target))
        assert value == pytest.approx(0.02 * target * excess**2)
        assert gradient == pytest.approx([0.04 * excess / 2] * 3)
    assert priced(L0Config(coefficient=0.0, target=1.0)) == (0.0, [0.0, 0.0, 0.0])


def test_groupmax_keeps_the_largest_of_each_group():
    rule = GroupMax(GroupMaxConfig(k=2), 4)
    codes = rule.select(torch.tensor([[1.0, 2.0, 9.0, 8.0], [0.0, 0.0, 0.0, 3.0]]))
    assert codes.to_dense().tolist() == [[0.0, 2.0, 9.0, 0.0], [0.0, 0.0, 0.0, 3.0]]
    assert codes.k == rule.fixed_k == 2
    assert codes.l0().tolist() == [2, 1]


def test_groupmax_ranks_by_importance_and_keeps_the_latents_own_values():
    rule = GroupMax(GroupMaxConfig(k=1), 2)
    codes = rule.select(torch.tensor([[3.0, 2.0]]), torch.tensor([1.0, 2.0]))  # ranks 3 and 4
    assert codes.to_dense().tolist() == [[0.0, 2.0]]


def test_groups_of_unequal_size_are_refused():
    with pytest.raises(ConfigError, match=r"10 latents .* k = 3 groups") as error:
        GroupMax(GroupMaxConfig(k=3), 10)
    assert error.value.allowed == "a divisor of 10"
