"""Rules for activations. Shapes: B tokens, F latents, N gathered entries.

An activation whose backward pass is a declared surrogate (a step with an identity gradient) says so with
the class attribute ``straight_through = True``; the rule 'derivative' then does not apply to it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.general import check_constructs
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import (
    NotApplicable,
    copy_of_state,
    expect,
    expect_equal,
    expect_finite,
    expect_same_state,
    set_seed,
)
from qsae_core.contracts.activation import Activation
from qsae_core.contracts.dense import Pointwise

RULES = Rules()
N_LATENTS = 12
BATCH = 9


def pre_activations(dtype: torch.dtype = torch.float32) -> Tensor:
    """``[B, F]``: ordinary values of both signs, with a row of zeros, tiny, large and huge ones."""
    pre_BF = torch.randn(BATCH, N_LATENTS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    pre_BF[1], pre_BF[2], pre_BF[3], pre_BF[4] = 0, pre_BF[2] * 1e-6, pre_BF[3] * 30, pre_BF[4] * 1e4
    return pre_BF.to(dtype)


def built(subject: Subject, case: Case, train: bool = False, n_latents: int = N_LATENTS) -> Activation:
    """A fresh activation, in evaluation mode unless ``train``."""
    set_seed(0)
    activation: Activation = subject.build(case, n_latents)
    return activation.train(train)


@RULES.once(
    "constructs", "the defaults and the sample configurations construct, for one latent and for many."
)
def _constructs(subject: Subject) -> None:
    check_constructs(subject, lambda case: [subject.construct(case, n) for n in (1, N_LATENTS)])


@RULES.each_case(
    "shape", "[B, F] pre-activations give [B, F] finite latents of the same dtype, [0, F] and [1, 1] too."
)
def _shape(subject: Subject, case: Case) -> None:
    activation = built(subject, case)
    for pre in (pre_activations(), pre_activations()[:0], pre_activations()[:1]):
        latents = activation(pre)
        expect(latents.shape == pre.shape, f"{list(pre.shape)} became {list(latents.shape)}.")
        expect(latents.dtype == pre.dtype, f"{pre.dtype} became {latents.dtype}.")
        expect_finite(latents, "the latents")
    single = built(subject, case, n_latents=1)(torch.ones(1, 1))
    expect(single.shape == (1, 1), f"[1, 1] became {list(single.shape)}.")


@RULES.each_case(
    "gathered", "forward(entries [N], latent_index) equals those entries of forward([B, F]), gradient too."
)
def _gathered(subject: Subject, case: Case) -> None:
    for train in (False, True):
        activation = built(subject, case, train)
        rows = torch.tensor([0, 0, 2, 3, 5, 5, 8])
        columns = torch.tensor([11, 0, 4, 7, 1, 2, 9])
        mode = "training" if train else "evaluation"
        dense, gathered = pre_activations().requires_grad_(), pre_activations().requires_grad_()
        expected = activation(dense)[rows, columns]
        actual = activation(gathered[rows, columns], columns)
        expect_equal(actual, expected, f"gathered against dense latents in {mode} mode")
        if expected.requires_grad:
            expected.sum().backward()
            actual.sum().backward()
            assert dense.grad is not None
            expect(gathered.grad is not None, "the gathered form is cut off from the gradient.")
            assert gathered.grad is not None
            actual_grad, expected_grad = gathered.grad[rows, columns], dense.grad[rows, columns]
            expect_equal(actual_grad, expected_grad, f"gradient of the gathered form in {mode} mode")


@RULES.each_case("gradient", "the gradient is finite everywhere, and not zero everywhere.")
def _gradient(subject: Subject, case: Case) -> None:
    activation = built(subject, case, train=True)
    pre_BF = pre_activations().requires_grad_()
    latents_BF = activation(pre_BF)
    expect(latents_BF.requires_grad, "the latents are cut off from the pre-activations' gradient.")
    latents_BF.sum().backward()
    assert pre_BF.grad is not None
    expect_finite(pre_BF.grad, "the gradient of the pre-activations")
    expect(pre_BF.grad.any(), "the gradient of the pre-activations is zero everywhere.")
    for name, parameter in activation.named_parameters():
        if parameter.grad is not None:
            expect_finite(parameter.grad, f"the gradient of {name}")


@RULES.each_case(
    "derivative",
    "where the function is smooth, its gradient is its derivative (or straight_through is declared).",
)
def _derivative(subject: Subject, case: Case) -> None:
    if subject.declares("straight_through", False):
        raise NotApplicable("the activation declares a straight-through gradient")
    activation = built(subject, case).double()
    pre_BF = pre_activations(torch.float64)[:4].requires_grad_()
    activation(pre_BF).sum().backward()
    assert pre_BF.grad is not None
    step = 1e-6
    with torch.no_grad():
        here, right, left = (activation(pre_BF + h) for h in (0.0, step, -step))
    forward: Tensor = (right - here) / step
    backward: Tensor = (here - left) / step
    fine = (forward + backward) / 2
    smooth = (forward - backward).abs() <= 1e-3 * (1 + fine.abs())
    wrong = smooth & ((pre_BF.grad - fine).abs() > 1e-3 * (1 + fine.abs()))
    if wrong.any():
        row, column = (int(i) for i in wrong.nonzero()[0])
        expect(
            False,
            f"at {pre_BF[row, column].item():.6g} the gradient is {pre_BF.grad[row, column].item():.6g}, "
            f"but finite differences give {fine[row, column].item():.6g}.",
        )


@RULES.each_case(
    "order", "where keeps_order is declared: one non-decreasing function for all latents, f(c z) = c f(z)."
)
def _order(subject: Subject, case: Case) -> None:
    activation = built(subject, case)
    if not activation.keeps_order:
        raise NotApplicable("the activation does not declare keeps_order")
    pre_BF = torch.linspace(-3, 3, 61)[:, None].expand(-1, N_LATENTS).contiguous()
    latents_BF = activation(pre_BF)
    expect_equal(latents_BF, latents_BF[:, :1].expand_as(latents_BF), "latents of equal pre-activations")
    expect((latents_BF.diff(dim=0) >= 0).all(), "a larger pre-activation gives a smaller latent.")
    doubled = activation(2 * pre_BF)
    expect(
        torch.allclose(doubled, 2 * latents_BF), "twice the pre-activations do not give twice the latents."
    )


@RULES.each_case(
    "pointwise",
    "pointwise is None or the very function; take makes a jumprelu one of other thresholds.",
)
def _pointwise(subject: Subject, case: Case) -> None:
    activation = built(subject, case)
    point = activation.pointwise()
    if point is None:
        raise NotApplicable("other libraries have no word for the activation")
    if point.function == "jumprelu":
        thresholds_F = torch.linspace(0.1, 2, N_LATENTS)
        activation.take(Pointwise("jumprelu", thresholds_F))
        point = activation.pointwise()
        assert point is not None
        assert point.threshold is not None
        expect_equal(point.threshold, thresholds_F, "the thresholds after take")
    latents_BF = activation(pre_activations())
    expect_equal(latents_BF, point(pre_activations()), f"latents against those of {point.function}")


@RULES.each_case("deterministic", "the same seed gives the same latents; in evaluation mode any seed does.")
def _deterministic(subject: Subject, case: Case) -> None:
    first, second = (built(subject, case, train=True)(pre_activations()) for _ in range(2))
    expect_equal(second, first, "latents in training mode, computed twice from one seed")
    activation = built(subject, case)
    set_seed(1)
    once = activation(pre_activations())
    set_seed(2)
    expect_equal(activation(pre_activations()), once, "latents in evaluation mode under two seeds")


@RULES.each_case("state", "state_dict and load_state_dict carry everything that is learned, bit for bit.")
def _state(subject: Subject, case: Case) -> None:
    activation = built(subject, case, train=True)
    with torch.no_grad():
        for parameter in activation.parameters():
            parameter.add_(0.01)
    activation(pre_activations())
    other = built(subject, case)
    other.load_state_dict(copy_of_state(activation))
    expect_same_state(copy_of_state(other), copy_of_state(activation), "the state after loading")
    expect_equal(
        other(pre_activations()), activation.eval()(pre_activations()), "latents after loading the state"
    )


@RULES.each_case("eval-keeps-state", "evaluation mode changes no state, and no input.")
def _eval_keeps_state(subject: Subject, case: Case) -> None:
    activation = built(subject, case)
    before, pre_BF = copy_of_state(activation), pre_activations()
    activation(pre_BF)
    expect_same_state(copy_of_state(activation), before, "the state after a pass in evaluation mode")
    expect_equal(pre_BF, pre_activations(), "the pre-activations after a pass")
