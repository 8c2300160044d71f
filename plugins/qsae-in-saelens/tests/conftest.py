"""Environments of other libraries, by whose Python a script is run that finds qsae and its plugins here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest
from click.testing import CliRunner

from qsae_cli.main import cli

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
LACKING = ("pluggy",)
"""Of what core depends on, what sae-lens does not bring."""

SWITCHES = {"HF_HUB_OFFLINE": "1", "JAXTYPING_DISABLE": "1"}
"""No network is asked; and SAEBench 0.6.0's checks of its own types are off, of which one fails in its
``sparse_probing`` with newer releases of beartype, whatever the SAE is."""


class Peer:
    """Runs scripts that are beside this file, by the Python of an environment."""

    def __init__(self, name, site):
        self.name, self.site = name, site
        self.sources = [ROOT, *sorted(ROOT.glob("plugins/qsae-*"))]
        folder = pathlib.Path(os.environ.get("QSAE_BENCH_PEERS", "no folder"))
        self.python = folder / name / "bin" / "python"
        if not self.python.exists():
            pytest.skip(f"QSAE_BENCH_PEERS names no folder with an environment {name}")

    def __call__(self, script, *arguments, cwd=None):
        paths = os.pathsep.join(map(str, [self.site, *self.sources]))
        environment = {**os.environ, "PYTHONPATH": paths, **SWITCHES}
        command = [str(self.python), *map(str, [HERE / script, *arguments])]
        done = subprocess.run(
            command, env=environment, cwd=cwd, capture_output=True, text=True, check=False, timeout=900
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def lacks(self, module):
        """Whether its Python does not find a module."""
        code = f"import importlib.util; print(importlib.util.find_spec({module!r}) is None)"
        found = subprocess.run([str(self.python), "-c", code], capture_output=True, text=True, check=True)
        return found.stdout.strip() == "True"

    def runs_what_is_compiled_here(self):
        """Whether extension modules of this Python are ones of its too."""
        code = "import sys; print(sys.implementation.cache_tag)"
        found = subprocess.run([str(self.python), "-c", code], capture_output=True, text=True, check=True)
        return found.stdout.strip() == sys.implementation.cache_tag

    def link(self, module, libraries=None):
        """Let it find a module of this environment, and the folder beside it with its shared libraries."""
        origin = pathlib.Path(importlib.util.find_spec(module).origin)
        place = origin.parent if origin.name == "__init__.py" else origin
        for path in filter(None, (place, libraries and place.with_name(libraries))):
            (self.site / path.name).symlink_to(path)


@pytest.fixture(scope="session")
def peer(tmp_path_factory):
    """Peer of a name; skips where there is none."""

    def made(name):
        # what pip would install, without an installation: records of distributions, and their sources
        found = Peer(name, tmp_path_factory.mktemp("site"))
        for distribution in importlib.metadata.distributions():
            if distribution.name == "qsae" or (ROOT / "plugins" / distribution.name).is_dir():
                record(distribution, found.site)
        for module in LACKING:
            found.link(module)
        return found

    return made


def record(distribution, site):
    """What an installation says of itself."""
    folder = site / f"{distribution.name.replace('-', '_')}-{distribution.version}.dist-info"
    folder.mkdir(exist_ok=True)
    metadata = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO")
    (folder / "METADATA").write_text(metadata)
    (folder / "entry_points.txt").write_text(distribution.read_text("entry_points.txt") or "")


@pytest.fixture
def qsae():
    """Calls a command, and gives what it printed."""

    def called(*arguments):
        result = CliRunner().invoke(cli, [str(a) for a in arguments])
        assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
        return result.stdout

    return called
