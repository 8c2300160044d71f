"""What is known of a pass of a model of transformers, whoever calls it.

Shapes: B sequences, T new positions, S positions with those in the cache, D width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qsae_core.errors import ConfigError
from qsae_splice.passes import Known, Pass, not_special, prompt_lengths


class ModulePasses:
    """What the pass of a model of transformers that runs now is of.

    Args:
        model: whose calls are passes.
    """

    def __init__(self, model: nn.Module, known: Known) -> None:
        self._known, self._signature = known, inspect.signature(model.forward)
        self._now: Pass | None = None
        self._prompt: Tensor | None = None
        self._generating = False
        self.seen: dict[object, Tensor] = {}
        """Site -> vectors of this pass."""

    @property
    def now(self) -> Pass:
        """The pass that runs now.

        Raises:
            ConfigError: if what runs is a part of the model alone.
        """
        if self._now is None:
            raise ConfigError(
                "a part of the model was called by itself, so it is not known what it reads",
                allowed="calls of the model that is steered",
            )
        return self._now

    def begin(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """The model is called."""
        given = self._signature.bind_partial(*args, **kwargs).arguments
        given = {**given, **given.pop("kwargs", {})}
        ids = given.get("input_ids")
        if ids is None:
            raise ConfigError("it is not known which tokens the model reads", allowed="input_ids")
        caches = [
            given.get(name) for name in ("cache", "past_key_values")
        ]  # its name in one version or another
        cached = next((cache for cache in caches if cache is not None), None)
        seen = 0 if cached is None else int(cached.get_seq_length())
        real_BS = _real(given.get("attention_mask"), ids, seen)
        prompt = self._prompt_lengths(ids, seen, real_BS)
        real_BT = real_BS[:, seen:]
        places_BT = (real_BS.long().cumsum(1) - 1)[:, seen:]
        self._now = Pass(ids, places_BT, prompt, not_special(ids, self._known.special()) & real_BT)

    def end(self, *_: Any) -> None:
        """The model's call is over."""
        self._now = None
        self.seen.clear()

    def generating(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        """``generate``, whose first pass is over the prompt and no other."""

        def steered_generate(*args: Any, **kwargs: Any) -> Any:
            self._prompt, self._generating = None, True
            try:
                return generate(*args, **kwargs)
            finally:
                self._prompt, self._generating = None, False

        return steered_generate

    def _prompt_lengths(self, ids: Tensor, seen: int, real_BS: Tensor) -> Tensor:
        if self._known.prompt_tokens is not None:
            return prompt_lengths(self._known.prompt_tokens, ids)
        if self._prompt is None or not (seen or self._generating):
            if seen:
                raise ConfigError(
                    "the cache was made before the model was steered, so it is not known what the prompt was",
                    allowed="a text that is begun within the block, or prompt_tokens=NUMBER",
                )
            self._prompt = real_BS.sum(1, keepdim=True)
        if len(self._prompt) != len(ids):
            raise ConfigError(f"there were {len(self._prompt)} prompts, and there are {len(ids)} sequences")
        return self._prompt


def _real(mask: Tensor | None, ids: Tensor, seen: int) -> Tensor:
    """bool ``[B, S]``: positions that are not padding.

    Without a mask none are; positions are counted by it, never by their place in the tensor, so that padding
    on the left and a cache do not move them.
    """
    shape = (len(ids), seen + ids.shape[1])
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=ids.device)
    if mask.shape != shape:
        raise ConfigError(
            f"the attention mask has the shape {list(mask.shape)}",
            allowed=f"{list(shape)}: sequences and positions, those in the cache included",
        )
    return mask.bool().to(ids.device)


def by_sequence(vectors: Tensor, now: Pass) -> Tensor:
    """``[B, T, D]`` of what a module may keep flat, ``[B * T, D]``."""
    return vectors.unflatten(0, (len(now.ids), -1)) if vectors.dim() == 2 else vectors
