"""Rules for sparsity rules. Shapes: B tokens, F latents.

A rule with a fixed k that does not keep the k largest (k per group, an approximation) says so with the
class attribute ``selects_largest = False``; the rule 'largest' then does not apply to it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.general import check_constructs
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import NotApplicable, expect, expect_equal, expect_finite, set_seed
from qsae_core.contracts.codes import SparseCodes, concatenate
from qsae_core.contracts.sparsity import SparsityRule
from qsae_core.errors import QsaeError

RULES = Rules()
N_LATENTS = 96


def latents(batch: int, n_latents: int = N_LATENTS, seed: int = 5) -> Tensor:
    """``[B, F]`` non-negative latents, about half of them zero, without ties above zero."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, n_latents, generator=generator).relu()


def sample_latents(n_latents: int = N_LATENTS) -> dict[str, Tensor]:
    """Name -> ``[B, F]``: ordinary, one row, none, rows of zeros, dense, signed."""
    ordinary = latents(7, n_latents)
    some_zero = ordinary.clone()
    some_zero[1::2] = 0
    signed = torch.randn(5, n_latents, generator=torch.Generator().manual_seed(6))
    return {
        "ordinary latents": ordinary,
        "one row": ordinary[:1],
        "an empty batch": ordinary[:0],
        "some rows of zeros": some_zero,
        "zeros alone": torch.zeros_like(ordinary),
        "positive latents": ordinary + 0.01,
        "latents of both signs": signed,
        "equal latents": torch.ones_like(ordinary),
    }


def built(subject: Subject, case: Case, n_latents: int = N_LATENTS, train: bool = False) -> SparsityRule:
    """A fresh rule, in evaluation mode unless ``train``."""
    set_seed(0)
    rule: SparsityRule = subject.build(case, n_latents)
    return rule.train(train)


@torch.no_grad()
def selected(rule: SparsityRule, latents_BF: Tensor, importance_F: Tensor | None = None) -> SparseCodes:
    """``rule.select`` as a coder calls it: without gradient, and with gates where the rule reads them."""
    codes = rule.select(latents_BF, importance_F)
    return replace(codes, gates=codes.active.to(latents_BF.dtype)) if rule.needs_gates else codes


@RULES.once("constructs", "the defaults and the sample configurations construct.")
def _constructs(subject: Subject) -> None:
    check_constructs(subject, lambda case: subject.construct(case, N_LATENTS))


@RULES.each_case(
    "well-formed", "select gives valid SparseCodes whose values are the latents at their places."
)
def _well_formed(subject: Subject, case: Case) -> None:
    for train in (False, True):
        for what, latents_BF in sample_latents().items():
            codes = selected(built(subject, case, train=train), latents_BF)
            expect_well_formed(codes, latents_BF.shape[0], N_LATENTS, f"the codes of {what}")
            expect_equal(
                codes.values, latents_BF[codes.rows, codes.indices.long()], f"values of the codes of {what}"
            )


def expect_well_formed(codes: SparseCodes, batch: int, n_latents: int, what: str) -> None:
    """Fail unless offsets, indices and values fit together: in range, no latent twice in a token."""
    expect(codes.n_latents == n_latents, f"{what}: n_latents is {codes.n_latents}, not {n_latents}.")
    expect(codes.indices.dtype == torch.int32, f"{what}: indices are {codes.indices.dtype}, not int32.")
    expect(codes.offsets.dtype == torch.int64, f"{what}: offsets are {codes.offsets.dtype}, not int64.")
    expect(
        codes.offsets.shape == (batch + 1,) and codes.offsets[0] == 0,
        f"{what}: offsets {codes.offsets.tolist()[:9]} do not start {batch} tokens at 0.",
    )
    n = codes.indices.numel()
    expect(
        bool((codes.offsets.diff() >= 0).all()) and codes.offsets[-1] == n and codes.values.shape == (n,),
        f"{what}: offsets {codes.offsets.tolist()[:9]} for {n} indices and {codes.values.numel()} values.",
    )
    expect(
        bool(((codes.indices >= 0) & (codes.indices < n_latents)).all()),
        f"{what}: indices outside 0 to {n_latents - 1}.",
    )
    flat = codes.rows * n_latents + codes.indices
    expect(
        torch.bincount(flat).max(dim=0).values <= 1 if n else True,
        f"{what}: a latent occurs twice in one token.",
    )
    if codes.k is not None:
        expect(
            bool((codes.offsets.diff() == codes.k).all()),
            f"{what}: not every token has the k = {codes.k} entries.",
        )


@RULES.each_case(
    "declared-l0",
    "fixed_k is the number of entries of every token, no token has more than max_l0, counts is an option.",
)
def _declared_l0(subject: Subject, case: Case) -> None:
    counts = built(subject, case).counts
    expect(
        counts is None or hasattr(built(subject, case).config, counts),
        f"counts is {counts!r}, and the configuration has no such option.",
    )
    for train in (False, True):
        for what, latents_BF in sample_latents().items():
            rule = built(subject, case, train=train)
            codes = selected(rule, latents_BF)
            _expect_declared_l0(rule, codes, what)


def _expect_declared_l0(rule: SparsityRule, codes: SparseCodes, what: str) -> None:
    entries, bound = codes.offsets.diff(), rule.max_l0()
    if rule.fixed_k is not None:
        expect(
            rule.fixed_k <= rule.n_latents,
            f"fixed_k is {rule.fixed_k}, but there are {rule.n_latents} latents.",
        )
        wrong = entries[entries != rule.fixed_k]
        expect(
            wrong.numel() == 0,
            f"with {what}, tokens have {wrong.tolist()[:4]} entries; fixed_k is {rule.fixed_k}.",
        )
    if bound is not None:
        most = max(codes.l0().tolist(), default=0)
        expect(most <= bound, f"with {what}, a token has {most} active latents; max_l0 is {bound}.")


@RULES.each_case(
    "k-at-least-f", "k = F keeps every active latent; k > F is refused with a QsaeError or does the same."
)
def _k_at_least_f(subject: Subject, case: Case) -> None:
    k = built(subject, case).fixed_k
    if k is None:
        raise NotApplicable("the number of entries is not fixed")
    for n_latents in sorted({k, max(1, k - 1), 1}, reverse=True):
        try:
            rule = subject.construct(case, n_latents)
        except QsaeError:
            expect(n_latents < k, f"k = {k} was refused for {n_latents} latents.")
            continue
        latents_BF = latents(5, n_latents)
        codes = selected(rule.eval(), latents_BF)
        expect_well_formed(codes, 5, n_latents, f"k = {k}, F = {n_latents}")
        expect_equal(
            codes.to_dense(), latents_BF, f"the code of k = {k}, F = {n_latents}, where all latents fit"
        )
        _expect_declared_l0(rule, codes, f"k = {k}, F = {n_latents}")


@RULES.each_case("largest", "a rule with fixed_k keeps the entries with the largest latent times importance.")
def _largest(subject: Subject, case: Case) -> None:
    if built(subject, case).fixed_k is None:
        raise NotApplicable("the number of entries is not fixed")
    if not subject.declares("selects_largest", True):
        raise NotApplicable("the rule declares selects_largest = False")
    importance_F = torch.linspace(0.2, 3.0, N_LATENTS)[torch.randperm(N_LATENTS)]
    for weights in (None, importance_F):
        latents_BF = latents(11)
        codes = selected(built(subject, case), latents_BF, weights)
        ranking = latents_BF if weights is None else latents_BF * weights
        chosen = torch.zeros_like(ranking, dtype=torch.bool)
        chosen[codes.rows, codes.indices.long()] = True
        for row, (values, mask) in enumerate(zip(ranking, chosen, strict=True)):
            if mask.any() and not mask.all():
                worst, best = values[mask].min().item(), values[~mask].max().item()
                how = "without" if weights is None else "with"
                expect(
                    worst >= best,
                    f"{how} importance, token {row} keeps a rank of {worst:.6g} and drops one of {best:.6g}.",
                )


@RULES.each_case(
    "penalty", "penalty is None, or a finite scalar, the mean over tokens, with a finite gradient."
)
def _penalty(subject: Subject, case: Case) -> None:
    norms_F = torch.linspace(0.5, 2.0, N_LATENTS)
    for what, latents_BF in sample_latents().items():
        rule = built(subject, case, train=True)
        codes = selected(rule, latents_BF)
        if what == "an empty batch":
            continue
        gates = None if codes.gates is None else codes.gates.requires_grad_()
        codes = replace(codes, values=codes.values.clone().requires_grad_(), gates=gates)
        penalty = rule.penalty(codes, norms_F)
        if penalty is None:
            raise NotApplicable("the rule has no penalty")
        expect(penalty.dim() == 0, f"the penalty has shape {list(penalty.shape)}; it is to be a scalar.")
        expect_finite(penalty.detach(), f"the penalty of {what}")
        if penalty.requires_grad:
            inputs = [codes.values] if gates is None else [codes.values, gates]
            for gradient in torch.autograd.grad(penalty, inputs, allow_unused=True):
                if gradient is not None:
                    expect_finite(gradient, f"the penalty's gradient with {what}")
        twice = concatenate([codes, codes])
        doubled = rule.penalty(twice if gates is None else replace(twice, gates=gates.repeat(2)), norms_F)
        assert doubled is not None
        expect(
            torch.allclose(doubled, penalty, rtol=1e-4),
            f"with {what} twice over the penalty goes from {penalty.item():.6g} to {doubled.item():.6g}.",
        )
