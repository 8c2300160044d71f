"""Rules for components of every kind: names, options, documentation, and what importing a plugin costs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from qsae_core.component import ComponentConfig
from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import CheckFailure, NotApplicable, expect

RULES = Rules()
UNKNOWN_KEY = "no_such_option"


@RULES.once(
    "name", "a component's name is lower-case letters, digits and dashes, and its kind is a known one."
)
def _name(subject: Subject) -> None:
    name = subject.spec.name
    expect(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) is not None, f"the name is {name!r}.")


@RULES.once("target", "the target imports and is a subclass of its kind's base class.")
def _target(subject: Subject) -> None:
    target = subject.import_target()
    base = subject.base
    expect(
        isinstance(target, type) and issubclass(target, base),
        f"{subject.spec.target} is no subclass of {base.__module__}.{base.__qualname__}.",
    )


@RULES.once("target-docstring", "the target's class has a docstring that says what it computes.")
def _target_docstring(subject: Subject) -> None:
    target = subject.target
    expect(bool((vars(target).get("__doc__") or "").strip()), f"{target.__qualname__} has no docstring.")


@RULES.once("config-docstring", "the config has a docstring, which `qsae describe` prints.")
def _config_docstring(subject: Subject) -> None:
    config = subject.spec.config
    expect(bool((vars(config).get("__doc__") or "").strip()), f"{config.__qualname__} has no docstring.")


@RULES.once("fields-described", "every option has a description, which becomes the help of its flag.")
def _fields_described(subject: Subject) -> None:
    bare = [name for name, text in _descriptions(subject.spec.config) if not (text or "").strip()]
    expect(not bare, f"without a description: {', '.join(bare)}.")


@RULES.once("schema", "the options have a JSON schema, which `qsae describe --json` prints.")
def _schema(subject: Subject) -> None:
    json.dumps(subject.spec.config.model_json_schema())


@RULES.once("options", "the options derive from ComponentConfig and do not change once they are made.")
def _options(subject: Subject) -> None:
    config = subject.spec.config
    expect(
        issubclass(config, ComponentConfig), f"{config.__qualname__} does not derive from ComponentConfig."
    )
    expect(bool(config.model_config.get("frozen")), f"{config.__qualname__} is not frozen.")


@RULES.each_case("unknown-keys", "an option that the component does not have is refused, never dropped.")
def _unknown_keys(subject: Subject, case: Case) -> None:
    try:
        subject.spec.config(**{**case.options, UNKNOWN_KEY: 1})
    except ValidationError as error:
        places = [entry["loc"] for entry in error.errors()]
        expect((UNKNOWN_KEY,) in places, f"the refusal of {UNKNOWN_KEY!r} names {places} instead.")
        return
    raise CheckFailure(f"{subject.spec.config.__qualname__} accepted the unknown option {UNKNOWN_KEY!r}.")


def torch_free(subject: Subject) -> None:
    """Import the plugin's top module in a fresh interpreter and fail if that imported torch."""
    if subject.module is None:
        raise NotApplicable("the component belongs to no plugin")
    code = f"import sys, {subject.module}; sys.exit(64 if 'torch' in sys.modules else 0)"
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    expect(
        done.returncode in (0, 64),
        f"importing {subject.module} failed: {done.stderr.strip().splitlines()[-1:]}.",
    )
    expect(
        done.returncode == 0,
        f"importing {subject.module} imports torch; keep such imports in the target's module.",
    )


PLUGIN_RULES = Rules()
PLUGIN_RULES.once(
    "torch-free", "a plugin's top module imports no torch, so that `qsae list-plugins` starts at once."
)(torch_free)


def check_constructs(subject: Subject, build: Callable[[Case], Any]) -> None:
    """Body of each kind's rule 'constructs': every sample configuration is valid and builds.

    Args:
        subject: the component under test.
        build: builds everything that the kind's other rules build for one case, and raises what that raises.
    """
    _require_defaults(subject)
    cases = subject.declared_cases()
    expect(len(cases) > 0, "conformance_cases returned no case.")
    for case in cases:
        try:
            build(case)
        except NotApplicable:
            raise
        except Exception as error:
            raise CheckFailure(f"with {case.label}: {type(error).__name__}: {error}.") from error


def _require_defaults(subject: Subject) -> None:
    if hasattr(subject.target, "conformance_cases"):
        return
    required = [n for n, f in subject.spec.config.model_fields.items() if f.is_required()]
    expect(
        not required,
        f"the options {required} are required, so the kit cannot build one: give the class a method "
        "conformance_cases(cls, folder) -> list[Case] with sample values.",
    )


def _descriptions(config: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """(dotted name, description) of every option, nested ones included."""
    for name, info in config.model_fields.items():
        yield prefix + name, info.description
        for kind in (info.annotation, *get_args(info.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _descriptions(kind, f"{prefix}{name}.")
