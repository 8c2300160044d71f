"""Reading and replacing vectors at sites through plain forward hooks.

B contexts, T positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from qsae_core import SITE_NAMES
from qsae_core.contracts import Edit, Site, not_before
from qsae_data_lm.families import Family, Layout, Tap

Replace = Callable[[Tensor], Tensor | None]
"""Sees a vector [B, T, D] and returns what is to take its place, or None to leave it."""

_INSTALL_ORDER = ("resid_pre", "attn_out", "mlp_in", "mlp_out", "resid_mid", "resid_post")
"""A replaced resid_mid needs mlp_out as edited, and its layer's output may be edited after it."""


class _AllRead(Exception):  # noqa: N818 (it is control flow, not an error)
    """Ends a forward pass from inside a hook: everything asked for has been read."""


def find_layers(model: nn.Module, family: Family) -> nn.ModuleList:
    """The list of the model's layers."""
    for path in family.layers:
        found: Any = model
        for name in path.split("."):
            found = getattr(found, name, None)
        if isinstance(found, nn.ModuleList):
            return found
    raise AttributeError(f"{type(model).__name__} has none of the paths {family.layers}")


def read_sites(
    layers: nn.ModuleList,
    family: Family,
    sites: Sequence[Site],
    forward: Callable[[], Any],
    *,
    n_contexts: int,
) -> dict[Site, Tensor]:
    """Runs `forward`, over B = `n_contexts`, until the last of the sites has been computed, and not further.

    Returns:
        site -> the vector [B, T, D] in the model's dtype.
    """
    found: dict[Site, Tensor] = {}
    wanted = set(sites)

    def reader(site: Site) -> Replace:
        def read(vector: Tensor) -> None:
            found[site] = vector
            if len(found) == len(wanted):
                raise _AllRead

        return read

    hooks = [_hook(layers[at[0]], family.taps[at[1]], by_context(reader(at), n_contexts)) for at in wanted]
    with _installed(hooks), suppress(_AllRead):
        forward()
    return {site: found[site] for site in sites}


def check_edits(layout: Layout, edits: Mapping[Site, Edit]) -> None:
    """Raises DataError for a layer or site that the model does not have, ConfigError where an edit reads a
    site that is not computed before its own."""
    for edited, edit in edits.items():
        for site in (edited, *edit.reads):
            layout.check(*site)
        for read in edit.reads:
            if not Site(*edited).is_after(Site(*read)):
                raise not_before(edited, read, [site for site in SITE_NAMES if site in layout.taps])


@contextmanager
def spliced(
    layers: nn.ModuleList,
    family: Family,
    edits: Mapping[Site, Edit],
    device: torch.device,
    *,
    n_contexts: int,
) -> Iterator[None]:
    """While this is open, a forward pass over B = `n_contexts` computes with the edited vectors at the sites.

    An edit takes and gives float32 [B, T, D]; the result is cast to the model's dtype. An edit that
    returns its argument changes no bit of the logits.

    Args:
        edits: each reads sites that are computed before its own alone.
        device: on which edits are given their vectors, wherever their layers are.
    """
    seen: dict[Site, Tensor] = {}
    with _installed([]) as handles:
        for site in sorted(edits, key=lambda s: _INSTALL_ORDER.index(s[1])):
            layer, tap = layers[site[0]], family.taps[site[1]]
            replace = by_context(_in_own_form(site, edits[site], seen, device), n_contexts)
            if tap.bypassed:
                handles.extend(_hook_bypassed(layer, tap, family.taps["mlp_out"], replace))
            else:
                handles.append(_hook(layer, tap, replace))
        for site in {site for edit in edits.values() for site in edit.reads} - set(edits):
            tap = family.taps[site[1]]
            look = by_context(_keeper(seen, site), n_contexts)
            # resid_mid first, for the same module's input may be edited as mlp_in
            handles.append(_hook(layers[site[0]], tap, look, first=tap.bypassed))
        yield


def by_context(replace: Callable[[Tensor], Any], n_contexts: int) -> Callable[[Tensor], Any]:
    """For modules between which a layer keeps its vectors flat, [B * T, D] (OPT's MLP)."""

    def of_any_shape(vector: Tensor) -> Tensor | None:
        new = replace(vector.unflatten(0, (n_contexts, -1)) if vector.dim() == 2 else vector)
        return None if new is None else new.reshape(vector.shape)

    return of_any_shape


def _keeper(seen: dict[Site, Tensor], site: Site) -> Replace:
    def keep(vector: Tensor) -> None:
        seen[site] = vector

    return keep


def _in_own_form(
    site: Site, edit: Edit, seen: dict[Site, Tensor], device: torch.device
) -> Callable[[Tensor], Tensor]:
    def replace(vector: Tensor) -> Tensor:
        read = {other: seen[other].to(device, torch.float32) for other in edit.reads}
        edited = edit.replace(vector.to(device, torch.float32), read)
        if edited.shape != vector.shape:
            raise ValueError(f"an edit returned shape {tuple(edited.shape)} for {tuple(vector.shape)}")
        seen[site] = edited.to(vector)  # others read it so
        return seen[site]

    return replace


def _hook_bypassed(layer: nn.Module, tap: Tap, branch: Tap, replace: Callable[[Tensor], Tensor]) -> list[Any]:
    """Replaces the residual stream in the middle of a layer, where the branch behind it leaves.

    The branch reads the replacement through the module's input; the layer's output, which the module
    formed from the stream as it was, is formed again from the replacement and the branch's output.
    """
    kept: dict[str, Tensor] = {}

    def enter(vector: Tensor) -> Tensor:
        kept["stream"] = replace(vector)
        return kept["stream"]

    def leave(vector: Tensor) -> None:
        kept["branch"] = vector

    def rejoin(vector: Tensor) -> Tensor:
        return (kept.pop("stream") + kept.pop("branch")).reshape(vector.shape)

    # first: where no norm lies between, the same module's input may be edited as mlp_in too
    into = _hook(layer, tap, enter, first=True)
    return [into, _hook(layer, branch, leave), _hook(layer, Tap("", "output"), rejoin)]


def _hook(layer: nn.Module, tap: Tap, replace: Replace, *, first: bool = False) -> Any:
    module = layer.get_submodule(tap.module)
    if tap.side == "output":
        return module.register_forward_hook(_output_hook(replace), prepend=first)
    return module.register_forward_pre_hook(_input_hook(replace), with_kwargs=True, prepend=first)


def _output_hook(replace: Replace) -> Callable[..., Any]:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            new = replace(output[0])
            return None if new is None else (new, *output[1:])
        return replace(output)

    return hook


def _input_hook(replace: Replace) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            new = replace(args[0])
            return None if new is None else ((new, *args[1:]), kwargs)
        new = replace(kwargs["hidden_states"])
        return None if new is None else (args, {**kwargs, "hidden_states": new})

    return hook


@contextmanager
def _installed(handles: list[Any]) -> Iterator[list[Any]]:
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()
