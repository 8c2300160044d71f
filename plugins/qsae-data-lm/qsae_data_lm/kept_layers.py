"""Several passes over the same contexts, of which each computes only what lies behind its first edit.

Up to there a pass computes what every other one does: the layers of each family in the table hand on nothing
but the residual stream, so their outputs are kept and given again. All else of the model runs as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from qsae_core.contracts import Edits
from qsae_data_lm.families import Family

Forward = Callable[..., Any]


class KeptLayers:
    """What the first layers gave in one pass, for later passes over the same contexts.

    Layers are computed in each pass where it is not sure that they give the same: where the model has one
    module in two places or calls it more than once in a pass; where hooks of others are on them, which may do
    something else each time; where one gives anything but tensors; and where a gradient flows through it.

    At most one output of a layer is kept for each of the passes that are still to come.

    Args:
        layers: of the model.
        family: where their sites are.
        several: the edits of each pass, in the order of the passes.
    """

    def __init__(self, layers: nn.ModuleList, family: Family, several: Sequence[Edits]) -> None:
        self._layers = layers
        apart = len({id(layer) for layer in layers}) == len(layers)
        self._ends = [_untouched(family, edits, len(layers)) if apart else 0 for edits in several]
        self._kept: dict[int, Any] = {}  # number of layers -> the output of the last of them

    @contextmanager
    def in_pass(self, number: int) -> Iterator[None]:
        """While this is open, a forward pass is that with the edits of this number; to be opened in order,
        before hooks are installed."""
        end, later = self._ends[number], self._ends[number + 1 :]
        if any(_is_hooked(layer) for layer in self._layers[: max(self._ends)]):
            yield
            return
        start = _last(self._kept, end)
        seen: dict[int, list[Any]] = {n: [] for n in {min(end, other) for other in later} if n > start}
        forwards = {i: _giving(self._kept[start]) for i in range(start)}
        forwards |= {n - 1: _keeping(self._layers[n - 1].forward, outputs) for n, outputs in seen.items()}
        with _replaced(self._layers, forwards):
            yield
        known = {n: found[0] for n, found in seen.items() if len(found) == 1 and _is_plain(found[0])}
        known |= self._kept
        needed = {_last(known, other) for other in later}
        self._kept = {n: output for n, output in known.items() if n in needed}


def _untouched(family: Family, edits: Edits, n_layers: int) -> int:
    """How many layers, counted from the first, a pass computes as one without edits does, with no site
    inside them that is looked at."""
    sites = {site for edited, edit in edits.items() for site in (edited, *edit.reads)}
    taps = [(layer, family.taps[name]) for layer, name in sites]
    return min((i + int((tap.module, tap.side) == ("", "output")) for i, tap in taps), default=n_layers)


def _last(kept: Mapping[int, Any], end: int) -> int:
    return max((n for n in kept if n <= end), default=0)


def _is_hooked(layer: nn.Module) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in layer.modules())


def _is_plain(output: Any) -> bool:
    if isinstance(output, Tensor):
        return not output.requires_grad
    return type(output) is tuple and all(part is None or _is_plain(part) for part in output)


def _copied(output: Any) -> Any:
    """So that an edit, or the model, may write into what it is given."""
    if isinstance(output, Tensor):
        return output.clone()
    return tuple(_copied(part) for part in output) if type(output) is tuple else output


def _giving(kept: Any) -> Forward:
    """Of a layer before the last that was kept, nobody sees what it gives; it is of the same form."""
    return lambda *args, **kwargs: _copied(kept)


def _keeping(forward: Forward, outputs: list[Any]) -> Forward:
    def keep(*args: Any, **kwargs: Any) -> Any:
        found = forward(*args, **kwargs)
        outputs.append(_copied(found))
        return found

    return keep


@contextmanager
def _replaced(layers: nn.ModuleList, forwards: Mapping[int, Forward]) -> Iterator[None]:
    """While this is open, these layers compute otherwise; hooks on their inputs and outputs hold."""
    before = {i: vars(layers[i])["forward"] for i in forwards if "forward" in vars(layers[i])}
    try:
        for i, forward in forwards.items():
            vars(layers[i])["forward"] = forward
        yield
    finally:
        for i in forwards:
            vars(layers[i]).pop("forward", None)
        for i, forward in before.items():
            vars(layers[i])["forward"] = forward
