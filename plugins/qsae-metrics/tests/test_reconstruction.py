"""The values of ``reconstruction``, by hand and against a two-pass computation."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qsae_metrics import ReconstructionConfig
from qsae_metrics.reconstruction import Reconstruction
from torch import Tensor

from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.metric import Observation


def observation(target: Tensor, reconstruction: Tensor) -> Observation:
    codes = SparseCodes.from_dense(torch.zeros(len(target), 3))
    return Observation(target, reconstruction, codes, torch.ones(3))


def measure(
    target: Tensor, reconstruction: Tensor, *cuts: int, legacy: bool = False
) -> dict[str, float | None]:
    """The values over the stream, cut into batches at these rows."""
    metric = Reconstruction(ReconstructionConfig(legacy=legacy))
    edges = [0, *cuts, len(target)]
    for start, stop in itertools.pairwise(edges):
        metric.update(observation(target[start:stop], reconstruction[start:stop]))
    return metric.compute()


def test_the_worked_example() -> None:
    """x = (2, 0), (0, 4); x_hat = (2, 1), (0, 3); r = (0, -1), (0, 1)."""
    values = measure(torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor([[2.0, 1.0], [0.0, 3.0]]))
    # mean(x) = (1, 2): sum ||x - mean||^2 = (1 + 4) + (1 + 4) = 10; sum ||r||^2 = 1 + 1 = 2
    assert values["fvu"] == pytest.approx(0.2)
    assert values["explained_variance"] == pytest.approx(0.8)
    # mean(r) = (0, 0), so that the variances of r are its squares
    assert values["fve_variance"] == pytest.approx(0.8)
    assert values["mse"] == pytest.approx(1.0)
    assert values["mse_per_dim"] == pytest.approx(0.5)
    # ||r||^2 / ||x||^2 = 1/4 and 1/16
    assert values["norm_mse"] == pytest.approx((1 / 4 + 1 / 16) / 2)
    # cos = 4 / (2 sqrt 5) and 12 / (4 * 3)
    assert values["cosine"] == pytest.approx((2 / math.sqrt(5) + 1) / 2)
    # ||x_hat|| / ||x|| = sqrt(5) / 2 and 3 / 4
    assert values["l2_ratio"] == pytest.approx((math.sqrt(5) / 2 + 3 / 4) / 2)
    assert values["l2_norm_in"] == pytest.approx((2 + 4) / 2)
    assert values["l2_norm_out"] == pytest.approx((math.sqrt(5) + 3) / 2)
    # sum ||x_hat||^2 = 5 + 9, sum <x, x_hat> = 4 + 12
    assert values["relative_reconstruction_bias"] == pytest.approx(14 / 16)


def test_the_groups_of_a_nested_code() -> None:
    """The worked example (10 about the mean), of which a first group leaves (2, 0) and (0, 2)."""
    x = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    x_hat = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    first = torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    seen = [
        observation(x[i : i + 1], x_hat[i : i + 1])._replace(shorter=lambda i=i: [first[i : i + 1]])
        for i in range(2)
    ]
    whole, parts = Reconstruction(ReconstructionConfig()), Reconstruction(ReconstructionConfig())
    for each in seen:
        whole.update(each)
        part = Reconstruction(ReconstructionConfig())
        part.update(each)
        parts.merge(part)
    for values in (whole.compute(), parts.compute()):
        assert (values["fvu_1"], values["fvu_2"]) == pytest.approx((0.8, 0.2))
        assert (values["fvu_min"], values["fvu_mean"], values["fvu_max"]) == pytest.approx((0.2, 0.5, 0.8))
    assert "fvu_1" not in measure(x, x_hat)
    whole.reset()
    whole.update(observation(x, x_hat))
    assert "fvu_1" not in whole.compute()
    constant = Reconstruction(ReconstructionConfig())
    constant.update(observation(x[:1], x_hat[:1])._replace(shorter=lambda: [first[:1]]))
    assert constant.compute()["fvu_min"] is None


def test_several_layers_weigh_the_same() -> None:
    """The worked example as layer 0; layer 1 is 10 x, off by (0, 2) on the first token."""
    x = torch.tensor([[[2.0, 0.0], [20.0, 0.0]], [[0.0, 4.0], [0.0, 40.0]]])
    x_hat = torch.tensor([[[2.0, 1.0], [20.0, 2.0]], [[0.0, 3.0], [0.0, 40.0]]])
    values = measure(x, x_hat)
    # layer 0: 2 / 10; layer 1: 4 / 1000. As one vector of width 4 it would be 6 / 1010
    assert values["fvu_layer_0"] == pytest.approx(0.2)
    assert values["fvu_layer_1"] == pytest.approx(0.004)
    assert values["fvu"] == pytest.approx((0.2 + 0.004) / 2)
    assert values["explained_variance"] == pytest.approx(1 - 0.102)
    # mean ||r||^2: (1 + 1) / 2 and (4 + 0) / 2
    assert values["mse"] == pytest.approx((1 + 2) / 2)
    assert values["mse_per_dim"] == pytest.approx((0.5 + 1) / 2)
    # ||r||^2 / ||x||^2: 1/4 and 1/16; 4/400 and 0
    assert values["norm_mse"] == pytest.approx((5 / 32 + 1 / 200) / 2)


def test_how_large_a_layer_is_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 30, 3, 4, generator=generator, dtype=torch.float64)
    before = measure(x, x + noise, 7)
    sizes, means = (
        torch.tensor([1.0, 1000.0, 0.01]).view(1, 3, 1),
        torch.tensor([5.0, 0.0, 2.0]).view(1, 3, 1),
    )
    after = measure(sizes * x + means, sizes * (x + noise) + means, 19)
    for name in ("fvu", "fve_variance", "fvu_layer_0", "fvu_layer_1", "fvu_layer_2"):
        assert after[name] == pytest.approx(before[name], rel=1e-9), name


def test_a_layer_without_a_value_leaves_none_to_the_mean() -> None:
    x = torch.tensor([[[2.0, 0.0], [1.0, 1.0]], [[0.0, 4.0], [1.0, 1.0]]])
    values = measure(x, x + 1)
    assert values["fvu_layer_0"] == pytest.approx(0.4)
    assert values["fvu_layer_1"] is None
    assert values["fvu"] is None


def test_predicting_the_mean_explains_nothing() -> None:
    x = torch.tensor([[1.0, 5.0], [3.0, 1.0], [5.0, 0.0]])
    values = measure(x, x.mean(0).expand_as(x))
    assert values["fvu"] == pytest.approx(1.0)
    assert values["explained_variance"] == pytest.approx(0.0, abs=1e-15)


def test_a_perfect_reconstruction() -> None:
    x = torch.tensor([[1.0, 5.0], [3.0, 1.0]])
    values = measure(x, x.clone())
    assert values["fvu"] == 0
    assert values["explained_variance"] == 1
    assert values["mse"] == 0
    assert values["cosine"] == pytest.approx(1)


def test_variance_of_the_error_is_blind_to_a_constant_error() -> None:
    x = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    values = measure(x, x + 3)
    assert values["fve_variance"] == 1
    # r = (-3, -3) twice: sum ||r||^2 = 36 of 10
    assert values["explained_variance"] == pytest.approx(1 - 3.6)


def test_halving_shows_as_shrinkage() -> None:
    x = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    values = measure(x, x / 2)
    assert values["l2_ratio"] == pytest.approx(0.5)
    assert values["cosine"] == pytest.approx(1)
    # E||x_hat||^2 / E<x, x_hat> = (1/4) / (1/2)
    assert values["relative_reconstruction_bias"] == pytest.approx(0.5)


def test_a_mean_far_from_zero_costs_no_digits() -> None:
    """Mean 1e4, spread 1: sum x^2 - (sum x)^2 / n loses eight digits, even in float64."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5000, 8, generator=generator) + 1e4
    x_hat = x + 0.1 * torch.randn(5000, 8, generator=generator)
    wide, r = x.double(), x.double() - x_hat.double()
    about_mean = (wide - wide.mean(0)).square().sum()
    values = measure(x, x_hat, 1, 2, 700, 4999)
    assert values["fvu"] == pytest.approx(float(r.square().sum() / about_mean), rel=1e-11)
    error_about_mean = (r - r.mean(0)).square().sum()
    assert values["fve_variance"] == pytest.approx(1 - float(error_about_mean / about_mean), rel=1e-11)


@pytest.mark.parametrize("constant", [0.1, 1e4 + 0.1, 1 / 3])
def test_a_target_without_variance_has_no_fvu(constant: float) -> None:
    """Means of equal numbers round; the rounding must not pass for a variance."""
    x = torch.full((7, 5), constant)
    values = measure(x, x + 1, 1, 4, legacy=True)
    for name in ("fvu", "explained_variance", "fve_variance", "explained_variance_legacy"):
        assert values[name] is None
    assert values["mse"] == pytest.approx(5, rel=1e-3)


def test_one_token_and_none() -> None:
    x = torch.tensor([[2.0, 0.0]])
    assert measure(x, x + 1)["fvu"] is None
    assert measure(x, x + 1)["mse"] == pytest.approx(2)
    assert set(Reconstruction(ReconstructionConfig()).compute().values()) == {None}


def test_zero_vectors_have_no_direction() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    x_hat = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    values = measure(x, x_hat)
    assert values["cosine"] == pytest.approx(1)
    assert values["l2_ratio"] == pytest.approx(1)
    assert values["norm_mse"] == 0
    nothing = measure(x, torch.zeros(2, 2))
    assert nothing["cosine"] is None
    assert nothing["relative_reconstruction_bias"] is None
    assert nothing["l2_ratio"] == 0


def test_a_diverged_reconstruction_is_undefined() -> None:
    x = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    values = measure(x, torch.tensor([[math.nan, 1.0], [0.0, 3.0]]))
    assert values["fvu"] is None
    assert values["mse"] is None


def test_legacy_takes_the_mean_of_each_batch() -> None:
    """Both tokens are sqrt(5) from (1, 2) and off by 1: 1 - 1/5. Alone in a batch they have no value."""
    x, x_hat = torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    assert measure(x, x_hat, legacy=True)["explained_variance_legacy"] == pytest.approx(0.8)
    assert measure(x, x_hat, 1, legacy=True)["explained_variance_legacy"] is None
    assert "explained_variance_legacy" not in measure(x, x_hat)


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(2, 40), st.integers(1, 6), st.data())
def test_values_do_not_depend_on_batches(seed: int, n: int, width: int, data: st.DataObject) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, width, generator=generator) + 100 * torch.randn(width, generator=generator)
    x_hat = x + torch.randn(n, width, generator=generator)
    cuts = sorted(data.draw(st.sets(st.integers(1, n - 1))))
    whole, cut = measure(x, x_hat), measure(x, x_hat, *cuts)
    for name, value in whole.items():
        assert cut[name] == pytest.approx(value, rel=1e-11, abs=1e-13), name


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.floats(0.01, 100))
def test_scale_and_order_change_nothing_relative(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, 20, 4, generator=generator, dtype=torch.float64)
    order = torch.randperm(20, generator=generator)
    before, after = measure(x, x + noise), measure(scale * x[order], scale * (x + noise)[order])
    for name in ("fvu", "fve_variance", "norm_mse", "cosine", "l2_ratio", "relative_reconstruction_bias"):
        assert after[name] == pytest.approx(before[name], rel=1e-9), name
