"""Activations that jump, on numbers worked by hand."""

from __future__ import annotations

import pytest
import torch
from qsae_activations import JumpReLUConfig, SigmoidConfig, StepConfig
from qsae_activations.jumprelu import LEAST_THETA, JumpReLU
from qsae_activations.sigmoid import Sigmoid
from qsae_activations.step import Step


def test_jumprelu_values_and_gradients():
    jump = JumpReLU(JumpReLUConfig(theta0=1.0, bandwidth=0.5), 4)
    z = torch.tensor([[0.9, 1.2, 3.0, -1.0]], requires_grad=True)
    latents = jump(z)
    assert latents.tolist() == [[0.0, z[0, 1].item(), 3.0, 0.0]]
    (latents * torch.tensor([1.0, 10.0, 1.0, 1.0])).sum().backward()
    assert z.grad.tolist() == [[0.0, 10.0, 1.0, 0.0]]
    # -(1 / 0.5) within 0.25 of 1: latents 0 and 1, weighted by 1 and 10
    assert jump.theta.grad.tolist() == [-2.0, -20.0, 0.0, 0.0]


def test_jumprelu_gates_reach_the_threshold_alone():
    jump = JumpReLU(JumpReLUConfig(theta0=2.0, bandwidth=0.5), 2)
    z = torch.tensor([1.9, 2.1, 5.0], requires_grad=True)
    gates = jump.gates(z, torch.tensor([0, 1, 1]))
    assert gates.tolist() == [0.0, 1.0, 1.0]
    gates.sum().backward()
    assert z.grad is None
    assert jump.theta.grad.tolist() == [-2.0, -2.0]  # -1 / 0.5; the entry at 5 is too far


def test_entries_just_below_a_threshold_take_part_in_training_only():
    jump = JumpReLU(JumpReLUConfig(theta0=1.0, bandwidth=0.5), 3)
    z = torch.tensor([[0.5, 0.8, 1.5]])
    assert jump.train().candidates(z).tolist() == [[0.0, z[0, 1].item(), 1.5]]
    assert jump.eval().candidates(z).tolist() == [[0.0, 0.0, 1.5]]


def test_a_threshold_below_zero_acts_as_a_positive_one_and_can_come_back():
    jump = JumpReLU(JumpReLUConfig(bandwidth=1.0), 1)
    with torch.no_grad():
        jump.theta.fill_(-1.0)
    z = torch.tensor([[-0.5], [LEAST_THETA / 2], [0.1]])
    assert jump(z).flatten().tolist() == [0.0, 0.0, z[2, 0].item()]
    jump.gates(z.flatten(), torch.tensor([0, 0, 0])).sum().backward()
    assert jump.theta.grad.tolist() == [-2.0]  # the two entries within 0.5 of LEAST_THETA


def test_signed_latents_above_a_threshold_below_zero():
    jump = JumpReLU(JumpReLUConfig(bandwidth=0.5, signed=True), 2)
    with torch.no_grad():
        jump.theta.copy_(torch.tensor([-1.0, 2.0]))
    z = torch.tensor([[-0.5, 1.5], [-0.9, 2.5], [-1.5, -0.5]], requires_grad=True)
    latents = jump(z)
    assert latents.tolist() == [[-0.5, 0.0], [z[1, 0].item(), 2.5], [0.0, 0.0]]
    latents.sum().backward()
    assert z.grad.tolist() == [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    # of z = -0.9 alone, within 0.25 of its threshold: -theta / bandwidth; the latent jumps from 0 to -1 there
    assert jump.theta.grad.tolist() == [2.0, 0.0]
    assert jump.pointwise().threshold.tolist() == [-1.0, 2.0]


def test_sigmoid_and_its_derivative():
    z = torch.tensor([[0.0, 40.0]], requires_grad=True)
    latents = Sigmoid(SigmoidConfig(), 2)(z)
    assert latents.tolist() == [[0.5, 1.0]]
    latents.sum().backward()
    assert z.grad[0, 0].item() == 0.25


def test_a_step_is_a_bit_with_the_gradient_of_the_sigmoid():
    step = Step(StepConfig(), 3)
    z = torch.tensor([[0.0, 2.0, -2.0]], requires_grad=True)
    bits = step(z)
    assert bits.tolist() == [[1.0, 1.0, 0.0]]
    bits.sum().backward()
    s = 0.880797  # sigma(2); sigma(2) sigma(-2) = 0.104994
    assert z.grad.flatten().tolist() == pytest.approx([0.25, s * (1 - s), s * (1 - s)], rel=1e-4)
    assert step.gates(z.detach()[0], torch.arange(3)).tolist() == [1.0, 1.0, 0.0]


def test_bits_rank_by_their_pre_activations():
    step = Step(StepConfig(), 3)
    z = torch.tensor([[1.0, 3.0, -1.0]])
    assert step.train().candidates(z)[0].argsort().tolist() == [2, 0, 1]
    assert step.eval().candidates(z).tolist() == [[2.0, 4.0, 0.0]]
