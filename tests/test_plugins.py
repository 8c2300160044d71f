"""Discovery and loading: good plugins load, and every kind of bad one is named without harm to others."""

from __future__ import annotations

import textwrap

import click
import pytest

from qsae_core import QsaeError
from qsae_core.errors import PluginError
from qsae_core.plugins import PluginRecord

GOOD = """
    from qsae_core import ComponentConfig, ComponentSpec, hookimpl

    class DoublerConfig(ComponentConfig):
        '''Twice the input.'''

    @hookimpl
    def qsae_register_activations():
        return [ComponentSpec("activation", "doubler", DoublerConfig, "{module}.maths:Doubler")]
"""


def good(module: str) -> str:
    return textwrap.dedent(GOOD).format(module=module)


def add_good(site, name: str, **options) -> None:
    site.add(name, good(name.replace("-", "_")), files={"maths.py": "raise RuntimeError('imported')"}, **options)


def only_record(plugins) -> PluginRecord:
    (record,) = plugins.records
    return record


def test_a_good_plugin_is_ok_and_its_target_stays_unimported(plugin_site):
    add_good(plugin_site, "acme-good", version="2.3")
    record = only_record(plugin_site.load())
    assert (record.name, record.version, record.status) == ("acme-good", "2.3", "ok")
    assert record.components == {"activation": ("doubler",)}
    assert record.error is None and record.traceback is None
    assert record.hooks == ()
