"""Rules for coders that can be trained in parts. Shapes: F latents."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from qsae_core.coders.dead_latents import EVERY_STEPS, DeadLatents
from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.coder import FEW
from qsae_core.conformance.coder_samples import BATCH, buildable, built, data_of, total, train
from qsae_core.conformance.halves import at_the_same_time, one_after_the_other
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import CheckFailure, NotApplicable, copy_of_state, expect, expect_close
from qsae_core.contracts.coder import LossOutput
from qsae_core.contracts.data import Batch

RULES = Rules()


@RULES.each_case(
    "parts", "where splits_latents is True, two processes with half of the latents give the loss of one."
)
def _parts(subject: Subject, case: Case) -> None:
    if subject.target.refusal_to_split() is not None:
        raise NotApplicable("it does not say that it can be trained in parts")
    for variant, whole in buildable(subject, case):
        if whole.refusal_of_parts() is not None:
            continue
        data = data_of(subject, case)
        train(whole, [data.next_batch(BATCH) for _ in range(FEW)])
        _silence_some(whole)
        halves = one_after_the_other(functools.partial(built, subject, variant))
        for half in halves:
            _take_over(half, whole)
        batch = data.next_batch(BATCH)
        outputs = _of_both(halves, batch, variant.label)
        expected = _backward(whole, whole.loss(batch))
        for output in outputs:
            _compare_terms(output, expected, variant.label)
        _compare_gradients(halves, whole, variant.label)


def _of_both(halves: list[MatrixCoder], batch: Batch, label: str) -> list[LossOutput]:
    outputs: dict[int, LossOutput] = {}

    def step(rank: int) -> None:
        outputs[rank] = _backward(halves[rank], halves[rank].loss(batch))

    try:
        at_the_same_time(step)
    except Exception as error:
        raise CheckFailure(f"two halves of it {label} end with {error!r}.") from error
    return [outputs[0], outputs[1]]


def _silence_some(coder: MatrixCoder) -> None:
    """Some latents are dead, and it is the turn of what revives them."""
    for module in coder.modules():
        if isinstance(module, DeadLatents):
            module.tokens_since_fired[1::3] = 10**9
            module.batches.fill_(EVERY_STEPS - 1)


def _take_over(half: MatrixCoder, whole: MatrixCoder) -> None:
    divided = half.latent_tensors()
    state = {
        name: tensor[half.own_latents] if name in divided else tensor
        for name, tensor in copy_of_state(whole).items()
    }
    try:
        half.load_state_dict(state)
    except RuntimeError as error:
        raise CheckFailure(
            f"halves have other rows of other tensors than latent_tensors: {error}."
        ) from error


def _backward(coder: MatrixCoder, output: LossOutput) -> LossOutput:
    coder.zero_grad(set_to_none=True)
    torch.autograd.backward(total(output))
    return output


def _compare_terms(output: LossOutput, expected: LossOutput, label: str) -> None:
    expect(
        output.terms.keys() == expected.terms.keys(), f"a half has the terms {sorted(output.terms)} {label}."
    )
    for name, term in expected.terms.items():
        expect_close(output.terms[name].detach(), term.detach(), f"the term {name!r} of a half {label}")


def _compare_gradients(halves: list[MatrixCoder], whole: MatrixCoder, label: str) -> None:
    divided = halves[0].latent_tensors()
    parameters = [dict(half.named_parameters()) for half in halves]
    for name, parameter in whole.named_parameters():
        parts = [_gradient(of_half[name]) for of_half in parameters]
        found = torch.cat(parts) if name in divided else parts[0] + parts[1]
        what = "of both halves" if name in divided else "added over both halves"
        expect_close(found, _gradient(parameter), f"the gradient of {name} {what} {label}")


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
