"""Addresses of what lies elsewhere, such as ``hf://user/repo/path``: plugins make local paths of them.

Core knows no place but the file system. What reads a coder asks here for its path, with the names of the
files that it is going to read, and reads what is there as if it had always been.
"""

from __future__ import annotations

import fnmatch
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from qsae_core.errors import ConfigError, PluginError
from qsae_core.plugins.records import load_plugins
from qsae_core.registry import DISABLE, import_target

USUAL = {"hf": "hub"}
"""Scheme -> what the plugin that usually has it is about, by which that is called."""

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://")
_SHORTENED = re.compile(r"[a-z][a-z0-9+.-]+:/")
"""What pathlib leaves of an address."""


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a text is ``scheme://...``."""
    return _ADDRESS.match(os.fspath(path)) is not None


def was_address(path: pathlib.Path) -> bool:
    """Whether a path was made of an address, by what knows paths alone."""
    return _SHORTENED.match(str(path)) is not None


def local_path(
    path: str | os.PathLike[str], names: Sequence[str], *, beside: Sequence[str] = ()
) -> pathlib.Path:
    """A path as it is; of an address the local folder, or file, that the plugin of its scheme makes of it.

    Args:
        path: anything else than a path or a text is refused.
        names: files that are read below it, by their relative paths; ``*`` stands for any part of a name, and
            ``**/`` at the beginning for folders, if any. An address whose last part is such a name is that
            of a file.
        beside: what is read in the folder of such a file besides.

    Raises:
        ConfigError: for what is no path.
        PluginError: if no installed plugin knows the scheme, several do, or the one that does is broken.
        QsaeError: whatever that plugin says of the address.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        what = f"{path!r:.80} ({type(path).__name__})" if text is None else f"{text!r:.80}"
        raise ConfigError(
            f"a path is asked for, and this is none: {what}",
            allowed="a str or pathlib.Path of a file or folder, or an address (hf://user/repo/path)",
            next="give the folder of a run, or of a checkpoint",
        )
    found = _ADDRESS.match(text)
    if found is None:
        return pathlib.Path(text)
    fetch = _fetcher(found[1], text)
    folder, _, last = text.rstrip("/").rpartition("/")
    if len(folder) > len(found[0]) and any(fnmatch.fnmatchcase(last, _base(name)) for name in names):
        return pathlib.Path(fetch(folder, (last, *(name for name in beside if name != last)))) / last
    return pathlib.Path(fetch(text, tuple(names)))


def _fetcher(scheme: str, address: str) -> Any:
    """The function that the one plugin with a scheme names for it."""
    targets = {plugin: own[scheme] for plugin, own in load_plugins().addresses.items() if scheme in own}
    if not targets:
        raise PluginError(
            f"no installed plugin knows addresses that begin with {scheme}://",
            where=address,
            allowed="a path, or an address of a plugin that is installed",
            next=f"pip install qsae-{USUAL[scheme]}" if scheme in USUAL else "qsae list-plugins",
        )
    if len(targets) > 1:
        names = sorted(targets)
        raise PluginError(
            f"addresses that begin with {scheme}:// are claimed by {' and '.join(names)}",
            where=address,
            next=f"{DISABLE}={names[0]} leaves the others",
        )
    ((plugin, target),) = targets.items()
    return import_target(target, f"{plugin}, addresses {scheme}://")


def _base(name: str) -> str:
    return name.rpartition("/")[2]
