"""From documents to tokens: the tokenizer, the form of a context, and which positions count.

B contexts, T positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch

from qsae_core.contracts import TokenBatch
from qsae_core.errors import DataError
from qsae_data_lm.chat_tokens import Encoded, encode_spans
from qsae_data_lm.corpus import Document
from qsae_data_lm.documents import PLAIN, Form, Numbered
from qsae_data_lm.families import Layout
from qsae_data_lm.packing import COUNTED, Contexts, Entry, Frame

_AT_ONCE = 32


class TextTokenizer:
    """Tokenizes documents without special tokens and knows the special ones that a context needs.

    A causal model's contexts begin with BOS and its documents are separated by EOS (BOS where there is
    none), by BOS, or by what they hold themselves; an encoder's begin with CLS, end with SEP, and its
    documents are separated by SEP. Tokens that the tokenizer does not have are left out.

    Args:
        tokenizer: of transformers.
        context: positions of a context.
        causal: whether it belongs to a causal model.
        keep: keep the tokens of each document that was seen, by its key.
        form: how documents become tokens; those of an encoder are separated by SEP in any case.
        apart: whether documents are read as if each were alone: they begin with BOS then, and contexts have
            segments.
    """

    def __init__(
        self,
        tokenizer: Any,
        context: int,
        *,
        causal: bool,
        keep: bool,
        form: Form = PLAIN,
        apart: bool = False,
    ) -> None:
        self._tokenizer, self._spell_special, self._apart = tokenizer, form.spell_special, apart
        self._kept: dict[str, Encoded] | None = {} if keep else None
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        if causal:
            between = {"end": bos if eos is None else eos, "begin": bos, "nothing": None}
            self.frame = Frame(context, first=bos, separator=between["begin" if apart else form.joined_by])
        else:
            sep = tokenizer.sep_token_id
            self.frame = Frame(context, first=tokenizer.cls_token_id, last=sep, separator=sep)
        special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        special.update(t for t in (self.frame.first, self.frame.last, self.frame.separator) if t is not None)
        self.special_ids: list[int] = sorted(special)
        if tokenizer.is_fast:
            # tokenizer.json keeps both from the last call before it was saved
            tokenizer.backend_tokenizer.no_truncation()
            tokenizer.backend_tokenizer.no_padding()

    def highest_id(self) -> int:
        """The largest id that a context may hold: of the vocabulary, or a special token of the frame or that
        a document may spell."""
        if not self._tokenizer.is_fast:
            return max(self._tokenizer.get_vocab().values(), default=0)
        backend = self._tokenizer.backend_tokenizer
        found = set(backend.get_vocab(with_added_tokens=False).values())
        found |= {
            i
            for i, token in backend.get_added_tokens_decoder().items()
            if self._spell_special or not token.special
        }
        framing = (self.frame.first, self.frame.last, self.frame.separator)
        return max(found | {token for token in framing if token is not None}, default=0)

    def special_names(self) -> list[str]:
        """The special tokens that are excluded, as the tokenizer writes them."""
        return [str(name) for name in self._tokenizer.convert_ids_to_tokens(self.special_ids)]

    def token(self, token_id: int) -> str:
        """The text of one token, for messages."""
        return str(self._tokenizer.decode([token_id]))

    def stream(self, documents: Iterable[Numbered]) -> Iterator[Entry]:
        """The tokens of each document that has any; a few documents are tokenized at a time."""
        documents = iter(documents)
        while group := list(islice(documents, _AT_ONCE)):
            known = {} if self._kept is None else self._kept
            new = {d.key: d for _, _, d in group if d.key not in known}
            known.update(zip(new, self._encode(list(new.values())), strict=True))
            for behind, number, document in group:
                tokens, counted = known[document.key]
                if len(tokens):
                    yield Entry(behind, number, tokens, counted)

    def _encode(self, documents: list[Document]) -> list[Encoded]:
        if not documents:
            return []
        texts = [document.text for document in documents]
        if self._spell_special:
            return encode_spans(self._tokenizer, [(d.text, d.spans or ()) for d in documents])
        if self._tokenizer.is_fast:
            backend = self._tokenizer.backend_tokenizer
            backend.encode_special_tokens = True  # the text of a special token in a document is text
            found = backend.encode_batch_fast(texts, add_special_tokens=False)
            return [(np.array(encoding.ids, dtype=np.int32), None) for encoding in found]
        ids = self._tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return [(np.array(part, dtype=np.int32), None) for part in ids]

    def batch(self, contexts: Contexts) -> TokenBatch:
        """Full contexts as the language model takes them; special positions are not counted."""
        ids = torch.from_numpy(contexts.ids.astype(np.int64))
        counted = torch.from_numpy(contexts.kinds == COUNTED) & ~torch.isin(
            ids, torch.tensor(self.special_ids)
        )
        segments = torch.from_numpy(contexts.segments) if self._apart else None
        documents = torch.from_numpy(contexts.documents)
        return TokenBatch(ids, counted, torch.ones_like(counted), documents, segments)


def check_context(context: int, config: Any, tokenizer: Any, layout: Layout) -> None:
    """Raises DataError if the model cannot take contexts of that length."""
    limit = min(max_positions(config, layout) or context, tokenizer.model_max_length or context)
    if context > limit:
        raise DataError(
            f"{layout.model} takes at most {limit} positions, not {context}",
            where="data.context",
            allowed=f"8 to {limit}",
        )


def max_positions(config: Any, layout: Layout) -> int | None:
    """How many positions a context can have; None where the config does not say."""
    config = config.get_text_config()
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is not None and layout.family.positions_behind_padding:
        return positions - (config.pad_token_id + 1)
    return positions


def check_vocabulary(tokens: TextTokenizer, config: Any, model: str) -> None:
    """Raises DataError if text can give tokens that the model has no embedding for."""
    rows, highest = config.get_text_config().vocab_size, tokens.highest_id()
    if highest >= rows:
        raise DataError(
            f"the tokenizer of {model!r} gives ids up to {highest}, but the model embeds {rows} tokens, "
            f"ids 0 to {rows - 1}",
            where="data.model",
            allowed="the tokenizer that the model was trained with",
            next="copy its files (tokenizer.json, tokenizer_config.json) beside the model's config.json",
        )
