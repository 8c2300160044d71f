"""(kind, name) -> ComponentSpec: what is installed, who provides it, and the classes behind it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from typing import Any, NamedTuple

from qsae_core.component import ComponentSpec
from qsae_core.errors import PluginError, did_you_mean
from qsae_core.kinds import KINDS

DISABLE = "QSAE_DISABLE_PLUGINS"
"""Environment variable: distributions (a,b) whose plugins are blocked."""


class Provider(NamedTuple):
    """The distribution that registered a component."""

    name: str
    version: str


class Registry:
    """Every component of every plugin that loaded.

    A (kind, name) that two plugins register is *contested*: it is listed by ``contested`` alone, and
    ``get`` refuses it until one of them is blocked.
    """

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str], list[tuple[Provider, ComponentSpec]]] = {}
        self._failures: dict[str, str] = {}

    def add(self, provider: Provider, specs: Iterable[ComponentSpec]) -> None:
        """Enter a plugin's components."""
        for spec in specs:
            self._claims.setdefault((spec.kind, spec.name), []).append((provider, spec))

    def drop(self, plugin: str, reason: str) -> None:
        """Take a plugin's components out (or note that it never had any), and keep why for messages."""
        self._failures[plugin] = reason
        for key, claims in list(self._claims.items()):
            self._claims[key] = [claim for claim in claims if claim[0].name != plugin]
            if not self._claims[key]:
                del self._claims[key]

    def names(self, kind: str) -> list[str]:
        """Names of the usable components of a kind, sorted.

        Raises:
            PluginError: if there is no such kind.
        """
        return [spec.name for spec in self.specs(kind)]

    def specs(self, kind: str) -> list[ComponentSpec]:
        """The usable components of a kind, sorted by name.

        Raises:
            PluginError: if there is no such kind.
        """
        _check_kind(kind)
        return [
            claims[0][1]
            for key, claims in sorted(self._claims.items())
            if key[0] == kind and len(claims) == 1
        ]

    def get(self, kind: str, name: str) -> ComponentSpec:
        """The component of that name.

        Raises:
            PluginError: if there is no such kind or name (with the closest one, those installed, and the
                broken or blocked plugin that may provide it), or if two plugins register it.
        """
        return self._claim(kind, name)[1]

    def provider(self, kind: str, name: str) -> Provider:
        """The distribution that provides a component; raises as ``get`` does."""
        return self._claim(kind, name)[0]

    def contested(self) -> dict[tuple[str, str], list[Provider]]:
        """(kind, name) -> the plugins that all register it."""
        return {
            key: [p for p, _ in claims] for key, claims in sorted(self._claims.items()) if len(claims) > 1
        }

    def load_target(self, spec: ComponentSpec) -> type[Any]:
        """Import the class behind a component and check it against its kind's base class.

        Raises:
            PluginError: if the target cannot be imported, is no class, does not subclass the base class,
                or leaves abstract methods undefined; it names the distribution and what to change.
        """
        where = f"{spec.kind} {spec.name!r}"
        for provider, claimed in self._claims.get((spec.kind, spec.name), []):
            if claimed is spec:
                where += f" of {provider.name} {provider.version}"
        target = import_target(spec.target, where)
        base = import_target(KINDS[spec.kind].base, f"kind {spec.kind!r}")
        fault = _class_fault(target, base, spec)
        if fault:
            raise PluginError(
                f"target {spec.target!r} {fault}", where=where, next="correct or reinstall the plugin"
            )
        return target

    def _claim(self, kind: str, name: str) -> tuple[Provider, ComponentSpec]:
        _check_kind(kind)
        claims = self._claims.get((kind, name), [])
        if len(claims) == 1:
            return claims[0]
        if claims:
            raise self._contest(kind, name, [provider for provider, _ in claims])
        installed = self.names(kind)
        message = f"unknown {kind} {name!r}{did_you_mean(name, installed)}"
        message += f"{'' if message.endswith('?') else ';'} installed: {', '.join(installed) or 'none'}"
        suspects = [f"{plugin} {self._failures[plugin]}" for plugin in self._suspects(kind, name)]
        if suspects:
            raise PluginError(f"{message}; not loaded: {'; '.join(suspects)}", next="qsae list-plugins")
        raise PluginError(message, next=f"qsae describe {kind}, or pip install the plugin that has it")

    def _contest(self, kind: str, name: str, providers: list[Provider]) -> PluginError:
        who = " and ".join(f"{p.name} {p.version}" for p in providers)
        others = [",".join(p.name for p in providers if p is not kept) for kept in providers]
        return PluginError(
            f"{kind} {name!r} is registered by {who}; neither is used",
            next="block one: " + " or ".join(f"{DISABLE}={value}" for value in others) + ", or uninstall it",
        )

    def _suspects(self, kind: str, name: str) -> list[str]:
        """Plugins that did not load and whose distribution's name says that they may have the component."""
        family = kind if kind == "sparsity" else f"{kind}s"
        by_name, by_family = (
            [plugin for plugin in self._failures if f"-{part}-" in f"-{plugin}-"] for part in (name, family)
        )
        return by_name or by_family


def import_target(target: str, where: str) -> Any:
    """The object that ``"package.module:Name"`` names.

    Raises:
        PluginError: if the module raises on import or lacks the name; it says ``where``.
    """
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever a plugin's module does on import
        raise PluginError(
            f"target {target!r} cannot be imported: {type(error).__name__}: {error}",
            where=where,
            next="install what is missing, or correct the plugin; QSAE_DEBUG=1 shows the traceback",
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        known = [name for name, value in vars(module).items() if inspect.isclass(value)]
        raise PluginError(
            f"module {module_name!r} has no {attribute!r}{did_you_mean(attribute, known)}",
            where=where,
            next="correct the target in the plugin's top module",
        ) from None


def _class_fault(target: Any, base: type[Any], spec: ComponentSpec) -> str | None:
    base_name = KINDS[spec.kind].base.replace(":", ".")
    if not inspect.isclass(target):
        return f"is of type {type(target).__name__}; it must be a class that subclasses {base_name}"
    if not issubclass(target, base):
        return f"does not subclass {base_name}, as every {spec.kind} must"
    missing = sorted(getattr(target, "__abstractmethods__", ()))
    if missing:
        return f"does not define {', '.join(missing)}, which {base_name} asks for"
    return None


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise PluginError(
            f"there is no kind {kind!r}{did_you_mean(kind, list(KINDS))}", allowed=", ".join(KINDS)
        )
