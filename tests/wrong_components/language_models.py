"""Wrong data sources with a language model, each made from the kit's toy source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from qsae_core import ComponentConfig, ComponentSpec
from qsae_core.conformance.reference_parts import PlainConfig
from qsae_core.conformance.toy_data import ToyData
from qsae_core.conformance.toy_model import ToyLanguageModel
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import Batch
from qsae_core.contracts.language_model import Edits, LanguageModel, Site, TokenBatch


class RightTexts(ToyData):
    """The toy language model's vectors; so many words that texts rarely coincide."""

    model_class = ToyLanguageModel

    def __init__(self, config: ComponentConfig, *, seed: int = 0, device: str = "cpu") -> None:
        super().__init__(CoderShape(8, 8), seed=seed, model=self.model_class(8, n_vocabulary=50_000))


class OtherVectors(RightTexts):
    """Held-out vectors that are not the model's at its site."""

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        for batch in super().held_out(n_tokens, batch_size):
            x = batch.x * 1.1
            yield replace(batch, x=x, y=x)


class CountsPadding(RightTexts):
    """Counts positions that are no input."""

    def held_out_contexts(self, n_tokens: int, batch_size: int) -> Iterator[tuple[TokenBatch, Batch]]:
        for tokens, batch in super().held_out_contexts(n_tokens, batch_size):
            attention = tokens.attention.clone()
            attention[:, -1] = False
            yield replace(tokens, attention=attention), batch


class ReadsTooMuch(RightTexts):
    """Goes on after enough contexts."""

    def held_out_contexts(self, n_tokens: int, batch_size: int) -> Iterator[tuple[TokenBatch, Batch]]:
        yield from super().held_out_contexts(3 * n_tokens, batch_size)


class NumbersNoDocuments(RightTexts):
    """Says of a counted token that it is of no document."""

    def held_out_contexts(self, n_tokens: int, batch_size: int) -> Iterator[tuple[TokenBatch, Batch]]:
        for tokens, batch in super().held_out_contexts(n_tokens, batch_size):
            nameless = replace(batch, documents=torch.full_like(batch.x[:, 0], -1, dtype=torch.int64))
            yield replace(tokens, documents=torch.full_like(tokens.ids, -1)), nameless

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        for batch in super().held_out(n_tokens, batch_size):
            yield replace(batch, documents=None)


class NamesOthers(RightTexts):
    """Says of held-out vectors that they are from the position before."""

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        for batch in super().held_out(n_tokens, batch_size):
            assert batch.positions is not None
            yield replace(batch, positions=batch.positions - 1)


class NamesByContext(RightTexts):
    """Gives one position for each context."""

    def next_batch(self, size: int) -> Batch:
        return replace(super().next_batch(size), positions=torch.arange(-(-size // 8)))


class NumbersFromPlace(RightTexts):
    """Numbers documents from where one begins."""

    def contexts(
        self, n_contexts: int, place: Mapping[str, Any] | None = None, *, held_out: bool = False
    ) -> Iterator[tuple[TokenBatch, dict[str, Any]]]:
        for tokens, behind in super().contexts(n_contexts, place, held_out=held_out):
            shift = 2 * int((place or {"behind": 0})["behind"])
            documents = tokens.documents
            assert documents is not None
            yield replace(tokens, documents=torch.where(tokens.counted, documents - shift, -1)), behind


class IgnoresSegments(RightTexts):
    """A model whose parts of a context see each other."""

    class model_class(ToyLanguageModel):  # noqa: N801 (takes the place of the attribute)
        def read(self, batch: TokenBatch, sites: Sequence[Site]) -> dict[Site, Tensor]:
            return super().read(replace(batch, segments=None), sites)

        def logits(self, batch: TokenBatch, edits: Edits | None = None) -> Tensor:
            return super().logits(replace(batch, segments=None), edits)


class IgnoresEdits(RightTexts):
    """A model that reads and cannot be written."""

    class model_class(ToyLanguageModel):  # noqa: N801 (takes the place of the attribute)
        def logits(self, batch: TokenBatch, edits: Edits | None = None) -> Tensor:
            return super().logits(batch)


class EditsNone(RightTexts):
    """Of several passes each is as if no edit were there."""

    class model_class(ToyLanguageModel):  # noqa: N801
        def logits_each(self, batch: TokenBatch, several: Sequence[Edits | None]) -> Iterator[Tensor]:
            return (self.logits(batch) for _ in several)


class PassesAtOnce(RightTexts):
    """Holds the logits of all passes before it gives the first."""

    class model_class(ToyLanguageModel):  # noqa: N801
        def logits_each(self, batch: TokenBatch, several: Sequence[Edits | None]) -> Iterator[Tensor]:
            return iter([self.logits(batch, edits) for edits in several])


class TwoSites(RightTexts):
    """From the embedding to the vector behind it."""

    def __init__(self, config: ComponentConfig, *, seed: int = 0, device: str = "cpu") -> None:
        model = self.model_class(8, n_vocabulary=50_000)
        ToyData.__init__(self, CoderShape(8, 8), seed=seed, model=model, source=model.BEFORE)


class OtherSource(TwoSites):
    """Held-out x that are not the model's at the source site."""

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        for batch in super().held_out(n_tokens, batch_size):
            yield replace(batch, x=batch.x * 1.1)


class ReadsAlways(TwoSites):
    """A model that shows an edit the vectors of a clean pass, of whatever site."""

    class model_class(ToyLanguageModel):  # noqa: N801
        def logits(self, batch: TokenBatch, edits: Edits | None = None) -> Tensor:
            clean = self.read(batch, [self.BEFORE, self.SITE])
            blind = {
                site: edit._replace(replace=lambda v, _, edit=edit: edit.replace(v, clean), reads=())
                for site, edit in (edits or {}).items()
            }
            return super().logits(batch, blind)


class ForgetsCache(TwoSites):
    """Goes on as if the new position were the first."""

    class model_class(ToyLanguageModel):  # noqa: N801
        def extend(self, ids: Tensor, cache: Tensor | None, edits: Edits) -> tuple[Tensor, Tensor]:
            logits, cache = super().extend(ids, None, edits)
            return logits.roll(1, dims=1), cache


class ComputesAgain(TwoSites):
    """Generates without a cache, so that edits see each position again and again."""

    class model_class(ToyLanguageModel):  # noqa: N801
        def extend(self, ids: Tensor, cache: Tensor | None, edits: Edits) -> tuple[Tensor, Tensor]:
            whole = ids if cache is None else torch.cat([cache, ids], dim=1)
            return super().extend(whole, None, edits)[0], whole


class NoText(TwoSites):
    """Decodes to nothing."""

    class model_class(ToyLanguageModel):  # noqa: N801
        def decode(self, ids: Sequence[int] | Tensor) -> str:
            return ""


class SpellsOtherwise(TwoSites):
    """Encodes a text into tokens of another."""

    class model_class(ToyLanguageModel):  # noqa: N801
        def encode(self, text: str) -> list[int]:
            return super().encode(text)[::-1]


class CountsSpecial(TwoSites):
    """Calls a token special that is counted."""

    class model_class(ToyLanguageModel):  # noqa: N801
        @property
        def special_ids(self) -> frozenset[int]:
            return frozenset(range(25_000))


class BeginsOtherwise(TwoSites):
    """Says that contexts begin with a token that is not special."""

    class model_class(ToyLanguageModel):  # noqa: N801
        @property
        def begin_id(self) -> int:
            return 7


class ReadsOnly(TwoSites):
    """A model that neither generates nor knows its tokenizer."""

    class model_class(ToyLanguageModel):  # noqa: N801
        extend, decode = LanguageModel.extend, LanguageModel.decode  # type: ignore[assignment]


def source(cls: type[ToyData]) -> ComponentSpec:
    return ComponentSpec("data", cls.__name__.lower(), PlainConfig, f"{__name__}:{cls.__name__}")


RIGHT = [source(RightTexts), source(TwoSites), source(ReadsOnly)]
WRONG = [
    (source(OtherVectors), "held-out-site"),
    (source(OtherSource), "held-out-site"),
    (source(CountsPadding), "held-out-contexts"),
    (source(ReadsTooMuch), "held-out-contexts"),
    (source(NumbersNoDocuments), "held-out-contexts"),
    (source(NamesOthers), "behind-vectors"),
    (source(NamesByContext), "batches"),
    (source(NumbersFromPlace), "contexts"),
    (source(IgnoresSegments), "segments"),
    (source(IgnoresEdits), "edits"),
    (source(EditsNone), "logits-each"),
    (source(PassesAtOnce), "logits-each"),
    (source(ReadsAlways), "edits-read"),
    (source(ForgetsCache), "generates"),
    (source(ComputesAgain), "generates"),
    (source(NoText), "text"),
    (source(SpellsOtherwise), "tokens"),
    (source(CountsSpecial), "tokens"),
    (source(BeginsOtherwise), "tokens"),
]
