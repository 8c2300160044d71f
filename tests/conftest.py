"""Fixtures that every test of core and CLI may use."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from qsae_cli import main
from qsae_core import __version__
from qsae_core.plugins.records import Plugins, discover, load_plugins


class Done(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


class PluginSite:
    """A folder on the import path with little installed distributions, written as pip would write them."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def add(
        self,
        name: str,
        source: str,
        *,
        version: str = "1.0",
        requires: str | None = f"qsae=={__version__}",
        entry_points: str | None = None,
        files: Mapping[str, str] | None = None,
    ) -> None:
        """Install a distribution whose top module is a package with this ``__init__.py``.

        The module is the name with underscores; ``entry_points`` replaces the text of entry_points.txt, and
        ``files`` adds other files to the package.
        """
        module = name.replace("-", "_")
        package = self.path / module
        package.mkdir(parents=True)
        for file, text in {"__init__.py": source, **(files or {})}.items():
            (package / file).write_text(textwrap.dedent(text))
        info = self.path / f"{module}-{version}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata + (f"Requires-Dist: {requires}\n" if requires else ""))
        points = entry_points if entry_points is not None else f"[qsae]\n{module} = {module}\n"
        (info / "entry_points.txt").write_text(points)

    def load(self, **environ: str) -> Plugins:
        """Load the plugins of this folder alone, in this process."""
        return discover(environ, [str(self.path)])

    def qsae(self, *arguments: str, **environ: str) -> Done:
        """Run the ``qsae`` command in this process, with this folder's plugins in front of the installed."""
        _forget_plugins()
        result = CliRunner(env=environ).invoke(main.cli, arguments, prog_name="qsae")
        _forget_plugins()
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    def process(self, code: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run Python code in a new process, with this folder's plugins in front of the installed."""
        path = os.pathsep.join([str(self.path), *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environ},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def _forget_plugins() -> None:
    load_plugins.cache_clear()
    main._plugin_commands.cache_clear()


@pytest.fixture
def plugin_site(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginSite]:
    """An empty ``PluginSite``; modules imported from it are forgotten afterwards."""
    site = PluginSite(tmp_path / "site")
    site.path.mkdir()
    monkeypatch.syspath_prepend(str(site.path))
    before = set(sys.modules)
    yield site
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(site.path)):
            del sys.modules[name]
