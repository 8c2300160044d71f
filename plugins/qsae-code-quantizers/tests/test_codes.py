"""Levels of codes, worked by hand. Two latents: the first reaches 3.0, the second 0.6."""

from __future__ import annotations

import pytest
import torch
from qsae_code_quantizers import SteConfig
from qsae_code_quantizers.ste import SteCodes

from qsae_core.errors import ConfigError

LATENTS = torch.tensor([0, 0, 1, 1], dtype=torch.int32)


def measured(**options) -> SteCodes:
    quantizer = SteCodes(SteConfig(**options), 3)
    quantizer.train()(torch.tensor([3.0, 1.0, 0.6, 0.1]), LATENTS)
    return quantizer.eval()


def test_two_bits_have_three_levels_above_zero() -> None:
    # steps: 3.0 / 3 = 1.0 and 0.6 / 3 = 0.2
    quantizer = measured(n_bits=2)
    values = torch.tensor([2.4, 0.2, 0.0, 0.31])
    assert torch.allclose(quantizer(values, LATENTS), torch.tensor([2.0, 1.0, 0.0, 0.4]))
    assert quantizer.pack(values, LATENTS).tolist() == [2, 1, 0, 2]


def test_values_beyond_the_range_are_clipped() -> None:
    assert measured(n_bits=2)(torch.tensor([9.0, 9.0, 9.0, 9.0]), LATENTS).tolist() == pytest.approx(
        [3.0, 3.0, 0.6, 0.6]
    )


def test_a_latent_that_never_fired_takes_the_largest_range() -> None:
    assert measured(n_bits=2)(torch.tensor([2.1]), torch.tensor([2])).tolist() == [2.0]


def test_signs_take_a_bit() -> None:
    # one bit of size and one of sign: levels -1, 0, +1 of the range
    quantizer = SteCodes(SteConfig(n_bits=2, signed=True), 3)
    quantizer.train()(torch.tensor([-3.0, 1.0, 0.6, 0.1]), LATENTS)
    quantizer.eval()
    values = torch.tensor([-0.2, 2.9, -0.5, 0.0])
    assert quantizer(values, LATENTS).tolist() == pytest.approx([-3.0, 3.0, -0.6, 0.0])
    assert quantizer.pack(values, LATENTS).tolist() == [3, 1, 3, 0]
    assert quantizer.unpack(quantizer.pack(values, LATENTS), LATENTS).tolist() == pytest.approx(
        [-3.0, 3.0, -0.6, 0.0]
    )


def test_negative_values_without_signed_are_refused() -> None:
    with pytest.raises(ConfigError, match="negative"):
        measured()(torch.tensor([-1.0]), torch.tensor([0]))


def test_ranges_follow_in_training_and_rest_in_evaluation() -> None:
    quantizer = measured(n_bits=4)
    quantizer(torch.tensor([30.0]), torch.tensor([0]))
    assert quantizer.range.tolist() == pytest.approx([3.0, 0.6, 0.0])
    quantizer.train()(torch.tensor([1.0]), torch.tensor([0]))
    assert quantizer.range[0].item() == pytest.approx(3.0 * 0.999)


def test_eight_bits_use_every_byte() -> None:
    quantizer = measured(n_bits=8)
    values = torch.linspace(0, 3.0, 1000)
    packed = quantizer.pack(values, torch.zeros(1000, dtype=torch.int32))
    assert sorted(set(packed.tolist())) == list(range(256))
    assert torch.equal(
        quantizer.unpack(packed, torch.zeros(1000, dtype=torch.int32)),
        quantizer(values, torch.zeros(1000, dtype=torch.int32)),
    )
