"""Rules for sparsity rules that serve a part of the latents. Shapes: B tokens, F latents."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from torch import Tensor

from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.halves import at_the_same_time, one_after_the_other
from qsae_core.conformance.sparsity import N_LATENTS, built, latents
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import (
    CheckFailure,
    NotApplicable,
    copy_of_state,
    expect,
    expect_close,
    expect_equal,
    expect_same_state,
)
from qsae_core.contracts.codes import SparseCodes, join_latents
from qsae_core.contracts.sparsity import SparsityRule

RULES = Rules()


@RULES.each_case(
    "parts", "where splits is True, two processes with half of the latents keep what one keeps, at its price."
)
def _parts(subject: Subject, case: Case) -> None:
    if not subject.declares("splits", False):
        raise NotApplicable("the rule does not say that it serves a part of the latents")
    for train in (False, True):
        latents_BF, norms_F = latents(12), torch.linspace(0.5, 2.0, N_LATENTS)
        whole = built(subject, case, train=train)
        kept, price = _outcome(whole, latents_BF, norms_F)
        halves = one_after_the_other(functools.partial(built, subject, case, train=train))
        found = _of_both(halves, latents_BF, norms_F)
        what = f"of two halves in {'training' if train else 'evaluation'} mode"
        codes = join_latents([codes for codes, _ in found])
        expect_equal(codes.to_dense(), kept.to_dense(), f"the codes {what}")
        for half, (_, its_price) in zip(halves, found, strict=True):
            expect_same_state(copy_of_state(half), copy_of_state(whole), f"the state {what}")
            expect((its_price is None) == (price is None), f"the penalty {what} is {its_price}, not {price}.")
            if its_price is not None and price is not None:
                expect_close(its_price, price, f"the penalty {what}")


def _of_both(
    halves: list[SparsityRule], latents_BF: Tensor, norms_F: Tensor
) -> list[tuple[SparseCodes, Tensor | None]]:
    found: dict[int, tuple[SparseCodes, Tensor | None]] = {}

    def of_half(rank: int) -> None:
        own = slice(rank * N_LATENTS // 2, (rank + 1) * N_LATENTS // 2)
        found[rank] = _outcome(halves[rank], latents_BF[:, own].contiguous(), norms_F[own])

    try:
        at_the_same_time(of_half)
    except Exception as error:
        raise CheckFailure(f"two halves of it end with {error!r}.") from error
    return [found[0], found[1]]


@torch.no_grad()
def _outcome(rule: SparsityRule, latents_BF: Tensor, norms_F: Tensor) -> tuple[SparseCodes, Tensor | None]:
    """The codes of a batch, and what they cost."""
    rule.begin_batch(len(latents_BF))
    codes = rule.finish_batch(rule.select(latents_BF))
    if rule.needs_gates:
        codes = replace(codes, gates=codes.active.to(latents_BF.dtype))
    return codes, rule.penalty(codes, norms_F)
