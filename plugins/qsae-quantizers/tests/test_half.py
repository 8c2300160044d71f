"""16-bit floats: which are stored, and what does not change."""

from __future__ import annotations

import pytest
import torch
from qsae_quantizers import HalfConfig, NoneConfig
from qsae_quantizers.half import Half
from qsae_quantizers.none import NoQuantizer

from qsae_core.errors import ArtifactError

W = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))


def test_the_nearest_of_sixteen_bits_by_hand():
    """bfloat16 has steps of 2^-7 at 1, float16 of 2^-10; ties go to the even one."""
    weight = torch.tensor([[1 + 0.6 * 2**-7, 1 + 0.6 * 2**-10, 1 + 2**-8]])
    assert Half(HalfConfig(), (1, 3)).fake_quantize(weight).tolist() == [[1 + 2**-7, 1.0, 1.0]]
    fine = Half(HalfConfig(dtype="float16"), (1, 3)).fake_quantize(weight)
    assert fine.tolist() == [[1 + 5 * 2**-10, 1 + 2**-10, 1 + 2**-8]]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_is_of_the_type_stays_bit_for_bit_in_sixteen_bits(dtype):
    half = W.to(getattr(torch, dtype))
    quantizer = Half(HalfConfig(dtype=dtype), (7, 5)).eval()
    packed = quantizer.pack(half)
    assert torch.equal(quantizer.unpack(packed), half.float())
    assert torch.equal(quantizer.floats(packed), half)
    assert packed.bits_per_weight == 16
    assert torch.equal(quantizer.unpack_rows(packed, torch.tensor([3, 1])), half.float()[[3, 1]])


def test_what_float16_does_not_hold_is_refused():
    with pytest.raises(ArtifactError, match="beyond what float16 holds") as caught:
        Half(HalfConfig(dtype="float16"), (1, 1)).pack(torch.tensor([[70000.0]]))
    assert caught.value.allowed == "values up to 65504"
    Half(HalfConfig(), (1, 1)).pack(torch.tensor([[70000.0]]))


def test_float32_is_stored_as_floats_too():
    quantizer = NoQuantizer(NoneConfig(), (7, 5))
    assert torch.equal(quantizer.floats(quantizer.pack(W)), W)
