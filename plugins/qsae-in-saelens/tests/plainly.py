"""What ``core`` measures, by transformers' own model and qsae alone, on the tokens that ``core`` got."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import sae_bench.evals.core.main as core
import torch
from bench import MODEL, SPLICED, Metrics
from torch import Tensor
from transformers import AutoModelForCausalLM

from qsae_core.coders import MatrixCoder


class Kept:
    """The tokens that ``core`` was given, in order, and which tokens are special."""

    def __init__(self) -> None:
        self.batches: list[Tensor] = []
        self.special: set[int] = set()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Keep those of the block."""
        own = core.ActivationsStore.get_batch_tokens

        def get_batch_tokens(store: Any, *arguments: Any) -> Tensor:
            tokens: Tensor = own(store, *arguments)
            self.batches.append(tokens)
            words = store.model.tokenizer
            self.special = {words.pad_token_id, words.eos_token_id, words.bos_token_id}
            return tokens

        core.ActivationsStore.get_batch_tokens = get_batch_tokens
        try:
            yield
        finally:
            core.ActivationsStore.get_batch_tokens = own

    def is_plain(self, tokens: Tensor) -> Tensor:
        """Where they are not special."""
        return ~torch.isin(tokens, torch.tensor(sorted(self.special)))


class Plainly:
    """The same by transformers' own model, with the coder as ``qsae_core.load`` gives it."""

    def __init__(self, coder: MatrixCoder, hook_name: str, kept: Kept) -> None:
        self.coder, self.kept = coder, kept
        self.model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
        match = re.fullmatch(r"blocks\.(\d+)\.hook_resid_post", hook_name)
        assert match is not None
        self.layer = self.model.model.layers[int(match[1])]

    def losses(self, put: Any) -> Tensor:
        """Of the tokens behind those that are not special, with ``put(x, tokens)`` in the place of x."""
        found = []
        for tokens in self.kept.batches[:SPLICED]:
            with self.hooked(lambda x, at=tokens: put(x, at)):
                logits = self.model(tokens).logits[:, :-1]
            each = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
            )
            found.append(each[self.kept.is_plain(tokens)[:, :-1].flatten()])
        return torch.cat(found)

    @torch.no_grad()
    def vectors(self) -> Tensor:
        """``[tokens, D]``, of tokens that are not special."""
        found: list[Tensor] = []
        for tokens in self.kept.batches[SPLICED:]:
            plain = self.kept.is_plain(tokens)
            with self.hooked(lambda x, at=plain: found.append(x[at]) or x):
                self.model(tokens)
        return torch.cat(found)

    @contextlib.contextmanager
    def hooked(self, put: Any) -> Iterator[None]:
        def hook(_module: Any, _given: Any, output: Any) -> Any:
            return (put(output[0]), *output[1:]) if isinstance(output, tuple) else put(output)

        handle = self.layer.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    @torch.no_grad()
    def numbers(self, x: Tensor) -> Metrics:
        """Those of ``core`` whose definition leaves no choice; ``x`` as ``vectors()`` gives them."""

        def decoded(x: Tensor, tokens: Tensor) -> Tensor:
            plain = self.kept.is_plain(tokens)[..., None]
            return torch.where(plain, self.coder(x.flatten(0, -2)).view_as(x), x)

        losses = {
            "without_sae": self.losses(lambda x, _: x),
            "with_sae": self.losses(decoded),
            "with_ablation": self.losses(lambda x, _: torch.zeros_like(x)),
        }
        codes = self.coder.encode(x)
        out, latents = self.coder.decode(codes), codes.to_dense()
        values = {f"model_performance_preservation.ce_loss_{k}": v.mean().item() for k, v in losses.items()}
        return values | {
            "sparsity.l0": (latents != 0).sum(1).double().mean().item(),
            "reconstruction_quality.cossim": torch.cosine_similarity(x, out).mean().item(),
            "shrinkage.l2_norm_in": x.norm(dim=1).mean().item(),
            "shrinkage.l2_ratio": (out.norm(dim=1) / x.norm(dim=1)).mean().item(),
            "misc_metrics.frac_alive": (latents > 0).any(0).double().mean().item(),
        }
