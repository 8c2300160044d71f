"""Edits that read other sites of their pass, and generation under edits, for every family.

B contexts, T positions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from qsae_data_lm.language_model import HfLanguageModel
from torch import Tensor

from qsae_core import SITE_NAMES
from qsae_core.contracts import Edit, Edits, Site, TokenBatch
from qsae_core.errors import ConfigError, DataError

LAYER = 1
SAME = Edit(lambda x, _: x)


@torch.no_grad()
def test_an_edit_reads_what_the_same_pass_computed_before(lm: HfLanguageModel, batch: TokenBatch) -> None:
    edited = Site(2, "resid_post")
    reads = tuple(Site(layer, site) for layer in (0, 1) for site in SITE_NAMES if site in lm.layout.taps)
    expected = lm.read(batch, reads)
    seen: dict[Site, Tensor] = {}

    def look(x: Tensor, read: Mapping[Site, Tensor]) -> Tensor:
        seen.update(read)
        return x

    lm.logits(batch, {edited: Edit(look, reads)})
    assert list(seen) == list(reads)
    for site in reads:
        assert torch.equal(seen[site], expected[site]), site


@torch.no_grad()
def test_within_a_layer_each_site_reads_all_that_come_before_and_none_behind(
    lm: HfLanguageModel, batch: TokenBatch
) -> None:
    names = [site for site in SITE_NAMES if site in lm.layout.taps]
    clean = lm.read(batch, [Site(LAYER, name) for name in names])
    for place, name in enumerate(names):
        edited = Site(LAYER, name)
        for other in names[:place]:
            read = Site(LAYER, other)
            moved = Edit(lambda x, seen, read=read: x + seen[read], (read,))
            constant = Edit(lambda x, _, read=read: x + clean[read])
            assert torch.equal(lm.logits(batch, {edited: moved}), lm.logits(batch, {edited: constant}))
        for other in names[place:]:
            with pytest.raises(
                ConfigError, match=rf"edit at 1\.{name} reads 1\.{other}, .* not compute before"
            ):
                lm.logits(batch, {edited: Edit(lambda x, _: x, (Site(LAYER, other),))})


@torch.no_grad()
@pytest.mark.parametrize("name", ["resid_mid", "mlp_in", "attn_out"])
def test_a_site_that_is_edited_is_read_as_edited(lm: HfLanguageModel, batch: TokenBatch, name: str) -> None:
    if name not in lm.layout.taps:
        pytest.skip("the family has no such site")
    read, seen = Site(LAYER, name), []
    edits = {
        Site(LAYER, "mlp_out"): Edit(lambda x, found: seen.append(found[read]) or x, (read,)),
        read: Edit(lambda x, _: torch.full_like(x, 0.25)),
    }
    lm.logits(batch, edits)
    assert torch.equal(seen[0], torch.full_like(seen[0], 0.25))


def test_what_an_edit_may_read_is_said(make_lm: Callable[[str, str], HfLanguageModel]) -> None:
    lm = make_lm("gpt_neox", "pythia")
    ids = torch.ones(1, 4, dtype=torch.int64)
    edits = {Site(0, "mlp_in"): Edit(lambda x, _: x, (Site(1, "mlp_in"),))}
    with pytest.raises(ConfigError, match=r"edit at 0\.mlp_in reads 1\.mlp_in") as caught:
        lm.logits(TokenBatch(ids, ids > 0, ids > 0), edits)
    assert str(caught.value.allowed).endswith("resid_pre -> attn_out -> mlp_in -> mlp_out -> resid_post")
    with pytest.raises(ConfigError, match=r"edit at 0\.mlp_in reads 1\.mlp_in"):
        lm.generate(ids, 1, edits)
    with pytest.raises(DataError, match="no site 'resid_mid'"):
        lm.logits(
            TokenBatch(ids, ids > 0, ids > 0),
            {Site(2, "mlp_in"): Edit(lambda x, _: x, (Site(0, "resid_mid"),))},
        )


def recomputed(lm: HfLanguageModel, prompt: Tensor, n_tokens: int, edits: Edits) -> Tensor:
    """The likeliest tokens, each from a pass over all before it, without a cache."""
    ids = prompt
    for _ in range(n_tokens):
        everywhere = torch.ones_like(ids, dtype=torch.bool)
        logits = lm.logits(TokenBatch(ids, everywhere, everywhere), edits)
        ids = torch.cat([ids, logits[:, -1].argmax(1, keepdim=True)], dim=1)
    return ids


@torch.no_grad()
def test_generation_is_what_passes_without_a_cache_give(lm: HfLanguageModel, batch: TokenBatch) -> None:
    if not lm.predicts_next:
        with pytest.raises(DataError, match="is an encoder"):
            lm.generate(batch.ids, 3)
        return
    plain = lm.generate(batch.ids, 8)
    assert plain.shape == (2, 15)
    assert torch.equal(plain, recomputed(lm, batch.ids, 8, {}))
    everywhere = {Site(layer, site): SAME for layer in range(3) for site in lm.layout.taps}
    assert torch.equal(lm.generate(batch.ids, 8, everywhere), plain)


@torch.no_grad()
def test_edits_hold_while_text_is_generated(lm: HfLanguageModel, batch: TokenBatch) -> None:
    if not lm.predicts_next:
        pytest.skip("an encoder")
    plain, changed = lm.generate(batch.ids, 8), 0
    direction = torch.randn(16, generator=torch.Generator().manual_seed(3))
    for name in lm.layout.taps:
        edits = {Site(LAYER, name): Edit(lambda x, _: x + 2 * direction)}
        if name == "mlp_out":  # a transcoder's place
            edits = {Site(LAYER, name): Edit(lambda x, read: read[1, "mlp_in"] * 3, (Site(LAYER, "mlp_in"),))}
        ids = lm.generate(batch.ids, 8, edits)
        assert torch.equal(ids, recomputed(lm, batch.ids, 8, edits)), name
        changed += not torch.equal(ids, plain)
    assert changed


@torch.no_grad()
def test_an_edit_sees_each_position_once(
    make_lm: Callable[[str, str], HfLanguageModel], batch: TokenBatch
) -> None:
    seen: list[tuple[int, int]] = []

    def look(x: Tensor, read: Mapping[Site, Tensor]) -> Tensor:
        seen.append((x.shape[1], read[0, "mlp_in"].shape[1]))
        return x

    edits = {Site(LAYER, "mlp_out"): Edit(look, (Site(0, "mlp_in"),))}
    make_lm("llama", "tiny").generate(batch.ids, 4, edits)
    assert seen == [(7, 7), (1, 1), (1, 1), (1, 1)]


@torch.no_grad()
def test_tokens_are_drawn_by_their_chances(make_lm: Callable[[str, str], HfLanguageModel]) -> None:
    lm = make_lm("llama", "tiny")
    ids = torch.ones(1, 3, dtype=torch.int64)
    chances = (lm.logits(TokenBatch(ids, ids > 0, ids > 0))[0, -1] / 20).softmax(0)
    drawn = lm.generate(ids.expand(4000, 3), 1, temperature=20.0, seed=5)[:, 3]
    found = torch.bincount(drawn, minlength=50) / 4000
    # the deviation of a share is at most sqrt(1/4 / 4000) = 0.008
    assert (found - chances).abs().max() < 0.032
    assert torch.equal(drawn, lm.generate(ids.expand(4000, 3), 1, temperature=20.0, seed=5)[:, 3])
    assert not torch.equal(drawn, lm.generate(ids.expand(4000, 3), 1, temperature=20.0, seed=6)[:, 3])
    cold = lm.generate(ids, 5, temperature=1e-6)
    assert torch.equal(cold, lm.generate(ids, 5, temperature=1e-320))  # logits so divided are no numbers
    assert torch.equal(cold, lm.generate(ids, 5))


def test_what_cannot_be_generated(make_lm: Callable[[str, str], HfLanguageModel], batch: TokenBatch) -> None:
    lm = make_lm("llama", "tiny")
    with pytest.raises(DataError, match="tiny takes at most 32 positions, not 33"):
        lm.generate(batch.ids, 27)
    assert lm.generate(batch.ids, 26).shape == (2, 33)  # the last token is drawn from position 32
    assert torch.equal(lm.generate(batch.ids, 0), batch.ids)
    for prompt in (batch.ids[0], batch.ids.float(), batch.ids[:, :0]):
        with pytest.raises(DataError, match="the prompt is"):
            lm.generate(prompt, 1)
    for options in ({"n_tokens": -1}, {"n_tokens": 1, "temperature": -0.5}):
        with pytest.raises(ConfigError, match="cannot be generated"):
            lm.generate(batch.ids, **options)
    with pytest.raises(DataError, match="the tokenizer of the language model tiny is not known"):
        lm.decode([1, 2])
    for ask in (lambda: lm.encode("a"), lambda: lm.begin_id, lambda: lm.special_ids):
        with pytest.raises(DataError, match="the tokenizer of the language model tiny is not known"):
            ask()
