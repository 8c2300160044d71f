"""Steering of a model of transformers itself, through forward hooks.

Shapes: B sequences, T new positions, S positions with those in the cache, D width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from qsae_core.errors import ConfigError
from qsae_splice.intervention import Intervention
from qsae_splice.passes import Known, Pass, not_special, prompt_lengths


class ModuleSite(NamedTuple):
    """Where a vector passes in a module."""

    module: str
    """The path of a part, as in ``named_modules()``: ``model.layers.3``."""
    side: Literal["input", "output"] = "output"
    """What the vector is of that part: its first input or its first output. The residual stream behind layer
    3 is the output of ``model.layers.3``, what its MLP adds that of ``model.layers.3.mlp``."""

    def __str__(self) -> str:
        return f"{self.side} of {self.module}"


def read_module_site(place: object, model: nn.Module) -> ModuleSite:
    """A module's site, or the path of a part, whose output is meant.

    Raises:
        ConfigError: if the model has no such part.
    """
    site = ModuleSite(place) if isinstance(place, str) else place
    names = dict(model.named_modules())
    if not isinstance(site, ModuleSite) or site.module not in names or site.side not in ("input", "output"):
        layers = [name for name in names if name.rpartition(".")[2] == "0"][:3]
        raise ConfigError(
            f"{place!r} is no site of {type(model).__name__}",
            allowed="the path of a part, as in named_modules(), or ModuleSite(path, 'input' or 'output')",
            next=f"of its parts there are {', '.join(layers)}" if layers else None,
        )
    return site


class _Passes:
    """What the pass that runs now is of.

    Args:
        model: whose calls are passes.
    """

    def __init__(self, model: nn.Module, known: Known) -> None:
        self._known, self._signature = known, inspect.signature(model.forward)
        self._now: Pass | None = None
        self._prompt: Tensor | None = None
        self._generating = False
        self.seen: dict[str, Tensor] = {}

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


@contextmanager
def steered_module(
    model: nn.Module, intervention: Intervention, site: ModuleSite, source: ModuleSite, known: Known
) -> Iterator[None]:
    """While this is open, calls of the model compute with the intervention; then every hook is gone."""
    if intervention.idle:
        yield
        return
    passes = _Passes(model, known)

    def look(x: Tensor) -> None:
        passes.seen["x"] = _by_sequence(x, passes.now)

    def change(h: Tensor) -> Tensor | None:
        now = passes.now
        h_BTD = _by_sequence(h, now).float()
        x_BTD = h_BTD if source == site else passes.seen["x"].to(h_BTD)
        new_BTD = intervention(h_BTD, x_BTD, now)
        return None if new_BTD is h_BTD else new_BTD.to(h.dtype).reshape(h.shape)

    with ExitStack() as opened:
        opened.callback(model.register_forward_pre_hook(passes.begin, with_kwargs=True).remove)
        opened.callback(model.register_forward_hook(passes.end, always_call=True).remove)
        if source != site:
            opened.callback(_hook(model, source, look).remove)
        opened.callback(_hook(model, site, change).remove)
        if hasattr(model, "generate"):
            opened.enter_context(_generate(model, passes))
        yield


@contextmanager
def _generate(model: nn.Module, passes: _Passes) -> Iterator[None]:
    own, before = vars(model), vars(model).get("generate")
    own["generate"] = passes.generating(getattr(model, "generate"))  # noqa: B009 (not of every module)
    try:
        yield
    finally:
        del own["generate"]
        if before is not None:
            own["generate"] = before


def _by_sequence(vectors: Tensor, now: Pass) -> Tensor:
    """``[B, T, D]`` of what a module may keep flat, ``[B * T, D]``."""
    return vectors.unflatten(0, (len(now.ids), -1)) if vectors.dim() == 2 else vectors


def _hook(model: nn.Module, site: ModuleSite, see: Callable[[Tensor], Tensor | None]) -> Any:
    module = model.get_submodule(site.module)

    def output(_: nn.Module, args: Any, found: Any) -> Any:
        if not isinstance(found, tuple):
            return see(found)
        new = see(found[0])
        return None if new is None else (new, *found[1:])

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            new = see(args[0])
            return None if new is None else ((new, *args[1:]), kwargs)
        new = see(kwargs["hidden_states"])
        return None if new is None else (args, {**kwargs, "hidden_states": new})

    if site.side == "output":
        return module.register_forward_hook(output)
    return module.register_forward_pre_hook(enter, with_kwargs=True)
