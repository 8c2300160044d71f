"""Plugins: entry points -> PluginRecord -> Registry. One bad plugin never spoils another."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import reprlib
import sys
import traceback
import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import pluggy

from qsae_core.component import ComponentSpec
from qsae_core.errors import PluginError, QsaeError
from qsae_core.kinds import KINDS
from qsae_core.plugins import hookspecs
from qsae_core.plugins.discovery import Candidate, find_candidates, incompatibility, read_selection
from qsae_core.plugins.registration import (
    HOOK_KINDS,
    RuleError,
    collect_addresses,
    collect_components,
    implemented_hooks,
)
from qsae_core.registry import DISABLE, Provider, Registry

if TYPE_CHECKING:
    import click

Status = Literal["ok", "broken", "blocked", "incompatible"]


@dataclass(frozen=True)
class PluginRecord:
    """What became of one installed plugin.

    Attributes:
        name: its distribution.
        version: the distribution's version.
        status: ``ok``; ``broken`` (it breaks a rule or raises); ``blocked`` (by the environment);
            ``incompatible`` (its range of qsae does not admit this one). Only ``ok`` plugins take part.
        components: kind -> names that it registered; empty unless ``ok``.
        hooks: the life-cycle and command hooks that it implements.
        commands: the CLI commands that it added; known once the command line asked for them.
        error: one sentence that says what is wrong and what to change; None if ``ok``.
        traceback: of the exception behind a broken plugin, where there was one.
    """

    name: str
    version: str
    status: Status
    components: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hooks: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    error: str | None = None
    traceback: str | None = None


class _FunctionHooks(pluggy.PluginManager):
    """Looks for hooks among a module's functions alone, which halves the time to register fifty plugins."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> pluggy.HookimplOpts | None:
        return (
            super().parse_hookimpl_opts(plugin, name) if inspect.isfunction(vars(plugin).get(name)) else None
        )


class Plugins:
    """The plugins of one process: records of all, and the registry and hooks of those that work."""

    def __init__(self, core_version: str, *, trace: bool = False) -> None:
        self.core_version = core_version
        self.registry = Registry()
        self.addresses: dict[str, dict[str, str]] = {}
        """Plugin -> scheme -> target of the function that reads addresses with it."""
        self._records: dict[str, PluginRecord] = {}
        self._pm = _FunctionHooks("qsae")
        self._pm.add_hookspecs(hookspecs)
        self._trace = trace
        self._pm.add_hookcall_monitoring(self._before, self._after)

    @property
    def records(self) -> list[PluginRecord]:
        """One record for each installed plugin, sorted by name."""
        return list(self._records.values())

    @property
    def hook(self) -> Any:
        """The hooks: ``plugins.hook.qsae_train_start(run=run)`` calls every plugin that implements it.

        Raises:
            PluginError: when a plugin's implementation raises; it names the plugin and the hook, and the
                plugin's own exception is its cause. A QsaeError stays itself, with the plugin as its place.
        """
        return self._pm.hook

    def load(self, candidate: Candidate, block_reason: str | None = None) -> PluginRecord:
        """Load one plugin, or note why not. Never raises for what the plugin does (Ctrl-C passes)."""
        name, version = candidate.name, candidate.version
        too_new = incompatibility(candidate.requires, self.core_version)
        if block_reason or too_new:
            status: Status = "blocked" if block_reason else "incompatible"
            self._records[name] = PluginRecord(name, version, status, error=block_reason or too_new)
            self.registry.drop(name, f"is {status}: {block_reason or too_new}")
            return self._records[name]
        self._records[name] = PluginRecord(name, version, "ok")
        try:
            with contextlib.redirect_stdout(sys.stderr):  # a stray print must not spoil a command's --json
                hooks, specs = self._take_in(candidate)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a plugin does, SystemExit included, is its own fault
            self._spoil(name, error)
        else:
            lifecycle = tuple(hook for hook in hooks if hook not in HOOK_KINDS)
            names = {kind: sorted(s.name for s in specs if s.kind == kind) for kind in KINDS}
            components = {kind: tuple(found) for kind, found in names.items() if found}
            self._records[name] = replace(self._records[name], components=components, hooks=lifecycle)
            self.registry.add(Provider(name, version), specs)
        return self._records[name]

    def commands(self, reserved: Collection[str]) -> dict[str, click.Command]:
        """What ``qsae_register_commands`` adds: name -> command, none of them in ``reserved``.

        A plugin whose hook raises, or that wants a name which is taken, becomes ``broken`` and loses its
        components and hooks as well.
        """
        taken: dict[str, str] = dict.fromkeys(reserved, "qsae itself")
        commands: dict[str, click.Command] = {}
        for impl in self._pm.hook.qsae_register_commands.get_hookimpls():
            name = impl.plugin_name
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    added = self._ask_for_commands(impl)
                for command in added:
                    if command in taken:
                        raise RuleError(
                            f"its command {command!r} is already one of {taken[command]}; rename it"
                        )
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # as in load
                self._spoil(name, error)
                continue
            taken |= dict.fromkeys(added, name)
            commands |= added
            self._records[name] = replace(self._records[name], commands=tuple(sorted(added)))
        return commands

    def _take_in(self, candidate: Candidate) -> tuple[list[str], list[ComponentSpec]]:
        if candidate.fault:
            raise RuleError(candidate.fault)
        if len(candidate.entry_points) != 1:
            keys = ", ".join(repr(point.name) for point in candidate.entry_points) or "none"
            raise RuleError(f"a plugin has exactly one entry point in the group 'qsae', this one has {keys}")
        module = candidate.entry_points[0].load()
        if not isinstance(module, types.ModuleType):
            raise RuleError(
                f"its entry point {candidate.entry_points[0].value!r} must name a module, without ':'"
            )
        hooks = implemented_hooks(self._pm, module)
        self._pm.register(module, name=candidate.name)
        before = functools.partial(self._trace_call, plugins=[candidate.name], arguments={})
        specs = collect_components(self._pm, candidate.name, module, before)
        self.addresses[candidate.name] = collect_addresses(self._pm, candidate.name, module, before)
        return hooks, specs

    def _ask_for_commands(self, impl: pluggy.HookImpl) -> dict[str, click.Command]:
        import click

        group = click.Group("qsae")
        self._trace_call("qsae_register_commands", [impl.plugin_name], {"cli": group})
        impl.function(*([group] if impl.argnames else []))
        for name, command in group.commands.items():
            if not isinstance(command, click.Command):
                raise RuleError(f"its command {name!r} is a {type(command).__name__}, not a click.Command")
        return dict(group.commands)

    def _spoil(self, name: str, error: BaseException) -> None:
        if self._pm.has_plugin(name):
            self._pm.unregister(name=name)
        self.addresses.pop(name, None)
        refused = isinstance(error, (RuleError, pluggy.PluginValidationError))
        sentence = " ".join(str(error).split()) if refused else f"{type(error).__name__}: {error}"
        trace = None if isinstance(error, RuleError) else "".join(traceback.format_exception(error))
        version = self._records[name].version
        self._records[name] = PluginRecord(name, version, "broken", error=sentence, traceback=trace)
        self.registry.drop(name, f"is broken: {sentence}")

    def _before(self, hook: str, impls: Sequence[pluggy.HookImpl], arguments: Mapping[str, object]) -> None:
        self._trace_call(hook, [impl.plugin_name for impl in impls], arguments)

    def _after(
        self,
        outcome: pluggy.Result[Any],
        hook: str,
        impls: Sequence[pluggy.HookImpl],
        arguments: Mapping[str, object],
    ) -> None:
        """Name the plugin behind an exception; pluggy raises it bare."""
        error = outcome.exception
        if not isinstance(error, Exception):
            return
        culprit = _culprit(error, impls)
        if isinstance(error, QsaeError):
            error.where = f"{culprit}, {hook}" + (f": {error.where}" if error.where else "")
            return
        raise PluginError(
            f"{type(error).__name__}: {error}",
            where=f"{culprit}, {hook}",
            next=f"{DISABLE}={culprit} goes on without it; QSAE_DEBUG=1 shows the traceback",
        ) from error

    def _trace_call(self, hook: str, plugins: Sequence[str], arguments: Mapping[str, object]) -> None:
        if self._trace:
            given = ", ".join(f"{name}={reprlib.repr(value)}" for name, value in arguments.items())
            print(f"qsae trace: {hook}({given}) -> {', '.join(plugins) or 'no plugin'}", file=sys.stderr)


def _culprit(error: BaseException, impls: Sequence[pluggy.HookImpl]) -> str:
    """The plugin whose implementation is among the frames that the exception passed through."""
    frames = {frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)}
    guilty = [i.plugin_name for i in impls if getattr(i.function, "__code__", None) in frames]
    return ",".join(guilty or [impl.plugin_name for impl in impls])


def discover(environ: Mapping[str, str], path: Sequence[str] | None = None) -> Plugins:
    """Load every plugin on ``path`` (default: ``sys.path``) that the environment selects.

    Raises:
        PluginError: if ``QSAE_PLUGINS`` names a distribution that is not installed.
    """
    from qsae_core import __version__

    candidates = find_candidates(path)
    selection = read_selection(environ, [candidate.name for candidate in candidates])
    plugins = Plugins(__version__, trace=selection.trace)
    for candidate in candidates:
        plugins.load(candidate, selection.block_reason(candidate.name))
    return plugins


@functools.cache
def load_plugins() -> Plugins:
    """The plugins of this process, loaded once; see ``discover``."""
    return discover(os.environ)
