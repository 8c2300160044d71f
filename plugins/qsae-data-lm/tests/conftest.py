"""A language model that loads in no time, and text for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from qsae_data_lm.places import BUILTIN
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

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
