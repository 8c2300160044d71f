"""What units are worth, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from qsae_splice import DirectionEdit, Edit, Scales, measure

from qsae_core.contracts import Batch
from qsae_core.errors import ConfigError

X = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [0.0, 12.0]])


def test_scales_of_four_tokens(hand) -> None:
    # latent 0 is 3, 1, 0, 0: mean 1, mean square 10 / 4; latent 1 is 4, 0, 0, 12: mean 4, mean square 40
    for size in (1, 3, 4):
        found = measure(hand, [Batch(part, part) for part in X.split(size)])
        assert (found.largest, found.n_tokens) == ({0: 3.0, 1: 12.0, 2: 0.0}, 4)
        assert found.sd == pytest.approx({0: math.sqrt(1.5), 1: math.sqrt(24), 2: 0.0}, rel=1e-12)
        assert found.norms == pytest.approx(((5 + 1 + 0 + 12) / 4,), rel=1e-12)


def test_values_in_units() -> None:
    scales = Scales({7: 3.0}, {7: 0.5}, norm=10.0, n_tokens=100)
    assert scales.activation(Edit(7, "set", 2, "raw"), [4.0]) == 2
    assert scales.activation(Edit(7, "set", 2, "max"), [4.0]) == 6
    assert scales.activation(Edit(7, "set", 2, "sd"), [4.0]) == 1
    # 2 norms are 20, and an atom of norm 4 moves the vector by 20 at an activation of 5
    assert scales.activation(Edit(7, "add", 2, "norm"), [4.0]) == 5
    assert scales.activation(Edit(7, "scale", 2), [4.0]) == 2


def test_a_latent_that_writes_to_several_sites() -> None:
    scales = Scales(norm=(10.0, 8.0))
    # an activation of 1 moves the vectors by 2/10 and by 4/8 of their norms: the larger is a half
    assert scales.activation(Edit(7, "add", 3, "norm"), [2.0, 4.0]) == 6
    assert scales.activation(Edit(7, "add", 3, "norm"), [0.0, 4.0]) == 6


def test_how_far_along_a_direction() -> None:
    scales = Scales(norm=(10.0, 8.0))
    assert scales.distance(DirectionEdit("cat", "add", 0.5), 3.0, 1) == 4
    assert scales.distance(DirectionEdit("cat", "add", 0.5, "raw"), 3.0, 1) == 1.5
    assert scales.distance(DirectionEdit("cat", "project-out"), 3.0, 1) == 0
    with pytest.raises(ConfigError, match="the unit norm is not known"):
        Scales().distance(DirectionEdit("cat", "add", 0.5), 3.0, 0)


def test_largest_activations_from_elsewhere() -> None:
    scales = Scales({7: 3.0}, {7: 0.5}, norm=10.0, n_tokens=100).with_largest({7: 0.0}, "samples")
    assert (scales.sd, scales.norms, scales.largest_from) == ({7: 0.5}, (10.0,), "samples")
    with pytest.raises(ConfigError, match="never active in samples"):
        scales.activation(Edit(7, "set", 1), [1.0])


@pytest.mark.parametrize(
    ("scales", "unit", "atom_norm", "message"),
    [
        (Scales(), "max", 1.0, "the scale behind the unit max is not known"),
        (Scales(norm=None), "norm", 1.0, "the scale behind the unit norm is not known"),
        (Scales({7: 0.0}, n_tokens=1000), "max", 1.0, "latent 7 was never active in 1,000 held-out tokens"),
        (Scales(norm=1.0), "norm", 0.0, "its decoder row is zero"),
    ],
)
def test_units_that_are_worth_nothing(scales, unit, atom_norm, message) -> None:
    with pytest.raises(ConfigError, match=message):
        scales.activation(Edit(7, "set", 1, unit), [atom_norm])


def test_as_json() -> None:
    scales = Scales({7: 3.0, 8: 1.0}, {7: 0.5, 8: 2.0}, norm=10.0, n_tokens=100)
    assert Scales.from_json(scales.to_json(), "file") == scales
    assert scales.of([7]).largest == {7: 3.0}
    with pytest.raises(ConfigError, match="no scales"):
        Scales.from_json({"largest": {}}, "file")


def test_no_vectors(hand) -> None:
    with pytest.raises(ConfigError, match="no held-out vectors"):
        measure(hand, [])
