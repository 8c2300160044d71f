"""The straight-through gradient, by hand and in use."""

from __future__ import annotations

import pytest
import torch
from qsae_quantizers import SteConfig
from qsae_quantizers.ste import Ste


def gradient(rows, **options):
    weight = torch.tensor(rows, requires_grad=True)
    w_hat = Ste(SteConfig(**options), tuple(weight.shape)).fake_quantize(weight)
    slopes = torch.arange(1.0, weight.numel() + 1).view_as(weight)
    (w_hat * slopes).sum().backward()
    return (weight.grad / slopes).tolist()


@pytest.mark.parametrize("options", [{}, {"scale": "twn"}, {"scale": "absmean"}, {"grid": "binary"}])
def test_ternary_and_binary_pass_every_gradient(options):
    assert gradient([[9.0, -0.1, 0.2, 0.0], [0.0, 0.0, 0.0, 0.0]], **options) == [[1.0] * 4, [1.0] * 4]


def test_uniform_stops_what_it_clips():
    # 15 rows' worth of 1 and 3 fix step 2 (points 1, 3); the reach is 2 * 2 = 4, and 40 lies outside
    row = [1.0, 3.0] * 400 + [4.5]
    assert gradient([row], n_bits=2)[0] == [1.0] * 800 + [0.0]


def test_absmax_clips_nothing():
    assert gradient([[-9.0, 0.1, 3.0]], n_bits=3, scale="absmax") == [[1.0, 1.0, 1.0]]


def test_no_graph_where_none_is_asked_for():
    weight = torch.randn(4, 4, requires_grad=True)
    quantizer = Ste(SteConfig(n_bits=3), (4, 4))
    with torch.no_grad():
        assert not quantizer.fake_quantize(weight).requires_grad
    assert not quantizer.fake_quantize(weight.detach()).requires_grad


def test_half_precision_and_double_keep_their_dtype():
    for dtype in (torch.bfloat16, torch.float64):
        weight = torch.randn(4, 40, dtype=dtype, requires_grad=True)
        w_hat = Ste(SteConfig(n_bits=2), (4, 40)).fake_quantize(weight)
        w_hat.sum().backward()
        assert w_hat.dtype == weight.grad.dtype == dtype
