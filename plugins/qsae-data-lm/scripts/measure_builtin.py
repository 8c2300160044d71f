"""Measures the built-in language model on the documents that its training left out.

    python scripts/measure_builtin.py

Prints the held-out cross-entropy per token and per byte beside that of a smoothed bigram model, which is
counted on the training documents with the same tokenizer.

C contexts, B of a batch, T positions.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PLUGIN = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PLUGIN))

from qsae_data_lm.corpus import builtin_documents, is_held_out  # noqa: E402
from qsae_data_lm.packing import Frame, Tokens, pack  # noqa: E402

BUILTIN = PLUGIN / "qsae_data_lm" / "builtin"
CONTEXT = 256


def split_texts() -> tuple[list[str], list[str]]:
    """Texts of the training documents, and of the held-out ones."""
    documents = list(builtin_documents())
    return (
        [d.text for d in documents if not is_held_out(d.key)],
        [d.text for d in documents if is_held_out(d.key)],
    )


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[Tokens]:
    """Tokens of each text, without special ones."""
    return [np.array(e.ids, dtype=np.int32) for e in tokenizer.backend_tokenizer.encode_batch_fast(texts)]


def frame_of(bos: int) -> Frame:
    """Contexts as the data source packs them."""
    return Frame(CONTEXT, first=bos, separator=bos)


def token_losses(model: LlamaForCausalLM, tokens_BT: torch.Tensor, bos: int) -> torch.Tensor:
    """Cross-entropy in nats [B, T-1] of each next token; where the next token is a BOS it is 0."""
    logits = model(input_ids=tokens_BT, use_cache=False).logits[:, :-1]
    targets = tokens_BT[:, 1:].masked_fill(tokens_BT[:, 1:] == bos, -100)
    return cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)


@torch.inference_mode()
def model_nats(model: LlamaForCausalLM, contexts_CT: Tokens, bos: int) -> float:
    """Total nats of the model over all targets in the contexts."""
    parts = torch.from_numpy(contexts_CT.astype(np.int64)).split(32)
    return sum(token_losses(model, part, bos).double().sum().item() for part in parts)


def bigram_nats(train: list[Tokens], contexts_CT: Tokens, bos: int, vocab: int) -> float:
    """Total nats of a Witten-Bell bigram model over the same targets.

    p(b | a) = (c(a, b) + n(a) u(b)) / (c(a) + n(a)), with n(a) the number of distinct tokens seen after
    a, and u the unigram with one added to each count. Documents begin with BOS.
    """
    stream = np.concatenate([np.concatenate([[bos], d]) for d in train]).astype(np.int64)
    unigram = np.bincount(stream, minlength=vocab) + 1.0
    unigram[bos] = 0  # never a target
    unigram /= unigram.sum()
    pairs, counts = np.unique(stream[:-1] * vocab + stream[1:], return_counts=True)
    keep = pairs % vocab != bos
    pairs, counts = pairs[keep], counts[keep]
    seen = np.bincount(pairs // vocab, weights=counts, minlength=vocab)
    followers = np.bincount(pairs // vocab, minlength=vocab)
    before, after = contexts_CT[:, :-1].astype(np.int64).ravel(), contexts_CT[:, 1:].astype(np.int64).ravel()
    before, after = before[after != bos], after[after != bos]
    wanted = before * vocab + after
    at = np.searchsorted(pairs, wanted).clip(max=len(pairs) - 1)
    count = np.where(pairs[at] == wanted, counts[at], 0)
    weight = np.maximum(followers[before], 1)
    return float(-np.log((count + weight * unigram[after]) / (seen[before] + weight)).sum())


def measure(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, train: list[Tokens], held_out: list[Tokens]
) -> dict[str, Any]:
    """Cross-entropies of model and bigram over the same held-out targets, and how many targets those are."""
    bos = tokenizer.bos_token_id
    contexts_CT = pack(held_out, frame_of(bos)).ids
    targets = contexts_CT[:, 1:][contexts_CT[:, 1:] != bos]
    n_bytes = len(tokenizer.decode(targets).encode("utf-8"))
    nats = {
        "model": model_nats(model.eval(), contexts_CT, bos),
        "bigram": bigram_nats(train, contexts_CT, bos, len(tokenizer)),
    }
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "python": sys.version.split()[0],
        "held_out_tokens": len(targets),
        "held_out_bytes": n_bytes,
        "nats_per_token": {name: round(total / len(targets), 4) for name, total in nats.items()},
        "nats_per_byte": {name: round(total / n_bytes, 4) for name, total in nats.items()},
    }


def main() -> None:
    """Measures the published model."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(BUILTIN)
    model = LlamaForCausalLM.from_pretrained(BUILTIN, dtype=torch.float32)
    train, held_out = (tokenize(tokenizer, texts) for texts in split_texts())
    print(json.dumps(measure(model, tokenizer, train, held_out), indent=2))


if __name__ == "__main__":
    main()
