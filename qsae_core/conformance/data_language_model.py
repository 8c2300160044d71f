"""Rules for data sources with a language model behind them. Shapes: B contexts, T positions, V tokens."""

from __future__ import annotations

import torch

from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.data_source import HELD_OUT, expect_close, opened
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import NotApplicable, expect, expect_finite
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.language_model import LanguageModel, TokenBatch

RULES = Rules()
FEW = 50


def _model(source: DataSource) -> LanguageModel:
    model = source.language_model()
    if model is None:
        raise NotApplicable("there is no language model behind the vectors")
    return model


def _contexts(source: DataSource, n_tokens: int, batch_size: int = 64) -> list[tuple[TokenBatch, Batch]]:
    return list(source.held_out_contexts(n_tokens, batch_size))


@RULES.each_case(
    "held-out-contexts",
    "held_out_contexts gives the fewest contexts that hold the tokens asked for, and a vector at each of "
    "their counted positions, however many are read at once.",
)
def _held_out_contexts(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        _model(source)
        found, singly = _contexts(source, FEW), _contexts(source, FEW, 1)
        for tokens, batch in [*found, *singly]:
            _expect_tokens(tokens)
            counted = int(tokens.counted.sum())
            expect(len(batch) == counted, f"{len(batch)} vectors at {counted} counted positions.")
        expect(all(len(t.ids) == 1 for t, _ in singly), "a batch size of 1 reads several contexts at once.")
        counted = sum(len(batch) for _, batch in found)
        available = sum(len(b) for b in source.held_out(FEW, FEW))
        expect(counted >= available, f"{counted} counted positions, but {available} held-out vectors.")
        least = counted - len(singly[-1][1])
        expect(least < FEW, f"{len(singly)} contexts, where one less holds {least} of {FEW} tokens.")
        ids = [torch.cat([t.ids for t, _ in some]) for some in (found, singly)]
        expect(torch.equal(*ids), "the contexts depend on how many are read at once.")


def _expect_tokens(batch: TokenBatch) -> None:
    expect(batch.ids.dim() == 2 and batch.ids.dtype == torch.int64, f"ids are {batch.ids.dtype}.")
    for name in ("counted", "attention"):
        mask = getattr(batch, name)
        expect(mask.dtype == torch.bool, f"{name} is {mask.dtype}, not bool.")
        expect(
            mask.shape == batch.ids.shape, f"{name} is {list(mask.shape)}, ids are {list(batch.ids.shape)}."
        )
    expect(not (batch.counted & ~batch.attention).any(), "a position that is no input is counted.")
    if batch.documents is not None:
        numbered = batch.documents[batch.counted]
        expect(batch.documents.shape == batch.ids.shape, f"documents are {list(batch.documents.shape)}.")
        expect(bool((numbered >= 0).all()), "a counted position is of no document.")


@RULES.each_case(
    "held-out-site",
    "held-out y, alone and with their contexts, are the model's vectors at `site`, at the counted positions.",
)
def _held_out_site(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        model = _model(source)
        if source.site is None:
            raise NotApplicable("the vectors come from no one site")
        found = _contexts(source, FEW)
        read = torch.cat([model.read(t, [source.site])[source.site][t.counted] for t, _ in found]).float()
        with_contexts = torch.cat([b.y for _, b in found])
        alone = torch.cat([b.y for b in source.held_out(HELD_OUT, 64)])
        for given, what in ((with_contexts, "held_out_contexts"), (alone, "held_out")):
            n = min(len(given), len(read))
            expect_close(given[:n].cpu(), read[:n].cpu(), f"{what} against the model's own vectors")


@RULES.each_case("edits", "an edit that keeps the vectors keeps the logits, and another changes them.")
def _edits(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        model = _model(source)
        batch, _ = next(iter(source.held_out_contexts(FEW, 64)))
        clean = model.logits(batch)
        expect(
            clean.shape[:2] == batch.ids.shape, f"logits are {list(clean.shape)} for {list(batch.ids.shape)}."
        )
        expect_finite(clean, "the logits")
        expect(isinstance(model.predicts_next, bool), f"predicts_next is {model.predicts_next!r}.")
        if source.site is None:
            return
        expect_close(
            model.logits(batch, {source.site: lambda v: v}), clean, "logits under an edit to nothing"
        )
        zeroed = model.logits(batch, {source.site: torch.zeros_like})
        expect(not torch.allclose(zeroed, clean), "logits do not change when the site's vectors become zero.")
