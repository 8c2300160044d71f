"""The component under test, with what every check needs from it: its class, its cases, fresh instances."""

from __future__ import annotations

import importlib
import pathlib
import tempfile
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from qsae_core.component import ComponentConfig, ComponentSpec
from qsae_core.conformance.cases import Case, choices
from qsae_core.conformance.verdicts import NotApplicable
from qsae_core.kinds import CODER_SLOTS, KINDS, PART_SLOTS

if TYPE_CHECKING:
    from qsae_core.registry import Registry


class Subject:
    """One component under test.

    Args:
        spec: what the plugin registered.
        registry: where other components (a coder's parts) come from; None: the kit's own parts alone.
        module: the plugin's top module; None for a component that no plugin registers.
    """

    def __init__(
        self, spec: ComponentSpec, registry: Registry | None = None, module: str | None = None
    ) -> None:
        self.spec, self.registry, self.module = spec, registry, module

    def import_target(self) -> Any:
        """The object that ``spec.target`` names; lets every exception of the import through."""
        module, _, attribute = self.spec.target.partition(":")
        return getattr(importlib.import_module(module), attribute)

    @property
    def base(self) -> type[Any]:
        """The class that every target of the kind derives from."""
        module, _, attribute = KINDS[self.spec.kind].base.partition(":")
        base: type[Any] = getattr(importlib.import_module(module), attribute)
        return base

    @cached_property
    def target(self) -> Any:
        """The component's class; a check that needs it does not apply where it cannot be imported."""
        try:
            target = self.import_target()
        except Exception as error:
            raise NotApplicable(f"the target does not import ({error}); see 'target'") from error
        if not (isinstance(target, type) and issubclass(target, self.base)):
            raise NotApplicable("the target is of another kind; see 'target'")
        return target

    @cached_property
    def folder(self) -> pathlib.Path:
        """A temporary folder for the component's sample files; removed with this object."""
        self._holder = tempfile.TemporaryDirectory(prefix="qsae-conformance-")
        return pathlib.Path(self._holder.name)

    def declared_cases(self) -> list[Case]:
        """The sample configurations, from the class or from the config; lets exceptions through."""
        declare = getattr(self.target, "conformance_cases", None)
        if declare is not None:
            return list(declare(self.folder))
        if self.spec.kind in CODER_SLOTS:
            return choices(self.spec.config, together=1)
        return choices(self.spec.config, together=2 if self.spec.kind in PART_SLOTS else 0)

    @cached_property
    def cases(self) -> list[Case]:
        """The sample configurations; the rule 'constructs' reports what is wrong with them."""
        try:
            return self.declared_cases()
        except Exception as error:
            raise NotApplicable(f"there are no sample configurations ({error}); see 'constructs'") from error

    def config(self, case: Case) -> ComponentConfig:
        """The validated options of a case."""
        return self.spec.config(**case.options)

    def has_options(self, case: Case, options: Mapping[str, str]) -> bool:
        """Whether the case's options, defaults included, have these values (compared as text)."""
        values = {**self.config(case).model_dump(), **case.shape}
        return all(key in values and str(values[key]) == value for key, value in options.items())

    def build(self, case: Case, *arguments: Any, **named: Any) -> Any:
        """A fresh instance; where there is none the running check does not apply: 'constructs' reports it."""
        try:
            return self.construct(case, *arguments, **named)
        except Exception as error:
            raise NotApplicable(f"it does not construct ({error}); see 'constructs'") from error

    def construct(self, case: Case, *arguments: Any, **named: Any) -> Any:
        """A fresh instance; lets every exception through."""
        return self.target(self.config(case), *arguments, **named)

    def declares(self, attribute: str, default: Any) -> Any:
        """The value of an optional class attribute by which a component declares an exception."""
        return getattr(self.target, attribute, default)
