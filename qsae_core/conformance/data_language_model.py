"""Rules for data sources with a language model behind them. Shapes: B contexts, T positions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping

import torch
from torch import Tensor

from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.data_source import HELD_OUT, opened
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import NotApplicable, expect, expect_close, expect_finite
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.language_model import Edit, Edits, LanguageModel, Site, TokenBatch
from qsae_core.errors import QsaeError

RULES = Rules()
FEW = 50
NEW = 3
"""Tokens that are generated."""


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
    "behind-vectors",
    "what a held-out batch says of token, document and position behind each vector is so in the contexts.",
)
def _behind_vectors(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        _model(source)
        found = _contexts(source, FEW)
        behind = [tokens.behind_vectors() for tokens, _ in found]
        for what, batches in (
            ("held_out_contexts", [batch for _, batch in found]),
            ("held_out", list(source.held_out(FEW, FEW))),
        ):
            for name in behind[0]:
                said, known = (
                    [part for part in parts if part is not None]
                    for parts in ([getattr(b, name) for b in batches], [each[name] for each in behind])
                )
                if said:
                    given, expected = torch.cat(said).cpu(), torch.cat(known) if known else None
                    same = expected is not None and torch.equal(given, expected[: len(given)])
                    expect(same, f"{name} of {what} are others than those of the contexts.")


@RULES.each_case(
    "contexts",
    "contexts goes on from any of its places with the same contexts and numbers of documents; those of the "
    "held-out side are those of held_out_contexts.",
)
def _contexts_from_places(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source, opened(subject, case) as again:
        _model(source)
        for held_out in (False, True):
            whole = list(itertools.islice(source.contexts(2, held_out=held_out), 4))
            expect(bool(whole), f"contexts(held_out={held_out}) gives none.")
            for tokens, _ in whole:
                _expect_tokens(tokens)
            place = json.loads(json.dumps(whole[0][1]))
            rest = list(itertools.islice(again.contexts(2, place, held_out=held_out), 3))
            expect(len(rest) == len(whole) - 1, "behind a place there are fewer contexts, or more.")
            for (expected, _), (tokens, _) in zip(whole[1:], rest, strict=True):
                same = torch.equal(tokens.ids, expected.ids) and _same_documents(tokens, expected)
                expect(same, "contexts, or numbers of documents, depend on where one began.")
            if held_out:
                given = torch.cat([tokens.ids for tokens, _ in _contexts(source, FEW)])
                ids = torch.cat([tokens.ids for tokens, _ in whole])
                n = min(len(ids), len(given))
                expect(
                    torch.equal(ids[:n], given[:n]), "held-out contexts are others than held_out_contexts'."
                )


def _same_documents(one: TokenBatch, other: TokenBatch) -> bool:
    if one.documents is None or other.documents is None:
        return one.documents is other.documents
    return torch.equal(one.documents, other.documents)


@RULES.each_case(
    "held-out-site",
    "held-out x and y, alone and with their contexts, are the model's vectors at their sites.",
)
def _held_out_site(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        model = _model(source)
        sites, found = _sites(source), _contexts(source, FEW)
        read = [model.read(tokens, sites) for tokens, _ in found]
        for name, at in (("x", source.source_sites), ("y", source.target_sites)):
            of_sites = [
                torch.cat([vs[site][t.counted] for vs, (t, _) in zip(read, found, strict=True)])
                for site in at
            ]
            expected = of_sites[0] if len(at) == 1 else torch.stack(of_sites, dim=1)
            with_contexts = torch.cat([getattr(b, name) for _, b in found])
            alone = torch.cat([getattr(b, name) for b in source.held_out(HELD_OUT, 64)])
            for given, what in ((with_contexts, "held_out_contexts"), (alone, "held_out")):
                n = min(len(given), len(expected))
                what = f"{name} of {what} against the model's own vectors"
                expect_close(given[:n].cpu(), expected[:n].float().cpu(), what)


def _sites(source: DataSource) -> list[Site]:
    sites = list(dict.fromkeys([*source.source_sites, *source.target_sites]))
    if not source.source_sites or not source.target_sites:
        raise NotApplicable("the source does not say where its vectors are read")
    return sites


@RULES.each_case(
    "segments", "each segment of a context is read as if it were alone, or the model refuses segments."
)
def _segments(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        model, sites = _model(source), _sites(source)
        batch = next(iter(source.held_out_contexts(FEW, FEW)))[0].rows(slice(2))
        cut = batch.ids.shape[1] // 2
        halves = (slice(cut), slice(cut, None))
        segments = (torch.arange(batch.ids.shape[1]) >= cut).long().expand_as(batch.ids)
        whole = TokenBatch(batch.ids, batch.counted, batch.attention, segments=segments)
        try:
            read, logits = model.read(whole, sites), model.logits(whole)
        except QsaeError as error:
            raise NotApplicable(f"the language model refuses segments: {error.what}") from error
        for part in halves:
            alone = TokenBatch(batch.ids[:, part], batch.counted[:, part], batch.attention[:, part])
            for site, vectors in model.read(alone, sites).items():
                expect_close(read[site][:, part], vectors, f"a segment's vectors at {site}, alone and not")
            expect_close(logits[:, part], model.logits(alone), "a segment's logits, alone and not")


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
        for site in _sites(source):
            kept = model.logits(batch, {site: Edit(lambda v, _: v)})
            expect_close(kept, clean, f"logits under an edit to nothing at {site}")
            zeroed = model.logits(batch, {site: Edit(lambda v, _: torch.zeros_like(v))})
            changed = not torch.allclose(zeroed, clean)
            expect(changed, f"logits do not change when the vectors at {site} become zero.")


@RULES.each_case(
    "logits-each", "logits_each gives the logits under each set of edits, computed when they are asked for."
)
def _logits_each(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        model, sites = _model(source), _sites(source)
        batch, _ = next(iter(source.held_out_contexts(FEW, 64)))
        asked: list[Site] = []

        def halved(site: Site) -> Edit:
            def replace(vectors: Tensor, _: Mapping[Site, Tensor]) -> Tensor:
                asked.append(site)
                return vectors / 2

            return Edit(replace)

        several: list[Edits | None] = [None, *({site: halved(site)} for site in reversed(sites))]
        several += [{site: halved(site) for site in sites}, {}, several[1]]
        expected = [model.logits(batch, edits) for edits in several]
        asked.clear()
        given = model.logits_each(batch, several)
        for n, (logits, alone) in enumerate(itertools.zip_longest(given, expected), start=1):
            if logits is None or alone is None:
                expect(False, f"for {len(several)} sets of edits there are {n - 1} logits, or more.")
                return
            expect_close(logits, alone, f"the logits of pass {n} of several against those of it alone")
            due = sum(len(edits or {}) for edits in several[:n])
            expect(len(asked) <= due, f"edits of later passes were asked before the logits of pass {n}.")


@RULES.each_case("edits-read", "an edit gets the same pass's vectors of an earlier site; a later is refused.")
def _edits_read(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        model, sites = _model(source), _sites(source)
        batch, _ = next(iter(source.held_out_contexts(FEW, FEW)))
        first, last = sites[0], sites[-1]
        expect(_read_by(model, batch, last, last) is None, f"an edit may read its own site, {last}.")
        if first == last:
            return
        orders = [
            (edited, read, _read_by(model, batch, edited, read))
            for edited, read in ((first, last), (last, first))
        ]
        accepted = [order for order in orders if order[2] is not None]
        expect(len(accepted) == 1, f"of {first} and {last}, {len(accepted)} may read the other.")
        edited, read, seen = accepted[0]
        assert seen is not None
        expect_close(seen, model.read(batch, [read])[read], f"what an edit at {edited} reads at {read}")


def _read_by(model: LanguageModel, batch: TokenBatch, edited: Site, read: Site) -> Tensor | None:
    """The vectors that an edit reads; None where that is refused, or the edit is never asked."""
    found: list[Tensor] = []

    def replace(vectors: Tensor, seen: Mapping[Site, Tensor]) -> Tensor:
        found.append(seen[read])
        return vectors

    try:
        model.logits(batch, {edited: Edit(replace, (read,))})
    except QsaeError:
        return None
    return found[0] if found else None


@RULES.each_case(
    "generates", "generate goes on with the likeliest tokens, and edits see new positions alone."
)
def _generates(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        model, sites = _model(source), _sites(source)
        if not model.predicts_next or type(model).extend is LanguageModel.extend:
            raise NotApplicable("the language model does not generate text")
        prompt = next(iter(source.held_out_contexts(FEW, FEW)))[0].ids[:2, :4]
        seen: list[int] = []

        def add(vectors: Tensor, _: Mapping[Site, Tensor]) -> Tensor:
            seen.append(vectors.shape[1])
            return 1.5 * vectors

        for what, edits in (("", {}), (" with an edit", {sites[-1]: Edit(add)})):
            ids = model.generate(prompt, NEW, edits)
            expect(torch.equal(ids[:, :4], prompt), f"generated contexts{what} do not begin with the prompt.")
            expect(ids.shape == (len(prompt), 4 + NEW), f"{NEW} tokens after 4 are {list(ids.shape)}.")
            if edits:
                expect(
                    seen == [4, *[1] * (NEW - 1)], f"an edit saw {seen} positions, not the new ones alone."
                )
            _expect_likeliest(model, ids, edits, what)


def _expect_likeliest(model: LanguageModel, ids: Tensor, edits: Edits, what: str) -> None:
    """The generated tokens against the logits of one pass over the whole, but for rounding."""
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    logits = model.logits(TokenBatch(ids, everywhere, everywhere), edits)[:, -NEW - 1 : -1].float().cpu()
    best, chosen = logits.amax(2), logits.gather(2, ids[:, -NEW:, None])[..., 0]
    spread = best - logits.mean(2)
    rounding = ((best - chosen) / spread).max().item()
    expect(rounding < 0.05, f"the tokens generated{what} are not the likeliest (off by {rounding:.2g}).")


@RULES.each_case("text", "decode gives the text of tokens.")
def _text(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        model = _model(source)
        if type(model).decode is LanguageModel.decode:
            raise NotApplicable("the language model's tokenizer is not known")
        ids = next(iter(source.held_out_contexts(FEW, FEW)))[0].ids[0]
        for tokens in (ids, ids.tolist()):
            text = model.decode(tokens)
            expect(isinstance(text, str) and text != "", f"decode gives {text!r} for {len(ids)} tokens.")


@RULES.each_case("tokens", "encode spells a text, with no special token; contexts begin as the model says.")
def _tokens(subject: Subject, case: Case) -> None:
    with opened(subject, case) as source:
        model = _model(source)
        if type(model).decode is LanguageModel.decode:
            raise NotApplicable("the language model's tokenizer is not known")
        tokens = next(iter(source.held_out_contexts(FEW, FEW)))[0]
        special = model.special_ids
        text = model.decode(tokens.ids[0][tokens.counted[0]])
        found = model.encode(text)
        expect(all(isinstance(token, int) for token in found), "encode gives something else than ints.")
        expect(model.decode(found) == text, f"{text[:40]!r} is encoded, and read back otherwise.")
        expect(not special & set(found), f"encode gives special tokens: {sorted(special & set(found))}.")
        counted = set(tokens.ids[tokens.counted].tolist())
        expect(not special & counted, f"special tokens are counted: {sorted(special & counted)}.")
        begin = model.begin_id
        expect(begin is None or begin in special, f"contexts begin with {begin}, which is not special.")
