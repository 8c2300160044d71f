"""Each site's vector against one computed by hand from the module's own submodules, for every family.

The hand computation of a layer takes replacements, so that it also says what splicing has to give.
B contexts, T positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import transformers as t
from qsae_data_lm.families import FAMILIES, HOLDERS, PARTS, layout_of
from qsae_data_lm.language_model import HfLanguageModel
from torch import Tensor

from qsae_core import SITE_NAMES
from qsae_core.contracts.language_model import Edit, TokenBatch
from qsae_core.errors import DataError

BATCH, POSITIONS, LAYER = 2, 7, 1  # of the fixture `batch`
SAME = Edit(lambda x, _: x)


def by_hand(lm: HfLanguageModel, batch: TokenBatch, replaced: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sites of one layer, and the logits, each step with its replacement where there is one."""
    model = lm.model
    entering = model(input_ids=batch.ids, output_hidden_states=True).hidden_states[LAYER]
    found: dict[str, Tensor] = {}

    def at(site: str, vector: Tensor) -> Tensor:
        found[site] = replaced.get(site, vector)
        return found[site]

    kind = kind_of(lm)
    layer = lm._layers[LAYER]
    pre = at("resid_pre", entering)
    call = arguments(lm, pre)
    if kind in ("bert", "roberta"):
        attention = layer.attention.output
        mixed = layer.attention.self(pre, **call(LAYER))[0]
        mid = at("resid_mid", attention.LayerNorm(pre + at("attn_out", attention.dense(mixed))))
        inner = layer.intermediate(at("mlp_in", mid))
        post = at("resid_post", layer.output.LayerNorm(mid + at("mlp_out", layer.output.dense(inner))))
    elif kind == "gpt2":
        mid = at("resid_mid", pre + at("attn_out", layer.attn(layer.ln_1(pre), **call(LAYER))[0]))
        post = at("resid_post", mid + at("mlp_out", layer.mlp(at("mlp_in", layer.ln_2(mid)))))
    elif kind == "gpt_neox":
        attn = at("attn_out", layer.attention(layer.input_layernorm(pre), **call(LAYER))[0])
        parallel = model.config.use_parallel_residual
        mid = pre if parallel else at("resid_mid", pre + attn)
        mlp = at("mlp_out", layer.mlp(at("mlp_in", layer.post_attention_layernorm(mid))))
        post = at("resid_post", mid + mlp + attn if parallel else mid + mlp)
    elif kind == "opt":
        before = model.config.do_layer_norm_before
        normed = layer.self_attn_layer_norm(pre) if before else pre
        mid = pre + at("attn_out", layer.self_attn(normed, **call(LAYER))[0])
        mid = at("resid_mid", mid if before else layer.self_attn_layer_norm(mid))
        inner = at("mlp_in", layer.final_layer_norm(mid) if before else mid)
        post = mid + at("mlp_out", layer.fc2(layer.activation_fn(layer.fc1(inner))))
        post = at("resid_post", post if before else layer.final_layer_norm(post))
    elif kind == "olmo2":
        attn = layer.self_attn(hidden_states=pre, **call(LAYER))[0]
        mid = at("resid_mid", pre + at("attn_out", layer.post_attention_layernorm(attn)))
        mlp = layer.post_feedforward_layernorm(layer.mlp(at("mlp_in", mid)))
        post = at("resid_post", mid + at("mlp_out", mlp))
    elif kind in ("gemma2", "gemma3_text"):
        attn = layer.self_attn(hidden_states=layer.input_layernorm(pre), **call(LAYER))[0]
        mid = at("resid_mid", pre + at("attn_out", layer.post_attention_layernorm(attn)))
        norm = layer.pre_feedforward_layernorm
        scaled = mid * (mid.pow(2).mean(-1, keepdim=True) + norm.eps).rsqrt() * (1 + norm.weight)
        mlp = layer.post_feedforward_layernorm(layer.mlp(at("mlp_in", scaled)))
        post = at("resid_post", mid + at("mlp_out", mlp))
    else:
        attn = layer.self_attn(hidden_states=layer.input_layernorm(pre), **call(LAYER))[0]
        mid = at("resid_mid", pre + at("attn_out", attn))
        mlp = layer.mlp(at("mlp_in", layer.post_attention_layernorm(mid)))  # GPT-OSS gives scores beside it
        post = at("resid_post", mid + at("mlp_out", mlp[0] if isinstance(mlp, tuple) else mlp))
    for index in range(LAYER + 1, len(lm._layers)):
        post = lm._layers[index](post, **call(index))
    return {**found, "logits": head(lm, kind, post)}


def kind_of(lm: HfLanguageModel) -> str:
    """The architecture of the language model, which a model of images may hold."""
    return lm.layout.part or lm.layout.model_type


def around(lm: HfLanguageModel) -> Any:
    """The module that holds the layers, the last norm and the rotary embeddings."""
    return lm.model.get_submodule(lm.layout.family.layers[0].rpartition(".")[0])


def arguments(lm: HfLanguageModel, hidden: Tensor) -> Callable[[int], dict[str, Any]]:
    """What the attention of a layer needs besides hidden states: mask and rotary embeddings."""
    if not lm.predicts_next:
        return lambda layer: {"attention_mask": None}
    above = torch.full((POSITIONS, POSITIONS), torch.finfo(torch.float32).min).triu(1)
    mask = {"attention_mask": above.expand(BATCH, 1, -1, -1)}
    positions = torch.arange(POSITIONS)[None]
    kind = kind_of(lm)
    if kind in ("gpt2", "opt"):
        return lambda layer: mask
    if kind == "gpt_neox":
        rotary = lm.model.gpt_neox.rotary_emb
        return lambda layer: {**mask, "position_embeddings": rotary(hidden, positions)}
    rotary = around(lm).rotary_emb
    if kind == "ministral3":
        mask["position_ids"] = positions
    if kind.endswith("_vl_text") or kind == "qwen3_vl_moe_text":
        positions = positions.expand(3, 1, -1)  # time, height and width, which are one for text
    if kind == "gemma3_text":
        kinds = lm.model.config.get_text_config().layer_types
        return lambda layer: {**mask, "position_embeddings": rotary(hidden, positions, kinds[layer])}
    return lambda layer: {**mask, "position_embeddings": rotary(hidden, positions)}


def head(lm: HfLanguageModel, kind: str, hidden: Tensor) -> Tensor:
    model = lm.model
    if kind == "bert":
        return model.cls(hidden)
    if kind == "roberta":
        return model.lm_head(hidden)
    if kind == "gpt2":
        return model.lm_head(model.transformer.ln_f(hidden))
    if kind == "opt":
        norm = model.model.decoder.final_layer_norm
        return model.lm_head(hidden if norm is None else norm(hidden))
    if kind == "gpt_neox":
        return model.get_output_embeddings()(model.gpt_neox.final_layer_norm(hidden))
    logits = model.lm_head(around(lm).norm(hidden))
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


@torch.no_grad()
def test_every_site_holds_the_vector_that_the_submodules_give(lm: HfLanguageModel, batch: TokenBatch) -> None:
    sites = [(LAYER, site) for site in lm.layout.taps]
    expected = by_hand(lm, batch, {})
    for (_, site), vector in lm.read(batch, sites).items():
        assert vector.shape == (BATCH, POSITIONS, 16)
        torch.testing.assert_close(vector, expected[site], msg=lambda m, site=site: f"{site}: {m}")


@torch.no_grad()
def test_splicing_the_identity_changes_no_bit_of_the_logits(lm: HfLanguageModel, batch: TokenBatch) -> None:
    plain = lm.logits(batch)
    for site in lm.layout.taps:
        assert torch.equal(lm.logits(batch, {(LAYER, site): SAME}), plain), site
    everywhere = {(layer, site): SAME for layer in range(3) for site in lm.layout.taps}
    assert torch.equal(lm.logits(batch, everywhere), plain)


@torch.no_grad()
@pytest.mark.parametrize("size", [0.0, 1.0])
def test_splicing_is_what_the_layer_computes_by_hand_from_the_replacement(
    lm: HfLanguageModel, batch: TokenBatch, size: float
) -> None:
    replacement = size * torch.randn(BATCH, POSITIONS, 16, generator=torch.Generator().manual_seed(2))
    plain = lm.logits(batch)
    for site in lm.layout.taps:
        expected = by_hand(lm, batch, {site: replacement})["logits"]
        spliced = lm.logits(batch, {(LAYER, site): Edit(lambda x, _: replacement)})
        torch.testing.assert_close(spliced, expected, msg=lambda m, site=site: f"{site}: {m}")
        assert not torch.allclose(spliced, plain)


@torch.no_grad()
def test_several_edits_of_one_layer_compose_in_the_order_of_the_computation(
    lm: HfLanguageModel, batch: TokenBatch
) -> None:
    zeros = torch.zeros(BATCH, POSITIONS, 16)
    replaced = {site: zeros + 0.1 * n for n, site in enumerate(SITE_NAMES) if site in lm.layout.taps}
    del replaced["resid_post"]
    edits = {(LAYER, site): Edit(lambda x, _, to=value: to) for site, value in reversed(replaced.items())}
    torch.testing.assert_close(lm.logits(batch, edits), by_hand(lm, batch, replaced)["logits"])


def test_nothing_behind_the_last_site_is_computed(lm: HfLanguageModel, batch: TokenBatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("computed although nobody reads it")

    lm._layers[2].register_forward_pre_hook(refuse)
    assert lm.read(batch, [(0, "mlp_out"), (1, "resid_post")])[1, "resid_post"].isfinite().all()
    lm._layers[1].get_submodule(lm.layout.taps["mlp_in"].module).register_forward_hook(refuse)
    assert lm.read(batch, [(1, "mlp_in")])[1, "mlp_in"].isfinite().all()


def test_hooks_are_gone_after_an_error_in_an_edit(lm: HfLanguageModel, batch: TokenBatch) -> None:
    plain = lm.logits(batch)
    with pytest.raises(ValueError, match="shape"):
        lm.logits(batch, {(LAYER, "mlp_out"): Edit(lambda x, _: x[..., :3])})
    assert torch.equal(lm.logits(batch), plain)


def test_gradients_reach_an_edit_but_not_the_weights(lm: HfLanguageModel, batch: TokenBatch) -> None:
    added = torch.zeros(16, requires_grad=True)
    lm.logits(batch, {(LAYER, "resid_post"): Edit(lambda x, _: x + added)}).pow(2).sum().backward()
    assert added.grad is not None
    assert added.grad.abs().sum() > 0
    assert all(p.grad is None for p in lm.model.parameters())


def test_padding_is_not_attended_to(lm: HfLanguageModel, batch: TokenBatch) -> None:
    attention = batch.attention.clone()
    attention[:, 5:] = False
    other = batch.ids.clone()
    other[:, 5:] = 3
    read = [
        lm.read(TokenBatch(ids, attention, attention), [(LAYER, "resid_post")])[LAYER, "resid_post"][:, :5]
        for ids in (batch.ids, other)
    ]
    torch.testing.assert_close(read[0], read[1])


def test_a_parallel_layer_has_no_resid_mid_and_says_why(
    make_lm: Callable[[str, str], HfLanguageModel],
) -> None:
    lm = make_lm("gpt_neox", "pythia")
    batch = TokenBatch(*(torch.ones(1, 4, dtype=dtype) for dtype in (torch.int64, torch.bool, torch.bool)))
    with pytest.raises(DataError, match=r"no site 'resid_mid'.*parallel") as caught:
        lm.read(batch, [(0, "resid_mid")])
    assert caught.value.allowed == "resid_pre, attn_out, mlp_in, mlp_out, resid_post"
    with pytest.raises(DataError, match="pythia has 3 layers") as caught:
        lm.logits(batch, {(3, "resid_post"): SAME})
    assert caught.value.allowed == "0 to 2"
    assert "qsae sites pythia" in str(caught.value)


def test_every_architecture_of_the_tables_is_among_the_models_of_these_tests(
    make_lm: Callable[[str, str], HfLanguageModel], families: list[str]
) -> None:
    layouts = [make_lm(name, name).layout for name in families]
    assert {layout.model_type for layout in layouts} == {*FAMILIES, *HOLDERS}
    assert {layout.part or layout.model_type for layout in layouts} >= set(PARTS)


def test_a_model_of_images_around_an_unknown_language_model_is_refused() -> None:
    config = t.LlavaConfig(text_config=t.BloomConfig(), vision_config=t.CLIPVisionConfig())
    with pytest.raises(DataError, match="of the architecture 'llava' around 'bloom', whose sites"):
        layout_of(config, "some-llava")


def test_an_unknown_architecture_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(DataError, match="'bloom'") as caught:
        layout_of(t.BloomConfig(), "some-bloom")
    assert "gpt_neox" in str(caught.value.allowed)
