"""Other libraries, each in an environment of its own, by whose Python a test runs a script."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Mapping

from qsae_core.conformance.verdicts import CheckFailure

ENVIRONMENTS = "QSAE_BENCH_PEERS"
"""The variable that names the folder of the environments; without it, where the benchmarks make them."""
MADE_BY_BENCHMARKS = "build/bench"
LACKING = ("pluggy",)
"""Of what core depends on, what no other library brings."""


def peer(name: str) -> Peer:
    """A library's environment, which is a folder of this name; the test is skipped where there is none.

    Args:
        name: the library's on PyPI (``sae-lens``).
    """
    import pytest

    folder = pathlib.Path(os.environ.get(ENVIRONMENTS, MADE_BY_BENCHMARKS)) / name
    python = folder / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{ENVIRONMENTS} names no folder with an environment {name}")
    return Peer(name, python.absolute())  # not resolved: an environment's Python is a link to another


@dataclasses.dataclass(frozen=True)
class Peer:
    """Another library, and the Python that it is installed for."""

    name: str
    python: pathlib.Path
    paths: tuple[pathlib.Path, ...] = ()
    """Folders in which its Python finds packages beside its own."""

    def run(
        self,
        script: pathlib.Path | str,
        *arguments: object,
        given: str = "",
        cwd: pathlib.Path | None = None,
        variables: Mapping[str, str] | None = None,
        timeout_s: float = 1800,
    ) -> str:
        """What a script prints.

        Args:
            script: a file.
            arguments: of its command line, as ``str`` makes them.
            given: its standard input.
            cwd: where it runs.
            variables: of its environment, beside those of this process.
            timeout_s: seconds it may take.

        Raises:
            CheckFailure: with what it wrote to standard error, if it does not end with 0.
        """
        return self._done([str(script), *map(str, arguments)], given, cwd, variables or {}, timeout_s)

    def says(self, code: str) -> str:
        """What a line of Python prints."""
        return self._done(["-c", code], "", None, {}, 60).strip()

    def finding(
        self, folder: pathlib.Path, modules: Iterable[str] = (), paths: Iterable[pathlib.Path] = ()
    ) -> Peer:
        """This one, finding qsae and every plugin that is installed here, as if pip had installed them there.

        Args:
            folder: an empty one, which is filled with links and records.
            modules: others of this environment that it is to find.
            paths: folders with further packages.
        """
        for distribution in importlib.metadata.distributions():
            points = distribution.entry_points
            if distribution.name == "qsae" or any(point.group == "qsae" for point in points):
                _record(distribution, folder)
                link({point.module.partition(".")[0] for point in points}, folder)
        link([__name__.partition(".")[0], *LACKING, *modules], folder)
        return dataclasses.replace(self, paths=(folder, *paths))

    def lacks(self, module: str) -> bool:
        """Whether its Python does not find a module."""
        return self.says(f"import importlib.util as u; print(u.find_spec({module!r}) is None)") == "True"

    def runs_what_is_compiled_here(self) -> bool:
        """Whether extension modules of this Python are ones of its too."""
        return self.says("import sys; print(sys.implementation.cache_tag)") == sys.implementation.cache_tag

    def _done(
        self,
        arguments: list[str],
        given: str,
        cwd: pathlib.Path | None,
        variables: Mapping[str, str],
        timeout_s: float,
    ) -> str:
        paths = {"PYTHONPATH": os.pathsep.join(map(str, self.paths))} if self.paths else {}
        done = subprocess.run(
            [str(self.python), *arguments],
            input=given,
            cwd=cwd,
            env={**os.environ, **paths, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        if done.returncode != 0:
            raise CheckFailure(
                f"{self.name}: {' '.join(arguments)} ended with {done.returncode}\n{done.stderr}"
            )
        return done.stdout


def link(modules: Iterable[str], folder: pathlib.Path) -> None:
    """Let a folder hold modules of this environment, and the shared libraries that wheels keep beside them.

    Raises:
        ModuleNotFoundError: if there is no such module.
    """
    distributions = importlib.metadata.packages_distributions()
    for name in modules:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"no module named {name!r}", name=name)
        origin = pathlib.Path(spec.origin)
        place = origin.parent if origin.name == "__init__.py" else origin
        owners = distributions.get(name, [])
        libraries = [place.with_name(f"{owner.replace('-', '_')}.libs") for owner in owners]
        for path in [place, *filter(pathlib.Path.exists, libraries)]:
            if not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)


def _record(distribution: importlib.metadata.Distribution, folder: pathlib.Path) -> None:
    """What an installation says of itself."""
    record = folder / f"{distribution.name.replace('-', '_')}-{distribution.version}.dist-info"
    record.mkdir(exist_ok=True)
    metadata = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    (record / "METADATA").write_text(metadata, encoding="utf-8")
    (record / "entry_points.txt").write_text(
        distribution.read_text("entry_points.txt") or "", encoding="utf-8"
    )
