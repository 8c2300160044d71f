"""Which installed distributions are plugins, and which of them may be loaded. Imports no plugin."""

from __future__ import annotations

import functools
import importlib.metadata
import pathlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qsae_core.errors import PluginError, did_you_mean
from qsae_core.registry import DISABLE

GROUP = "qsae"
"""The entry-point group that makes a distribution a plugin."""
ONLY, TRACE = "QSAE_PLUGINS", "QSAE_TRACE"
"""Environment variables: load only these distributions (a,b); print every hook call."""


@dataclass(frozen=True)
class Candidate:
    """An installed distribution that has entry points in the group ``qsae``.

    Attributes:
        name: the distribution's name, normalised (lower case, single dashes).
        version: its version.
        entry_points: those of the group, sorted by key.
        requires: its ``Requires-Dist`` lines.
        fault: why its metadata cannot be read, or None.
    """

    name: str
    version: str
    entry_points: tuple[importlib.metadata.EntryPoint, ...] = ()
    requires: tuple[str, ...] = field(default=(), repr=False)
    fault: str | None = None


def normalize(name: str) -> str:
    """A distribution's name as package indexes compare it: ``Foo_Bar.x`` -> ``foo-bar-x``."""
    return re.sub(r"[-_.]+", "-", name).strip("-").lower()


def find_candidates(path: Sequence[str] | None = None) -> list[Candidate]:
    """Every plugin on ``path`` (default: ``sys.path``), sorted by name; the first of a name shadows others.

    Metadata that cannot be parsed gives a candidate with a ``fault``; it never hides other plugins.
    """
    options: Any = {} if path is None else {"path": list(path)}
    found: dict[str, Candidate] = {}
    for dist in importlib.metadata.distributions(**options):
        text = dist.read_text("entry_points.txt") or ""
        if f"[{GROUP}]" in text.replace(" ", ""):
            candidate = _read(dist)
            found.setdefault(candidate.name, candidate)
    return [found[name] for name in sorted(found)]


def _read(dist: importlib.metadata.Distribution) -> Candidate:
    folder = pathlib.Path(str(getattr(dist, "_path", "unknown"))).name
    name, version = normalize(folder.split("-")[0].removesuffix(".dist").removesuffix(".egg")), "unknown"
    try:
        headers = _headers(dist)
        name, version = normalize(headers["Name"][0]), headers["Version"][0]
        requires = tuple(headers.get("Requires-Dist", ()))
        points = sorted((p for p in dist.entry_points if p.group == GROUP), key=lambda p: (p.name, p.value))
    except Exception as error:  # metadata is whatever some build tool wrote
        fault = f"its installed metadata cannot be read ({type(error).__name__}: {error}); reinstall it"
        return Candidate(name, version, fault=fault)
    return Candidate(name, version, tuple(points), requires)


def _headers(dist: importlib.metadata.Distribution) -> dict[str, list[str]]:
    """Header -> its values. ``dist.metadata`` parses the whole description too, which adds up at start-up."""
    text = dist.read_text("METADATA") or dist.read_text("PKG-INFO") or ""
    headers: dict[str, list[str]] = {}
    for line in text.partition("\n\n")[0].splitlines():
        key, colon, value = line.partition(":")
        if colon and not line.startswith((" ", "\t")):
            headers.setdefault(key, []).append(value.strip())
    return headers


@functools.cache
def incompatibility(requires: tuple[str, ...], core_version: str) -> str | None:
    """Why a plugin with these ``Requires-Dist`` lines does not work with this core, or None if it does."""
    major, minor = core_version.split(".")[:2]
    least, below = f">={major}.{minor}", f"<{major}.{int(minor) + 1}"
    usual = (f"qsae{least},{below}", f"qsae{below},{least}")
    for line in requires:
        if (
            line in usual
            or line == f"qsae=={core_version}"
            or not re.match(r"\s*qsae(?![\w.-])", line, re.IGNORECASE)
        ):
            continue  # the range that new-plugin writes, as build tools order it, needs no slow import
        from packaging.requirements import InvalidRequirement, Requirement

        try:
            requirement = Requirement(line)
        except InvalidRequirement as error:
            return f"its requirement {line!r} cannot be parsed: {error}"
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if not requirement.specifier.contains(core_version, prereleases=True):
            return (
                f"it needs qsae {requirement.specifier}, and this is qsae {core_version}; "
                "install a version of the plugin that admits this qsae, or that qsae"
            )
    return None


@dataclass(frozen=True)
class Selection:
    """What the environment says about which plugins to load."""

    only: frozenset[str] | None
    disabled: frozenset[str]
    trace: bool

    def block_reason(self, name: str) -> str | None:
        """Why the distribution is not to be loaded, or None."""
        if name in self.disabled:
            return f"blocked by {DISABLE}"
        if self.only is not None and name not in self.only:
            return f"not among {ONLY}"
        return None


def read_selection(environ: Mapping[str, str], installed: Sequence[str]) -> Selection:
    """The selection in the environment; an unset or empty variable selects nothing.

    Raises:
        PluginError: if ``QSAE_PLUGINS`` names a distribution that is no installed plugin. A name in
            ``QSAE_DISABLE_PLUGINS`` that is not installed only warns: it is blocked already.
    """
    only, disabled = _names(environ.get(ONLY, "")), _names(environ.get(DISABLE, ""))
    for name in sorted(only - set(installed)):
        raise PluginError(
            f"{name!r} is not an installed plugin" + did_you_mean(name, installed),
            where=ONLY,
            allowed=", ".join(installed) or "nothing, because no plugin is installed",
            next=f"pip install {name}, or unset {ONLY}",
        )
    unknown = sorted(disabled - set(installed))
    if unknown:
        import logging

        logging.getLogger("qsae").warning("%s: not installed: %s", DISABLE, ", ".join(unknown))
    trace = environ.get(TRACE, "").lower() not in ("", "0", "false", "no")
    return Selection(only or None, disabled, trace)


def _names(value: str) -> frozenset[str]:
    return frozenset(normalize(part) for part in re.split(r"[,\s]+", value) if part)
