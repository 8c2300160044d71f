"""The dependencies are core and every plugin in the folders beside this one, in this very version.

Not what is installed where another library is: that is no plugin.

With their extras, apart from those that only their tests want. An sdist, which has no such folders beside it,
carries the list that was made where it was built.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

from setuptools import setup

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = pathlib.Path(__file__).resolve().parent
LIST = HERE / "requirements.txt"
FOR_TESTS = {"conformance", "dev", "test"}


def requirements(root: pathlib.Path) -> Iterator[str]:
    """``name[extras]==version`` of every distribution below a folder of the repository's shape."""
    for path in [root / "pyproject.toml", *sorted(root.glob("plugins/*/pyproject.toml"))]:
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        if "plugins" in path.parts and "qsae" not in project.get("entry-points", {}):
            continue
        extras = sorted(project.get("optional-dependencies", {}).keys() - FOR_TESTS)
        yield f"{project['name']}{'[' + ','.join(extras) + ']' if extras else ''}=={project['version']}"


if (HERE.parent / "qsae_core").is_dir():
    LIST.write_text("".join(f"{line}\n" for line in requirements(HERE.parent)), encoding="utf-8")
setup(install_requires=LIST.read_text(encoding="utf-8").split())
