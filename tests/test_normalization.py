"""Normalisation: statistics by hand, and a rotation that is orthogonal and undone exactly enough."""

import pytest
import torch

from qsae_core.coders.normalization import Normalization


def test_mean_and_rms_by_hand():
    norm = Normalization(2, "scale")
    norm.fit(torch.tensor([[1.0, 10.0], [3.0, 14.0]]), rotate=False)
    # mean (2, 12); centred entries -1, -2, 1, 2: mean square 10/4
    assert norm.mean.tolist() == [2.0, 12.0]
    assert norm.scale.item() == pytest.approx(2.5**0.5)
    assert norm(torch.tensor([[3.0, 12.0]])).tolist() == [[pytest.approx(1 / 2.5**0.5), 0.0]]


@pytest.mark.parametrize(("mode", "mean", "scale"), [("none", 0.0, 1.0), ("center", 5.0, 1.0)])
def test_modes_leave_out_what_they_say(mode, mean, scale):
    norm = Normalization(4, mode)
    norm.fit(torch.full((8, 4), 5.0), rotate=False)
    assert norm.mean.tolist() == [mean] * 4
    assert norm.scale.item() == scale


def test_constant_data_has_no_scale_to_divide_by():
    norm = Normalization(3, "scale")
    norm.fit(torch.full((8, 3), 7.0), rotate=True)
    assert norm(torch.full((1, 3), 7.0)).abs().max() == 0


@pytest.mark.parametrize("width", [1, 2, 3, 12, 64, 257, 512, 576])
def test_the_rotation_is_orthogonal_and_inverse_undoes_it(width):
    norm = Normalization(width, "scale").double()
    sample = torch.randn(64, width, dtype=torch.float64) * 3 + 1
    norm.fit(sample, rotate=True)
    R = norm.direction(torch.eye(width, dtype=torch.float64))
    torch.testing.assert_close(R @ R.T, torch.eye(width, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(norm.inverse(norm(sample)), sample, rtol=1e-5, atol=1e-5)


def test_an_outlier_dimension_is_spread_over_all_others():
    x = torch.randn(256, 512)
    x[:, 7] *= 300
    norm = Normalization(512, "scale")
    norm.fit(x, rotate=True)
    per_dimension = norm(x).square().mean(0)
    plain = Normalization(512, "scale")
    plain.fit(x, rotate=False)
    assert plain(x).square().mean(0).max() > 400  # nearly all variance in one of 512 dimensions
    assert per_dimension.max() < 30


def test_directions_of_the_decoder_come_back_scaled_and_without_the_mean():
    norm = Normalization(8, "scale")
    norm.fit(torch.randn(100, 8) * 4 + 9, rotate=True)
    z = torch.randn(5, 8)
    torch.testing.assert_close(norm.inverse_direction(z) + norm.mean, norm.inverse(z))


def test_layers_share_one_normalisation():
    norm = Normalization(4, "center")
    norm.fit(torch.stack([torch.zeros(10, 4), torch.full((10, 4), 2.0)], dim=1), rotate=False)
    assert norm.mean.tolist() == [1.0] * 4
    assert norm(torch.zeros(10, 2, 4)).shape == (10, 2, 4)


def test_or_each_layer_has_its_own():
    # layer 0: entries 0 and 2 (mean 1, RMS 1); layer 1: 0 and 20 (mean 10, RMS 10)
    low, high = torch.tensor([[0.0, 0.0], [2.0, 2.0]]), torch.tensor([[0.0, 0.0], [20.0, 20.0]])
    x = torch.stack([low, high], dim=1)
    norm = Normalization(2, "scale", layers=2)
    norm.fit(x, rotate=False)
    assert norm.mean.tolist() == [[1.0, 1.0], [10.0, 10.0]]
    assert norm.scale.flatten().tolist() == [1.0, 10.0]
    assert norm(x).tolist() == [[[-1.0] * 2] * 2, [[1.0] * 2] * 2]
    assert torch.equal(norm.inverse(norm(x)), x)
