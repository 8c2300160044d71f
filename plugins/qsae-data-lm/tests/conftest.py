"""Language models that load in no time, and text for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from qsae_data_lm.families import layout_of
from qsae_data_lm.language_model import HfLanguageModel
from qsae_data_lm.places import BUILTIN
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from qsae_core.contracts.language_model import TokenBatch

torch.set_num_threads(1)  # these models are too small to gain from more


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(BUILTIN)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A directory with a random Llama of 3 layers, width 16, at most 64 positions."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    directory = tmp_path_factory.mktemp("models") / "Tiny-Llama"
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 40 chunks of numbered sentences."""
    path = tmp_path_factory.mktemp("text") / "sentences.txt"
    sentences = (f"Sentence number {n} says that {n} times {n} is {n * n}.\n" for n in range(3000))
    path.write_text("".join(line + "\n" * (n % 5 == 4) for n, line in enumerate(sentences)))
    return path


SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
BERT = {k: v for k, v in SMALL.items() if k not in ("num_key_value_heads", "head_dim")}
NEOX = BERT
NO_HEAD_DIM = {k: v for k, v in SMALL.items() if k != "head_dim"}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
OPT = {
    **{k: v for k, v in BERT.items() if k != "intermediate_size"},
    "ffn_dim": 24,
    "word_embed_proj_dim": 16,
    "activation_function": "gelu",
}
ROPE_3D = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}}
IMAGES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
QWEN_IMAGES = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 24, "out_hidden_size": 16}
QWEN_IDS = {
    "image_token_id": 49,
    "video_token_id": 48,
    "vision_start_token_id": 47,
    "vision_end_token_id": 46,
}
GEMMA_IDS = {"mm_tokens_per_image": 4, "image_token_index": 49, "boi_token_index": 48, "eoi_token_index": 47}


def holder(name: str, text: Any, images: Any, **more: Any) -> Any:
    """A model of images and text."""
    more = more or {"image_token_id": 49}
    config = getattr(t, f"{name}Config")(text_config=text, vision_config=images, **more)
    return getattr(t, f"{name}ForConditionalGeneration")(config)


HELD: dict[str, Callable[[int], Any]] = {
    "gemma3": lambda v: holder(
        "Gemma3", t.Gemma3TextConfig(**SMALL | {"vocab_size": v}), IMAGES, **GEMMA_IDS
    ),
    "llava": lambda v: holder(
        "Llava", t.LlamaConfig(**SMALL | {"vocab_size": v}), t.CLIPVisionConfig(**IMAGES)
    ),
    "llava_next": lambda v: holder(
        "LlavaNext", t.MistralConfig(**SMALL | {"vocab_size": v}), t.CLIPVisionConfig(**IMAGES)
    ),
    "llava_onevision": lambda v: holder(
        "LlavaOnevision",
        t.Qwen2Config(**SMALL | {"vocab_size": v}),
        t.SiglipVisionConfig(**IMAGES),
        image_token_id=49,
        video_token_id=48,
    ),
    "mistral3": lambda v: holder(
        "Mistral3",
        t.Ministral3Config(**SMALL | {"vocab_size": v}),
        t.PixtralVisionConfig(**IMAGES, head_dim=8),
    ),
    "internvl": lambda v: holder(
        "InternVL",
        t.Qwen3Config(**SMALL | {"vocab_size": v}),
        t.InternVLVisionConfig(**{**IMAGES, "image_size": [28, 28], "patch_size": [14, 14]}),
    ),
    "idefics3": lambda v: holder(
        "Idefics3",
        t.LlamaConfig(**SMALL | {"vocab_size": v}).to_dict(),
        IMAGES,
        image_token_id=49,
        scale_factor=1,
    ),
    "smolvlm": lambda v: holder(
        "SmolVLM",
        t.LlamaConfig(**SMALL | {"vocab_size": v}).to_dict(),
        IMAGES,
        image_token_id=49,
        scale_factor=1,
    ),
    "qwen2_vl": lambda v: holder(
        "Qwen2VL",
        {**NO_HEAD_DIM, **ROPE_3D, "vocab_size": v},
        {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2},
        **QWEN_IDS,
    ),
    "qwen2_5_vl": lambda v: holder(
        "Qwen2_5_VL", {**NO_HEAD_DIM, **ROPE_3D, "vocab_size": v}, QWEN_IMAGES, **QWEN_IDS
    ),
    "qwen3_vl": lambda v: holder(
        "Qwen3VL",
        {**SMALL, **ROPE_3D, "vocab_size": v},
        {**QWEN_IMAGES, "deepstack_visual_indexes": [0]},
        **QWEN_IDS,
    ),
    "qwen3_vl_moe": lambda v: holder(
        "Qwen3VLMoe",
        {**SMALL, **ROPE_3D, **EXPERTS, "moe_intermediate_size": 12, "vocab_size": v},
        {**QWEN_IMAGES, "deepstack_visual_indexes": [0]},
        **QWEN_IDS,
    ),
}
"""Models of images and text, of which the language model is read: number of tokens -> model."""
MODELS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: t.GPT2LMHeadModel(
        t.GPT2Config(vocab_size=50, n_embd=16, n_layer=3, n_head=2, n_positions=32)
    ),
    "gpt_neox": lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**NEOX)),
    "gpt_neox_sequential": lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**NEOX, use_parallel_residual=False)),
    "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**SMALL)),
    "mistral": lambda: t.MistralForCausalLM(t.MistralConfig(**SMALL)),
    "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**SMALL)),
    "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**SMALL)),
    "gemma2": lambda: t.Gemma2ForCausalLM(t.Gemma2Config(**SMALL, attn_implementation="eager")),
    "gemma3_text": lambda: t.Gemma3ForCausalLM(t.Gemma3TextConfig(**SMALL)),
    "gemma": lambda: t.GemmaForCausalLM(t.GemmaConfig(**SMALL)),
    "phi3": lambda: t.Phi3ForCausalLM(t.Phi3Config(**SMALL)),
    "olmo2": lambda: t.Olmo2ForCausalLM(t.Olmo2Config(**NO_HEAD_DIM)),
    "mixtral": lambda: t.MixtralForCausalLM(t.MixtralConfig(**SMALL, num_local_experts=4)),
    "qwen2_moe": lambda: t.Qwen2MoeForCausalLM(
        t.Qwen2MoeConfig(
            **SMALL,
            **EXPERTS,
            moe_intermediate_size=12,
            shared_expert_intermediate_size=12,
            mlp_only_layers=[0],
        )
    ),
    "qwen3_moe": lambda: t.Qwen3MoeForCausalLM(
        t.Qwen3MoeConfig(**SMALL, **EXPERTS, moe_intermediate_size=12, mlp_only_layers=[0])
    ),
    "olmoe": lambda: t.OlmoeForCausalLM(t.OlmoeConfig(**NO_HEAD_DIM, **EXPERTS)),
    "deepseek_v3": lambda: t.DeepseekV3ForCausalLM(
        t.DeepseekV3Config(
            **{**NO_HEAD_DIM, "num_key_value_heads": 2},
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_group=2,
            topk_group=1,
            moe_intermediate_size=12,
            first_k_dense_replace=1,
            q_lora_rank=8,
            kv_lora_rank=8,
            qk_rope_head_dim=4,
            qk_nope_head_dim=4,
            v_head_dim=8,
        )
    ),
    "gpt_oss": lambda: t.GptOssForCausalLM(
        t.GptOssConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2, attn_implementation="eager")
    ),
    "opt": lambda: t.OPTForCausalLM(t.OPTConfig(**OPT)),
    "opt_post_norm": lambda: t.OPTForCausalLM(t.OPTConfig(**OPT, do_layer_norm_before=False)),
    "bert": lambda: t.BertForMaskedLM(t.BertConfig(**BERT)),
    "roberta": lambda: t.RobertaForMaskedLM(t.RobertaConfig(**BERT)),
    "smollm3": lambda: t.SmolLM3ForCausalLM(t.SmolLM3Config(**SMALL, no_rope_layers=[1, 0, 1])),
    "ministral3": lambda: t.Ministral3ForCausalLM(t.Ministral3Config(**SMALL)),
    **{name: partial(make, 50) for name, make in HELD.items()},
}


@pytest.fixture
def families() -> list[str]:
    """What `make_lm` makes models of."""
    return list(MODELS)


@pytest.fixture
def make_held() -> Callable[[str, int], Any]:
    """A random model of images and text, by its architecture and its number of tokens."""
    return lambda name, n_tokens: HELD[name](n_tokens)


@pytest.fixture
def make_lm() -> Callable[[str, str], HfLanguageModel]:
    """A random model of a family, norms and biases random too, so that forgetting one shows."""

    def make(family: str, name: str) -> HfLanguageModel:
        torch.manual_seed(0)
        model = MODELS[family]()
        for parameter in model.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
        return HfLanguageModel(model, layout_of(model.config, name), name)

    return make


@pytest.fixture(params=MODELS)
def lm(request: pytest.FixtureRequest, make_lm: Callable[[str, str], HfLanguageModel]) -> HfLanguageModel:
    """A random model of each family in turn."""
    return make_lm(request.param, request.param)


@pytest.fixture
def batch() -> TokenBatch:
    """Two contexts of seven positions."""
    ids = torch.randint(1, 50, (2, 7), generator=torch.Generator().manual_seed(1))
    ones = torch.ones_like(ids, dtype=torch.bool)
    return TokenBatch(ids, ones, ones)
