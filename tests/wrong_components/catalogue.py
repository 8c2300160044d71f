"""Every right and wrong component of this package, and what checks say of one."""

from __future__ import annotations

import importlib

from qsae_core import ComponentSpec
from qsae_core.conformance import Check, CheckFailure
from qsae_core.conformance.reference_parts import REFERENCES
from qsae_core.registry import Registry

MODULES = {
    name: importlib.import_module(f"wrong_components.{name}")
    for name in (
        "options",
        "quantizers",
        "code_quantizers",
        "activations",
        "sparsity_rules",
        "metrics",
        "coders",
        "data_sources",
        "language_models",
        "evaluations",
        "formats",
        "kernel_sets",
        "trackers",
    )
}
WRONG: list[tuple[ComponentSpec, str]] = [pair for module in MODULES.values() for pair in module.WRONG]
"""Component -> the rule that it breaks."""
RIGHT: list[ComponentSpec] = [s for module in MODULES.values() for s in module.RIGHT] + list(
    REFERENCES.values()
)


def registry() -> Registry:
    """Nothing is installed: coders have the kit's own parts."""
    return Registry()


def failures(checks: list[Check]) -> dict[str, str]:
    """Rule name -> message of every check that fails."""
    failed = {}
    for check in checks:
        try:
            check.run()
        except CheckFailure as failure:
            failed[check.rule.name] = str(failure)
    return failed
