"""Rules for data sources with a language model behind them. Shapes: B contexts, T positions, V tokens."""

from __future__ import annotations

import torch

from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.data_source import HELD_OUT, expect_close, opened
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import NotApplicable, expect, expect_finite
from qsae_core.contracts.data import DataSource
from qsae_core.contracts.language_model import LanguageModel, TokenBatch

RULES = Rules()
FEW = 50


def _model(source: DataSource) -> LanguageModel:
    model = source.language_model()
    if model is None:
        raise NotApplicable("there is no language model behind the vectors")
    return model


@RULES.each_case("held-out-tokens", "held_out_tokens gives contexts with as many counted positions as asked.")
def _held_out_tokens(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        _model(source)
        counted = 0
        for batch in source.held_out_tokens(FEW):
            _expect_tokens(batch)
            counted += int(batch.counted.sum())
        available = sum(len(b) for b in source.held_out(FEW, FEW))
        expect(counted >= available, f"{counted} counted positions, but {available} held-out vectors.")


def _expect_tokens(batch: TokenBatch) -> None:
    expect(batch.ids.dim() == 2 and batch.ids.dtype == torch.int64, f"ids are {batch.ids.dtype}.")
    for name in ("counted", "attention"):
        mask = getattr(batch, name)
        expect(mask.dtype == torch.bool, f"{name} is {mask.dtype}, not bool.")
        expect(
            mask.shape == batch.ids.shape, f"{name} is {list(mask.shape)}, ids are {list(batch.ids.shape)}."
        )
    expect(not (batch.counted & ~batch.attention).any(), "a position that is no input is counted.")


@RULES.each_case("held-out-site", "held-out y are the model's vectors at `site`, at the counted positions.")
def _held_out_site(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        model = _model(source)
        if source.site is None:
            raise NotApplicable("the vectors come from no one site")
        read = [model.read(b, [source.site])[source.site][b.counted] for b in source.held_out_tokens(FEW)]
        given = torch.cat([b.y for b in source.held_out(HELD_OUT, 64)])
        n = min(len(given), sum(len(r) for r in read))
        expect_close(
            given[:n].cpu(), torch.cat(read)[:n].float().cpu(), "held_out against the model's own vectors"
        )


@RULES.each_case("edits", "an edit that keeps the vectors keeps the logits, and another changes them.")
def _edits(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        model = _model(source)
        batch = next(iter(source.held_out_tokens(FEW)))
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
