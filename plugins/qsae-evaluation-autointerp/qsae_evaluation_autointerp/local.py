"""The judge ``hf``: a causal language model of Hugging Face on this machine. Shapes: B rows, T positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsae_evaluation_autointerp import prompts
from qsae_evaluation_autointerp.judge import Example, Judge, JudgeError, Window

YES, NO = "Yes", "No"
LINE = 48
"""Tokens of an explanation at most."""
AT_ONCE = 8
"""Texts that go through the model together."""


class LocalJudge(Judge):
    """Goes on with the examples for an explanation; for a window compares how likely ``Yes`` and ``No`` are.

    ``P(fires) = p(Yes) / (p(Yes) + p(No))``, so that nothing has to be parsed and windows can be ranked.
    A model with a chat template is asked in it.

    Args:
        name: a folder, or a name that transformers knows.

    Raises:
        JudgeError: if transformers is not installed, or there is no such model.
    """

    graded = True

    def __init__(self, name: str, device: str) -> None:
        self.name, self.device = name, device
        self.tokenizer, self.model = _loaded(name, device)

    @torch.no_grad()
    def explain(self, examples: Sequence[Example]) -> str:
        """The first line of what it says; empty where it says nothing."""
        ids = self._ids(prompts.explain(examples), "Explanation:")
        self._check_length(len(ids) + LINE)
        row = torch.tensor([ids], device=self.device)
        stop = self.tokenizer.eos_token_id
        found = self.model.generate(
            row,
            attention_mask=torch.ones_like(row),
            max_new_tokens=LINE,
            do_sample=False,
            pad_token_id=0 if stop is None else stop,
        )
        text = self.tokenizer.decode(found[0, len(ids) :], skip_special_tokens=True)
        return next((line.strip() for line in text.split("\n") if line.strip()), "")

    @torch.no_grad()
    def detect(self, explanation: str, windows: Sequence[Window]) -> list[float | None]:
        """The probability of ``Yes`` against ``No`` for each."""
        asked = [self._ids(prompts.detect_one(explanation, w), "Answer:") for w in windows]
        labelled = [self._labelled(ids, label) for ids in asked for label in (YES, NO)]
        log_p = torch.cat([self._log_p(labelled[i : i + AT_ONCE]) for i in range(0, len(labelled), AT_ONCE)])
        return [float(p) for p in (log_p[0::2] - log_p[1::2]).sigmoid()]

    def _ids(self, prompt: prompts.Prompt, lead: str) -> list[int]:
        """The tokens of a question, up to where the answer begins."""
        if self.tokenizer.chat_template:
            messages = [{"role": "user", "content": f"{prompt.system}\n\n{prompt.user}"}]
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return list(self.tokenizer(f"{prompt.system}\n\n{prompt.user}\n\n{lead}")["input_ids"])

    def _labelled(self, ids: list[int], label: str) -> _Labelled:
        space = "" if self.tokenizer.chat_template else " "
        found = self.tokenizer(f"{space}{label}", add_special_tokens=False)["input_ids"]
        self._check_length(len(ids) + len(found))
        return _Labelled(ids + found, len(ids))

    def _log_p(self, rows: Sequence[_Labelled]) -> Tensor:
        """float64 ``[B]``: log probability of each label behind its question."""
        longest = max(len(row.ids) for row in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.int64)
        real = torch.zeros_like(ids)
        for b, row in enumerate(rows):
            ids[b, : len(row.ids)], real[b, : len(row.ids)] = torch.tensor(row.ids), 1
        # what stands behind the last real position is seen by none before it
        logits = self.model(input_ids=ids.to(self.device), attention_mask=real.to(self.device)).logits
        found = []
        for b, row in enumerate(rows):
            at = torch.arange(row.start, len(row.ids))
            log_p_TV = logits[b, at - 1].double().log_softmax(1).cpu()
            found.append(log_p_TV[torch.arange(len(at)), ids[b, at]].sum())
        return torch.stack(found)

    def _check_length(self, n: int) -> None:
        most = getattr(self.model.config, "max_position_embeddings", None)
        if most is not None and n > most:
            raise JudgeError(
                f"a question takes {n} tokens, and the judge has {most} positions",
                where=self.name,
                allowed="a model with more positions, or shorter questions",
                next="set top and ranks, or before and after, to less",
            )


class _Labelled(NamedTuple):
    """A question with an answer behind it."""

    ids: list[int]
    start: int
    """Where the answer begins."""


def _loaded(name: str, device: str) -> tuple[Any, Any]:
    """The tokenizer, and the model in evaluation mode; float32 on a CPU, where few compute in less."""
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise JudgeError(
            "the judge hf needs transformers, which is not installed",
            where="evaluate: autointerp: judge",
            next="pip install 'qsae-evaluation-autointerp[hf]'",
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        dtype = torch.float32 if device == "cpu" else "auto"
        model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    except (OSError, ValueError) as error:
        raise JudgeError(
            f"there is no causal language model {name!r} ({' '.join(str(error).split())[:200]})",
            where="evaluate: autointerp: model",
            allowed="a folder with a model and its tokenizer, or a name that is cached or can be loaded",
            next="check the name",
        ) from error
    return tokenizer, model.to(device).eval()
