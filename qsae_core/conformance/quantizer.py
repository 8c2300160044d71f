"""Rules for quantizers: what fake_quantize does. Shapes: F rows, D columns."""

from __future__ import annotations

import torch
from torch import Tensor

from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.general import check_constructs
from qsae_core.conformance.quantizer_samples import SHAPES, built, matrices, samples
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import (
    copy_of_state,
    expect,
    expect_close,
    expect_equal,
    expect_finite,
    expect_same_state,
    set_seed,
)
from qsae_core.contracts.quantizer import Quantizer
from qsae_core.errors import QsaeError

RULES = Rules()


@RULES.once("constructs", "the defaults construct, for every shape of matrix; other options for some shape.")
def _constructs(subject: Subject) -> None:
    def build(case: Case) -> None:
        refused = []
        for shape in SHAPES:
            try:
                subject.construct(case, shape)
            except QsaeError as error:
                if case is first or subject.config(case) == subject.config(first):
                    raise
                refused.append(error)
        if len(refused) == len(SHAPES):
            raise refused[0]

    first = subject.declared_cases()[0]
    check_constructs(subject, build)


@RULES.each_case("shape-and-dtype", "fake_quantize keeps the matrix's shape, dtype and device.")
def _shape_and_dtype(subject: Subject, case: Case) -> None:
    for what, weight in samples(subject, case):
        if not what.endswith("entries of size 1"):
            continue
        quantizer = built(subject, case, weight)
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            quantized = quantizer.fake_quantize(weight.to(dtype))
            expect(quantized.shape == weight.shape, f"{what} became {list(quantized.shape)}.")
            expect(quantized.dtype == dtype, f"a matrix of {dtype} became {quantized.dtype}.")


@RULES.each_case("finite", "fake_quantize gives finite values, for zeros and for tiny and huge entries too.")
def _finite(subject: Subject, case: Case) -> None:
    for what, weight in samples(subject, case):
        expect_finite(built(subject, case, weight).fake_quantize(weight), f"fake_quantize of {what}")


@RULES.each_case(
    "leaves-input", "neither fake_quantize nor pack nor initialize changes the matrix it is given."
)
def _leaves_input(subject: Subject, case: Case) -> None:
    for what, weight in samples(subject, case):
        copy = weight.clone()
        quantizer = built(subject, case, copy)
        quantizer.fake_quantize(copy)
        quantizer.pack(copy)
        expect_equal(copy, weight, f"after fake_quantize and pack, {what}")


@RULES.each_case(
    "idempotent", "quantizing what is quantized changes nothing, bit for bit, in evaluation mode."
)
def _idempotent(subject: Subject, case: Case) -> None:
    for what, weight in samples(subject, case):
        quantizer = built(subject, case, weight)
        once = quantizer.fake_quantize(weight)
        if once.isfinite().all():
            expect_equal(quantizer.fake_quantize(once), once, f"{what}, quantized twice against once")


@RULES.each_case("deterministic", "the same seed gives the same numbers; in evaluation mode any seed does.")
def _deterministic(subject: Subject, case: Case) -> None:
    weight = matrices(SHAPES[0])["entries of size 1"]
    runs = []
    for _ in range(2):
        quantizer = built(subject, case, weight, train=True)
        runs.append((quantizer.fake_quantize(weight), copy_of_state(quantizer)))
    expect_equal(runs[1][0], runs[0][0], "fake_quantize in training mode, run twice from one seed")
    expect_same_state(runs[1][1], runs[0][1], "the state, made twice from one seed")
    quantizer.eval()
    set_seed(1)
    once = quantizer.fake_quantize(weight)
    set_seed(2)
    expect_equal(quantizer.fake_quantize(weight), once, "fake_quantize in evaluation mode under two seeds")


@RULES.each_case("state", "state_dict and load_state_dict carry everything that is learned, bit for bit.")
def _state(subject: Subject, case: Case) -> None:
    weight = matrices(SHAPES[0])["entries of size 1"]
    quantizer = built(subject, case, weight)
    other: Quantizer = subject.build(case, SHAPES[0])
    other.load_state_dict(copy_of_state(quantizer))
    other.eval()
    expect_same_state(copy_of_state(other), copy_of_state(quantizer), "the state after loading")
    expect_equal(
        other.fake_quantize(weight),
        quantizer.fake_quantize(weight),
        "fake_quantize of a quantizer with loaded state",
    )


@RULES.each_case("eval-keeps-state", "evaluation mode changes no state.")
def _eval_keeps_state(subject: Subject, case: Case) -> None:
    for what, weight in samples(subject, case):
        quantizer = built(subject, case, weight)
        before = copy_of_state(quantizer)
        quantizer.fake_quantize(weight * 1.5)
        quantizer.pack(weight * 0.5)
        expect_same_state(
            copy_of_state(quantizer), before, f"the state after quantizing {what} in evaluation mode"
        )


@RULES.each_case(
    "gradient", "gradients of fake_quantize are finite, and not all zero for an ordinary matrix."
)
def _gradient(subject: Subject, case: Case) -> None:
    for what, weight in samples(subject, case):
        master = weight.clone().requires_grad_()
        quantizer = built(subject, case, weight, train=True)
        quantized = quantizer.fake_quantize(master)
        expect(quantized.requires_grad, f"fake_quantize of {what} is cut off from the weights' gradient.")
        slopes = torch.linspace(0.5, 1.5, quantized.numel()).view_as(quantized)
        torch.autograd.backward((quantized * slopes).sum())
        expect(master.grad is not None, f"fake_quantize of {what} gives the weights no gradient.")
        assert master.grad is not None
        expect_finite(master.grad, f"the gradient of {what}")
        if weight.shape == SHAPES[0] and what.endswith("entries of size 1"):
            expect(bool(master.grad.any()), f"the gradient of {what} is zero everywhere.")
        for name, parameter in quantizer.named_parameters():
            if parameter.grad is not None:
                expect_finite(parameter.grad, f"the gradient of the quantizer's {name} at {what}")


@RULES.each_case(
    "linear-gradient",
    "with linear_gradient, the gradient of a sum of losses is the sum of their gradients, as processes that "
    "have a part of a batch each take it to be.",
)
def _linear_gradient(subject: Subject, case: Case) -> None:
    weight = matrices(SHAPES[0])["entries of size 1"]
    if not built(subject, case, weight).linear_gradient:
        return
    falling = torch.linspace(1.5, -1.0, weight.numel()).view_as(weight)
    parts = [falling, falling.flip(0) - 0.7]
    of_parts = [_through(subject, case, weight, slopes) for slopes in parts]
    whole = _through(subject, case, weight, parts[0] + parts[1])
    if whole.isfinite().all():  # else 'gradient' says so
        expect_close(whole, of_parts[0] + of_parts[1], "the gradient of two losses against their sum")


def _through(subject: Subject, case: Case, weight: Tensor, slopes: Tensor) -> Tensor:
    """The gradient of the weights where that of the quantized ones is known."""
    master = weight.clone().requires_grad_()
    torch.autograd.backward((built(subject, case, weight).fake_quantize(master) * slopes).sum())
    assert master.grad is not None
    return master.grad
