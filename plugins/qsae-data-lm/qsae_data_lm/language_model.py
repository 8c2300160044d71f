"""A Hugging Face language model behind the contract `LanguageModel`.

B contexts, T positions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from qsae_core.contracts import Edit, LanguageModel, TokenBatch
from qsae_core.errors import DataError
from qsae_data_lm.families import Layout
from qsae_data_lm.hooks import Site, find_layers, read_sites, spliced


class HfLanguageModel(LanguageModel):
    """Reads and replaces vectors at sites of a transformers model, in evaluation mode, weights frozen.

    Args:
        model: a causal LM, or an encoder with its masked-LM head.
        layout: its layers and sites.
        name: short name for paths and tables.
        has_head: whether the weights of the head are the model's own; else it has sites and no logits.
    """

    def __init__(self, model: Any, layout: Layout, name: str, *, has_head: bool = True) -> None:
        self.model = model.eval().requires_grad_(False)
        self._has_head = has_head
        self.layout, self.name = layout, name
        self._layers = find_layers(model, layout.family)

    @property
    def predicts_next(self) -> bool:
        """Whether position t predicts token t + 1."""
        return self.layout.family.causal

    @property
    def has_logits(self) -> bool:
        """Whether the weights of its head were saved with it."""
        return self._has_head

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
        return {site: vector.float() for site, vector in found.items()}

    def logits(self, batch: TokenBatch, edits: Mapping[Site, Edit] | None = None) -> Tensor:
        """Logits [B, T, V] in float32, with the vectors at the sites replaced.

        Gradients flow through the edits (not into the model's weights) where the caller leaves them on.

        Raises:
            DataError: if the model has no such layer or site, or was saved without its head.
        """
        if not self.has_logits:
            raise DataError(
                f"{self.name} was saved without its head, so it gives no logits",
                where="data.model",
                allowed="reading its sites, which need no head",
                next="save it with its head, from AutoModelForCausalLM",
            )
        edits = edits or {}
        for layer, site in edits:
            self.layout.check(layer, site)
        with spliced(self._layers, self.layout.family, edits, n_contexts=len(batch.ids)):
            return self.model(**self._inputs(batch)).logits.float()

    def _inputs(self, batch: TokenBatch) -> dict[str, Any]:
        device = self.model.device
        inputs: dict[str, Any] = {"input_ids": batch.ids.to(device)}
        if not bool(batch.attention.all()):  # without padding no mask is needed, and attention is faster
            inputs["attention_mask"] = batch.attention.to(device).long()
        if self.predicts_next:
            inputs["use_cache"] = False
        return inputs
