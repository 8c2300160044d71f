"""The conformance kit's API: three lines under pytest, checks without it, sample configurations."""

from __future__ import annotations

import gc
import os
import pathlib
import random
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Literal

import pytest
import torch
from pydantic import model_validator

from qsae_core import ComponentConfig, option
from qsae_core.conformance import (
    Case,
    CheckFailure,
    checks_for,
    checks_for_component,
    choices,
    expecting,
    parametrize_with_checks,
)
from qsae_core.errors import PluginError

sys.path.insert(
    0, str(pathlib.Path(__file__).parent)
)  # targets are named "wrong_components.<module>:<class>"

from wrong_components.catalogue import MODULES, failures

if TYPE_CHECKING:
    from tests.conftest import PluginSite

TWO_METRICS = """
    from qsae_core import ComponentConfig, ComponentSpec, hookimpl

    class PlainConfig(ComponentConfig):
        "No options."

    @hookimpl
    def qsae_register_metrics():
        targets = {"right": "options:RightMetric", "per-batch": "metrics:MeanOfBatchMeans"}
        return [ComponentSpec("metric", n, PlainConfig, f"wrong_components.{t}") for n, t in targets.items()]
"""
THREE_LINES = """
    from qsae_core.conformance import parametrize_with_checks

    test_conformance = parametrize_with_checks("two-metrics"{expected})
"""


def run_pytest(site: PluginSite, **tests: str) -> list[str]:
    """Run these test files in a process of their own, with the site's plugins; the lines of the report."""
    for name, text in tests.items():
        (site.path / f"test_{name}.py").write_text(textwrap.dedent(text))
    path = os.pathsep.join([str(site.path), str(pathlib.Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-q", "-p", "no:cacheprovider", str(site.path)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "QSAE_PLUGINS": "two-metrics"},
        cwd=site.path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout.splitlines()


def test_three_lines_run_every_check_of_a_distribution(plugin_site: PluginSite) -> None:
    plugin_site.add("two-metrics", TWO_METRICS)
    known = ', {"metric-per-batch-batch-size": "the mean of batch means, for comparison"}'
    too_many = ', {"metric-per-batch-batch-size": "known", "metric-right-reset": "it does comply"}'
    report = run_pytest(
        plugin_site,
        plain=THREE_LINES.format(expected=""),
        known=THREE_LINES.format(expected=known),
        too_many=THREE_LINES.format(expected=too_many),
    )
    verdicts = {line.split(" - ")[0] for line in report if "::" in line}
    assert "PASSED test_plain.py::test_conformance[metric-right-reset]" in verdicts
    assert "PASSED test_plain.py::test_conformance[metric-right-torch-free]" in verdicts
    assert "XFAIL test_known.py::test_conformance[metric-per-batch-batch-size]" in verdicts
    assert {v for v in verdicts if v.startswith(("FAILED", "ERROR"))} == {
        "FAILED test_plain.py::test_conformance[metric-per-batch-batch-size]",
        "FAILED test_too_many.py::test_conformance[metric-right-reset]",  # expected to fail, and passes
    }


def installed(site: PluginSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kit see the site's plugins alone."""
    plugins = site.load()
    monkeypatch.setattr("qsae_core.conformance.collect.load_plugins", lambda: plugins)


def test_an_expected_failure_of_no_check_is_an_error(
    plugin_site: PluginSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin_site.add("two-metrics", TWO_METRICS)
    installed(plugin_site, monkeypatch)
    with pytest.raises(PluginError, match="no check 'metric-right-rest'; did you mean 'metric-right-reset'"):
        parametrize_with_checks("two-metrics", expected_failures={"metric-right-rest": "a typing error"})


def test_without_pytest(plugin_site: PluginSite, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin_site.add("two-metrics", TWO_METRICS)
    installed(plugin_site, monkeypatch)
    checks = {check.id: check for check in checks_for("Two_Metrics")}
    assert checks["metric-right-reset"].run() is None
    assert checks["metric-right-reset"].description == "after reset a metric measures as a fresh one does."
    assert checks["metric-per-batch-optimum"].run() is None
    with pytest.raises(CheckFailure, match=r"mse is .* against .* The contract: values do not depend on"):
        checks["metric-per-batch-batch-size"].run()


def test_a_check_that_does_not_apply_says_why() -> None:
    checks = {c.id: c for c in checks_for_component(MODULES["sparsity_rules"].RIGHT[0])}
    assert checks["sparsity-thresholded-largest"].run() == "the number of entries is not fixed"


def test_a_distribution_that_cannot_be_checked_is_named(
    plugin_site: PluginSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin_site.add("broken-thing", "raise RuntimeError('no good')")
    plugin_site.add("empty-thing", "")
    installed(plugin_site, monkeypatch)
    with pytest.raises(PluginError, match=r"'broken-thign' is not an installed .* mean 'broken-thing'"):
        checks_for("broken-thign")
    with pytest.raises(PluginError, match="'broken-thing' is broken: RuntimeError: no good"):
        checks_for("broken-thing")
    with pytest.raises(PluginError, match="'empty-thing' registers no component"):
        checks_for("empty-thing")


def test_the_kit_imports_no_pytest() -> None:
    code = "import sys, qsae_core.conformance; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


# --- sample configurations


class ChoicesConfig(ComponentConfig):
    """Options of every sort."""

    grid: Literal["binary", "ternary"] = option("ternary", "values")
    bits: int = option(4, "bits per weight", ge=1, le=8)
    rotate: bool | Literal["auto"] = option("auto", "rotate")
    name: str = option("x", "free text is not varied")
    count: int = option(10, "an int without bounds is not varied", gt=0)

    @model_validator(mode="after")
    def _one_bit_is_binary(self) -> ChoicesConfig:
        if self.bits == 1 and self.grid != "binary":
            raise ValueError("one bit is binary")
        return self


def test_choices_vary_each_option_and_then_pairs() -> None:
    alone = [dict(case.options) for case in choices(ChoicesConfig, together=1)]
    # one bit is left out, because the default grid is ternary
    assert alone == [{}, {"grid": "binary"}, {"bits": 8}, {"rotate": False}, {"rotate": True}]
    pairs = [dict(case.options) for case in choices(ChoicesConfig)]
    assert pairs[:5] == alone
    assert pairs[5:] == [
        {"grid": "binary", "bits": 1},
        {"grid": "binary", "bits": 8},
        {"grid": "binary", "rotate": False},
        {"grid": "binary", "rotate": True},
        {"bits": 8, "rotate": False},
        {"bits": 8, "rotate": True},
    ]


def test_choices_keep_what_is_given() -> None:
    cases = choices(ChoicesConfig, together=1, grid="binary", name="y")
    assert cases[0] == Case({"grid": "binary", "name": "y"})
    assert all(case.options["grid"] == "binary" for case in cases)
    assert {"grid": "binary", "name": "y", "bits": 1} in [dict(case.options) for case in cases]


def test_sample_files_are_removed_with_the_checks() -> None:
    checks = checks_for_component(MODULES["data_sources"].RIGHT[0])
    assert failures(checks) == {}
    folder = checks[0].subject.folder
    assert (folder / "vectors.pt").exists()
    del checks
    gc.collect()
    assert not folder.exists()


# --- expected failures


def test_an_expected_failure_may_name_option_values() -> None:
    spec = MODULES["quantizers"].HALF_WRONG
    key = f"quantizer-{spec.name}-idempotent:scale=halved"
    pairs = expecting(checks_for_component(spec), {key: "the halved scale is halved again"})
    checks = {check.id: (check, reason) for check, reason in pairs}
    rest, no_reason = checks[f"quantizer-{spec.name}-idempotent"]
    assert rest.run() is None, "the other sample configurations still have to comply"
    assert no_reason is None
    split, reason = checks[key]
    assert reason == "the halved scale is halved again"
    with pytest.raises(CheckFailure, match="scale=halved"):
        split.run()


def test_option_values_that_no_sample_has_are_an_error() -> None:
    spec = MODULES["quantizers"].HALF_WRONG
    key = f"quantizer-{spec.name}-idempotent:scale=doubled"
    (split,) = (check for check, reason in expecting(checks_for_component(spec), {key: "?"}) if reason)
    with pytest.raises(PluginError, match="no sample configuration"):
        split.run()


def test_a_reason_is_needed() -> None:
    checks = checks_for_component(MODULES["options"].RIGHT[0])
    with pytest.raises(PluginError, match="needs a reason"):
        expecting(checks, {"metric-right-reset": " "})


def test_a_check_leaves_the_global_generators_as_they_were() -> None:
    random.seed(5)
    torch.manual_seed(5)
    before = random.getstate(), torch.get_rng_state()
    failures(checks_for_component(MODULES["metrics"].RIGHT[0]))
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
