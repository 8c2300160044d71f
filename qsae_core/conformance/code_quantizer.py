"""Rules for code quantizers. Shapes: F latents, N entries."""

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
from qsae_core.contracts.code_quantizer import CodeQuantizer

RULES = Rules()
N_LATENTS, N = 12, 200


def entries(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Values and latents of codes: non-negative, some zero, each latent with a range of its own."""
    generator = torch.Generator().manual_seed(seed)
    latent_N = torch.randint(0, N_LATENTS, (N,), generator=generator, dtype=torch.int32)
    values_N = torch.rand(N, generator=generator) * (1 + latent_N)
    values_N[::9] = 0
    return values_N, latent_N


def built(subject: Subject, case: Case, train: bool = False) -> CodeQuantizer:
    """A quantizer that has measured ranges, in evaluation mode unless ``train``."""
    set_seed(0)
    quantizer: CodeQuantizer = subject.build(case, N_LATENTS)
    quantizer.train()(*entries())
    return quantizer.train(train)


@RULES.once(
    "constructs", "the defaults and the sample configurations construct, for one latent and for many."
)
def _constructs(subject: Subject) -> None:
    check_constructs(subject, lambda case: [subject.construct(case, n) for n in (1, N_LATENTS)])


@RULES.each_case("values", "[N] values stay [N], finite, of the same sign; zero stays zero, active active.")
def _values(subject: Subject, case: Case) -> None:
    values_N, latent_N = entries(1)
    for train in (False, True):
        quantized = built(subject, case, train)(values_N, latent_N)
        expect(quantized.shape == values_N.shape, f"[{N}] became {list(quantized.shape)}.")
        expect(quantized.dtype == values_N.dtype, f"{values_N.dtype} became {quantized.dtype}.")
        expect_finite(quantized, "the quantized values")
        expect_equal(quantized.sign(), values_N.sign(), "signs (0 where a value is zero)")
    empty = built(subject, case)(values_N[:0], latent_N[:0])
    expect(empty.shape == (0,), f"no entries became {list(empty.shape)}.")


@RULES.each_case(
    "pack", "levels are uint8 of `bits` bits, 0 for zero; unpack(pack(v)) equals forward(v) bit for bit."
)
def _pack(subject: Subject, case: Case) -> None:
    quantizer = built(subject, case)
    if quantizer.is_identity:
        raise NotApplicable("it leaves values as they are")
    values_N, latent_N = entries(1)
    levels = quantizer.pack(values_N, latent_N)
    expect(levels.dtype == torch.uint8 and levels.shape == (N,), f"pack gives {levels.dtype} {levels.shape}.")
    expect(
        int(levels.max()) < 2**quantizer.bits,
        f"the level {int(levels.max())} does not fit into {quantizer.bits} bits.",
    )
    expect(bool((levels[values_N == 0] == 0).all()), "zero has a level other than 0.")
    expect_equal(
        quantizer.unpack(levels, latent_N), quantizer(values_N, latent_N), "unpack(pack) against forward"
    )


@RULES.each_case("idempotent", "quantizing what is quantized changes nothing in evaluation mode.")
def _idempotent(subject: Subject, case: Case) -> None:
    quantizer, (values_N, latent_N) = built(subject, case), entries(1)
    once = quantizer(values_N, latent_N)
    expect_equal(quantizer(once, latent_N), once, "values quantized twice against once")


@RULES.each_case("gradient", "the gradient of the values is finite, and not zero everywhere.")
def _gradient(subject: Subject, case: Case) -> None:
    values_N, latent_N = entries()
    values_N.requires_grad_()
    quantized = built(subject, case, train=True)(values_N, latent_N)
    expect(quantized.requires_grad, "the codes are cut off from their values' gradient.")
    quantized.sum().backward()
    assert values_N.grad is not None
    expect_finite(values_N.grad, "the gradient")
    expect(values_N.grad.any(), "the gradient is zero everywhere.")


@RULES.each_case("state", "state_dict and load_state_dict carry everything that is measured, bit for bit.")
def _state(subject: Subject, case: Case) -> None:
    quantizer, other = built(subject, case), subject.build(case, N_LATENTS)
    other.load_state_dict(copy_of_state(quantizer))
    expect_same_state(copy_of_state(other), copy_of_state(quantizer), "the state after loading")
    expect_equal(other.eval()(*entries(1)), quantizer(*entries(1)), "values after loading the state")


@RULES.each_case("eval-keeps-state", "evaluation mode changes no state, no range, and no input.")
def _eval_keeps_state(subject: Subject, case: Case) -> None:
    quantizer, (values_N, latent_N) = built(subject, case), entries(1)
    before, copy = copy_of_state(quantizer), values_N.clone()
    quantizer(values_N * 100, latent_N)
    quantizer(values_N, latent_N)
    expect_same_state(copy_of_state(quantizer), before, "the state after quantizing in evaluation mode")
    expect_equal(values_N, copy, "the values after quantizing")
