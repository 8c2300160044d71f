"""Documents of one context that do not see each other, for every family.

B contexts, T positions, D width.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from qsae_data_lm import LmConfig
from qsae_data_lm.language_model import HfLanguageModel
from qsae_data_lm.segments import check_segments, positions_in_segments, whole_of
from qsae_data_lm.source import LmSource
from torch import Tensor

from qsae_core.conformance.toy_model import ToyLanguageModel
from qsae_core.contracts import Edit, Site, TokenBatch
from qsae_core.errors import DataError

LENGTHS = (1, 9, 4, 11)
"""Of the documents of a context; more than a window of attention, where there is one."""
CANNOT = {"opt", "opt_post_norm", "gpt_oss", "bert", "roberta", "qwen2_vl", "qwen2_5_vl"}
"""Families whose masks transformers does not make from positions."""


def segments() -> Tensor:
    return torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))[None].expand(2, -1)


def packed() -> TokenBatch:
    ids = torch.randint(1, 50, (2, sum(LENGTHS)), generator=torch.Generator().manual_seed(1))
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    return TokenBatch(ids, everywhere, everywhere, segments=segments())


def alone(batch: TokenBatch) -> list[TokenBatch]:
    return [whole_of(ids) for ids in batch.ids.split(LENGTHS, dim=1)]


def test_positions_by_hand() -> None:
    """Documents of 2, 3 and 1 positions, and two positions of padding, each on its own."""
    parts = torch.tensor([[0, 0, 1, 1, 1, 2, 2, 2]])
    attention = torch.tensor([[True] * 6 + [False] * 2])
    assert positions_in_segments(parts, attention).tolist() == [[0, 1, 0, 1, 2, 0, 0, 0]]
    attention[0, 0] = False
    assert positions_in_segments(parts, attention).tolist() == [[0, 0, 0, 1, 2, 0, 0, 0]]


@torch.no_grad()
def test_each_document_is_read_as_if_it_were_alone(lm: HfLanguageModel) -> None:
    batch, sites = packed(), [Site(layer, name) for layer in range(3) for name in lm.layout.taps]
    if lm.name in CANNOT:
        with pytest.raises(DataError, match=f"{lm.name} does not keep the documents of a context apart"):
            lm.check_segments(30)
        return
    lm.check_segments(30)
    found, together = lm.read(batch, sites), lm.read(whole_of(batch.ids), sites)
    each = [lm.read(document, sites) for document in alone(batch)]
    for site in sites:
        expected = torch.cat([vectors[site] for vectors in each], dim=1)
        torch.testing.assert_close(
            found[site], expected, rtol=1e-4, atol=1e-4, msg=lambda m, s=site: f"{s}: {m}"
        )
    last = Site(2, "resid_post")
    assert (together[last] - found[last]).abs().max() > 0.1
    logits = torch.cat([lm.logits(document) for document in alone(batch)], dim=1)
    torch.testing.assert_close(lm.logits(batch), logits, rtol=1e-4, atol=1e-4)
    halved = {Site(1, "resid_post"): Edit(lambda x, _: x / 2)}
    logits = torch.cat([lm.logits(document, halved) for document in alone(batch)], dim=1)
    torch.testing.assert_close(lm.logits(batch, halved), logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    ("model", "config"),
    [
        (t.MistralForCausalLM, t.MistralConfig(sliding_window=5)),
        (t.Gemma2ForCausalLM, t.Gemma2Config(sliding_window=5, attn_implementation="eager")),
        (t.Gemma3ForCausalLM, t.Gemma3TextConfig(sliding_window=5)),
    ],
)
def test_a_window_of_attention_holds_within_a_document(model: Any, config: Any) -> None:
    from qsae_data_lm.families import layout_of

    sizes = {
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 8,
    }
    layer_types = ["sliding_attention", "full_attention"]
    sizes |= {} if config.model_type == "mistral" else {"layer_types": layer_types}
    config = type(config)(
        **{**config.to_diff_dict(), **sizes, "num_key_value_heads": 1, "intermediate_size": 24}
    )
    torch.manual_seed(0)
    lm = HfLanguageModel(model(config), layout_of(config, "x"), "x")
    last = Site(1, "resid_post")
    expected = torch.cat([lm.read(document, [last])[last] for document in alone(packed())], dim=1)
    torch.testing.assert_close(lm.read(packed(), [last])[last], expected, rtol=1e-4, atol=1e-4)


class Leaks(ToyLanguageModel):
    """Positions, which begin anew with each segment, and a little of the mean of all tokens, wherever."""

    def read(self, batch: TokenBatch, sites: Sequence[Site]) -> dict[Site, Tensor]:
        parts = torch.zeros_like(batch.ids) if batch.segments is None else batch.segments
        places = positions_in_segments(parts, batch.attention)[..., None]
        mean = self.embedding_VD[batch.ids].mean(1, keepdim=True)
        return {site: 10.0 * places + 0.01 * mean for site in sites}


class CountsOn(ToyLanguageModel):
    """Keeps segments apart, and does not begin anew to count their positions."""

    def read(self, batch: TokenBatch, sites: Sequence[Site]) -> dict[Site, Tensor]:
        places = torch.arange(batch.ids.shape[1])[None, :, None]
        return {site: vectors + 0.01 * places for site, vectors in super().read(batch, sites).items()}


def test_positions_that_do_not_begin_anew_are_found() -> None:
    with pytest.raises(DataError, match="the vectors of one are not those of it alone"):
        check_segments(CountsOn(8), CountsOn.SITE, 24, 32)


def test_a_small_leak_is_found_beside_large_positions() -> None:
    model = Leaks(8)
    with pytest.raises(DataError, match="the vectors of one change with the tokens of the one before it"):
        check_segments(model, model.SITE, 24, 32)
    check_segments(ToyLanguageModel(8), model.SITE, 24, 32)


def test_an_encoder_is_refused_with_the_reason(make_lm: Callable[[str, str], HfLanguageModel]) -> None:
    with pytest.raises(
        DataError, match=r"bert does not keep .* an encoder reads in both directions"
    ) as caught:
        make_lm("bert", "bert").read(packed(), [Site(0, "resid_post")])
    assert caught.value.where == "data.separate_documents"


Make = Callable[..., LmSource]


@pytest.fixture
def make(tiny: Path, tmp_path: Path) -> Make:
    """Short documents of a dataset, several to a context."""
    pytest.importorskip("datasets")
    rows = [{"text": f"Document {n} says {n * n}, " * (1 + n % 3)} for n in range(400)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def build(**options: Any) -> LmSource:
        defaults = {
            "model": str(tiny),
            "dataset": str(tmp_path / "x.jsonl"),
            "context": 64,
            "held_out_share": 0.2,
        }
        return LmSource(LmConfig(dtype="fp32", **{**defaults, "buffer_tokens": 512, **options}))

    return build


def vectors_alone(source: LmSource, batch: TokenBatch) -> Tensor:
    """What the model computes over each segment of each context on its own, at counted positions."""
    (site,) = source.source_sites
    found = []
    for context in range(len(batch.ids)):
        _, lengths = batch.segments[context].unique_consecutive(return_counts=True)
        for ids, counted in zip(
            batch.ids[context].split(lengths.tolist()),
            batch.counted[context].split(lengths.tolist()),
            strict=True,
        ):
            found.append(source.language_model().read(whole_of(ids[None]), [site])[site][0][counted])
    return torch.cat(found)


@pytest.mark.parametrize("model", ["tiny", "builtin"])
def test_held_out_documents_are_read_as_if_alone(make: Make, model: str) -> None:
    source = make(separate_documents=True, **({"model": "builtin"} if model == "builtin" else {}))
    for batch, vectors in source.held_out_contexts(400, 128):
        assert batch.segments is not None
        starts = batch.ids == 0  # the built-in tokenizer's BOS
        assert int(starts.sum()) > 2 * len(starts)
        for row, begins in zip(batch.segments, starts, strict=True):
            assert torch.equal(row, begins.long().cumsum(0) - 1)
        torch.testing.assert_close(vectors.x, vectors_alone(source, batch), rtol=1e-4, atol=1e-4)
    together = next(make(model=source.config.model).held_out(200, 200)).x
    assert not torch.allclose(next(source.held_out(200, 200)).x, together, atol=0.01)


def test_training_contexts_are_read_so_too(make: Make) -> None:
    source = make(separate_documents=True)
    batch = next(source.contexts(8))[0]
    assert batch.documents is not None
    expected = vectors_alone(source, batch)
    torch.testing.assert_close(
        source.next_batch(len(expected)).x, expected[source._blocks._order], rtol=1e-4, atol=1e-4
    )


def test_training_contexts_know_their_documents(make: Make) -> None:
    source = make()
    batch = next(source.contexts(8))[0]
    assert batch.documents is not None
    assert batch.segments is None
    assert torch.equal(batch.documents >= 0, batch.counted)
    text = {n.number: n.document.text for n in source._documents.training(0, 0, None)}
    for row, documents in zip(batch.ids, batch.documents, strict=True):
        for number in documents[documents >= 0].unique_consecutive().tolist():
            assert source.language_model().decode(row[documents == number]) in text[number]


def test_loss_recovered_sees_documents_apart(make: Make) -> None:
    """Its clean loss is that of each document alone: no token is predicted from the document before."""
    from qsae_evaluation_loss_recovered.scoring import Totals, log_probabilities, scored_positions

    source = make(separate_documents=True)
    batch, _ = next(iter(source.held_out_contexts(200, 512)))
    totals, expected, n = Totals(), 0.0, 0
    logits = source.language_model().logits(batch)
    index, targets = scored_positions(batch)
    totals.add(log_probabilities(logits, index), targets)
    for context in range(len(batch.ids)):
        _, lengths = batch.segments[context].unique_consecutive(return_counts=True)
        for ids in batch.ids[context].split(lengths.tolist()):
            if len(ids) > 2:
                predicted = source.language_model().logits(whole_of(ids[None]))[0, 1:-1].log_softmax(-1)
                expected -= float(predicted.gather(1, ids[2:, None]).sum())
                n += len(ids) - 2
    assert n == len(index)
    assert totals.ce == pytest.approx(expected, rel=1e-4)


def test_a_model_that_cannot_is_refused_before_anything_is_read(
    make: Make, tmp_path: Path, tokenizer: Any
) -> None:
    config = t.OPTConfig(
        vocab_size=4096,
        ffn_dim=24,
        word_embed_proj_dim=16,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    t.OPTForCausalLM(config).save_pretrained(tmp_path / "opt")
    tokenizer.save_pretrained(tmp_path / "opt")
    with pytest.raises(DataError, match="opt does not keep the documents of a context apart") as caught:
        make(model=str(tmp_path / "opt"), separate_documents=True)
    assert "leave --separate-documents out" in str(caught.value.next)
