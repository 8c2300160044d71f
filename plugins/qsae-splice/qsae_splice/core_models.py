"""Steering of a ``LanguageModel``: its methods take the edits along while a block runs.

Shapes: B sequences, T positions, D width.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsae_core import SITE_NAMES
from qsae_core.contracts import Edit as SiteEdit
from qsae_core.contracts import Edits, LanguageModel, Site, TokenBatch
from qsae_core.errors import ConfigError
from qsae_splice.intervention import Intervention
from qsae_splice.passes import Known, Pass, next_pass, prompt_lengths, whole_pass
from qsae_splice.running import Running, looking

_SITE = re.compile(r"(\d+)\.(\w+)")


class _Behind(NamedTuple):
    """A model's cache, and what it is the cache of."""

    cache: Any
    seen: int
    """Positions in it."""
    prompt: Tensor
    """int64 ``[B, 1]``."""
    untouched: Any = None
    """Of a coder whose codes are those of a pass before: the cache of these."""


def read_site(place: object) -> Site:
    """A site, or its text ``3.resid_post``.

    Raises:
        ConfigError: if it is neither.
    """
    if isinstance(place, str):
        found = _SITE.fullmatch(place)
        if found:
            return Site(int(found[1]), found[2])
    elif isinstance(place, tuple) and len(place) == 2 and isinstance(place[0], int):
        return Site(*place)
    raise ConfigError(
        f"{place!r} is no site of a language model",
        allowed=f"LAYER.NAME, with one of {', '.join(SITE_NAMES)}",
        next="`qsae sites MODEL` lists them",
    )


@contextmanager
def steered_language_model(
    model: LanguageModel,
    intervention: Intervention,
    targets: Sequence[Site],
    sources: Sequence[Site],
    known: Known,
) -> Iterator[None]:
    """While this is open, ``logits``, ``logits_each``, ``extend`` and ``generate`` of this very object
    compute with the intervention, before any edits that they are given.

    Where its codes are those of a pass before (``Intervention.untouched``), that pass is made without the
    intervention and without the edits that are given; in generation it has a cache of its own, so that it is
    one over the whole text.
    """
    logits, extend = model.logits, model.extend
    places = (tuple(targets), tuple(sources))

    def steered_logits(batch: TokenBatch, edits: Edits | None = None) -> Tensor:
        seen: dict[Site, Tensor] = {}
        if intervention.untouched:
            with looking():
                logits(batch, _looks(sources, seen))
        running = _running(intervention, whole_pass(batch, known.prompt_tokens), sources, seen)
        return logits(batch, _joined(edits or {}, _edits(intervention, places, running)))

    def steered_extend(ids: Tensor, cache: Any, edits: Edits) -> tuple[Tensor, Any]:
        behind = _behind(cache, ids, known)
        seen: dict[Site, Tensor] = {}
        untouched = None
        if intervention.untouched:
            with looking():
                _, untouched = extend(ids, behind.untouched, _looks(sources, seen))
        now = next_pass(ids, behind.seen, behind.prompt, known.special())
        running = _running(intervention, now, sources, seen)
        found, new = extend(ids, behind.cache, _joined(edits, _edits(intervention, places, running)))
        return found, _Behind(new, behind.seen + ids.shape[1], behind.prompt, untouched)

    if intervention.idle:  # not even a hook
        yield
        return
    each = partial(LanguageModel.logits_each, model)  # one steered pass after the other
    with _methods(model, {"logits": steered_logits, "logits_each": each, "extend": steered_extend}):
        yield


def _looks(sources: Sequence[Site], seen: dict[Site, Tensor]) -> Edits:
    """Edits that change nothing and keep the vectors."""

    def keeps(site: Site) -> Callable[[Tensor, Mapping[Site, Tensor]], Tensor]:
        def keep(h_BTD: Tensor, _: Mapping[Site, Tensor]) -> Tensor:
            seen[site] = h_BTD
            return h_BTD

        return keep

    return {site: SiteEdit(keeps(site)) for site in sources}


def _running(
    intervention: Intervention, now: Pass, sources: Sequence[Site], seen: Mapping[Site, Tensor]
) -> Running:
    untouched = {n: seen[site] for n, site in enumerate(sources)} if seen else None
    return Running(intervention, now, untouched)


def _edits(
    intervention: Intervention, places: tuple[tuple[Site, ...], tuple[Site, ...]], running: Running
) -> dict[Site, SiteEdit]:
    """What is done at each target of a pass."""
    targets, sources = places
    found = {}
    for n in intervention.acts_at():
        read = {j: sources[j] for j in intervention.reads(n)}
        others = tuple(site for site in read.values() if site != targets[n])
        found[targets[n]] = SiteEdit(_replacing(running, n, targets[n], read), others)
    return found


def _replacing(
    running: Running, number: int, target: Site, read: Mapping[int, Site]
) -> Callable[[Tensor, Mapping[Site, Tensor]], Tensor]:
    def replace(h_BTD: Tensor, seen: Mapping[Site, Tensor]) -> Tensor:
        x = {j: h_BTD if site == target else seen[site] for j, site in read.items()}
        return running(number, h_BTD, x)

    return replace


def _joined(edits: Edits, mine: Mapping[Site, SiteEdit]) -> Edits:
    """The edits with some more, which come first where there is another at their site."""
    return {**edits, **{site: _both(edit, edits.get(site)) for site, edit in mine.items()}}


def _both(first: SiteEdit, second: SiteEdit | None) -> SiteEdit:
    if second is None:
        return first

    def both(h_BTD: Tensor, read: Mapping[Site, Tensor]) -> Tensor:
        return second.replace(first.replace(h_BTD, read), read)

    return SiteEdit(both, tuple(dict.fromkeys((*first.reads, *second.reads))))


def _behind(cache: Any, ids: Tensor, known: Known) -> _Behind:
    if isinstance(cache, _Behind):
        return cache
    if cache is not None:
        raise ConfigError(
            "the cache was made before the model was steered, so it is not known how long it is",
            allowed="a text that is begun within the block",
        )
    length = ids.shape[1] if known.prompt_tokens is None else known.prompt_tokens
    return _Behind(None, 0, prompt_lengths(torch.as_tensor(length), ids))


@contextmanager
def _methods(model: LanguageModel, methods: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """While this is open, the object has these methods instead of those of its class."""
    own = vars(model)
    before = {name: own[name] for name in methods if name in own}
    own.update(methods)
    try:
        yield
    finally:
        for name in methods:
            del own[name]
        own.update(before)
