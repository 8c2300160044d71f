"""The registry: names, suggestions, contested components and the classes behind them."""

from __future__ import annotations

import pytest

from qsae_core import ComponentConfig, ComponentSpec
from qsae_core.errors import PluginError
from qsae_core.registry import Provider, Registry

A, B = Provider("qsae-a", "1.0"), Provider("qsae-b", "2.0")


class Config(ComponentConfig):
    """No options."""


def spec(kind: str, name: str, target: str = "nowhere:Nothing") -> ComponentSpec:
    return ComponentSpec(kind, name, Config, target)


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.add(A, [spec("quantizer", "ternary"), spec("quantizer", "binary"), spec("metric", "cosine")])
    registry.add(B, [spec("quantizer", "lsq")])
    return registry


def test_components_are_found_by_kind_and_name(registry):
    assert registry.names("quantizer") == ["binary", "lsq", "ternary"]
    assert [s.name for s in registry.specs("metric")] == ["cosine"]
    assert registry.get("quantizer", "lsq").name == "lsq"
    assert registry.provider("quantizer", "lsq") == ("qsae-b", "2.0")
    assert registry.names("sae") == []


def test_an_unknown_name_suggests_the_closest_and_lists_the_installed(registry):
    with pytest.raises(PluginError) as caught:
        registry.get("quantizer", "ternry")
    assert (
        caught.value.what
        == "unknown quantizer 'ternry'; did you mean 'ternary'? installed: binary, lsq, ternary"
    )


def test_an_unknown_name_that_resembles_nothing(registry):
    with pytest.raises(PluginError) as caught:
        registry.get("metric", "zzz")
    assert caught.value.what == "unknown metric 'zzz'; installed: cosine"
    with pytest.raises(PluginError, match="unknown sae 'topk'; installed: none"):
        registry.get("sae", "topk")


def test_an_unknown_kind_is_refused(registry):
    for call in (lambda: registry.get("quantiser", "lsq"), lambda: registry.names("quantiser")):
        with pytest.raises(PluginError, match="no kind 'quantiser'; did you mean 'quantizer'") as caught:
            call()
        assert "sae, transcoder, quantizer" in caught.value.allowed


def test_the_broken_plugin_that_may_provide_it_is_named(registry):
    registry.drop("qsae-sae-topk", "is broken: ImportError: no module named 'x'")
    with pytest.raises(
        PluginError, match=r"not loaded: qsae-sae-topk is broken: ImportError: no module named 'x'"
    ):
        registry.get("sae", "topk")
    with pytest.raises(PluginError) as caught:
        registry.get("sae", "batchtopk")  # a part of a word is no match
    assert "not loaded" not in str(caught.value)


def test_a_broken_family_is_named_for_any_of_its_kind(registry):
    registry.drop("qsae-activations", "is blocked: blocked by QSAE_DISABLE_PLUGINS")
    with pytest.raises(PluginError, match="qsae-activations is blocked"):
        registry.get("activation", "relu")
    with pytest.raises(PluginError) as caught:
        registry.get("sae", "relu")
    assert "not loaded" not in str(caught.value)


def test_dropping_a_plugin_takes_out_its_components_alone(registry):
    registry.drop("qsae-a", "is broken: why")
    assert registry.names("quantizer") == ["lsq"]
    assert registry.names("metric") == []


def test_a_contested_component_has_no_silent_winner(registry):
    registry.add(B, [spec("quantizer", "ternary")])
    assert registry.names("quantizer") == ["binary", "lsq"]
    assert registry.contested() == {("quantizer", "ternary"): [A, B]}
    with pytest.raises(PluginError) as caught:
        registry.get("quantizer", "ternary")
    assert (
        caught.value.what == "quantizer 'ternary' is registered by qsae-a 1.0 and qsae-b 2.0; neither is used"
    )
    assert "QSAE_DISABLE_PLUGINS=qsae-b or QSAE_DISABLE_PLUGINS=qsae-a" in caught.value.next


def test_blocking_one_of_three_leaves_two_in_contest(registry):
    registry.add(B, [spec("quantizer", "ternary")])
    registry.add(Provider("qsae-c", "3.0"), [spec("quantizer", "ternary")])
    with pytest.raises(PluginError, match=r"qsae-a 1.0 and qsae-b 2.0 and qsae-c 3.0") as caught:
        registry.get("quantizer", "ternary")
    assert "QSAE_DISABLE_PLUGINS=qsae-b,qsae-c or QSAE_DISABLE_PLUGINS=qsae-a,qsae-c" in caught.value.next
    registry.drop("qsae-b", "is blocked")
    with pytest.raises(PluginError, match=r"qsae-a 1.0 and qsae-c 3.0"):
        registry.get("quantizer", "ternary")


def test_a_contest_ends_when_one_side_is_blocked(plugin_site):
    source = """
        from qsae_core import ComponentConfig, ComponentSpec, hookimpl

        class Config(ComponentConfig):
            pass

        @hookimpl
        def qsae_register_metrics():
            return [ComponentSpec("metric", "shared", Config, __name__ + ":X")]
    """
    plugin_site.add("acme-one", source)
    plugin_site.add("acme-two", source)
    both = plugin_site.load()
    assert [record.status for record in both.records] == ["ok", "ok"]
    assert both.registry.names("metric") == []
    alone = plugin_site.load(QSAE_DISABLE_PLUGINS="acme-one")
    assert alone.registry.provider("metric", "shared").name == "acme-two"


# --- targets

MATHS = """
    from qsae_core.contracts.activation import Activation

    class Doubler(Activation):
        def forward(self, pre_acts, latent_index=None):
            return 2 * pre_acts

    class Unfinished(Activation):
        pass

    class Stranger:
        pass

    doubler = Doubler
    number = 3
"""


def target_error(plugin_site, target: str) -> str:
    plugin_site.add("acme-x", "", files={"maths.py": MATHS, "bad.py": "import acme_absent"})
    registry = Registry()
    component = spec("activation", "doubler", target)
    registry.add(Provider("acme-x", "4.0"), [component])
    with pytest.raises(PluginError) as caught:
        registry.load_target(component)
    assert str(caught.value).startswith("activation 'doubler' of acme-x 4.0: ")
    return str(caught.value)


@pytest.mark.torch
def test_a_target_is_imported_when_asked_for(plugin_site):
    plugin_site.add("acme-x", "", files={"maths.py": MATHS})
    doubler = Registry().load_target(spec("activation", "doubler", "acme_x.maths:Doubler"))
    assert doubler(Config(), 4).forward(3.0) == 6.0


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("acme_x.bad:Doubler", "cannot be imported: ModuleNotFoundError: No module named 'acme_absent'"),
        (
            "acme_x.nothing:Doubler",
            "cannot be imported: ModuleNotFoundError: No module named 'acme_x.nothing'",
        ),
    ],
)
def test_a_target_that_cannot_be_imported_is_refused_with_its_distribution(plugin_site, target, expected):
    assert expected in target_error(plugin_site, target)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("acme_x.maths:Doublr", "module 'acme_x.maths' has no 'Doublr'; did you mean 'Doubler'?"),
        (
            "acme_x.maths:number",
            "is of type int; it must be a class that subclasses qsae_core.contracts.Activation",
        ),
        (
            "acme_x.maths:Stranger",
            "does not subclass qsae_core.contracts.Activation, as every activation must",
        ),
        (
            "acme_x.maths:Unfinished",
            "does not define forward, which qsae_core.contracts.Activation asks for",
        ),
    ],
)
def test_a_wrong_target_is_refused_with_its_distribution(plugin_site, target, expected):
    assert expected in target_error(plugin_site, target)
