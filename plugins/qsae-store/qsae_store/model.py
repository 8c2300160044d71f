"""The language model that a store was harvested from, opened when it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor

from qsae_core.contracts import Edits, LanguageModel, Site, TokenBatch
from qsae_core.errors import DataError
from qsae_store.manifest import Manifest


class StoredModel(LanguageModel):
    """The model behind a store's vectors.

    Args:
        manifest: of the store.
        path: where the model is now; None: where it was.
        device: where it runs.
        place: the store, for errors.
    """

    def __init__(self, manifest: Manifest, path: str | None, device: str, place: str) -> None:
        self._manifest, self._path, self._device, self._place = manifest, path, device, place
        self.name = str(manifest.model["name"])

    @cached_property
    def _model(self) -> LanguageModel:
        from qsae_core.runs import load_plugins, read_block

        registry, source = load_plugins().registry, dict(self._manifest.plan.source)
        if self._path is not None:
            source["model"] = self._path
        block = read_block("data", source, registry, self._place)
        kind = registry.load_target(registry.get("data", block.use))
        model: LanguageModel | None = kind.language_model_of(block.options, device=self._device)
        if model is None or model.fingerprint() != self._manifest.model["fingerprint"]:
            raise DataError(
                f"the language model at {source.get('model')!r} is not the one that was harvested from",
                where=self._place,
                allowed="the same weights",
                next="--model-path PLACE, where it is now",
            )
        return model

    def read(self, batch: TokenBatch, sites: Sequence[Site]) -> dict[Site, Tensor]:
        """As the model."""
        return self._model.read(batch, sites)

    def logits(self, batch: TokenBatch, edits: Edits | None = None) -> Tensor:
        """As the model."""
        return self._model.logits(batch, edits)

    def logits_each(self, batch: TokenBatch, several: Sequence[Edits | None]) -> Iterator[Tensor]:
        """As the model."""
        return self._model.logits_each(batch, several)

    def extend(self, ids: Tensor, cache: Any, edits: Edits) -> tuple[Tensor, Any]:
        """As the model."""
        return self._model.extend(ids, cache, edits)

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """As the model."""
        return self._model.decode(ids)

    def partial_bytes(self, token: int) -> bytes | None:
        """As the model."""
        return self._model.partial_bytes(token)

    def encode(self, text: str) -> list[int]:
        """As the model."""
        return self._model.encode(text)

    @property
    def begin_id(self) -> int | None:
        """As the model."""
        return self._model.begin_id

    @property
    def max_positions(self) -> int | None:
        """As the model."""
        return self._model.max_positions

    @property
    def special_ids(self) -> frozenset[int]:
        """As the model."""
        return self._model.special_ids

    def fingerprint(self) -> str | None:
        """What the store says."""
        found: str | None = self._manifest.model["fingerprint"]
        return found

    @property
    def predicts_next(self) -> bool:
        """What the store says."""
        return bool(self._manifest.model["predicts_next"])

    @property
    def has_logits(self) -> bool:
        """What the store says."""
        return bool(self._manifest.model["has_logits"])
