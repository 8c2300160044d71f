"""Wrong names, options, documentation and targets; the metric behind them is right."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import ConfigDict

from qsae_core import ComponentConfig, ComponentSpec, option
from qsae_core.conformance.evaluation import ReferenceMetric


class RightMetric(ReferenceMetric):
    """Mean squared error."""

    optimum = {"mse": 0.0}  # noqa: RUF012


class NoDocstring(ReferenceMetric): ...


class RightConfig(ComponentConfig):
    """No options."""


class BareConfig(ComponentConfig): ...


class UndescribedConfig(ComponentConfig):
    """One option that says nothing about itself."""

    window: int = 3


class NestedConfig(ComponentConfig):
    """A described option whose own option says nothing about itself."""

    inner: UndescribedConfig = option(UndescribedConfig(), "a described group")


class AcceptingConfig(ComponentConfig):
    """Drops what it does not know."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ChangeableConfig(ComponentConfig):
    """Can be changed after the fact."""

    model_config = ConfigDict(extra="forbid", frozen=False)


class NoSchemaConfig(ComponentConfig):
    """An option that no YAML file can hold."""

    weight: Callable[[float], float] = option(abs, "a function of the error")


class RequiredConfig(ComponentConfig):
    """An option without a default, and no sample value for it."""

    path: str = option(description="a file")


def metric(
    name: str, config: type[ComponentConfig] = RightConfig, target: str = "RightMetric"
) -> ComponentSpec:
    return ComponentSpec("metric", name, config, target if ":" in target else f"{__name__}:{target}")


RIGHT = [metric("right")]
WRONG = [
    (metric("Not_A_Name"), "name"),
    (metric("missing-target", target="wrong_components.nowhere:Class"), "target"),
    (metric("missing-class", target="RightMetricc"), "target"),
    (metric("no-subclass", target="wrong_components.options:RightConfig"), "target"),
    (metric("no-docstring", target="NoDocstring"), "target-docstring"),
    (metric("bare-config", BareConfig), "config-docstring"),
    (metric("undescribed", UndescribedConfig), "fields-described"),
    (metric("undescribed-nested", NestedConfig), "fields-described"),
    (metric("accepts-unknown-keys", AcceptingConfig), "unknown-keys"),
    (metric("changeable", ChangeableConfig), "options"),
    (metric("no-schema", NoSchemaConfig), "schema"),
    (metric("required-option", RequiredConfig), "constructs"),
]
