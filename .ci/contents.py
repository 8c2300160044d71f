"""What is in a wheel and in an sdist, beside what should be."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable

from builds import BUILD_WHEEL
from distributions import ROOT, Distribution

COMPILED = (".c", ".h")
"""Sources that a wheel has in one shared library instead."""
MADE = re.compile(r"PKG-INFO|setup\.cfg|LICENSE|requirements\.txt|[\w-]+\.egg-info/.*")
"""What an sdist has beside what git has: what a backend adds, the license, and qsae-all's list."""
CORE_IN_SDIST = ("qsae_core/", "cli/", "tests/")
CORE_FILES = ("README.md", "LICENSE", "CHANGELOG.md", "MANIFEST.in", "pyproject.toml", "conftest.py")


def tracked(distribution: Distribution) -> set[str]:
    """The files of a distribution's folder that git has or would add, as paths in it, but for .gitignore."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=distribution.folder, check=True, capture_output=True, text=True)
    names = {n for n in done.stdout.split("\0") if n and (distribution.folder / n).is_file()}
    if distribution.folder == ROOT:
        names = {n for n in names if n.startswith(CORE_IN_SDIST) or n in CORE_FILES}
    return {n for n in names if pathlib.PurePosixPath(n).name != ".gitignore"}


def packaged(distribution: Distribution) -> set[str]:
    """What of these a wheel should hold, under the names that it is imported by."""
    files = {re.sub("^cli/", "qsae_cli/", name) for name in tracked(distribution)}
    inside = {n for n in files if n.startswith("qsae_") and not n.endswith(".egg-info")}
    return {n for n in inside if not n.endswith(COMPILED)}


def wheel_faults(distribution: Distribution, wheel: pathlib.Path) -> list[str]:
    """What a wheel lacks, and what has no business there."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    info = next(name for name in names if name.endswith("/METADATA")).removesuffix("METADATA")
    found = {n for n in names if not n.startswith(info)}
    library = {n for n in found if re.fullmatch(r"\w+/_native[\w.-]*\.(so|pyd|dylib)", n)}
    expected = packaged(distribution)
    faults = [f"lacks {name}" for name in sorted(expected - found)]
    faults += [f"has {name}" for name in sorted(found - expected - library)]
    faults += [] if f"{info}licenses/LICENSE" in names else ["lacks the license"]
    if any(name.endswith(COMPILED) for name in tracked(distribution)) and not library:
        faults.append("lacks the compiled library")
    if expected and not {n for n in found if n.endswith("/py.typed")}:
        faults.append("lacks py.typed")
    return [f"{wheel.name} {fault}" for fault in faults]


def sdist_faults(distribution: Distribution, sdist: pathlib.Path) -> list[str]:
    """What an sdist lacks, and what has no business there."""
    with tarfile.open(sdist) as archive:
        found = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
    expected = tracked(distribution) | {"LICENSE", "PKG-INFO"}
    faults = [f"lacks {name}" for name in sorted(expected - found)]
    faults += [f"has {name}" for name in sorted(found - expected) if not MADE.fullmatch(name)]
    return [f"{sdist.name} {fault}" for fault in faults]


def files_of(out: pathlib.Path, distribution: Distribution) -> tuple[pathlib.Path, pathlib.Path]:
    """Its wheel and its sdist.

    Raises:
        ValueError: there is none, or more than one.
    """
    stem = f"{distribution.name.replace('-', '_')}-{distribution.version}"
    (wheel,), (sdist,) = out.glob(f"{stem}-*.whl"), out.glob(f"{stem}.tar.gz")
    return wheel, sdist


def contents_faults(out: pathlib.Path, chosen: Iterable[Distribution]) -> list[str]:
    """What is wrong with the files of these distributions."""
    found = []
    for distribution in chosen:
        wheel, sdist = files_of(out, distribution)
        found += [*wheel_faults(distribution, wheel), *sdist_faults(distribution, sdist)]
    return found


def wheel_contents(wheel: pathlib.Path) -> dict[str, bytes]:
    """Name -> bytes of everything in it."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rebuilt_faults(out: pathlib.Path, chosen: Iterable[Distribution]) -> list[str]:
    """Which sdists build another wheel than the one beside them; what is compiled is left out.

    Raises:
        CalledProcessError: one builds none.
    """
    found = []
    with tempfile.TemporaryDirectory() as folder:
        again = pathlib.Path(folder) / "again"
        again.mkdir()
        for distribution in chosen:
            wheel, sdist = files_of(out, distribution)
            if not wheel.name.endswith("-none-any.whl"):
                continue
            with tarfile.open(sdist) as archive:
                archive.extractall(folder, filter="data")
            source = pathlib.Path(folder) / sdist.name.removesuffix(".tar.gz")
            backend = distribution.file["build-system"]["build-backend"]
            command = [sys.executable, "-c", BUILD_WHEEL, backend, str(again), str(source)]
            subprocess.run(command, check=True, capture_output=True)
            if wheel_contents(wheel) != wheel_contents(again / wheel.name):
                found.append(f"{sdist.name} builds another wheel than {wheel.name}")
    return found
