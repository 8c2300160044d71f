"""The pytest face of the kit. pytest itself is imported only when ``parametrize_with_checks`` is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qsae_core.conformance.check import Check
from qsae_core.conformance.collect import checks_for, expecting


def parametrize_with_checks(
    dist: str, expected_failures: Mapping[str, str] | None = None
) -> Callable[[Check], None]:
    """A pytest test function that runs every check of every component of an installed distribution.

    Args:
        dist: the distribution's name (``acme-quantizers``).
        expected_failures: check id -> the reason why the component cannot comply. The check must then
            fail: one that passes is an error. ``"<id>:<option>=<value>,..."`` means the sample
            configurations with these option values alone.

    Raises:
        PluginError: if the distribution is not an installed, working plugin, it registers no component, or
            an expected failure names no check.
    """
    import pytest

    parameters: list[Any] = [
        pytest.param(
            check,
            id=check.id,
            marks=[pytest.mark.xfail(reason=reason, strict=True, raises=AssertionError)] if reason else [],
        )
        for check, reason in expecting(checks_for(dist), expected_failures or {})
    ]

    @pytest.mark.parametrize("check", parameters)
    def test_conformance(check: Check) -> None:
        reason = check.run()
        if reason is not None:
            pytest.skip(reason)

    return test_conformance
