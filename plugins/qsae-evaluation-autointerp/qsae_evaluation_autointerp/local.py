"""The judge ``hf``: a causal language model of Hugging Face on this machine. Shapes: B rows, T positions."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
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
        # logits of all positions are more than the rest of the pass together, where the vocabulary is large
        self._keeps_some = "logits_to_keep" in signature(self.model.forward).parameters
        space = "" if self.tokenizer.chat_template else " "
        labels = (f"{space}{label}" for label in (YES, NO))
        self.labels = [self.tokenizer(label, add_special_tokens=False)["input_ids"] for label in labels]

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
        rows = [_Row((*ids, *label[:-1]), len(ids)) for ids in asked for label in self.labels]
        log_p = self._log_p(list(dict.fromkeys(rows)))  # labels of one token have the row in common
        found: list[float | None] = []
        for ids in asked:
            yes, no = (
                log_p[_Row((*ids, *label[:-1]), len(ids))][range(len(label)), label].sum()
                for label in self.labels
            )
            found.append(float((yes - no).sigmoid()))
        return found

    def _ids(self, prompt: prompts.Prompt, lead: str) -> list[int]:
        """The tokens of a question, up to where the answer begins."""
        if self.tokenizer.chat_template:
            messages = [{"role": "user", "content": f"{prompt.system}\n\n{prompt.user}"}]
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return list(self.tokenizer(f"{prompt.system}\n\n{prompt.user}\n\n{lead}")["input_ids"])

    def _log_p(self, rows: Sequence[_Row]) -> dict[_Row, Tensor]:
        """float64 ``[T, V]`` of each row: log probabilities of the next token, from the question's last one
        on."""
        found = {}
        for some in (rows[i : i + AT_ONCE] for i in range(0, len(rows), AT_ONCE)):
            longest = max(len(row.ids) for row in some)
            self._check_length(longest)
            ids = torch.zeros(len(some), longest, dtype=torch.int64)
            real = torch.zeros_like(ids)
            for b, row in enumerate(some):
                ids[b, : len(row.ids)], real[b, : len(row.ids)] = torch.tensor(row.ids), 1
            wanted = torch.tensor(sorted({at for row in some for at in row.behind_question()}))
            logits_BPV = self._logits(ids, real, wanted)
            for b, row in enumerate(some):
                mine = torch.isin(wanted, torch.tensor(row.behind_question()))
                found[row] = logits_BPV[b, mine].double().log_softmax(1).cpu()
        return found

    def _logits(self, ids_BT: Tensor, real_BT: Tensor, wanted_P: Tensor) -> Tensor:
        """``[B, P, V]`` at the wanted positions. What stands behind the last real one of a row is seen by
        none before it."""
        inputs = {"input_ids": ids_BT.to(self.device), "attention_mask": real_BT.to(self.device)}
        wanted = wanted_P.to(self.device)
        if self._keeps_some:
            return self.model(**inputs, logits_to_keep=wanted).logits
        return self.model(**inputs).logits[:, wanted]

    def _check_length(self, n: int) -> None:
        most = getattr(self.model.config, "max_position_embeddings", None)
        if most is not None and n > most:
            raise JudgeError(
                f"a question takes {n} tokens, and the judge has {most} positions",
                where=self.name,
                allowed="a model with more positions, or shorter questions",
                next="set top and ranks, or before and after, to less",
            )


class _Row(NamedTuple):
    """A question, and of an answer all but its last token."""

    ids: tuple[int, ...]
    start: int
    """Where the answer begins."""

    def behind_question(self) -> list[int]:
        """The positions that predict a token of the answer."""
        return list(range(self.start - 1, len(self.ids)))


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
