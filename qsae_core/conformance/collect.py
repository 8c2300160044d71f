"""Which checks there are: for a component, and for everything that an installed distribution registers."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping

from qsae_core.component import ComponentSpec
from qsae_core.conformance import general
from qsae_core.conformance.check import Check
from qsae_core.conformance.subject import Subject
from qsae_core.errors import PluginError, did_you_mean
from qsae_core.plugins.discovery import find_candidates, normalize
from qsae_core.plugins.records import PluginRecord, load_plugins
from qsae_core.registry import Registry

KIND_MODULES = {
    "sae": ("coder", "coder_inputs", "coder_state", "coder_dense", "coder_spaces", "coder_parts"),
    "transcoder": ("coder", "coder_inputs", "coder_state", "coder_dense", "coder_spaces", "coder_parts"),
    "quantizer": ("quantizer", "quantizer_storage"),
    "code_quantizer": ("code_quantizer",),
    "activation": ("activation",),
    "sparsity": ("sparsity", "sparsity_state", "sparsity_parts"),
    "data": ("data_source", "data_language_model"),
    "metric": ("metric",),
    "evaluation": ("evaluation",),
    "format": ("format",),
    "kernel": ("kernel",),
    "tracker": ("tracker",),
}
"""Kind -> the modules of this package with its ``RULES``."""


def checks_for_component(
    spec: ComponentSpec, registry: Registry | None = None, module: str | None = None
) -> list[Check]:
    """The checks of one component, which need not be installed.

    Args:
        spec: the component.
        registry: where a coder's default parts are looked up; without one, and for parts that are not
            installed, the kit's own reference parts take their place.
        module: the plugin's top module, to check that importing it imports no torch; None leaves that out.
    """
    rules = [*general.RULES, *(general.PLUGIN_RULES if module else ())]
    for name in KIND_MODULES[spec.kind]:
        rules += importlib.import_module(f"qsae_core.conformance.{name}").RULES
    subject = Subject(spec, registry, module)
    return [Check(f"{spec.kind}-{spec.name}-{rule.name}", rule.description, subject, rule) for rule in rules]


def checks_for(dist: str) -> list[Check]:
    """The checks of every component that an installed distribution registers.

    Raises:
        PluginError: if the distribution is not installed, is no plugin, could not be loaded, registers no
            component, or shares a component's name with another plugin.
    """
    plugins = load_plugins()
    record = _record(dist, plugins.records)
    if record.status != "ok":
        raise PluginError(
            f"the plugin {record.name!r} is {record.status}: {record.error}",
            next="qsae list-plugins shows the cause; correct it and try again",
        )
    candidate = next(c for c in find_candidates() if c.name == record.name)
    module = candidate.entry_points[0].module
    checks: list[Check] = []
    for kind, names in record.components.items():
        for name in names:
            checks += checks_for_component(plugins.registry.get(kind, name), plugins.registry, module)
    if not checks:
        raise PluginError(f"the plugin {record.name!r} registers no component, so there is nothing to check")
    return checks


def expecting(
    checks: Iterable[Check], expected_failures: Mapping[str, str]
) -> list[tuple[Check, str | None]]:
    """Each check with the reason why it is expected to fail, or None.

    A key ``quantizer-ste-idempotent:scale=absmean`` splits the check: the sample configurations with these
    option values are expected to fail, and the others stay a check of their own.

    Raises:
        PluginError: if a key names no check, or a reason is empty.
    """
    found = {check.id: check for check in checks}
    reasons: dict[str, str] = {}
    for key, reason in expected_failures.items():
        if not reason.strip():
            raise PluginError("an expected failure needs a reason", where=f"expected_failures[{key!r}]")
        base, _, options = key.partition(":")
        if base not in found:
            raise PluginError(
                f"there is no check {base!r}{did_you_mean(base, list(found))}", where="expected_failures"
            )
        if options:
            pairs = dict(pair.partition("=")[::2] for pair in options.split(","))
            found[base], found[key] = found[base].split(pairs)
        reasons[key] = reason
    return [(check, reasons.get(key)) for key, check in found.items()]


def _record(dist: str, records: list[PluginRecord]) -> PluginRecord:
    names = [record.name for record in records]
    for record in records:
        if record.name == normalize(dist):
            return record
    raise PluginError(
        f"{dist!r} is not an installed plugin{did_you_mean(normalize(dist), names)}",
        allowed=", ".join(names) or "nothing, because no plugin is installed",
        next=f"pip install {dist}; it must have an entry point in the group 'qsae'",
    )
