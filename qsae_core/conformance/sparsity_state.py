"""Rules for sparsity rules: seeds, state, what a code may depend on. Shapes: B tokens, F latents."""

from __future__ import annotations

import torch

from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.sparsity import N_LATENTS, built, latents, sample_latents, selected
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import (
    NotApplicable,
    copy_of_state,
    expect_equal,
    expect_same_state,
    set_seed,
)
from qsae_core.contracts.sparsity import SparsityRule

RULES = Rules()


@RULES.each_case("deterministic", "the same seed gives the same codes; in evaluation mode any seed does.")
def _deterministic(subject: Subject, case: Case) -> None:
    first, second = (selected(built(subject, case, train=True), latents(9)).to_dense() for _ in range(2))
    expect_equal(second, first, "codes in training mode, selected twice from one seed")
    rule = built(subject, case)
    set_seed(1)
    once = selected(rule, latents(9)).to_dense()
    set_seed(2)
    expect_equal(selected(rule, latents(9)).to_dense(), once, "codes in evaluation mode under two seeds")


@RULES.each_case("state", "state_dict and load_state_dict carry everything that is learned, bit for bit.")
def _state(subject: Subject, case: Case) -> None:
    rule = built(subject, case, train=True)
    for seed in range(3):
        selected(rule, latents(9, seed=seed))
    other = built(subject, case)
    other.load_state_dict(copy_of_state(rule))
    expect_same_state(copy_of_state(other), copy_of_state(rule), "the state after loading")
    before, after = (selected(r.eval(), latents(9)).to_dense() for r in (rule, other))
    expect_equal(after, before, "the codes after loading the state")


@RULES.each_case("eval-keeps-state", "evaluation mode changes no state, no threshold, and no input.")
def _eval_keeps_state(subject: Subject, case: Case) -> None:
    rule = built(subject, case)
    before = copy_of_state(rule)
    for what, latents_BF in sample_latents().items():
        copy = latents_BF.clone()
        codes = selected(rule, copy)
        if codes.batch_size:
            rule.penalty(codes, torch.ones(N_LATENTS))
        expect_same_state(copy_of_state(rule), before, f"the state after {what} in evaluation mode")
        expect_equal(copy, latents_BF, f"after select, {what}")


@RULES.each_case("chunks", "in evaluation mode a token's code does not depend on the tokens beside it.")
def _chunks(subject: Subject, case: Case) -> None:
    rule, latents_BF = built(subject, case), latents(11)
    whole = selected(rule, latents_BF).to_dense()
    parts = [selected(rule, chunk).to_dense() for chunk in latents_BF.split([1, 4, 6])]
    expect_equal(torch.cat(parts), whole, "codes selected in chunks of 1, 4 and 6 against all at once")


@RULES.each_case("kept", "kept is None, or what select keeps in evaluation mode.")
def _kept(subject: Subject, case: Case) -> None:
    rule = built(subject, case, train=True)
    if type(rule).kept is SparsityRule.kept:
        raise NotApplicable("the rule says no more than fixed_k; see 'largest'")
    selected(rule, latents(9))
    kept = rule.eval().kept()
    if kept is None:
        raise NotApplicable("other libraries have no word for the rule")
    for importance_F in (torch.ones(N_LATENTS), torch.linspace(0.2, 3.0, N_LATENTS)):
        latents_BF = latents(11)
        codes = selected(rule, latents_BF, importance_F)
        expect_equal(codes.to_dense(), kept(latents_BF, importance_F), f"the codes against {kept}")
