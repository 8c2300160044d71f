"""Which sites of a model are steered now, so that two coders do not meet at one without being meant to."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from qsae_core.errors import ConfigError

_IN_USE: WeakKeyDictionary[object, list[Hashable]] = WeakKeyDictionary()


@contextmanager
def occupied(model: object, site: Hashable, *, stack: bool) -> Iterator[None]:
    """While this is open, the site of the model is steered.

    Args:
        stack: whether it may be steered already; the new edits come after those.

    Raises:
        ConfigError: if it is, and may not.
    """
    in_use = _IN_USE.setdefault(model, [])
    if site in in_use and not stack:
        raise ConfigError(
            f"{site} is steered already",
            allowed="one coder a site; all edits of a coder in one call",
            next="stack=True puts the new edits behind those that are there",
        )
    in_use.append(site)
    try:
        yield
    finally:
        in_use.remove(site)
