"""GitHub's workflows: what they run is there, for every supported Python, by actions of one version."""

from __future__ import annotations

import pathlib
import re
import sys
from collections.abc import Iterator

import pytest
import yaml
from packaging.specifiers import SpecifierSet

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
import ci_scripts  # noqa: F401 - the next ones lie in its folder
from distributions import ROOT, distributions
from interpreters import MINORS

WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
PYTHONS = [f"3.{minor}" for minor in MINORS]
every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read(path: pathlib.Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def jobs(name: str) -> dict:
    return read(ROOT / ".github" / "workflows" / f"{name}.yml")["jobs"]


def steps(path: pathlib.Path) -> Iterator[dict]:
    for job in read(path)["jobs"].values():
        yield from job["steps"]


def test_there_is_one_for_changes_and_one_for_releases():
    assert [path.stem for path in WORKFLOWS] == ["ci", "release"]


@every_workflow
def test_its_shape(path):
    workflow = read(path)
    assert workflow.keys() <= {"name", True, "permissions", "concurrency", "env", "jobs"}  # YAML's on is True
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert {"runs-on", "steps"} <= job.keys()
        needs = job.get("needs", [])
        assert set([needs] if isinstance(needs, str) else needs) <= workflow["jobs"].keys()
        for step in job["steps"]:
            assert len({"uses", "run"} & step.keys()) == 1, step


@every_workflow
def test_every_action_is_of_one_exact_version(path):
    used = [step["uses"] for step in steps(path) if "uses" in step]
    assert used
    assert [u for u in used if not re.fullmatch(r"[\w-]+/[\w.-]+@v\d+\.\d+\.\d+", u)] == []


def test_the_actions_are_of_the_same_version_everywhere():
    used = {step["uses"] for path in WORKFLOWS for step in steps(path) if "uses" in step}
    assert len({u.partition("@")[0] for u in used}) == len(used)


@every_workflow
def test_what_is_run_is_there(path):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = [step["run"] for step in steps(path) if "run" in step]
    matrix = read(path)["jobs"].get("test", {}).get("strategy", {}).get("matrix", {})
    targets = [*matrix.get("target", []), *(more["target"] for more in matrix.get("include", []))]
    targets += re.findall(r"^make ([\w-]+)", "\n".join(lines), re.MULTILINE)
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for script in re.findall(r"\.ci/[\w-]+", "\n".join(lines)):
        assert (ROOT / script).is_file(), script


def test_the_matrix_is_of_every_supported_python_and_of_one_mac():
    matrix = jobs("ci")["test"]["strategy"]["matrix"]
    assert matrix["python"] == PYTHONS
    (other,) = matrix["include"]
    assert other["os"].startswith("macos")
    assert other["python"] in PYTHONS
    for distribution in distributions():
        asked = SpecifierSet(distribution.file["project"]["requires-python"])
        assert [python for python in PYTHONS if python not in asked] == [], distribution.name
        assert "3.9" not in asked


@pytest.mark.parametrize(("workflow", "job"), [("ci", "dist"), ("release", "build")])
def test_distributions_are_checked_on_every_supported_python(workflow, job):
    (setup,) = [
        s for s in jobs(workflow)[job]["steps"] if s.get("uses", "").startswith("actions/setup-python")
    ]
    assert sorted(setup["with"]["python-version"].split()) == sorted(PYTHONS)


def test_a_release_is_published_by_trust_alone_and_only_if_everything_agrees():
    assert read(WORKFLOWS[1])[True] == {"push": {"tags": ["v*"]}}
    build, publish = jobs("release")["build"], jobs("release")["publish"]
    assert any("python3.11 .ci/version --tag" in step.get("run", "") for step in build["steps"])
    assert (publish["needs"], publish["environment"]) == ("build", "pypi")
    assert publish["permissions"] == {"id-token": "write"}
    assert "secrets." not in WORKFLOWS[1].read_text(encoding="utf-8")
    for python in PYTHONS:  # a compiled wheel for each
        (compiled,) = [s["env"]["CIBW_BUILD"] for s in build["steps"] if "CIBW_BUILD" in s.get("env", {})]
        assert f"cp{python.replace('.', '')}-manylinux_x86_64" in compiled.split()
