"""What one plugin offers, checked: its hooks and the components that its registration hooks return."""

from __future__ import annotations

import importlib.machinery
import inspect
import re
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

import pluggy

from qsae_core.coder_options import CoderConfig
from qsae_core.component import ComponentConfig, ComponentSpec
from qsae_core.errors import did_you_mean
from qsae_core.kinds import CODER_SLOTS, KINDS, PART_SLOTS, SLOTS

HOOK_KINDS = {kind.hook: kind.name for kind in KINDS.values()}
"""Registration hook -> the kind that it lists."""

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class RuleError(Exception):
    """A plugin that breaks a rule; the message is a sentence that says what to change."""


def implemented_hooks(pm: pluggy.PluginManager, module: types.ModuleType) -> list[str]:
    """Names of the hooks that a plugin's top module implements, in alphabetical order.

    Raises:
        RuleError: if a marked function is no hook, or a ``qsae_*`` function is not marked.
    """
    known = sorted(name for name in vars(pm.hook) if not name.startswith("_"))
    hooks = []
    for name in sorted(name for name, value in vars(module).items() if inspect.isfunction(value)):
        options = pm.parse_hookimpl_opts(module, name)
        if options is not None:
            hook = options.get("specname") or name
            if hook not in known and not options.get("optionalhook"):
                raise RuleError(f"{module.__name__}.{name} is no hook of qsae{did_you_mean(hook, known)}")
            hooks.append(hook)
        elif name.startswith("qsae_"):
            raise RuleError(
                f"{module.__name__}.{name} is not decorated with @hookimpl (from qsae_core import hookimpl), "
                f"so it would never be called; decorate or rename it{did_you_mean(name, known)}"
            )
    return sorted(set(hooks) & set(known))


def collect_components(
    pm: pluggy.PluginManager, plugin: str, module: types.ModuleType, before: Callable[[str], None]
) -> list[ComponentSpec]:
    """Call the registration hooks of one registered plugin, and check what they return.

    ``before`` is told the name of each hook before it is called.

    Raises:
        RuleError: if something is returned that is no list of proper components.
        Exception: whatever a hook raises.
    """
    specs: list[ComponentSpec] = []
    for hook, kind in HOOK_KINDS.items():
        for impl in getattr(pm.hook, hook).get_hookimpls():
            if impl.plugin_name != plugin:
                continue
            if impl.wrapper or impl.hookwrapper:
                raise RuleError(
                    f"{hook} cannot be a hook wrapper: each plugin registers its own components alone"
                )
            before(hook)
            returned = impl.function()
            if not isinstance(returned, (list, tuple)):
                raise RuleError(f"{hook} returned {_brief(returned)}; it must return a list of ComponentSpec")
            for spec in returned:
                _check(spec, hook, kind, module)
                if any((s.kind, s.name) == (spec.kind, spec.name) for s in specs):
                    raise RuleError(f"it registers {kind} {spec.name!r} twice; give one of them another name")
                specs.append(spec)
    return specs


def collect_addresses(
    pm: pluggy.PluginManager, plugin: str, module: types.ModuleType, before: Callable[[str], None]
) -> dict[str, str]:
    """Call ``qsae_register_addresses`` of one registered plugin, where it has it: scheme -> target, checked.

    Raises:
        RuleError: if it returns anything else, or names a module of its own that does not exist.
        Exception: whatever the hook raises.
    """
    hook, found = "qsae_register_addresses", {}
    for impl in getattr(pm.hook, hook).get_hookimpls():
        if impl.plugin_name != plugin:
            continue
        before(hook)
        returned = impl.function()
        if not isinstance(returned, dict):
            raise RuleError(f"{hook} returned {_brief(returned)}; it must return a dict of scheme -> target")
        for scheme, target in returned.items():
            if not (isinstance(scheme, str) and _SCHEME.fullmatch(scheme)):
                raise RuleError(
                    f"{hook}: {scheme!r} is no scheme; one has lower-case letters and digits (hf)"
                )
            if not (isinstance(target, str) and _TARGET.fullmatch(target)):
                raise RuleError(f'{hook}: {scheme} has {target!r}; it must read "package.module:function"')
            missing = _missing_module(target.partition(":")[0], module)
            if missing:
                raise RuleError(f"{hook}: {target!r} is in a module that does not exist: {missing}")
        found.update(returned)
    return found


def _check(spec: Any, hook: str, kind: str, module: types.ModuleType) -> None:
    if not isinstance(spec, ComponentSpec):
        raise RuleError(f"{hook} returned a list with {_brief(spec)}; every item must be a ComponentSpec")
    what = f"{spec.kind} {spec.name!r}"
    if spec.kind != kind:
        right = KINDS[spec.kind].hook if spec.kind in KINDS else None
        advice = f"return it from {right}" if right else f"kinds are {', '.join(KINDS)}"
        raise RuleError(f"{hook} returned the {what}, but it lists components of kind {kind!r}; {advice}")
    if not isinstance(spec.name, str) or not _NAME.fullmatch(spec.name):
        raise RuleError(f"{what}: a name has lower-case letters, digits and single dashes (ternary, top-2)")
    base = CoderConfig if kind in CODER_SLOTS else ComponentConfig
    if not (inspect.isclass(spec.config) and issubclass(spec.config, base)):
        raise RuleError(f"{what}: config is {_brief(spec.config)}; it must be a subclass of {base.__name__}")
    if not isinstance(spec.target, str) or not _TARGET.fullmatch(spec.target):
        raise RuleError(f'{what}: target is {spec.target!r}; it must read "package.module:Class"')
    missing = _missing_module(spec.target.partition(":")[0], module)
    if missing:
        raise RuleError(f"{what}: target {spec.target!r} is in a module that does not exist: {missing}")
    _check_combinations(spec, what)


def _check_combinations(spec: ComponentSpec, what: str) -> None:
    if (spec.default_parts or spec.refuses) and spec.kind not in CODER_SLOTS:
        raise RuleError(f"{what}: only {' and '.join(CODER_SLOTS)} components have default_parts and refuses")
    for slot, block in spec.default_parts.items():
        if slot not in PART_SLOTS:
            raise RuleError(f"{what}: default_parts has no slot {slot!r}; slots are {', '.join(PART_SLOTS)}")
        if block is not None and not (isinstance(block, Mapping) and isinstance(block.get("use"), str)):
            raise RuleError(
                f'{what}: default_parts[{slot!r}] is {block!r}; it must be {{"use": name, ...}} or None'
            )
    kinds = sorted({SLOTS[slot].kind for slot in PART_SLOTS})
    for key, reason in spec.refuses.items():
        if not (isinstance(key, tuple) and len(key) == 2 and key[0] in kinds):
            raise RuleError(
                f"{what}: refuses has the key {key!r}; it must be (kind, name), kind of {', '.join(kinds)}"
            )
        if not (isinstance(reason, str) and reason.strip()):
            raise RuleError(f"{what}: refuses[{key!r}] needs a reason that a user can read")


def _missing_module(name: str, module: types.ModuleType) -> str | None:
    """The first part of ``name`` that does not exist inside the plugin's own package; imports nothing."""
    if name == module.__name__ or name in sys.modules or not name.startswith(f"{module.__name__}."):
        return None
    path, found = getattr(module, "__path__", None), module.__name__
    for part in name.removeprefix(f"{module.__name__}.").split("."):
        found = f"{found}.{part}"
        spec = importlib.machinery.PathFinder.find_spec(found, path) if path is not None else None
        if spec is None:
            return found
        path = spec.submodule_search_locations
    return None


def _brief(value: Any) -> str:
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    text = repr(value)
    return text if len(text) <= 60 else f"an object of type {type(value).__name__}"
