"""The scripts in ``.ci`` as modules, so that tests can call what is in them."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import pathlib
import sys
import types

FOLDER = pathlib.Path(__file__).resolve().parents[1] / ".ci"
if str(FOLDER) not in sys.path:
    sys.path.append(str(FOLDER))  # they import one another


def script(name: str) -> types.ModuleType:
    """``.ci/NAME``, whose name has no ending that Python would know."""
    loader = importlib.machinery.SourceFileLoader(f"ci_{name.replace('-', '_')}", str(FOLDER / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
