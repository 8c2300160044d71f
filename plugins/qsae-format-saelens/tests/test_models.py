"""Models and places: SAELens' words beside those of the plugin that reads language models."""

from __future__ import annotations

import json

import pytest
from qsae_data_lm import families
from qsae_format_saelens.hooks import metadata_of, provenance_of
from qsae_format_saelens.models import FAMILIES, family_of, name_in_transformer_lens, name_on_hub
from qsae_format_saelens.understood import understood

from qsae_core.contracts import Provenance

CFG = {"d_in": 2, "d_sae": 2, "dtype": "float32", "architecture": "standard", "sae_lens_version": "6.1.0"}


def places(**metadata):
    cfg = CFG | {"metadata": {"sae_lens_version": "6.1.0", **metadata}}
    found = provenance_of(understood(cfg, "cfg.json"))
    return found.model, *found.sources


@pytest.mark.parametrize("kind", FAMILIES)
def test_modules_are_those_that_the_vectors_are_read_from(kind):
    theirs = families.FAMILIES[kind]
    assert theirs.layers == (FAMILIES[kind].layers,)
    taps = {site: f"{tap.module}.{tap.side}".lstrip(".") for site, tap in theirs.taps.items()}
    taps = {site: tap for site, tap in taps.items() if site not in theirs.absent_where}
    assert dict(FAMILIES[kind].sites) == taps


@pytest.mark.parametrize(
    ("theirs", "hub", "kind"),
    [
        ("gpt2-small", "gpt2", "gpt2"),
        ("gemma-2b", "google/gemma-2b", "llama"),
        ("gemma-2-2b", "google/gemma-2-2b", "gemma2"),
        ("google/gemma-3-1b-it", "google/gemma-3-1b-it", "gemma3_text"),
        ("pythia-70m-deduped", "EleutherAI/pythia-70m-deduped", "gpt_neox"),
        ("mistral-7b", "mistralai/Mistral-7B-v0.1", "llama"),
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B", "llama"),
        ("qwen3-1.7b", "Qwen/Qwen3-1.7B", "llama"),
        ("Qwen/Qwen3.5-2B-Base", "Qwen/Qwen3.5-2B-Base", None),  # other layers
        ("Qwen/Qwen-7B", "Qwen/Qwen-7B", None),
        ("unheard-of", "unheard-of", None),
    ],
)
def test_names(theirs, hub, kind):
    assert name_on_hub(theirs) == hub
    assert family_of(hub) is (None if kind is None else FAMILIES[kind])


def test_the_usual_name_is_the_first():
    assert name_in_transformer_lens("distilgpt2") == "distillgpt2"
    assert name_in_transformer_lens("google/gemma-2-2b") == "gemma-2-2b"
    assert name_in_transformer_lens("gpt2-medium") == "gpt2-medium"
    assert name_in_transformer_lens("HuggingFaceTB/SmolLM2-135M") is None


def test_a_folder_is_known_by_its_own_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    assert family_of(str(tmp_path)) is FAMILIES["llama"]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    assert family_of(str(tmp_path)) is None
    (tmp_path / "config.json").write_text("[")
    assert family_of(str(tmp_path)) is None


def test_hooks_that_see_the_vectors_of_a_place():
    gemma = {"model_name": "gemma-2-2b"}
    assert places(hook_name="blocks.12.hook_resid_post", **gemma) == ("google/gemma-2-2b", "12.resid_post")
    assert places(hook_name="blocks.12.mlp.hook_in", **gemma) == ("google/gemma-2-2b", "12.mlp_in")
    scope = {"hook_name": "blocks.3.hook_mlp_in", "model_name": "google/gemma-3-1b-pt"}
    normed = "model.layers.3.pre_feedforward_layernorm.output"
    assert places(hf_hook_name=normed, **scope) == ("google/gemma-3-1b-pt", "3.mlp_in")
    qwen = {"model_name": "Qwen/Qwen3.5-2B-Base", "hf_hook_name": "model.layers.7"}
    assert places(**qwen) == ("Qwen/Qwen3.5-2B-Base", "7.resid_post")
    module = {"model_class_name": "AutoModelForCausalLM", "hook_name": "model.layers.2.mlp"}
    assert places(model_name="meta-llama/Llama-3.1-8B", **module)[1:] == ("2.mlp_out",)
    assert places(model_name="google/gemma-2-2b", **module)[1:] == ()  # before the norm behind it


@pytest.mark.parametrize(
    "metadata",
    [
        {"hook_name": "blocks.3.hook_mlp_in"},  # the stream, before the norm
        {"hook_name": "blocks.3.ln2.hook_normalized"},  # without the norm's weights
        {"hook_name": "blocks.3.attn.hook_z"},
        {"hook_name": "blocks.3.hook_resid_post", "hook_head_index": 2},
        {
            "hook_name": "blocks.3.hook_resid_post",
            "model_from_pretrained_kwargs": {"center_writing_weights": True},
        },
        {"hook_name": "blocks.99999999.hook_resid_post"},
        {"hook_name": ["blocks.3.hook_resid_post"]},
        {"hf_hook_name": "transformer.h.3.attn.c_proj.output"},
        {"hook_name": "../../etc/passwd"},
        {},
    ],
)
def test_others_have_none(metadata):
    assert places(model_name="gpt2-small", **metadata) == ("gpt2",)


def test_norms_on_the_stream_itself():
    assert places(model_name="bert-base-cased", hook_name="blocks.3.hook_resid_post")[1:] == ()
    assert places(model_name="bert-base-cased", hook_name="blocks.3.hook_mlp_out")[1:] == ("3.mlp_out",)


def test_before_version_six_the_stream_may_be_centred():
    old = {"d_in": 2, "d_sae": 2, "dtype": "float32", "hook_point": "blocks.3.hook_resid_pre"}

    def sources(**more):
        return provenance_of(understood(old | more, "cfg.json")).sources

    assert sources(model_name="gpt2-small") == ()
    assert sources(model_name="mistral-7b") == ("3.resid_pre",)  # its norms take no mean off
    kept = {"center_writing_weights": False}
    assert sources(model_name="gpt2-small", model_from_pretrained_kwargs=kept) == ("3.resid_pre",)


def test_what_is_written_is_read_again():
    for site in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_in", "mlp_out"):
        for model in ("gpt2", "google/gemma-2-2b", "HuggingFaceTB/SmolLM2-135M", "unheard-of"):
            where = Provenance.at(4, site, model=model, context=128, dataset="a/b")
            found = understood(CFG | {"metadata": {"sae_lens_version": "6.1.0", **metadata_of(where)}}, "")
            assert provenance_of(found) == where
