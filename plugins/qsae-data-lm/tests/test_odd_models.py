"""Models as they lie about: without a head, quantized, with an adapter, with another's tokenizer."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from qsae_data_lm import LmConfig
from qsae_data_lm.loading import find_layout, load_config, load_model
from qsae_data_lm.placement import Placement
from qsae_data_lm.source import LmSource
from transformers import PreTrainedTokenizerFast

from qsae_core.contracts import TokenBatch
from qsae_core.errors import DataError

SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
BASES: dict[str, Callable[[], Any]] = {
    "llama": lambda: t.LlamaModel(t.LlamaConfig(vocab_size=50, intermediate_size=24, **SMALL)),
    "gpt2": lambda: t.GPT2Model(t.GPT2Config(vocab_size=50, n_embd=16, n_layer=3, n_head=2)),
    "gpt_neox": lambda: t.GPTNeoXModel(t.GPTNeoXConfig(vocab_size=50, intermediate_size=24, **SMALL)),
    "opt": lambda: t.OPTModel(t.OPTConfig(vocab_size=50, ffn_dim=24, word_embed_proj_dim=16, **SMALL)),
    "mixtral": lambda: t.MixtralModel(
        t.MixtralConfig(vocab_size=50, intermediate_size=24, num_key_value_heads=2, **SMALL)
    ),
    "bert": lambda: t.BertModel(t.BertConfig(vocab_size=50, intermediate_size=24, **SMALL)),
}


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may change."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def make(model: Path, text: Path, **options: Any) -> LmSource:
    defaults: dict[str, Any] = {"context": 32, "buffer_tokens": 256, "dtype": "fp32"}
    return LmSource(LmConfig(model=str(model), text=str(text), **{**defaults, **options}))


@pytest.mark.parametrize("kind", BASES)
@torch.no_grad()
def test_a_model_without_its_head_is_read_and_has_no_logits(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    base = BASES[kind]().eval()
    tied = base.config.tie_word_embeddings
    base.config.tie_word_embeddings = False  # else the embedding is the head
    base.save_pretrained(tmp_path)
    model = load_model(str(tmp_path), find_layout(str(tmp_path)), Placement(torch.float32, "cpu"))
    ids = torch.randint(2, 50, (2, 7))
    batch = TokenBatch(ids, torch.ones_like(ids).bool(), torch.ones_like(ids).bool())
    expected = base(input_ids=ids, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(model.read(batch, [(1, "resid_post")])[1, "resid_post"], expected)
    assert not model.has_logits, tied
    with pytest.raises(DataError, match="saved without its head") as caught:
        model.logits(batch)
    assert "AutoModelForCausalLM" in str(caught.value.next)


def test_loss_recovered_says_that_there_is_no_head(tmp_path: Path, tiny: Path, text: Path) -> None:
    from qsae_evaluation_loss_recovered import LossRecoveredConfig
    from qsae_evaluation_loss_recovered.evaluation import LossRecovered

    from qsae_core.contracts import EvaluationContext

    t.LlamaModel.from_pretrained(tiny).save_pretrained(tmp_path)
    PreTrainedTokenizerFast.from_pretrained(tiny).save_pretrained(tmp_path)
    source = make(tmp_path, text)
    assert len(source.next_batch(10)) == 10
    context = EvaluationContext(None, source, [], 10, 10, "cpu", None)
    reason = LossRecovered(LossRecoveredConfig()).unavailable(context)
    assert reason is not None
    assert reason.endswith("was saved without its head, so it gives no logits")


@pytest.mark.parametrize(
    ("method", "package"),
    [
        ({"quant_method": "gptq", "bits": 4}, "optimum"),
        ({"quant_method": "awq", "bits": 4}, "gptqmodel"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes"),
        ({"quant_method": "hqq"}, "HQQ"),
        (
            {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}},
            "torchao",
        ),
        ({"quant_method": "quanto", "weights": "int8"}, "optimum-quanto"),
        ({"quant_method": "eetq"}, "kernels"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors"),
        ({"quant_method": "aqlm"}, "aqlm"),
        ({"quant_method": "auto-round", "bits": 4}, "auto-round"),
    ],
)
def test_quantized_weights_whose_package_is_missing(
    copy: Path, text: Path, method: dict[str, object], package: str
) -> None:
    if importlib.util.find_spec(package.lower().replace("-", "_")):
        pytest.skip(f"{package} is installed")
    change(copy / "config.json", quantization_config=method)
    with pytest.raises(DataError, match=f"{method['quant_method']}.*{package}") as caught:
        make(copy, text)
    assert caught.value.where == "data.model"


def test_an_adapter_beside_a_model_is_not_passed_over(copy: Path) -> None:
    (copy / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8}))
    with pytest.raises(DataError, match=r"holds an adapter \(adapter_config.json\)") as caught:
        load_config(str(copy))
    assert "merge_and_unload" in str(caught.value.next)


def test_a_tokenizer_for_a_larger_vocabulary_is_refused_with_both_sizes(
    tmp_path: Path, text: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    config = t.LlamaConfig(vocab_size=1000, intermediate_size=24, **SMALL)
    t.LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(DataError, match="ids up to 4095, but the model embeds 1000 tokens"):
        make(tmp_path, text)


def test_a_token_that_no_context_holds_needs_no_embedding(tiny: Path, text: Path, tmp_path: Path) -> None:
    """Padding is often the one token beyond the embedding, and there is none in packed text."""
    model = Path(shutil.copytree(tiny, tmp_path / "padded"))
    padded = PreTrainedTokenizerFast.from_pretrained(tiny)
    padded.add_special_tokens({"pad_token": "<|pad|>"})
    padded.save_pretrained(model)
    assert torch.equal(make(model, text).next_batch(50).x, make(tiny, text).next_batch(50).x)


def test_truncation_and_padding_that_a_tokenizer_was_saved_with_are_not_obeyed(
    tiny: Path, text: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny, tmp_path / "called"))
    called = PreTrainedTokenizerFast.from_pretrained(tiny)
    called.pad_token = called.eos_token
    called(["a text"], truncation=True, max_length=8, padding="max_length")
    called.save_pretrained(model)
    stored = json.loads((model / "tokenizer.json").read_text())
    assert (stored["truncation"]["max_length"], stored["padding"]["strategy"]) == (8, {"Fixed": 8})
    ours, plain = make(model, text), make(tiny, text)
    assert ours.training_tokens == plain.training_tokens
    assert ours.next_batch(900).token_ids.tolist() == plain.next_batch(900).token_ids.tolist()


def test_roberta_holds_fewer_positions_than_embeddings(
    tmp_path: Path, text: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """66 position embeddings, of which those up to the padding's id, 1, are never used: 64 positions."""
    config = t.RobertaConfig(
        vocab_size=4096, intermediate_size=24, max_position_embeddings=66, pad_token_id=1, **SMALL
    )
    t.RobertaForMaskedLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(DataError, match="at most 64 positions, not 65"):
        make(tmp_path, text, context=65)
    assert len(make(tmp_path, text, context=64).next_batch(64)) == 64


def test_opt_holds_as_many_positions_as_its_config_says(
    tmp_path: Path, text: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Its embedding has two rows more, which it skips by itself."""
    config = t.OPTConfig(
        vocab_size=4096, ffn_dim=24, word_embed_proj_dim=16, max_position_embeddings=64, **SMALL
    )
    t.OPTForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert len(make(tmp_path, text, context=64).next_batch(64)) == 64
    with pytest.raises(DataError, match="at most 64 positions, not 65"):
        make(tmp_path, text, context=65)
