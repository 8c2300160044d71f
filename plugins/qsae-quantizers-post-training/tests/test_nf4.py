"""``nf4``: its points against the published ones, scales by hand, storage of odd shapes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qsae_quantizers_post_training import Nf4Config
from qsae_quantizers_post_training.nf4 import Nf4, normal_float

from qsae_core.errors import ConfigError

PUBLISHED = [-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0]
PUBLISHED += [0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0]


def test_the_points_are_the_published_ones():
    assert normal_float().tolist() == pytest.approx(PUBLISHED, abs=6e-5)
    assert normal_float()[7] == 0


def test_a_block_by_hand():
    # absmax 4: 1 / 4 is nearest 0.2461 (0.3379 is further), -2 / 4 nearest -0.5251, 0.1 / 4 nearest 0
    quantizer = Nf4(Nf4Config(scale="absmax"), (1, 4))
    found = quantizer.fake_quantize(torch.tensor([[4.0, 1.0, -2.0, 0.1]]))
    assert found[0].tolist() == pytest.approx([4.0, 4 * 0.2461, 4 * -0.5251, 0.0], abs=4e-4)


def test_the_best_scale_against_a_search():
    torch.manual_seed(0)
    rows = torch.randn(20, 32)
    best = Nf4(Nf4Config(), (20, 32))
    error = (rows - best.fake_quantize(rows)).square().sum(1)
    search = torch.full((20,), torch.inf)
    for share in torch.linspace(0.3, 1.2, 2000):
        scale = share * rows.abs().amax(1, keepdim=True)
        distance = (rows[..., None] - normal_float() * scale[..., None]).abs().amin(-1)
        search = torch.minimum(search, distance.square().sum(1))
    assert error.sum() <= 1.05 * search.sum()
    absmax = Nf4(Nf4Config(scale="absmax"), (20, 32)).fake_quantize(rows)
    assert (error <= (rows - absmax).square().sum(1) + 1e-6).all()


def test_blocks():
    assert Nf4(Nf4Config(), (1, 576)).block == 64
    assert Nf4(Nf4Config(), (1, 13)).block == 13
    with pytest.raises(ConfigError, match="do not fill rows of 10"):
        Nf4(Nf4Config(block=4), (1, 10))
    packed = Nf4(Nf4Config(block=8), (2, 16)).pack(torch.randn(2, 16))
    assert packed.bits_per_weight == 4 + 16 / 8


@settings(max_examples=60)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 999), st.sampled_from(["absmax", "best"]))
def test_it_is_stored_bit_for_bit(n_rows, width, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(n_rows, width, generator=generator) * 10.0 ** (seed % 7 - 3)
    quantizer = Nf4(Nf4Config(scale=scale), (n_rows, width))
    once = quantizer.fake_quantize(weight)
    assert torch.equal(quantizer.fake_quantize(once), once)
    assert torch.equal(quantizer.unpack(quantizer.pack(weight)), once)
