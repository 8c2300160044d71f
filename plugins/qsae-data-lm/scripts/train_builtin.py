"""Trains the built-in language model, from the text that every CPython has on disk.

    python scripts/train_builtin.py --steps 3000

A byte-level BPE tokenizer and a Llama-architecture model are trained on the Python standard library's
source and documentation (`qsae_data_lm.corpus`), without the documents that the run-time split holds
out. The result replaces `qsae_data_lm/builtin/`: config, bf16 safetensors, tokenizer, and
`training.json` with the held-out cross-entropy beside that of a bigram model over the same tokens.

B contexts of a batch, T positions, V tokens of the vocabulary.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure_builtin import BUILTIN, CONTEXT, frame_of, measure, split_texts, token_losses, tokenize
from muon import Muon
from qsae_data_lm.packing import Tokens, pack  # measure_builtin has put the plugin on the path
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BOS = "<|bos|>"


def train_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE; digits one by one, so that numbers do not fill the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=BOS,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def make_model(vocab_size: int, bos: int) -> LlamaForCausalLM:
    """Five layers of width 256: layer 2 is the exact middle, and 4.5M bf16 weights stay below 10 MB."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=bos,
        eos_token_id=bos,
        rms_norm_eps=1e-5,
    )
    model = LlamaForCausalLM(config)
    for layer in model.model.layers:  # every block starts as the identity
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return model


def optimizers(model: LlamaForCausalLM, lr: float, muon_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks where a rate is given for it, AdamW for everything else."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2] if muon_lr else []
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    made: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)]
    if matrices:
        made.append(Muon(matrices, lr=muon_lr, weight_decay=0.1))
    return made


def schedule(progress: float, warmup: float = 0.02, floor: float = 0.02) -> float:
    """Linear warm-up, then half a cosine down to `floor`, as a factor of the peak rate."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    along = min(1.0, (progress - warmup) / (1 - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * along))


class Batches:
    """Endless batches [B, T]; every epoch shuffles the documents, packs them and shuffles the contexts."""

    def __init__(self, documents: list[Tokens], bos: int, batch: int, seed: int) -> None:
        self.documents, self.frame, self.batch = documents, frame_of(bos), batch
        self.rng = np.random.default_rng(seed)
        self.contexts_CT = np.empty((0, CONTEXT), dtype=np.int32)
        self.at = self.epoch = 0

    def next(self) -> torch.Tensor:
        """The next batch, int64."""
        if self.at + self.batch > len(self.contexts_CT):
            order = self.rng.permutation(len(self.documents))
            contexts_CT = pack((self.documents[i] for i in order), self.frame).ids
            self.contexts_CT = self.rng.permutation(contexts_CT)
            self.at, self.epoch = 0, self.epoch + 1
        batch_BT = self.contexts_CT[self.at : self.at + self.batch]
        self.at += self.batch
        return torch.from_numpy(batch_BT.astype(np.int64))


def publish(
    out: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    train: list[Tokens],
    held_out: list[Tokens],
    training: list[dict[str, float]],
) -> dict[str, Any]:
    """Writes the whole directory beside its place, measures what it wrote, and swaps it in by renaming."""
    fresh = Path(tempfile.mkdtemp(dir=out.parent, prefix=".builtin-"))
    rounded = LlamaForCausalLM(model.config)
    rounded.load_state_dict(model.state_dict())
    rounded.to(torch.bfloat16).save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    (fresh / "generation_config.json").unlink()  # nothing is ever generated
    settings = json.loads((fresh / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that transformers 4 knows too
    (fresh / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    report = {**measure(rounded.float(), tokenizer, train, held_out), "runs": training}
    (fresh / "training.json").write_text(json.dumps(report, indent=2) + "\n")
    fresh.chmod(0o755)
    for path in fresh.iterdir():
        path.chmod(0o644)
    old = fresh.with_name(fresh.name + "-old")
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return report


def loss_of(model: LlamaForCausalLM, batch_BT: torch.Tensor, bos: int) -> torch.Tensor:
    """Mean nats of a batch's targets."""
    return token_losses(model, batch_BT, bos).sum() / (batch_BT[:, 1:] != bos).sum()


def train(args: argparse.Namespace) -> None:
    """Trains tokenizer and model, publishing on the way and at the end."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    texts, held_out_texts = split_texts()
    tokenizer, model, before = beginning(args, texts)
    tokens, held_out = tokenize(tokenizer, texts), tokenize(tokenizer, held_out_texts)
    print(f"{len(texts)} documents, {sum(map(len, tokens)):,} tokens; held out: {len(held_out)}", flush=True)

    batches = Batches(tokens, tokenizer.bos_token_id, args.batch, args.seed)
    chosen = optimizers(model, args.lr, args.muon_lr)
    groups = [group for optimizer in chosen for group in optimizer.param_groups]
    peaks = [group["lr"] for group in groups]
    started, publish_at = time.monotonic(), 60 * min(3, args.save_minutes)
    step, elapsed, progress = 0, 0.0, 0.0
    while progress < 1:
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * schedule(progress)
        loss = loss_of(model, batches.next(), tokenizer.bos_token_id)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in chosen:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step, elapsed = step + 1, time.monotonic() - started
        progress = max(step / args.steps, elapsed / (60 * args.minutes))
        if step % 20 == 0:
            speed = step * args.batch * CONTEXT / elapsed
            where = f"step {step} {progress:.1%} epoch {batches.epoch}"
            print(f"{where} loss {loss.item():.3f} {speed:.0f} tokens/s", flush=True)
        if progress >= 1 or elapsed > publish_at:
            publish_at = elapsed + 60 * args.save_minutes
            report = publish(
                args.out, model, tokenizer, tokens, held_out, [*before, history(args, step, batches, elapsed)]
            )
            print(json.dumps(report, indent=2), flush=True)


def beginning(args: argparse.Namespace, texts: list[str]) -> tuple[PreTrainedTokenizerFast, Any, list[Any]]:
    """Tokenizer, model and the record of earlier runs: those of a folder, or new ones."""
    if args.continue_from:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(args.continue_from)
        model = LlamaForCausalLM.from_pretrained(args.continue_from, dtype=torch.float32).train()
        return tokenizer, model, json.loads((args.continue_from / "training.json").read_text())["runs"]
    tokenizer = train_tokenizer(texts, args.vocab_size)
    return tokenizer, make_model(len(tokenizer), tokenizer.bos_token_id), []


def history(args: argparse.Namespace, step: int, batches: Batches, seconds: float) -> dict[str, float]:
    """What this run has shown the model."""
    seen = step * args.batch * CONTEXT
    return {
        "seed": args.seed,
        "steps": step,
        "tokens": seen,
        "epochs": batches.epoch,
        "minutes": round(seconds / 60, 1),
        "lr": args.lr,
        "muon_lr": args.muon_lr,
    }


def main() -> None:
    """Reads the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=BUILTIN)
    parser.add_argument("--steps", type=int, default=3000, help="budget in steps")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="budget in wall time; the first to run out counts"
    )
    parser.add_argument(
        "--save-minutes", type=float, default=15, help="between two intermediate models; the first after 3"
    )
    parser.add_argument(
        "--continue-from", type=Path, help="a published directory whose tokenizer and model to start from"
    )
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=8, help="contexts of a step")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--muon-lr", type=float, default=5e-3, help="0: AdamW for every parameter")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
