"""What `.ci/pythons` asks pip for, and which tests it runs without torch."""

from __future__ import annotations

import importlib
import json
import pathlib
import sys
import types

import pytest
from packaging.requirements import Requirement

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from ci_scripts import script

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pythons() -> types.ModuleType:
    return script("pythons")


@pytest.fixture
def interpreters() -> types.ModuleType:
    return importlib.import_module("interpreters")


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        ("click>=8.2", "click==8.2"),
        ("flit_core<4,>=3.11", "flit_core==3.11"),
        ('tomli>=2; python_version < "3.11"', 'tomli==2; python_version < "3.11"'),
        ('tomli; python_version < "3.11"', 'tomli; python_version < "3.11"'),
        ("numpy<3", "numpy<3"),
    ],
)
def test_the_oldest_version_is_the_lower_end(pythons, requirement, expected):
    assert pythons.oldest(Requirement(requirement)) == expected


def test_every_requirement_has_a_lower_end_and_torch_is_left_to_itself(pythons):
    found = [*pythons.requirements(), *pythons.requirements(build=True)]
    open_ended = {r.name for r in found if not any(s.operator == ">=" for s in r.specifier)}
    assert open_ended == {"tomli"}, "only the standard library of a newer Python, at any version"
    names = {r.name for r in found}
    assert {"click", "numpy", "transformers", "gguf", "matplotlib", "hypothesis", "flit_core"} <= names
    assert not names & {"torch", "qsae", "ruff"}


def test_a_file_with_tests_that_need_torch_among_others_is_run_without_it(pythons):
    files = [*ROOT.glob("tests/test_*.py"), *ROOT.glob("plugins/*/tests/test_*.py")]
    marked = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if "pytest.mark.torch" in path.read_text(encoding="utf-8") and path != pathlib.Path(__file__)
    }
    assert marked
    assert marked <= set(pythons.TORCH_FREE)


def test_a_build_with_cuda_is_never_taken(interpreters, monkeypatch):
    """pip names what it would install; of these only the second is for CPUs."""
    urls = [
        "https://example.org/torch-2.13.0-cp312-cp312-manylinux_2_28_x86_64.whl",
        "https://example.org/torch-2.13.0%2Bcpu-cp312-cp312-manylinux_2_28_x86_64.whl",
    ]
    asked = []

    def run(command, **options):
        asked.append(command)
        report = {"install": [{"download_info": {"url": urls[len(asked) - 1]}}]}
        return types.SimpleNamespace(returncode=0, stdout=json.dumps(report))

    monkeypatch.setattr(interpreters.subprocess, "run", run)
    monkeypatch.setattr(interpreters.sys, "platform", "linux")
    assert interpreters.cpu_torch(12, "torch==2.13.0") == [
        "torch==2.13.0",
        "--index-url",
        interpreters.CPU_INDEX,
    ]
    assert all("--dry-run" in command for command in asked)
    urls[1], asked[:] = urls[0], []
    assert interpreters.cpu_torch(12, "torch==2.13.0") is None
