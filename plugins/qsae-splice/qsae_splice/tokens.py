"""Tokens of a language model: a prompt as the contexts that coders see, and which tokens are special."""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from qsae_core.contracts import LanguageModel, TokenBatch
from qsae_core.errors import DataError
from qsae_splice.passes import not_special


class Tokens:
    """A tokenizer of transformers.

    A prompt begins with BOS, where there is one, as the contexts that coders of language models see. Special
    are all tokens that the tokenizer calls so, except the one for what it does not know.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.text_of = cache(self._text)

    @cached_property
    def special(self) -> frozenset[int]:
        """Tokens that are never edited."""
        known = {self._tokenizer.bos_token_id, self._tokenizer.eos_token_id}
        found = (set(self._tokenizer.all_special_ids) - {self._tokenizer.unk_token_id}) | (known - {None})
        return frozenset(int(token) for token in found)

    def read(self, text: str) -> TokenBatch:
        """One context, which begins with BOS where the tokenizer has one.

        Raises:
            DataError: if there are no tokens in the text.
        """
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        if not ids:
            raise DataError("the prompt has no tokens", where="--prompt", allowed="a text")
        bos = self._tokenizer.bos_token_id
        ids_1T = torch.tensor([ids if bos is None else [bos, *ids]])
        return self.batch(ids_1T)

    def batch(self, ids_BT: Tensor) -> TokenBatch:
        """Contexts without padding."""
        real = torch.ones_like(ids_BT, dtype=torch.bool)
        return TokenBatch(ids_BT, not_special(ids_BT, self.special), real)

    def text(self, ids: Tensor) -> str:
        """The text of tokens, special ones left out."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _text(self, token: int) -> str:
        return str(self._tokenizer.decode([token], clean_up_tokenization_spaces=False))


def tokens_of(model: object, place: str | None = None) -> Tokens:
    """The tokens of a model of transformers, or of a language model that holds one as ``model``.

    Args:
        place: folder or Hugging Face id of the tokenizer; None: the model's own ``tokenizer``, or the one
            where the model was loaded from.

    Raises:
        DataError: if it is not known where the tokenizer is, or it cannot be loaded.
    """
    if place is None and (held := getattr(model, "tokenizer", None)) is not None:
        return Tokens(held)
    import transformers

    inner = getattr(model, "model", None) if isinstance(model, LanguageModel) else model
    found = place or getattr(getattr(inner, "config", None), "name_or_path", None)
    name = getattr(model, "name", type(model).__name__)
    if not found:
        raise _unknown(name, "it does not say where it was loaded from")
    revision = None if place else getattr(model, "revision", None)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            found, revision=revision or "main", trust_remote_code=False
        )
    except Exception as error:  # what the library raises on faulty files is of any kind
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise _unknown(name, f"there is none at {found}: {reason}") from error
    return Tokens(tokenizer)


def _unknown(name: str, why: str) -> DataError:
    return DataError(
        f"the tokenizer of {name} is not known: {why}",
        allowed="a model that was loaded from where its tokenizer lies too",
        next="--tokenizer PLACE; in Python special=TOKENS (numbers, none: ()), which are never edited",
    )
