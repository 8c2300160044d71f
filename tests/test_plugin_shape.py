"""Every distribution under plugins/ has the shape that ``new-plugin`` writes, and says what it offers."""

from __future__ import annotations

import pathlib
import re
import sys

import pytest

from qsae_core import CoderConfig
from qsae_core.kinds import KINDS
from qsae_core.plugins.records import load_plugins

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]
ELSEWHERE = ("qsae-in-circuit-tracer", "qsae-in-saelens")
"""Installed where another library is, whose classes they derive from; no plugins of qsae."""
EVERY = sorted(path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml"))
DISTS = [dist for dist in EVERY if dist not in ELSEWHERE]
FAMILIES = (
    *("quantizers", "quantizers-post-training", "code-quantizers", "activations", "sparsity", "metrics"),
    "formats-published",
)
COMMANDS = ("bench", "compare", "hub", "report", "saebench", "samples", "splice", "store")
"""Where a command is all that a plugin brings, or what it is about, the plugin has a name of one word."""
SINGLE = ("sae", "transcoder", "data", "evaluation", "format", "tracker", "kernels")
COMPILED = ("qsae-kernels-cpu",)
"""Built by setuptools, which runs a compiler; all others are pure Python."""
every_plugin = pytest.mark.parametrize("dist", DISTS)


def read(dist: str, file: str) -> str:
    return (ROOT / "plugins" / dist / file).read_text(encoding="utf-8")


@every_plugin
def test_its_name_says_what_it_brings(dist):
    assert re.fullmatch(
        rf"qsae-({'|'.join((*FAMILIES, *COMMANDS))}|({'|'.join(SINGLE)})-[a-z0-9]+(-[a-z0-9]+)*)", dist
    )


@every_plugin
def test_its_project_file(dist):
    module = dist.replace("-", "_")
    file = tomllib.loads(read(dist, "pyproject.toml"))
    if dist in COMPILED:
        assert file["build-system"]["build-backend"] == "setuptools.build_meta"
    else:
        assert file["build-system"] == {
            "requires": ["flit_core>=3.11,<4"],
            "build-backend": "flit_core.buildapi",
        }
        assert file["tool"]["flit"]["module"] == {"name": module}
        assert "tests/" in file["tool"]["flit"]["sdist"]["include"]
    project = file["project"]
    assert (project["name"], project["readme"], project["license"]) == (dist, "README.md", "MIT")
    assert project["requires-python"] == ">=3.10"
    assert project["description"].endswith(".")
    assert "qsae" in {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}
    assert project["entry-points"] == {"qsae": {module.removeprefix("qsae_"): module}}


@pytest.mark.parametrize("dist", [dist for dist in EVERY if dist not in COMPILED])
def test_its_source_distribution_has_all_folders(dist):
    made = {"build", "dist"}
    folders = {path.name for path in (ROOT / "plugins" / dist).iterdir() if path.is_dir()} - made
    packed = {
        dist.replace("-", "_"),
        *tomllib.loads(read(dist, "pyproject.toml"))["tool"]["flit"]["sdist"]["include"],
    }
    assert {f for f in folders if f[0].isalnum() and not f.endswith(".egg-info")} <= {
        f.rstrip("/") for f in packed
    }


@pytest.mark.parametrize("dist", ELSEWHERE)
def test_what_is_installed_elsewhere(dist):
    module = dist.replace("-", "_")
    file = tomllib.loads(read(dist, "pyproject.toml"))
    assert file["tool"]["flit"]["module"] == {"name": module}
    assert "entry-points" not in file["project"]
    assert "qsae>=0.1,<0.2" in file["project"]["dependencies"]
    assert read(dist, f"{module}/py.typed") == ""
    assert read(dist, f"{module}/__init__.py").startswith('"""')
    assert read(dist, "README.md").startswith(f"# {dist}\n")
    assert f"[{dist}](plugins/{dist})" in (ROOT / "README.md").read_text(encoding="utf-8")


@every_plugin
def test_its_files(dist):
    module = dist.replace("-", "_")
    assert read(dist, f"{module}/py.typed") == ""
    assert read(dist, f"{module}/__init__.py").startswith('"""')
    (record,) = [record for record in load_plugins().records if record.name == dist]
    if record.components:
        test = read(dist, "tests/test_conformance.py")
        assert f'test_conformance = parametrize_with_checks("{dist}"' in test
    own = {path.name for path in (ROOT / "plugins" / dist / "tests").glob("test_*.py")}
    assert own - {"test_conformance.py"}, "tests of its own beside the conformance checks"


def test_the_set_up_installs_core_and_every_plugin():
    lines = (ROOT / "plugins" / "requirements-dev.txt").read_text(encoding="utf-8").split("\n")
    without_extras = [re.sub(r"\[.*\]$", "", line) for line in lines]
    assert without_extras == ["-e .", *(f"-e ./plugins/{dist}" for dist in DISTS), ""]


@every_plugin
def test_it_is_installed_and_brings_something(dist):
    (record,) = [record for record in load_plugins().records if record.name == dist]
    assert record.status == "ok", record.error
    assert record.components or record.commands or record.hooks


def options() -> list[tuple[str, str, str, str]]:
    """(distribution, kind, component, option) of every component under plugins/."""
    registry = load_plugins().registry
    return [
        (dist, kind, spec.name, option)
        for kind in KINDS
        for spec in registry.specs(kind)
        if (dist := registry.provider(kind, spec.name).name) in DISTS
        for option in spec.config.model_fields
    ]


@every_plugin
def test_its_readme_names_every_option_in_a_table(dist):
    text = read(dist, "README.md")
    assert text.startswith(f"# {dist}\n")
    tables = "\n".join(line for line in text.split("\n") if line.startswith("|"))
    for _, kind, name, option in [entry for entry in options() if entry[0] == dist]:
        common = kind in ("sae", "transcoder") and option in CoderConfig.model_fields
        where = text if common else tables
        assert f"`{option}`" in where, f"the README says nothing of {option} of {kind} {name}"


@every_plugin
def test_its_readme_names_every_component(dist):
    (record,) = [record for record in load_plugins().records if record.name == dist]
    text = read(dist, "README.md")
    for name in [name for names in record.components.values() for name in names]:
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", text.partition("\n")[2]), name
