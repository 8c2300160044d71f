"""Adam, projected gradients and ternary scales: by hand, and against the formulas in float64."""

from __future__ import annotations

import math

import pytest
import torch
from qsae_kernels_cpu.updates import adam, project_rows, ternary_scales

pytestmark = pytest.mark.usefixtures("lanes")
shapes = pytest.mark.parametrize("shape", [(1, 1), (15, 7), (33, 64), (1000, 500), (33, 576)])
OPTIONS = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "step": 3, "grad_scale": 0.5}


def test_project_rows_by_hand():
    grad, weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    # (1, 2) loses its first component; (3, 4) is 5 times (0.6, 0.8) and vanishes
    assert project_rows(grad, weight) == pytest.approx(4.0)
    torch.testing.assert_close(grad, torch.tensor([[0.0, 2.0], [0.0, 0.0]]))
    assert project_rows(torch.tensor([3.0, 4.0]), None) == 25


@shapes
def test_project_rows(shape):
    grad, weight = torch.randn(shape), torch.nn.functional.normalize(torch.randn(shape))
    along = (grad.double() * weight.double()).sum(1, keepdim=True)
    expected = grad.double() - along * weight.double()
    before = grad.clone()
    assert project_rows(grad, None) == pytest.approx(before.double().square().sum().item(), rel=1e-12)
    assert torch.equal(grad, before)
    total = project_rows(grad, weight)
    torch.testing.assert_close(grad.double(), expected, rtol=1e-5, atol=1e-5)
    assert total == pytest.approx(grad.double().square().sum().item(), rel=1e-12)


def test_adam_by_hand():
    weight, grad = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[4.0, -8.0], [0.0, 0.0]])
    mean, square = torch.zeros(2, 2), torch.zeros(2, 2)
    adam(weight, grad, mean, square, **(OPTIONS | {"step": 1, "lr": 1.0}), unit_rows=False)
    # the first step is lr * sign(grad), whatever its size; moments: 0.1 g, 0.001 g^2, with g = grad / 2
    torch.testing.assert_close(weight, torch.tensor([[2.0, 5.0], [0.0, 0.0]]))
    torch.testing.assert_close(mean[0], torch.tensor([0.2, -0.4]))
    torch.testing.assert_close(square[0], torch.tensor([0.004, 0.016]))
    adam(weight, torch.zeros(2, 2), torch.zeros(2, 2), torch.ones(2, 2), **OPTIONS, unit_rows=True)
    torch.testing.assert_close(weight, torch.tensor([[2.0, 5.0], [0.0, 0.0]]) / math.sqrt(29))


@shapes
@pytest.mark.parametrize("unit_rows", [False, True])
def test_adam_is_its_formula(shape, unit_rows):
    weight, grad, mean, square = torch.randn(4, *shape).unbind()
    tensors = [t.clone() for t in (weight, grad, mean, square.square())]
    m = 0.9 * mean.double() + 0.1 * 0.5 * grad.double()
    v = 0.999 * square.double() ** 2 + 0.001 * (0.5 * grad.double()) ** 2
    v_hat, m_hat = v / (1 - 0.999**3), m / (1 - 0.9**3)
    expected = weight.double() - 1e-2 * m_hat / (v_hat.sqrt() + 1e-8)
    if unit_rows:
        expected /= expected.norm(dim=1, keepdim=True)
    adam(*tensors, **OPTIONS, unit_rows=unit_rows)
    for found, wanted in zip((tensors[0], tensors[2], tensors[3]), (expected, m, v), strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


def test_adam_of_a_vector():
    weight, grad = torch.randn(5000), torch.randn(5000)
    expected = weight - 1e-2 * grad.sign()
    adam(
        weight,
        grad,
        torch.zeros(5000),
        torch.zeros(5000),
        **(OPTIONS | {"step": 1, "eps": 0.0}),
        unit_rows=False,
    )
    torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="unit_rows"):
        adam(*torch.zeros(4, 8).unbind(), **OPTIONS, unit_rows=True)


def test_ternary_scales_by_hand():
    # 4, 3, 1: 16/1 = 16, 49/2 = 24.5, 64/3 = 21.3: two, scale 3.5. 1, 1, 0, 0: two. All zero: 0.
    magnitudes = torch.tensor([[1.0, 4.0, 3.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    assert ternary_scales(magnitudes).tolist() == [3.5, 1.0, 0.0]
    # 9 and sixteen ones: 81/1 against 25^2/17 = 36.8; both 1 and 17 are fixed points
    assert ternary_scales(torch.tensor([[9.0] + 16 * [1.0]])).tolist() == [9.0]


@pytest.mark.parametrize("columns", [1, 7, 64, 500, 576])
@pytest.mark.parametrize("power", [0.5, 1.0, 3.0, 8.0])
def test_ternary_scales_are_the_optimum(columns, power):
    magnitudes = torch.randn(64, columns).abs() ** power
    magnitudes[::5] = torch.where(torch.rand(columns) < 0.1, 1.0, 0.3)  # two fixed points
    sums = magnitudes.double().sort(dim=1, descending=True).values.cumsum(1)
    n = torch.arange(1, columns + 1)
    best = (sums**2 / n).argmax(1, keepdim=True)
    expected = (sums / n).gather(1, best)[:, 0]
    torch.testing.assert_close(ternary_scales(magnitudes).double(), expected, rtol=1e-6, atol=0)
