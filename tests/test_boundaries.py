"""Who may import whom: core flows one way, light modules need no torch, plugins import what they declare."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]
CORE, CLI = ROOT / "qsae_core", ROOT / "cli"
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
UPWARDS = {("__init__", "artifact")}
"""The one import against the flow, made inside ``qsae_core.load``."""


def imports(path: pathlib.Path, *, in_functions: bool = True) -> Iterator[str]:
    """Full names of what a file imports when it runs: modules, or names in them; none under TYPE_CHECKING."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a name comes from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif in_functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            pending += ast.iter_child_nodes(node)


def test_what_counts_as_an_import(tmp_path):
    file = tmp_path / "example.py"
    file.write_text(
        "import a.b\nfrom c import d, e\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import never\nelse:\n    import f\n"
        "def function():\n    import g\n"
    )
    at_import = {"a.b", "c.d", "c.e", "typing.TYPE_CHECKING", "f"}
    assert set(imports(file, in_functions=False)) == at_import
    assert set(imports(file)) == at_import | {"g"}


# --- core


def core_modules() -> dict[str, list[pathlib.Path]]:
    """Module or subpackage of qsae_core -> its files."""
    found = {path.stem: [path] for path in CORE.glob("*.py")}
    return found | {path.parent.name: sorted(path.parent.glob("*.py")) for path in CORE.glob("*/__init__.py")}


def layers() -> list[tuple[set[str], bool]]:
    """The rows of the table in docs/architecture.md: modules, and whether they import torch."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("| layer | modules | torch |\n|---|---|---|\n")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    return [(set(re.findall(r"`(\w+)`", modules)), torch == "yes") for _, modules, torch in rows]


def test_the_table_of_layers_has_every_module_once():
    named = [module for modules, _ in layers() for module in modules]
    assert sorted(named) == sorted(core_modules().keys() - {"__init__"})


def test_imports_in_core_flow_one_way():
    order = {module: depth for depth, (modules, _) in enumerate(layers()) for module in modules}
    order["__init__"] = 0  # the public face: everything may import it, and it imports words alone
    wrong = []
    for module, files in core_modules().items():
        for imported in {core_part(name) for file in files for name in imports(file)} - {None, module}:
            if order[imported] > order[module] and (module, imported) not in UPWARDS:
                wrong.append(f"{module} imports {imported}, which is in a later layer")
    assert wrong == []


def core_part(name: str) -> str | None:
    """The module or subpackage of core that an imported name belongs to; None outside core."""
    package, _, rest = name.partition(".")
    if package != "qsae_core":
        return None
    part = rest.partition(".")[0]
    return part if part in core_modules() else "__init__"


def test_no_modules_of_core_import_each_other_in_a_circle():
    modules = core_modules()
    graph = {
        module: {core_part(n) for f in files for n in imports(f, in_functions=False)} - {None, module}
        for module, files in modules.items()
    }
    while leaves := [module for module, needs in graph.items() if not needs]:
        for module in leaves:
            del graph[module]
        graph = {module: needs - set(leaves) for module, needs in graph.items()}
    assert graph == {}, "these modules import each other in a circle"


def test_compose_alone_imports_the_classes_behind_components():
    """Outside the conformance kit, whose business they are."""
    users = {
        path.relative_to(CORE).as_posix()
        for path in CORE.rglob("*.py")
        if re.search(r"\.load_target\(|import_module\(|__import__\(", path.read_text(encoding="utf-8"))
    }
    assert {user for user in users if not user.startswith("conformance/")} == {"compose.py", "registry.py"}
    assert not re.search(r"\.load_target\(", (CORE / "registry.py").read_text(encoding="utf-8"))


def test_core_knows_neither_the_command_line_nor_any_plugin():
    names = {path.name for path in PLUGINS} | {path.name.replace("-", "_") for path in PLUGINS}
    assert len(names) >= 2 * 12
    pattern = re.compile(r"\b(" + "|".join(sorted(names)) + r")\b")
    for file in [*CORE.rglob("*.py"), *CLI.rglob("*.py"), *CLI.rglob("*.tmpl")]:
        text = file.read_text(encoding="utf-8")
        assert not pattern.search(text), f"{file.relative_to(ROOT)} names a plugin"
        if file.is_relative_to(CORE):
            assert "qsae_cli" not in text, f"{file.relative_to(ROOT)} names the command line"


def test_every_package_of_core_is_installed():
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = {".".join(p.parent.relative_to(ROOT).parts) for p in CORE.rglob("__init__.py")}
    assert sorted(setup["packages"]) == sorted(packages | {"qsae_cli"})


# --- torch


LIGHT_COMMANDS = (
    "main",
    "list_plugins",
    "describe",
    "new_plugin",
    "train",
    "evaluate",
    "compare",
    "runs",
    "check",
)
"""Modules of the command line: torch is imported where a command does its work, if at all."""


@pytest.fixture(scope="module")
def importing_torch() -> set[str]:
    """Modules of core, command line and plugins whose import brings torch in, each in a fresh process.

    Forked from one process that has imported what they share, since a start of Python takes longer.
    """
    light = [f"qsae_core.{module}" for modules, torch in layers() for module in modules if not torch]
    heavy = [f"qsae_core.{module}" for modules, torch in layers() for module in modules if torch]
    tops = [path.name.replace("-", "_") for path in PLUGINS]
    commands = [f"qsae_cli.{name}" for name in LIGHT_COMMANDS]
    program = """
import importlib, os, sys
import click, pluggy, pydantic
sys.modules["torch"] = None  # importing it is an error from here on
for name in sys.argv[1:]:
    if (child := os.fork()) == 0:
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(name, flush=True) if "torch" in str(error) else print(f"{name}: {error}", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
    command = [sys.executable, "-c", program, "qsae_core", *light, *heavy, *tops, *commands]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return set(done.stdout.split("\n")) - {""}


def test_light_modules_import_no_torch_and_heavy_ones_do(importing_torch):
    heavy = {f"qsae_core.{module}" for modules, torch in layers() for module in modules if torch}
    assert importing_torch == heavy


# --- plugins


def project(plugin: pathlib.Path) -> dict:
    return tomllib.loads((plugin / "pyproject.toml").read_text(encoding="utf-8"))


@functools.cache
def installed_packages() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def imported_packages(files: list[pathlib.Path]) -> set[str]:
    """Top-level packages that are not of the standard library."""
    found = {name.partition(".")[0] for file in files for name in imports(file)}
    return found - set(sys.stdlib_module_names)


def distributions(packages: set[str]) -> set[str]:
    """The distributions that installed packages come from; a package that is not installed is its own."""
    providers = installed_packages()
    return {providers.get(package, [package])[0].lower().replace("_", "-") for package in packages}


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_imports_public_core_itself_and_what_it_declares(plugin):
    module = plugin.name.replace("-", "_")
    files = sorted((plugin / module).rglob("*.py"))
    table = project(plugin)["project"]
    optional = [line for lines in table.get("optional-dependencies", {}).values() for line in lines]
    declared = {re.match(r"[\w.-]+", line)[0].lower() for line in [*table["dependencies"], *optional]}
    outside = imported_packages(files) - {"qsae_core", module}
    assert distributions(outside) <= declared - {"qsae"}
    for file in files:
        for name in imports(file):
            private = [part for part in name.split(".") if part.startswith("_") and part != "__future__"]
            if name.startswith("qsae_core"):
                assert not private, f"{file}: {name} is not public"


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_declares_only_what_it_or_its_tests_import(plugin):
    files = [f for f in plugin.rglob("*.py") if "build" not in f.relative_to(plugin).parts]
    declared = {re.match(r"[\w.-]+", line)[0].lower() for line in project(plugin)["project"]["dependencies"]}
    assert "qsae" in declared
    assert declared - {"qsae"} <= distributions(imported_packages(files))
