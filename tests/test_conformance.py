"""The conformance kit: right components pass every check, each wrong one fails the one meant for it."""

from __future__ import annotations

import importlib
import pathlib
import sys
from typing import Any

import pytest

from qsae_core import ComponentSpec
from qsae_core.conformance import checks_for_component
from qsae_core.conformance.collect import KIND_MODULES

sys.path.insert(
    0, str(pathlib.Path(__file__).parent)
)  # targets are named "wrong_components.<module>:<class>"

from wrong_components.catalogue import MODULES, RIGHT, WRONG, failures, registry


def spec_id(value: Any) -> str:
    return f"{value.kind}-{value.name}" if isinstance(value, ComponentSpec) else value


@pytest.mark.parametrize("spec", RIGHT, ids=spec_id)
def test_a_right_component_passes_every_check(spec: ComponentSpec) -> None:
    assert failures(checks_for_component(spec, registry())) == {}


@pytest.mark.parametrize(("spec", "rule"), WRONG, ids=spec_id)
def test_a_wrong_component_fails_the_check_meant_for_it_and_no_other(spec: ComponentSpec, rule: str) -> None:
    failed = failures(checks_for_component(spec, registry()))
    assert list(failed) == [rule], failed
    message = failed[rule]
    assert f"{spec.kind} {spec.name}" in message, "the message names the component"
    assert "The contract: " in message, "the message says what the contract asks"


def test_every_rule_has_a_wrong_component() -> None:
    kinds = {rule: {spec.kind for spec, broken in WRONG if broken == rule} for _, rule in WRONG}
    general = importlib.import_module("qsae_core.conformance.general")
    missing = [rule.name for rule in general.RULES if rule.name not in kinds]
    for kind, modules in KIND_MODULES.items():
        for name in modules:
            for rule in importlib.import_module(f"qsae_core.conformance.{name}").RULES:
                alike = {"sae", "transcoder"} if kind in ("sae", "transcoder") else {kind}
                # 'constructs' is one function for all kinds but two
                if rule.name != "constructs" and not alike & kinds.get(rule.name, set()):
                    missing.append(f"{kind}: {rule.name}")
    assert missing == []


def test_a_top_module_that_imports_torch_is_found() -> None:
    spec = MODULES["options"].RIGHT[0]
    heavy = failures(checks_for_component(spec, module="wrong_components.imports_torch"))
    assert list(heavy) == ["torch-free"]
    assert "imports torch" in heavy["torch-free"]
    assert failures(checks_for_component(spec, module="qsae_core")) == {}
