"""Hookpoints and sites: the same vectors, in models of every family; and names of models."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers as t
from qsae_data_lm.families import FAMILIES as SITES
from qsae_data_lm.families import layout_of
from qsae_data_lm.language_model import HfLanguageModel
from qsae_format_sparsify.families import FAMILIES, family_of
from qsae_format_sparsify.hookpoints import hookpoint_of, layer_of, places

from qsae_core.contracts import Provenance, Site, TokenBatch

LAYER, VOCABULARY = 1, 32
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3}
HEADS = {"num_attention_heads": 2}
LLAMA = {**SMALL, **HEADS, "num_key_value_heads": 1, "max_position_embeddings": 64, "head_dim": 8}
CONFIGS: dict[str, Any] = {
    "gpt2": lambda: t.GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=3, n_head=2, n_positions=64),
    "gpt_neox": lambda: t.GPTNeoXConfig(**SMALL, **HEADS, max_position_embeddings=64),
    "llama": lambda: t.LlamaConfig(**LLAMA),
    "mistral": lambda: t.MistralConfig(**LLAMA),
    "qwen2": lambda: t.Qwen2Config(**LLAMA),
    "qwen3": lambda: t.Qwen3Config(**LLAMA),
    "phi3": lambda: t.Phi3Config(**LLAMA, pad_token_id=0),
    "gemma": lambda: t.GemmaConfig(**LLAMA),
    "gemma2": lambda: t.Gemma2Config(**LLAMA, attn_implementation="eager"),
    "gemma3_text": lambda: t.Gemma3TextConfig(**LLAMA),
    "olmo2": lambda: t.Olmo2Config(**LLAMA),
    "mixtral": lambda: t.MixtralConfig(**LLAMA, num_local_experts=2),
    "opt": lambda: t.OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        ffn_dim=24,
        num_hidden_layers=3,
        word_embed_proj_dim=16,
        **HEADS,
    ),
    "bert": lambda: t.BertConfig(**SMALL, **HEADS),
    "roberta": lambda: t.RobertaConfig(**SMALL, **HEADS, max_position_embeddings=66),
}


def hooked(model: Any, paths: list[str], ids: torch.Tensor) -> dict[str, list[torch.Tensor | None]]:
    """What sparsify's trainer takes from each module of the base model: its first positional input, its first
    output."""
    found: dict[str, list[torch.Tensor | None]] = {}

    def hook(path: str) -> Any:
        def keep(module: Any, inputs: Any, outputs: Any) -> None:
            first = outputs[0] if isinstance(outputs, tuple) else outputs
            found[path] = [inputs[0] if inputs else None, first]

        return keep

    handles = [model.base_model.get_submodule(path).register_forward_hook(hook(path)) for path in paths]
    model(input_ids=ids, attention_mask=torch.ones_like(ids))
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("kind", CONFIGS)
@torch.no_grad()
def test_each_module_has_the_vectors_of_its_sites(kind):
    torch.manual_seed(0)
    config = CONFIGS[kind]()
    make = t.AutoModelForCausalLM if SITES[kind].causal else t.AutoModelForMaskedLM
    model = make.from_config(config).eval()
    for parameter in model.parameters():  # norms that are no identity
        parameter.add_(0.1 * torch.randn_like(parameter))
    lm, family = HfLanguageModel(model, layout_of(config, kind), kind), FAMILIES[kind]
    ids = torch.randint(3, VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(1))
    batch = TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool), torch.ones_like(ids, dtype=torch.bool))
    modules = {"": ("resid_pre", "resid_post"), **family.modules}
    start = f"{family.layers}.{LAYER}"
    paths = {f"{start}.{module}".rstrip("."): sites for module, sites in modules.items()}
    taken = hooked(model, list(paths), ids)
    compared = 0
    for path, sites in paths.items():
        for vector, name in zip(taken[path], sites, strict=True):
            if name is None or (name == "resid_mid" and name not in lm.layout.taps):
                continue
            assert vector is not None, f"{path} is called by keyword, and sparsify cannot read its input"
            site = Site(LAYER, name)
            torch.testing.assert_close(
                vector.reshape(2, 7, 16).float(), lm.read(batch, [site])[site], msg=f"{path}: {name}"
            )
            compared += 1
    assert compared >= 4


def test_every_family_of_the_data_source_is_known():
    assert FAMILIES.keys() == SITES.keys()


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("HuggingFaceTB/SmolLM2-135M", "llama"),
        ("EleutherAI/pythia-70m-deduped", "gpt_neox"),
        ("meta-llama/Llama-3.2-1B", "llama"),
        ("meta-llama/Meta-Llama-3-8B@main", "llama"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "qwen2"),
        ("google/gemma-2-2b", "gemma2"),
        ("google/gemma-2b", "gemma"),
        ("google/gemma-3-1b-pt", "gemma3_text"),
        ("openai-community/gpt2", "gpt2"),
        ("Qwen/Qwen2.5-0.5B", "qwen2"),
        ("Qwen/Qwen3-1.7B-Base", "qwen3"),
        ("allenai/OLMo-2-0425-1B", "olmo2"),
        ("facebook/opt-125m", "opt"),
        ("builtin", "llama"),
        ("meta-llama/Llama-3.2-11B-Vision", None),
        ("google/gemma-3-4b-pt", None),  # of images too: its layers lie elsewhere
        ("Qwen/Qwen2.5-VL-3B", None),
        ("EleutherAI/gpt-neo-125m", None),
        ("someone/unknown", None),
        ("a\0b", None),
        (None, None),
    ],
)
def test_families_of_published_models(model, kind):
    assert family_of(model) is (None if kind is None else FAMILIES[kind])


def test_a_folder_says_which_family_it_is(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma2"}))
    assert family_of(str(tmp_path)) is FAMILIES["gemma2"]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": ["gemma2"]}))
    assert family_of(str(tmp_path)) is None


SMOL, GEMMA, GPT2 = "HuggingFaceTB/SmolLM2-135M", "google/gemma-2-2b", "gpt2"


def at(source, target=None):
    sides = (source, target if target is not None else source)
    return Provenance(None, *((side,) if side else () for side in sides))


@pytest.mark.parametrize(
    ("hookpoint", "model", "transcodes", "known"),
    [
        ("layers.9", SMOL, False, at("9.resid_post")),
        ("layers.9.mlp", SMOL, False, at("9.mlp_out")),
        ("layers.9.mlp", SMOL, True, at("9.mlp_in", "9.mlp_out")),
        ("layers.9.self_attn", SMOL, False, at("9.attn_out")),
        ("layers.9", SMOL, True, at("9.resid_pre", "9.resid_post")),
        ("h.3", GPT2, False, at("3.resid_post")),
        ("h.3.attn", GPT2, False, at("3.attn_out")),
        ("layers.9.mlp", GEMMA, False, at("")),  # a norm follows before it is added
        ("layers.9.mlp", GEMMA, True, at("9.mlp_in", "")),
        ("layers.9.post_feedforward_layernorm", GEMMA, False, at("9.mlp_out")),
        ("layers.9", None, False, at("9.resid_post")),  # whatever the model is
        ("layers.9.mlp", None, False, at("")),
        ("h.3", SMOL, False, at("")),
        ("layers.9.mlp.down_proj", SMOL, False, at("")),
        ("embed_tokens", SMOL, False, at("")),
        ("layers.9.", SMOL, False, at("")),
        ("../layers.9", SMOL, False, at("")),
        ("layers.-1", SMOL, False, at("")),
        (None, SMOL, False, at("")),
    ],
)
def test_what_a_hookpoint_is(hookpoint, model, transcodes, known):
    assert places(hookpoint, model, transcodes=transcodes) == known


@pytest.mark.parametrize(
    ("provenance", "transcodes", "hookpoint"),
    [
        (Provenance.at(9, "resid_post", model=SMOL), False, "layers.9"),
        (Provenance.at(9, "mlp_in", "mlp_out", model=SMOL), True, "layers.9.mlp"),
        (Provenance.at(9, "mlp_in", model=SMOL), False, "layers.9.post_attention_layernorm"),
        (Provenance.at(3, "mlp_out", model=GPT2), False, "h.3.mlp"),
        (Provenance.at(3, "mlp_out", model=GEMMA), False, "layers.3.post_feedforward_layernorm"),
        (Provenance(GEMMA, ("3.mlp_in",), ()), True, "layers.3.mlp"),
        (Provenance.at(9, "mlp_in", "mlp_out", model=GEMMA), True, None),  # no module's input and output
        (Provenance.at(9, "resid_mid", model=SMOL), False, None),
        (Provenance(SMOL, ("9.mlp_in",), ("10.mlp_out",)), True, None),
        (Provenance.at(9, "resid_post"), False, None),  # of which model?
        (Provenance(SMOL), False, None),
    ],
)
def test_which_hookpoint_a_place_is(provenance, transcodes, hookpoint):
    assert hookpoint_of(provenance, transcodes=transcodes) == hookpoint
    if hookpoint:
        assert layer_of(hookpoint) == int(provenance.sources[0].partition(".")[0])
