"""Environments of other libraries, by whose Python a script is run that finds qsae and its plugins here."""

from __future__ import annotations

import pathlib

import pytest
from click.testing import CliRunner

from qsae_cli.main import cli
from qsae_core.conformance import peer

PACKAGE = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="session")
def finding_qsae(tmp_path_factory):
    """Peer of a name that finds qsae, its plugins, this one, and more modules; skips where there is none."""

    def made(name, modules=()):
        return peer(name).finding(tmp_path_factory.mktemp("site"), modules, paths=[PACKAGE])

    return made


@pytest.fixture
def qsae():
    """Calls a command, and gives what it printed."""

    def called(*arguments):
        result = CliRunner().invoke(cli, [str(a) for a in arguments])
        assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
        return result.stdout

    return called
