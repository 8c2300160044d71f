"""The distributions of this repository, which its folders say, and the version that all of them have.

The version stands in core's ``pyproject.toml``. ``write`` takes it to every other place that says it, and
``faults`` finds the places that say something else.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]
OUT = ROOT / "dist"
"""Where wheels and sdists are put."""
META = "qsae-all"
"""The folder of the distribution that depends on all others, and its name."""
MODULE_VERSION = pathlib.Path("qsae_core", "__init__.py")
TUTORIAL = pathlib.Path("plugins", "README.md")
"""Shows the project file that `qsae new-plugin` writes."""
OWN = re.compile(r'"(qsae(?:-[a-z0-9]+)*(?:\[[^\]"]*\])?)\s*[<>=!~][^"]*"')
"""A requirement of one of ours with bounds, as a pyproject file has it."""


class Distribution(NamedTuple):
    """A folder with a ``pyproject.toml``."""

    folder: pathlib.Path
    file: dict[str, Any]
    """What its pyproject file says."""

    @property
    def name(self) -> str:
        """As PyPI has it."""
        return str(self.file["project"]["name"])

    @property
    def version(self) -> str:
        """Its own, as it says."""
        return str(self.file["project"]["version"])

    def requirements(self) -> Iterator[str]:
        """All that it may want installed, extras included, as it stands in the file."""
        yield from self.file["project"].get("dependencies", [])
        for lines in self.file["project"].get("optional-dependencies", {}).values():
            yield from lines


def distributions(root: pathlib.Path = ROOT) -> list[Distribution]:
    """Core, every plugin in ``plugins``, and the one that depends on all of them."""
    folders = [root, *sorted(path.parent for path in root.glob("plugins/*/pyproject.toml")), root / META]
    return [
        Distribution(folder, tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")))
        for folder in folders
    ]


def bounds(version: str) -> str:
    """What ours ask of one another at a version: this one or later, of the same series.

    A series is a minor version while the major one is 0, then a major version.

    >>> bounds("0.1.0"), bounds("0.1.2"), bounds("1.2.0")
    ('>=0.1,<0.2', '>=0.1.2,<0.2', '>=1.2,<2')
    """
    parsed = Version(version)
    major, minor, micro = (*parsed.release, 0, 0)[:3]
    lower = version if parsed.is_prerelease or micro else f"{major}.{minor}"
    upper = str(major + 1) if major else f"0.{minor + 1}"
    return f">={lower},<{upper}"


def series(version: str) -> str:
    """The first version of the series: what `qsae new-plugin` asks for at a version.

    >>> series("0.1.2"), series("1.2.0rc1")
    ('0.1.0', '1.2.0')
    """
    major, minor = (*Version(version).release, 0)[:2]
    return f"{major}.{minor}.0"


def module_version(root: pathlib.Path = ROOT) -> str:
    """``qsae_core.__version__``, read and not imported."""
    found = re.search(r'^__version__ = "(.*)"$', (root / MODULE_VERSION).read_text("utf-8"), re.MULTILINE)
    return found[1] if found else "nothing"


def write(version: str, root: pathlib.Path = ROOT) -> list[pathlib.Path]:
    """Make a version that of every distribution, and of what they ask of one another; the changed files.

    Raises:
        InvalidVersion: it is none.
    """
    Version(version)
    said = re.compile(r'^(version|__version__) = ".*"$', re.MULTILINE)
    texts = {}
    for path in [root / MODULE_VERSION, *(d.folder / "pyproject.toml" for d in distributions(root))]:
        text = said.sub(rf'\1 = "{version}"', path.read_text(encoding="utf-8"), count=1)
        texts[path] = OWN.sub(rf'"\1{bounds(version)}"', text)
    tutorial = (root / TUTORIAL).read_text(encoding="utf-8")
    texts[root / TUTORIAL] = OWN.sub(rf'"\1{bounds(series(version))}"', tutorial)
    changed = [path for path, text in texts.items() if text != path.read_text(encoding="utf-8")]
    for path in changed:
        path.write_text(texts[path], encoding="utf-8")
    return changed


def faults(root: pathlib.Path = ROOT) -> list[str]:
    """A sentence for each place that does not say the version of core, or that admits another of ours."""
    every = distributions(root)
    version, names = every[0].version, {distribution.name for distribution in every}
    found = []
    if module_version(root) != version:
        found.append(f"{MODULE_VERSION.as_posix()} says {module_version(root)}, core {version}")
    for distribution in every:
        where = (distribution.folder / "pyproject.toml").relative_to(root).as_posix()
        if distribution.version != version:
            found.append(f"{where} says {distribution.version}, core {version}")
        for line in distribution.requirements():
            found += [f"{where}: {fault}" for fault in _wrong(line, names, bounds(version))]
    tutorial = (root / TUTORIAL).read_text(encoding="utf-8")
    for line in OWN.finditer(tutorial):
        expected = f'"{line[1]}{bounds(series(version))}"'
        found += [f"{TUTORIAL.as_posix()} says {line[0]}, not {expected}"] if line[0] != expected else []
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## \[{re.escape(version)}\]", changelog, re.MULTILINE):
        found.append(f"CHANGELOG.md has no section [{version}]")
    return found


def _wrong(line: str, names: set[str], expected: str) -> Iterator[str]:
    """What is wrong with a requirement: with those of others nothing."""
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        yield f"{line} is no requirement"
        return
    if requirement.name in names and requirement.specifier != SpecifierSet(expected):
        yield f"{line} should be {requirement.name}{expected}"
    if requirement.name.startswith("qsae-") and requirement.name not in names:
        yield f"{line} is of no distribution here"
