"""The values of ``rate``, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from qsae_metrics import RateConfig
from qsae_metrics.rate import Rate
from torch import Tensor

from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.metric import Observation


def observation(dense: Tensor, levels: bool = False) -> Observation:
    """Codes of ``[B, F]`` values; with ``levels``, the values are levels."""
    codes = SparseCodes.from_dense(dense.float())
    x = torch.zeros(codes.batch_size, 2)
    stored = codes.values.to(torch.uint8) if levels else None
    return Observation(x, x, codes, torch.ones(codes.n_latents), levels=stored)


def measure(*observations: Observation, block: int = 1) -> dict[str, float | None]:
    metric = Rate(RateConfig(block=block))
    for each in observations:
        metric.update(each)
    return metric.compute()


def alternating(*pairs: tuple[list[int], list[int]]) -> Tensor:
    """Tokens in the order fitted, scored, fitted, scored, ..."""
    return torch.tensor([row for pair in pairs for row in pair])


def test_a_latent_that_is_active_half_the_time_costs_one_bit() -> None:
    """Active on 4 of 8 fitted tokens: p = (4 + 1/2) / (8 + 1) = 1/2, and every scored token costs 1 bit."""
    fitted = [[1], [0]] * 4
    scored = [[1], [1], [1], [0], [0], [0], [0], [0]]
    values = measure(observation(alternating(*zip(fitted, scored, strict=True))))
    assert values["bits_support"] == pytest.approx(1, abs=1e-12)
    # 3 active entries in 8 scored tokens, and nothing quantizes them: 32 bits each
    assert values["bits_values"] == 3 / 8 * 32
    assert values["bits_per_value"] == 32
    assert values["bits_per_token"] == pytest.approx(1 + 12)


def test_what_is_fitted_prices_what_is_scored() -> None:
    """Latents on 3 and 0 of 3 fitted tokens: p = 3.5 / 4 and 0.5 / 4; scored: on 1 and 2 of 3."""
    values = measure(observation(alternating(([1, 0], [1, 0]), ([1, 0], [0, 1]), ([1, 0], [0, 1]))))
    first = -math.log2(7 / 8) - 2 * math.log2(1 / 8)
    second = -math.log2(7 / 8) - 2 * math.log2(1 / 8)
    assert values["bits_support"] == pytest.approx((first + second) / 3)


def test_many_tokens_come_near_the_entropy() -> None:
    """20,000 tokens, p = 0.1, 0.25 and 0.5: sum of h2(p) bits; and never below it by more than chance."""
    generator = torch.Generator().manual_seed(0)
    p = torch.tensor([0.1, 0.25, 0.5])
    dense = torch.rand(40_000, 3, generator=generator) < p
    values = measure(observation(dense))
    entropy = -float((p * p.log2() + (1 - p) * (1 - p).log2()).sum())
    assert values["bits_support"] == pytest.approx(entropy, rel=0.01)


def test_a_fixed_number_of_latents_is_one_of_so_many_sets() -> None:
    """2 of 5 latents: C(5, 2) = 10 sets; the number itself costs nothing."""
    dense = alternating(([1, 1, 0, 0, 0], [0, 0, 1, 0, 1]), ([1, 0, 0, 0, 1], [1, 0, 1, 0, 0]))
    assert measure(observation(dense))["bits_support_enumerated"] == pytest.approx(math.log2(10))


def test_a_number_of_latents_that_varies_has_to_be_told() -> None:
    """Fitted: 1 and 2 of 4 latents; scored: 1 and 1. C(4, 1) = 4 sets, and p(1) = (1 + 1/5) / (2 + 1)."""
    dense = alternating(([1, 0, 0, 0], [1, 0, 0, 0]), ([1, 1, 0, 0], [0, 0, 0, 1]))
    expected = 2 - math.log2((1 + 1 / 5) / 3)
    assert measure(observation(dense))["bits_support_enumerated"] == pytest.approx(expected)


def test_levels_by_hand() -> None:
    """One latent. Fitted levels 1, 1, 2; scored 1, 2, 3.

    Pooled: (2 + 1/255) / 4, (1 + 1/255) / 4, (1/255) / 4. The latent's own: (n + 16 pooled) / (3 + 16).
    """
    values = measure(observation(alternating(([1], [1]), ([1], [2]), ([2], [3])), levels=True))
    pooled = [(n + 1 / 255) / 4 for n in (2, 1, 0)]
    own = [(n + 16 * q) / 19 for n, q in zip((2, 1, 0), pooled, strict=True)]
    assert values["bits_values"] == pytest.approx(-sum(map(math.log2, own)) / 3)
    assert values["bits_per_value"] == values["bits_values"]


def test_values_that_are_always_the_same_cost_next_to_nothing() -> None:
    levels = torch.full((2000, 1), 3)
    assert measure(observation(levels, levels=True))["bits_per_value"] == pytest.approx(0, abs=2e-3)


def test_evenly_used_levels_cost_their_bits() -> None:
    """Eight levels, each as often as the others, on two latents: 3 bits a value."""
    generator = torch.Generator().manual_seed(1)
    levels = torch.randint(1, 9, (40_000, 2), generator=generator)
    assert measure(observation(levels, levels=True))["bits_per_value"] == pytest.approx(3, abs=0.01)


def test_levels_that_appear_late_make_room_for_themselves() -> None:
    early, late = torch.full((4, 2), 1), torch.full((4, 2), 200)
    whole = measure(observation(torch.cat([early, late]), levels=True))
    assert measure(observation(early, True), observation(late, True)) == pytest.approx(whole)
    # each half has level 1 twice and level 200 twice for each latent; pooled: four times each
    own = (2 + 16 * (4 + 1 / 255) / 9) / (4 + 16)
    assert whole["bits_per_value"] == pytest.approx(-math.log2(own))


def test_blocks_take_turns_whatever_the_batches_are() -> None:
    """Blocks of 3: tokens 0-2 and 6-8 are fitted, 3-5 and 9 are scored."""
    generator = torch.Generator().manual_seed(2)
    dense = (torch.rand(10, 4, generator=generator) < 0.5).long() * 5
    whole = measure(observation(dense, True), block=3)
    parts = measure(*(observation(part, True) for part in dense.split([1, 4, 2, 3])), block=3)
    assert parts == pytest.approx(whole, rel=1e-12)
    fitted, scored = dense[[0, 1, 2, 6, 7, 8]], dense[[3, 4, 5, 9]]
    p = ((fitted > 0).double().sum(0) + 0.5) / 7
    bits = -(torch.where(scored > 0, p, 1 - p).log2().sum() / 4)
    assert whole["bits_support"] == pytest.approx(bits.item())


def test_a_stream_of_one_block_has_no_rate() -> None:
    assert set(measure(observation(torch.ones(256, 2)), block=256).values()) == {None}
    assert set(measure().values()) == {None}


def test_silence_costs_no_values() -> None:
    values = measure(observation(torch.zeros(6, 3)))
    assert values["bits_values"] == 0
    assert values["bits_per_value"] is None
    # p = 0.5 / 4 each
    assert values["bits_support"] == pytest.approx(-3 * math.log2(7 / 8))


def test_a_stream_is_of_one_kind() -> None:
    with pytest.raises(ValueError, match="3 latents after codes of 2"):
        measure(observation(torch.ones(2, 2)), observation(torch.ones(2, 3)))
    with pytest.raises(ValueError, match="in some batches and not in others"):
        measure(observation(torch.ones(2, 2)), observation(torch.ones(2, 2), levels=True))
