"""Steering of a ``LanguageModel``: its methods take the edits along while a block runs.

Shapes: B sequences, T positions, D width.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsae_core import SITE_NAMES
from qsae_core.contracts import Edit as SiteEdit
from qsae_core.contracts import Edits, LanguageModel, Site, TokenBatch
from qsae_core.errors import ConfigError
from qsae_splice.intervention import Intervention
from qsae_splice.passes import Known, Pass, next_pass, prompt_lengths, whole_pass

_SITE = re.compile(r"(\d+)\.(\w+)")


class _Behind(NamedTuple):
    """A model's cache, and what it is the cache of."""

    cache: Any
    seen: int
    """Positions in it."""
    prompt: Tensor
    """int64 ``[B, 1]``."""


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
    model: LanguageModel, intervention: Intervention, site: Site, source: Site, known: Known
) -> Iterator[None]:
    """While this is open, ``logits``, ``extend`` and ``generate`` of this very object compute with the
    intervention, before any edits that they are given."""
    logits, extend = model.logits, model.extend

    def steered_logits(batch: TokenBatch, edits: Edits | None = None) -> Tensor:
        now = whole_pass(batch, known.prompt_tokens)
        return logits(batch, _joined(edits or {}, site, _edit(intervention, site, source, now)))

    def steered_extend(ids: Tensor, cache: Any, edits: Edits) -> tuple[Tensor, Any]:
        behind = _behind(cache, ids, known)
        now = next_pass(ids, behind.seen, behind.prompt, known.special())
        joined = _joined(edits, site, _edit(intervention, site, source, now))
        found, new = extend(ids, behind.cache, joined)
        return found, _Behind(new, behind.seen + ids.shape[1], behind.prompt)

    if intervention.idle:  # not even a hook
        yield
        return
    with _methods(model, {"logits": steered_logits, "extend": steered_extend}):
        yield


def _edit(intervention: Intervention, site: Site, source: Site, now: Pass) -> SiteEdit:
    if source == site:
        return SiteEdit(lambda h_BTD, _: intervention(h_BTD, h_BTD, now))
    return SiteEdit(lambda h_BTD, read: intervention(h_BTD, read[source], now), (source,))


def _joined(edits: Edits, site: Site, mine: SiteEdit) -> Edits:
    """The edits with one more, which comes first where there is another at its site."""
    if site not in edits:
        return {**edits, site: mine}
    other = edits[site]

    def both(h_BTD: Tensor, read: Mapping[Site, Tensor]) -> Tensor:
        return other.replace(mine.replace(h_BTD, read), read)

    reads = tuple(dict.fromkeys((*mine.reads, *other.reads)))
    return {**edits, site: SiteEdit(both, reads)}


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
