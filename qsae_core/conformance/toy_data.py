"""A small data source in memory, for checks of coders. Shapes: B tokens, L layers, D width."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from qsae_core.component import ComponentConfig
from qsae_core.conformance.toy_model import ToyLanguageModel
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.data import Batch, DataSource
from qsae_core.contracts.language_model import LanguageModel, Site, TokenBatch

TEXT = 64
"""Contexts of a side that ``contexts`` gives."""


class ToyConfig(ComponentConfig):
    """No options."""


class ToyData(DataSource):
    """Sparse sums of 24 random directions, with a mean and one large dimension, as real hidden states have.

    Args:
        shape: widths and layers; where it is that of an SAE, ``y`` is ``x``.
        seed: of the stream.
        model: the language model to show, or None; vectors are then the model's own.
        source: the site of ``x``, where there is a model; that of ``y`` is its last one.
    """

    model_name, layer = "toy", "0"

    def __init__(
        self,
        shape: CoderShape,
        *,
        seed: int = 0,
        model: ToyLanguageModel | None = None,
        source: Site = ToyLanguageModel.SITE,
    ) -> None:
        super().__init__(ToyConfig(), seed=seed)
        self.shape, self.model, self.source, self._taken = shape, model, source, 0
        self.d_in, self.d_out = shape.d_in, shape.d_out
        self.layers_in, self.layers_out = shape.layers_in, shape.layers_out

    def next_batch(self, size: int) -> Batch:
        """Fresh vectors, determined by the seed and how many batches were taken."""
        self._taken += 1
        return self._draw(size, 1000 * self.seed + self._taken)

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        """The same vectors however they are cut."""
        whole = self._draw(n_tokens, -1)
        for start in range(0, n_tokens, batch_size):
            yield whole.rows(slice(start, start + batch_size))

    def state_dict(self) -> dict[str, Any]:
        """How many batches were taken."""
        return {"taken": self._taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after so many batches."""
        self._taken = int(state["taken"])

    def language_model(self) -> LanguageModel | None:
        """The toy model, if there is one."""
        return self.model

    def held_out_contexts(self, n_tokens: int, batch_size: int) -> Iterator[tuple[TokenBatch, Batch]]:
        """Contexts of two documents each, and the model's vectors at their counted positions."""
        if self.model is None:
            yield from super().held_out_contexts(n_tokens, batch_size)
            return
        at_once = max(1, batch_size // self.model.context)
        contexts = -(-n_tokens // (self.model.context - 1))
        whole = self.model.contexts(contexts, seed=-1)
        for start in range(0, contexts, at_once):
            tokens = whole.rows(slice(start, start + at_once))
            yield tokens, self._read(tokens)

    def contexts(
        self, n_contexts: int, place: Mapping[str, Any] | None = None, *, held_out: bool = False
    ) -> Iterator[tuple[TokenBatch, dict[str, Any]]]:
        """``TEXT`` contexts a side."""
        if self.model is None:
            yield from super().contexts(n_contexts, place, held_out=held_out)
            return
        whole = self.model.contexts(TEXT, seed=-1 if held_out else 1000 * self.seed)
        for start in range(int((place or {"behind": 0})["behind"]), TEXT, n_contexts):
            tokens = whole.rows(slice(start, start + n_contexts))
            yield tokens, {"behind": start + len(tokens.ids)}

    @property
    def source_sites(self) -> tuple[Site, ...]:
        """Where the toy model's vectors are read, if there is a model."""
        return () if self.model is None else (self.source,)

    @property
    def target_sites(self) -> tuple[Site, ...]:
        """The toy model's last site, if there is a model."""
        return () if self.model is None else (self.model.SITE,)

    def _draw(self, size: int, seed: int) -> Batch:
        if self.model is not None:
            contexts = self.model.contexts(-(-size // (self.model.context - 1)), seed)
            return self._read(contexts).rows(slice(size))
        x = _superposition(size, self.layers_in, self.d_in, seed)
        if (self.d_in, self.layers_in) == (self.d_out, self.layers_out):
            return Batch(x, x)
        return Batch(x, _target(x, self.layers_out, self.d_out))

    def _read(self, contexts: TokenBatch) -> Batch:
        """The model's vectors at the counted positions."""
        assert self.model is not None
        found = self.model.read(contexts, [self.source, self.model.SITE])
        x, y = (found[site][contexts.counted] for site in (self.source, self.model.SITE))
        return Batch(x, x if self.source == self.model.SITE else y, **contexts.behind_vectors())


def _superposition(size: int, layers: int, width: int, seed: int, n_features: int = 24) -> Tensor:
    """``[B, D]``, or ``[B, L, D]`` where there are several layers."""
    fixed = torch.Generator().manual_seed(7)
    directions = torch.randn(layers, n_features, width, generator=fixed) / width**0.5
    mean = torch.randn(layers, width, generator=fixed)
    mean[:, 0] += 20
    generator = torch.Generator().manual_seed(seed % 2**31)
    active = torch.rand(size, n_features, generator=generator) < 0.15
    magnitudes = active * (1 + torch.rand(size, n_features, generator=generator))
    noise = 0.02 * torch.randn(layers, size, width, generator=generator)
    x: Tensor = (magnitudes @ directions + mean[:, None] + noise).transpose(0, 1)
    return x.reshape(size, width) if layers == 1 else x.contiguous()


def _target(x: Tensor, layers: int, width: int) -> Tensor:
    """What a small MLP with fixed weights makes of x."""
    source = x.flatten(1) - x.flatten(1).mean()
    fixed = torch.Generator().manual_seed(8)
    weight = torch.randn(source.shape[1], layers * width, generator=fixed) / source.shape[1] ** 0.5
    y: Tensor = (source @ weight).relu() + 1
    return y if layers == 1 else y.reshape(-1, layers, width)
