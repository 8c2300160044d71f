"""Wheels and sdists: what is in them, and that they work in an environment without the checkout.

Of core, the distribution that depends on everything and two plugins; `make check-dist` does so with all.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile

import pytest
from packaging.requirements import Requirement

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
import ci_scripts  # noqa: F401 - the next ones lie in its folder
from builds import build
from contents import contents_faults, files_of, rebuilt_faults
from distributions import ROOT, distributions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHOSEN = ("qsae", "qsae-all", "qsae-data-lm", "qsae-sae-topk")
"""What is built by setuptools, by flit, and what has data beside its code."""


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("dist")
    assert build(CHOSEN, folder) == len(CHOSEN)
    return folder


def chosen() -> list:
    return [d for d in distributions() if d.name in CHOSEN]


def test_they_hold_every_file_that_they_should_and_no_other(out):
    assert contents_faults(out, chosen()) == []
    wheel, _ = files_of(out, chosen()[0])
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"qsae_cli/options/count.py", "qsae_cli/plugin-templates/sae/model.py.tmpl"} <= names
    _, sdist = files_of(out, next(d for d in chosen() if d.name == "qsae-data-lm"))
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "tests/test_source.py", "qsae_data_lm/builtin/model.safetensors"} <= inside
    assert not [name for name in inside if "__pycache__" in name or name.endswith(".gitignore")]


def test_a_file_too_few_or_too_many_is_found(out, tmp_path):
    for path in out.iterdir():
        shutil.copy(path, tmp_path)
    (topk,) = [d for d in chosen() if d.name == "qsae-sae-topk"]
    wheel, _ = files_of(tmp_path, topk)
    with zipfile.ZipFile(files_of(out, topk)[0]) as source, zipfile.ZipFile(wheel, "w") as target:
        for name in source.namelist():
            if not name.endswith("py.typed"):
                target.writestr(name, source.read(name))
        target.writestr("qsae_sae_topk/notes.txt", "")
    assert contents_faults(tmp_path, [topk]) == [
        f"{wheel.name} lacks qsae_sae_topk/py.typed",
        f"{wheel.name} has qsae_sae_topk/notes.txt",
        f"{wheel.name} lacks py.typed",
    ]
    assert rebuilt_faults(tmp_path, [topk]) == [
        f"{wheel.name.replace('-py3-none-any.whl', '.tar.gz')} builds another wheel than {wheel.name}"
    ]


def test_an_sdist_builds_the_wheel_beside_it(out):
    assert rebuilt_faults(out, chosen()) == []


def metadata(wheel: pathlib.Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return archive.read(name).decode()


def test_one_distribution_depends_on_every_folder_in_this_version(out):
    (everything,) = [d for d in distributions() if d.name == "qsae-all"]
    lines = re.findall("^Requires-Dist: (.*)$", metadata(files_of(out, everything)[0]), re.MULTILINE)
    required = {r.name: r for r in map(Requirement, lines)}
    folders = [ROOT, *(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
    projects = [tomllib.loads((f / "pyproject.toml").read_text(encoding="utf-8"))["project"] for f in folders]
    # core, and what registers something with it; not what is installed where another library is
    ours = {p["name"] for p in projects if p["name"] == "qsae" or "qsae" in p.get("entry-points", {})}
    assert required.keys() == ours
    assert {str(r.specifier) for r in required.values()} == {f"=={everything.version}"}
    # what users of a plugin may want besides, and not what its tests do
    assert required["qsae-report"].extras == {"png", "serve"}
    assert required["qsae-compare"].extras == {"plot"}
    assert required["qsae"].extras == set()


def test_flit_is_told_to_put_tests_into_every_sdist():
    made_by_flit = [d for d in distributions() if "flit" in d.file["tool"]]
    assert len(made_by_flit) > 50
    without = [
        d.name
        for d in made_by_flit
        if "tests/" not in d.file["tool"]["flit"].get("sdist", {}).get("include", [])
    ]
    assert without == []


def test_what_builds_them_is_in_the_environment_that_does():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    there = {Requirement(line).name: Requirement(line) for line in project["dependency-groups"]["dist"]}
    for distribution in distributions():
        for line in distribution.file["build-system"]["requires"]:
            assert Requirement(line).specifier == there[Requirement(line).name].specifier, distribution.name


# --- installed


@pytest.fixture(scope="module")
def installed(out, tmp_path_factory) -> pathlib.Path:
    """A new environment with the wheels, that sees what this one has but for ours; its folder of programs."""
    folder = tmp_path_factory.mktemp("installed")
    others = folder / "others"
    others.mkdir()
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in pathlib.Path(place).iterdir():
            if "qsae" not in path.name and path.suffix != ".pth":
                (others / path.name).symlink_to(path, target_is_directory=path.is_dir())
    venv.create(folder / "env", symlinks=os.name != "nt")
    programs = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    wheels = [str(files_of(out, d)[0]) for d in chosen() if d.name != "qsae-all"]
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", "--quiet"]
    start([*pip, "--no-index", "--no-deps", *wheels], folder)
    look = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = start([str(programs / "python"), "-c", look], folder).strip()
    (pathlib.Path(site) / "others.pth").write_text(f"{others}\n", encoding="utf-8")
    return programs


def start(command: list[str], where: pathlib.Path) -> str:
    """What a command prints; it must succeed, and warn of nothing."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "QSAE_"))}
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_they_work_where_there_is_no_checkout(installed, tmp_path):
    qsae, python = str(installed / "qsae"), str(installed / "python")
    where = start([python, "-c", "import qsae_core, qsae_cli; print(qsae_core.__file__)"], tmp_path)
    assert where.startswith(str(installed.parent))
    listed = json.loads(start([qsae, "list-plugins", "--strict", "--json"], tmp_path))
    assert [(entry["name"], entry["status"]) for entry in listed] == [
        ("qsae-data-lm", "ok"),
        ("qsae-sae-topk", "ok"),
    ]
    assert "--n-latents" in start([qsae, "train", "--sae", "topk", "--help"], tmp_path)
    start([qsae, "new-plugin", "sae", "probe"], tmp_path)
    assert (tmp_path / "qsae-sae-probe" / "pyproject.toml").is_file()
    reads = "import qsae_data_lm, pathlib; print(pathlib.Path(qsae_data_lm.__file__).parent / 'builtin')"
    builtin = pathlib.Path(start([python, "-c", reads], tmp_path).strip())
    own = ROOT / "plugins" / "qsae-data-lm" / "qsae_data_lm" / "builtin" / "model.safetensors"
    assert (builtin / "model.safetensors").read_bytes() == own.read_bytes()
