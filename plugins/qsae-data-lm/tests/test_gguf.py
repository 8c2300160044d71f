"""A model out of one GGUF file, the format of llama.cpp."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from qsae_data_lm import LmConfig
from qsae_data_lm.loading import load_tokenizer
from qsae_data_lm.places import locate
from qsae_data_lm.source import LmSource
from transformers import LlamaForCausalLM

from qsae_core.errors import DataError

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def interleave(matrix: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp rotates neighbouring rows of a head, transformers rows half a head apart."""
    halves = matrix.reshape(heads, 2, -1, matrix.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(matrix.shape))


def write_gguf(directory: Path, path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    model = LlamaForCausalLM.from_pretrained(directory)
    config = model.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    bpe = json.loads((directory / "tokenizer.json").read_text())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(bpe["vocab"], key=bpe["vocab"].__getitem__))
    writer.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        module = name.removesuffix(".weight")
        if module in OUTSIDE:
            stored = OUTSIDE[module]
        else:
            _, _, layer, inner = module.split(".", 3)
            stored = f"blk.{layer}.{NAMES[inner]}"
        if "attn_q" in stored or "attn_k" in stored:
            heads = config.num_attention_heads if "attn_q" in stored else config.num_key_value_heads
            array = interleave(array, heads)
        writer.add_tensor(f"{stored}.weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_gives_the_vectors_of_the_model_that_it_was_made_of(
    tiny: Path, text: Path, tmp_path: Path
) -> None:
    pytest.importorskip("accelerate")
    write_gguf(tiny, tmp_path / "tiny.gguf")
    options = {"text": str(text), "context": 32, "buffer_tokens": 256, "dtype": "fp32"}
    source = LmSource(LmConfig(model=str(tmp_path / "tiny.gguf"), **options))
    original = LmSource(LmConfig(model=str(tiny), **options))
    assert source.model_name == "tiny"
    assert load_tokenizer(str(tmp_path / "tiny.gguf")).bos_token_id == 0
    batch = next(original.held_out_contexts(100, 512))[0]
    ours, theirs = (s.language_model().read(batch, [(1, "resid_post")]) for s in (source, original))
    torch.testing.assert_close(ours[1, "resid_post"], theirs[1, "resid_post"])
    assert len(source.next_batch(300)) == 300


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="gguf") as caught:
        locate(str(tmp_path / "model.gguf"))
    assert caught.value.next == "pip install 'qsae-data-lm[gguf]'"
