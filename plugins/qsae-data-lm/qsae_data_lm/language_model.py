"""A Hugging Face language model behind the contract `LanguageModel`.

B contexts, T positions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from qsae_core.contracts import Edits, LanguageModel, Site, TokenBatch
from qsae_core.errors import DataError
from qsae_data_lm.byte_tokens import spelled_bytes
from qsae_data_lm.families import Layout
from qsae_data_lm.fingerprints import of_model
from qsae_data_lm.hooks import check_edits, find_layers, read_sites, spliced
from qsae_data_lm.kept_layers import KeptLayers
from qsae_data_lm.segments import check_segments, not_apart, positions_in_segments
from qsae_data_lm.tokens import max_positions


class HfLanguageModel(LanguageModel):
    """Reads and replaces vectors at sites of a transformers model, in evaluation mode, weights frozen.

    Args:
        model: a causal LM, or an encoder with its masked-LM head.
        layout: its layers and sites.
        name: short name for paths and tables.
        has_head: whether the weights of the head are the model's own; else it has sites and no logits.
        tokenizer: of transformers, for text.
        revision: the commit on the hub; None for local files.
    """

    def __init__(
        self,
        model: Any,
        layout: Layout,
        name: str,
        *,
        has_head: bool = True,
        tokenizer: Any = None,
        revision: str | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self._has_head, self.tokenizer = has_head, tokenizer
        self.layout, self.name, self.revision = layout, name, revision
        self._layers = find_layers(model, layout.family)
        # newer versions of transformers have a new name for it
        self._cache = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"

    @property
    def predicts_next(self) -> bool:
        """Whether position t predicts token t + 1."""
        return self.layout.family.causal

    @property
    def max_positions(self) -> int | None:
        """As its configuration says."""
        return max_positions(self.model.config, self.layout)

    @property
    def has_logits(self) -> bool:
        """Whether the weights of its head were saved with it."""
        return self._has_head

    def fingerprint(self) -> str:
        """A hash of a few entries of each parameter."""
        return of_model(self.model)

    @torch.no_grad()
    def read(self, batch: TokenBatch, sites: Sequence[Site]) -> dict[Site, Tensor]:
        """Vectors [B, T, D] in float32; nothing behind the last of the sites is computed.

        Raises:
            DataError: if the model has no such layer or site.
        """
        for layer, site in sites:
            self.layout.check(layer, site)
        inputs = self._inputs(batch)
        n_contexts = len(batch.ids)
        found = read_sites(
            self._layers, self.layout.family, sites, lambda: self.model(**inputs), n_contexts=n_contexts
        )
        return {site: vector.to(self.model.device, torch.float32) for site, vector in found.items()}

    def logits(self, batch: TokenBatch, edits: Edits | None = None) -> Tensor:
        """Logits [B, T, V] in float32, with the vectors at the sites replaced.

        Gradients flow through the edits (not into the model's weights) where the caller leaves them on.

        Raises:
            DataError: if the model has no such layer or site, or was saved without its head.
            ConfigError: if an edit reads a site that is not computed before its own.
        """
        self._check_head()
        check_edits(self.layout, edits or {})
        return self._logits(batch, edits or {}, nullcontext())

    def logits_each(self, batch: TokenBatch, several: Sequence[Edits | None]) -> Iterator[Tensor]:
        """`logits` under each of several sets of edits, bit for bit; layers before the first site that is
        edited or read in a pass are computed once.

        Raises:
            DataError, ConfigError: as `logits`, before the first pass.
        """
        self._check_head()
        each = [edits or {} for edits in several]
        for edits in each:
            check_edits(self.layout, edits)
        kept = KeptLayers(self._layers, self.layout.family, each)
        for number, edits in enumerate(each):
            yield self._logits(batch, edits, kept.in_pass(number))

    @torch.no_grad()
    def extend(self, ids: Tensor, cache: Any, edits: Edits) -> tuple[Tensor, Any]:
        """Logits [B, V] of the last of the new positions, and the cache of keys and values behind it.

        Raises:
            DataError: if the model has no such layer or site, takes fewer positions, or has no head.
            ConfigError: as `logits`.
        """
        self._check_head()
        check_edits(self.layout, edits)
        limit = self.max_positions
        behind = ids.shape[1] + (0 if cache is None else cache.get_seq_length())
        if limit is not None and behind > limit:
            raise DataError(
                f"{self.name} takes at most {limit} positions, not {behind}",
                allowed="a shorter prompt, or fewer tokens",
            )
        inputs = {"input_ids": ids.to(self.model.device), self._cache: cache, "use_cache": True}
        with self._spliced(edits, len(ids)):
            found = self.model(**inputs, logits_to_keep=1)
        return found.logits[:, -1].float(), getattr(found, self._cache)

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """The text of one context's tokens, special ones included, with no space taken out of it.

        Raises:
            DataError: if the model was built without its tokenizer.
        """
        if self.tokenizer is None:
            return super().decode(ids)
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def partial_bytes(self, token: int) -> bytes | None:
        """As a vocabulary of bytes spells them; None for a model that was built without its tokenizer."""
        if self.tokenizer is None:
            return super().partial_bytes(token)
        return spelled_bytes(self.tokenizer.convert_ids_to_tokens(token), self.decode([token]))

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without special ones around it.

        Raises:
            DataError: if the model was built without its tokenizer.
        """
        if self.tokenizer is None:
            return super().encode(text)
        # verbose: a text may be longer than a context; who reads it cuts it
        ids = self.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return [int(token) for token in ids]

    @property
    def begin_id(self) -> int | None:
        """The tokenizer's BOS; DataError as `encode`."""
        if self.tokenizer is None:
            return super().begin_id
        found: int | None = self.tokenizer.bos_token_id
        return found

    @property
    def special_ids(self) -> frozenset[int]:
        """All that the tokenizer calls special, but for the unknown token; DataError as `encode`."""
        if self.tokenizer is None:
            return super().special_ids
        known = {self.tokenizer.bos_token_id, self.tokenizer.eos_token_id} - {None}
        named = set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}
        return frozenset(int(token) for token in named | known)

    def check_segments(self, context: int) -> None:
        """Raises DataError if the segments of a context of so many positions would see each other."""
        last = Site(self.layout.n_layers - 1, "resid_post")
        check_segments(self, last, self.model.config.get_text_config().vocab_size, context)

    def _check_head(self) -> None:
        if not self.has_logits:
            raise DataError(
                f"{self.name} was saved without its head, so it gives no logits",
                where="data.model",
                allowed="reading its sites, which need no head",
                next="save it with its head, from AutoModelForCausalLM",
            )

    def _logits(self, batch: TokenBatch, edits: Edits, kept: AbstractContextManager[None]) -> Tensor:
        with kept, self._spliced(edits, len(batch.ids)):
            return self.model(**self._inputs(batch)).logits.float()

    def _spliced(self, edits: Edits, n_contexts: int) -> AbstractContextManager[None]:
        return spliced(self._layers, self.layout.family, edits, self.model.device, n_contexts=n_contexts)

    def _inputs(self, batch: TokenBatch) -> dict[str, Any]:
        device = self.model.device
        inputs: dict[str, Any] = {"input_ids": batch.ids.to(device)}
        if not bool(batch.attention.all()):  # without padding no mask is needed, and attention is faster
            inputs["attention_mask"] = batch.attention.to(device).long()
        if batch.segments is not None:
            if not self.predicts_next:
                raise not_apart(self.name, "an encoder reads in both directions")
            # transformers keeps apart what positions that begin anew divide, where no mask is given
            inputs["position_ids"] = positions_in_segments(batch.segments, batch.attention).to(device)
            inputs.pop("attention_mask", None)
        if self.predicts_next:
            inputs["use_cache"] = False
        return inputs
