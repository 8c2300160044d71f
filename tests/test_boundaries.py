"""Who may import whom: core flows one way, light modules need no torch, plugins import what they declare."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.metadata
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest

from qsae_cli.lazy_command import LazyCommand
from qsae_core.plugins.records import load_plugins

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]
CORE, CLI = ROOT / "qsae_core", ROOT / "cli"
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))


def imports(path: pathlib.Path, *, in_functions: bool = True, types: bool = False) -> Iterator[str]:
    """Full names of what a file imports when it runs: modules, or names in them; ``types``: also what it
    imports under TYPE_CHECKING."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a name comes from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not types:
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
    assert set(imports(file, types=True)) == at_import | {"g", "never"}


# --- core


WORDS = "words"
"""The files beside the rooms."""


def core_files() -> dict[str, pathlib.Path]:
    """Full name of every module of core -> its file; a package is its ``__init__``."""
    found = {}
    for path in CORE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str) -> str:
    """The room that a module of core stands in."""
    name = module.split(".")[1] if "." in module else ""
    return name if (CORE / name / "__init__.py").exists() and name else WORDS


def rooms() -> dict[str, bool]:
    """The rows of the table in docs/architecture.md, in order: room, and whether it imports torch."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("| room | what is in it | torch |\n|---|---|---|\n")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    return {room.strip("`"): torch == "yes" for room, _, torch in rows}


def core_imports(module: str) -> set[str]:
    """The modules of core that one imports, at whatever place and if only for annotations."""
    known, found = core_files(), set()
    for name in imports(known[module], types=True):
        if name.partition(".")[0] == "qsae_core":
            found.add(name if name in known else name.rpartition(".")[0])
    return found - {module}


def test_the_table_has_every_room_and_every_word_once():
    folders = {path.parent.name for path in CORE.glob("*/__init__.py")}
    assert rooms().keys() == folders | {WORDS}
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    row = re.search(r"^\| words \| (.*): the files", text, re.MULTILINE)
    words = {path.stem for path in CORE.glob("*.py")} - {"__init__"}
    assert sorted(re.findall(r"`(\w+)`", row[1])) == sorted(words)


def test_imports_in_core_flow_one_way():
    order = {room: depth for depth, room in enumerate(rooms())}
    wrong = []
    for module in core_files():
        for imported in core_imports(module):
            if order[room_of(imported)] > order[room_of(module)] and module != "qsae_core":
                wrong.append(f"{module} imports {imported}, which is in a later room")
    assert wrong == []


def test_what_the_top_of_core_takes_from_later_rooms_is_imported_later():
    import qsae_core

    later = {name for name in core_imports("qsae_core") if room_of(name) != WORDS}
    assert later == set(qsae_core.LATER.values())


@pytest.mark.parametrize("package", ["qsae_core", "qsae_core.runs", "qsae_cli.commands"])
def test_names_that_are_imported_later_are_told_to_type_checkers_and_promised(package):
    module = importlib.import_module(package)
    at_once = set(imports(pathlib.Path(module.__file__)))
    for_types = set(imports(pathlib.Path(module.__file__), types=True)) - at_once
    assert for_types == {f"{place}.{name}" for name, place in module.LATER.items()}
    for name in module.LATER:
        assert getattr(module, name) is not None

    assert set(module.LATER) <= set(module.__all__)


def test_no_modules_of_core_import_each_other_in_a_circle():
    """Annotations included. Faces stand aside: they import the files of their room, see the next test."""
    faces = {module for module, path in core_files().items() if path.name == "__init__.py"}
    graph = {module: core_imports(module) - faces for module in core_files() if module not in faces}
    while leaves := [module for module, needs in graph.items() if not needs]:
        for module in leaves:
            del graph[module]
        graph = {module: needs - set(leaves) for module, needs in graph.items()}
    assert graph == {}, "these modules import each other in a circle"


def test_a_room_imports_its_own_files_and_not_its_face():
    """A face imports the files of its room; one of these that imported the face would close a circle."""
    wrong = {
        module: name
        for module in core_files()
        for name in core_imports(module)
        if name == f"qsae_core.{room_of(module)}"
    }
    assert wrong == {}


def test_compose_alone_imports_the_classes_behind_components():
    """Outside the conformance kit, whose business they are."""
    users = {
        path.relative_to(CORE).as_posix()
        for path in CORE.rglob("*.py")
        if re.search(r"\.load_target\(|import_module\(|__import__\(", path.read_text(encoding="utf-8"))
    }
    assert {user for user in users if not user.startswith("conformance/")} == {
        "compose/compose.py",
        "registry.py",
        "lazy.py",
    }
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
    found = {
        ".".join(p.parent.relative_to(ROOT).parts)
        for p in [*CORE.rglob("__init__.py"), *CLI.rglob("__init__.py")]
    }
    assert sorted(setup["packages"]) == sorted(re.sub("^cli", "qsae_cli", package) for package in found)


# --- torch


LIGHT_COMMANDS = (
    "main",
    "list_plugins",
    "describe",
    "new_plugin",
    "train",
    "evaluate",
    "quantize",
    "runs",
    "check",
    "commands",
)
"""Modules of the command line: torch is imported where a command does its work, if at all."""


def plugin_commands() -> list[str]:
    """The modules of the plugins' commands."""
    commands = load_plugins().commands(reserved=()).values()
    return sorted(c.target.partition(":")[0] for c in commands if isinstance(c, LazyCommand))


@pytest.fixture(scope="module")
def importing_torch() -> set[str]:
    """Modules of core, command line and plugins whose import brings torch in, each in a fresh process.

    Forked from one process that has imported what they share, since a start of Python takes longer.
    """
    tops = [path.name.replace("-", "_") for path in PLUGINS if "entry-points" in project(path)["project"]]
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
    command = [sys.executable, "-c", program, *core_files(), *tops, *commands, *plugin_commands()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return set(done.stdout.split("\n")) - {""}


def test_commands_of_plugins_are_among_what_is_looked_at():
    here = {"qsae_bench.command", "qsae_compare.command", "qsae_data_lm.sites_command", "qsae_store.command"}
    assert here <= set(plugin_commands())


def test_light_modules_import_no_torch_and_heavy_ones_do(importing_torch):
    """In a room with torch single files may do without it."""
    table = rooms()
    outside = {name for name in importing_torch if not name.startswith("qsae_core.")}
    assert outside | {name for name in importing_torch - outside if not table[room_of(name)]} == set()
    faces = {f"qsae_core.{room}" for room in ("contracts", "kernels", "coders")}
    assert faces <= importing_torch


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


FACE = (
    "qsae_core",
    "qsae_core.contracts",
    "qsae_core.coders",
    "qsae_core.kernels",
    "qsae_core.measuring",
    "qsae_core.reading",
    "qsae_core.errors",
    "qsae_core.runs",
    "qsae_core.conformance",
    "qsae_cli.commands",
)
"""What plugins may import of core and command line, as docs/architecture.md says."""
OURS = ("qsae_core", "qsae_cli")
NEEDS = {"qsae_core.measuring.match": "scipy"}
"""Names of the face that need a package on which core does not depend: who imports one depends on it."""


def needed(files: list[pathlib.Path]) -> set[str]:
    """What files need by way of ``NEEDS``."""
    return {NEEDS[name] for file in files for name in imports(file) if name in NEEDS}


@functools.cache
def promised(package: str) -> frozenset[str]:
    """The names that a package of the face promises: its ``__all__``; of ``errors`` everything."""
    module = importlib.import_module(package)
    return frozenset(getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")]))


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_imports_public_core_itself_and_what_it_declares(plugin):
    module = plugin.name.replace("-", "_")
    files = sorted((plugin / module).rglob("*.py"))
    table = project(plugin)["project"]
    optional = [line for lines in table.get("optional-dependencies", {}).values() for line in lines]
    declared = {re.match(r"[\w.-]+", line)[0].lower() for line in [*table["dependencies"], *optional]}
    outside = (imported_packages(files) | needed(files)) - {*OURS, module}
    assert distributions(outside) <= declared - {"qsae"}
    for file in files:
        for name in imports(file, types=True):
            if name.partition(".")[0] in OURS:
                package, _, attribute = name.rpartition(".")
                assert name in FACE or (package in FACE and attribute in promised(package)), (
                    f"{file.relative_to(ROOT)} imports {name}, which the public face does not promise"
                )


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_of_another_plugin_it_imports_what_that_promises(plugin):
    own, others = plugin.name.replace("-", "_"), {path.name.replace("-", "_") for path in PLUGINS}
    for file in sorted((plugin / own).rglob("*.py")):
        for name in imports(file, types=True):
            package, _, attribute = name.partition(".")
            if package in others - {own}:
                assert attribute in importlib.import_module(package).__all__, (
                    f"{file.relative_to(ROOT)} imports {name}, which {package} does not promise"
                )


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_declares_only_what_it_or_its_tests_import(plugin):
    files = [f for f in plugin.rglob("*.py") if "build" not in f.relative_to(plugin).parts]
    declared = {re.match(r"[\w.-]+", line)[0].lower() for line in project(plugin)["project"]["dependencies"]}
    assert "qsae" in declared
    assert declared - {"qsae"} <= distributions(imported_packages(files) | needed(files))
