"""Steering of a model of transformers itself, through forward hooks.

Shapes: B sequences, T new positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from qsae_core.errors import ConfigError
from qsae_splice.intervention import Intervention
from qsae_splice.module_passes import ModulePasses, by_sequence
from qsae_splice.passes import Known, Pass
from qsae_splice.running import Running


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


@contextmanager
def steered_module(
    model: nn.Module,
    intervention: Intervention,
    targets: Sequence[ModuleSite],
    sources: Sequence[ModuleSite],
    known: Known,
) -> Iterator[None]:
    """While this is open, calls of the model compute with the intervention; then every hook is gone.

    Raises:
        ConfigError: for a coder whose codes would be those of a pass before.
    """
    if intervention.untouched:
        raise ConfigError(
            f"{type(intervention.coder).__name__} reads layers that are computed after those that it "
            "changes: each pass needs one before it with a cache of its own, and the cache of a module of "
            "transformers is kept by whoever calls it",
            allowed="qsae's LanguageModel, or a coder of which no output hangs on a later layer",
        )
    if intervention.idle:
        yield
        return
    steering = _Steering(intervention, ModulePasses(model, known), tuple(targets), tuple(sources))
    with ExitStack() as opened:
        passes = steering.passes
        opened.callback(model.register_forward_pre_hook(passes.begin, with_kwargs=True).remove)
        opened.callback(model.register_forward_hook(passes.end, always_call=True).remove)
        for hook in steering.hooks(model):
            opened.callback(hook.remove)
        if hasattr(model, "generate"):
            opened.enter_context(_generate(model, passes))
        yield


class _Steering:
    """What hooks at the sites do."""

    def __init__(
        self,
        intervention: Intervention,
        passes: ModulePasses,
        targets: tuple[ModuleSite, ...],
        sources: tuple[ModuleSite, ...],
    ) -> None:
        self.intervention, self.passes = intervention, passes
        self.targets, self.sources = targets, sources
        self._running: tuple[Pass, Running] | None = None

    def hooks(self, model: nn.Module) -> Iterator[Any]:
        """Those that look come before those that change: a part may have both."""
        acting = self.intervention.acts_at()
        read = dict.fromkeys(self.sources[j] for n in acting for j in self.intervention.reads(n))
        for site in read:
            if site not in self.targets:
                yield _hook(model, site, partial(self.look, site))
        for n in acting:
            yield _hook(model, self.targets[n], partial(self.change, n))

    def look(self, site: ModuleSite, x: Tensor) -> None:
        """Keep the vectors of a source."""
        self.passes.seen[site] = by_sequence(x, self.passes.now)

    def change(self, number: int, h: Tensor) -> Tensor | None:
        """What is put in place of the vectors of a target; None: nothing."""
        now, target, seen = self.passes.now, self.targets[number], self.passes.seen
        if self._running is None or self._running[0] is not now:
            self._running = now, Running(self.intervention, now)
        h_BTD = by_sequence(h, now).float()
        seen[target] = h_BTD
        x = {j: seen[self.sources[j]].to(h_BTD) for j in self.intervention.reads(number)}
        new_BTD = seen[target] = self._running[1](number, h_BTD, x)
        return None if new_BTD is h_BTD else new_BTD.to(h.dtype).reshape(h.shape)


@contextmanager
def _generate(model: nn.Module, passes: ModulePasses) -> Iterator[None]:
    own, before = vars(model), vars(model).get("generate")
    own["generate"] = passes.generating(getattr(model, "generate"))  # noqa: B009 (not of every module)
    try:
        yield
    finally:
        del own["generate"]
        if before is not None:
            own["generate"] = before


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
