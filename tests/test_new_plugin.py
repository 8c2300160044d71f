"""``qsae new-plugin``: what it writes installs, is listed and works; bad requests write nothing."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest
from click.testing import CliRunner
from flit_core import buildapi
from packaging.requirements import Requirement

import qsae_core
from qsae_cli import new_plugin as module
from qsae_cli.main import cli
from qsae_cli.new_plugin import TAKEN_NAMES, write_plugin
from qsae_core.errors import ConfigError
from qsae_core.kinds import KINDS

LONG_NAME = "of-twenty-four-letters-x"


def run(*arguments: str):
    return CliRunner().invoke(cli, ["new-plugin", *arguments])


def install(folder: pathlib.Path, site: pathlib.Path, monkeypatch) -> None:
    """As pip does it: build the wheel with the distribution's own backend, and unpack it."""
    monkeypatch.chdir(folder)
    wheel = site / buildapi.build_wheel(str(site))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    wheel.unlink()


@pytest.mark.torch
@pytest.mark.parametrize("kind", KINDS)
def test_it_installs_and_is_listed_with_a_component_that_loads(kind, tmp_path, plugin_site, monkeypatch):
    folder = tmp_path / f"qsae-{kind.replace('_', '-')}-probe-two"
    write_plugin(kind, "probe-two", folder)
    install(folder, plugin_site.path, monkeypatch)
    plugins = plugin_site.load()
    (record,) = plugins.records
    assert (record.name, record.version, record.status) == (folder.name, "0.1.0", "ok"), record.error
    assert record.components == {kind: ("probe-two",)}
    spec = plugins.registry.get(kind, "probe-two")
    assert spec.config().model_dump() is not None  # every option has a default
    assert plugins.registry.load_target(spec).__module__.startswith(f"qsae_{kind}_probe_two.")


@pytest.mark.parametrize("kind", KINDS)
def test_it_has_the_shape_of_a_plugin(kind, tmp_path):
    write_plugin(kind, "probe", tmp_path / "p")
    package = f"qsae_{kind}_probe"
    files = {path.relative_to(tmp_path / "p").as_posix() for path in (tmp_path / "p").rglob("*.*")}
    assert {"pyproject.toml", "README.md", "tests/test_conformance.py"} <= files
    assert {f"{package}/__init__.py", f"{package}/py.typed"} <= files
    assert len([f for f in files if f.startswith("tests/")]) == 2
    conformance = (tmp_path / "p" / "tests" / "test_conformance.py").read_text()
    distribution = f"qsae-{kind.replace('_', '-')}-probe"
    assert f'parametrize_with_checks("{distribution}")' in conformance
    project = (tmp_path / "p" / "pyproject.toml").read_text()
    assert f'[project.entry-points.qsae]\n{kind}_probe = "{package}"\n' in project
    (core,) = re.findall(r'"(qsae[<>=][^"]*)"', project)
    assert Requirement(core).specifier.contains(qsae_core.__version__)
    assert not Requirement(core).specifier.contains(f"{int(qsae_core.__version__.split('.')[0]) + 1}.0")


def test_a_format_takes_fewer_than_sixty_lines_of_python(tmp_path):
    write_plugin("format", "probe", tmp_path / "p")
    assert sum(len(path.read_text().splitlines()) for path in (tmp_path / "p").rglob("*.py")) < 60


@pytest.mark.parametrize("kind", KINDS)
def test_it_declares_what_it_imports(kind, tmp_path):
    write_plugin(kind, "probe", tmp_path / "p")
    project = (tmp_path / "p" / "pyproject.toml").read_text()
    declared = set(re.findall(r'"([a-z]+)>=', re.search(r"^dependencies = .*$", project, re.M)[0]))
    source = "".join(p.read_text() for p in (tmp_path / "p" / f"qsae_{kind}_probe").glob("*.py"))
    imported = set(re.findall(r"^(?:from|import) (\w+)", source, re.M)) - set(sys.stdlib_module_names)
    allowed = {"qsae_core" if name == "qsae" else name for name in declared}
    assert imported - {f"qsae_{kind}_probe"} <= allowed
    assert allowed - imported <= {"torch"}  # an example may do without what its author will want
    top = (tmp_path / "p" / f"qsae_{kind}_probe" / "__init__.py").read_text()
    assert "torch" not in top


@pytest.mark.parametrize("name", ["demo", LONG_NAME])
def test_it_is_clean_under_ruff_whatever_the_length_of_its_name(name, tmp_path):
    ruff = shutil.which("ruff", path=sysconfig.get_path("scripts")) or shutil.which("ruff")
    if ruff is None:
        pytest.skip("ruff is not installed")
    for kind in KINDS:
        write_plugin(kind, name, tmp_path / f"qsae-{kind.replace('_', '-')}-{name}")
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        done = subprocess.run([ruff, *command, str(tmp_path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_it_is_clean_under_mypy(tmp_path):
    pytest.importorskip("mypy")
    core = pathlib.Path(qsae_core.__file__).parents[1]
    for kind in KINDS:
        write_plugin(kind, "demo", tmp_path / kind)
    packages = [argument for kind in KINDS for argument in ("-p", f"qsae_{kind}_demo")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", *packages],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": os.pathsep.join(map(str, (core, *map(tmp_path.joinpath, KINDS))))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_no_class_of_it_has_the_name_of_one_that_it_imports(kind, tmp_path):
    """The names that would clash are exactly those that are refused."""
    write_plugin(kind, "probe", tmp_path / "p")
    source = "".join(path.read_text() for path in (tmp_path / "p").rglob("*.py"))
    suffixes = re.findall(r"^class Probe(\w+)", source, re.M)
    imported = re.findall(r"\b[A-Z]\w+", "".join(re.findall(r"^from qsae_core.*$", source, re.M)))
    assert suffixes
    for word in imported:
        for suffix in suffixes:
            if word.endswith(suffix) and word != suffix:
                words = re.findall("[A-Z][a-z0-9]*", word.removesuffix(suffix))
                if "".join(words) == word.removesuffix(suffix) and all(len(w) > 1 for w in words):
                    assert "-".join(words).lower() in TAKEN_NAMES, word


def test_the_next_commands_are_printed(tmp_path):
    done = run("metric", "demo", "--dir", str(tmp_path / "new"))
    assert done.exit_code == 0, done.output
    path = tmp_path / "new" / "qsae-metric-demo"
    assert f"wrote {path}" in done.output
    assert f"pip install --no-build-isolation --no-deps -e {path}" in done.output
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["qsae-metric-demo"]


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("metrik", "demo", "there is no kind 'metrik'; did you mean 'metric'?"),
        ("metric", "Demo", "'Demo' cannot be the name of a component"),
        ("metric", "my_metric", "cannot be the name of a component"),
        ("metric", "2nd", "cannot be the name of a component"),
        ("metric", "a--b", "cannot be the name of a component"),
        ("metric", "../up", "cannot be the name of a component"),
        ("metric", "x" * 25, "cannot be the name of a component"),
        ("metric", "component", "would give a class the name of one of qsae's own"),
    ],
)
def test_bad_requests_write_nothing(kind, name, expected, tmp_path):
    done = run(kind, name, "--dir", str(tmp_path / "new"))
    assert done.exit_code == 2
    assert expected in done.output
    assert not (tmp_path / "new").exists()


def test_an_existing_folder_is_left_as_it_is(tmp_path):
    (tmp_path / "qsae-sae-demo").mkdir()
    (tmp_path / "qsae-sae-demo" / "mine.txt").write_text("mine")
    done = run("sae", "demo", "--dir", str(tmp_path))
    assert done.exit_code == 2
    assert "there is something of that name already" in done.output
    assert [p.name for p in tmp_path.rglob("*")] == ["qsae-sae-demo", "mine.txt"]


def test_a_component_that_is_installed_is_refused(plugin_site):
    plugin_site.add(
        "acme-metrics",
        """
        from qsae_core import ComponentConfig, ComponentSpec, hookimpl

        class Config(ComponentConfig):
            pass

        @hookimpl
        def qsae_register_metrics():
            return [ComponentSpec("metric", "acme", Config, "acme_metrics:X")]
        """,
    )
    done = plugin_site.qsae("new-plugin", "metric", "acme", "--dir", str(plugin_site.path))
    assert done.returncode == 2
    assert "metric 'acme' is installed already, by acme-metrics" in done.stderr


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    written = []

    def files(kind, name):
        for file in ("README.md", "pyproject.toml"):
            written.append(file)
            if file == "pyproject.toml":
                raise OSError(28, "No space left on device")
            yield file, "text"

    monkeypatch.setattr(module, "_files", files)
    with pytest.raises(ConfigError, match="No space left on device"):
        write_plugin("sae", "demo", tmp_path / "new" / "qsae-sae-demo")
    assert written == ["README.md", "pyproject.toml"]
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.slow
def test_all_kinds_install_pass_their_tests_train_and_uninstall(tmp_path):
    """In an environment of its own that sees this one's packages."""
    python = environment(tmp_path / "venv")
    folders = [tmp_path / "new" / f"qsae-{kind.replace('_', '-')}-fresh" for kind in KINDS]
    for kind, folder in zip(KINDS, folders, strict=True):
        write_plugin(kind, "fresh", folder)
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    editable = [argument for folder in folders for argument in ("-e", str(folder))]
    check(*pip, "install", "-q", "--no-build-isolation", "--no-deps", *editable, cwd=tmp_path)
    check(python, "-m", "pytest", "-q", "--import-mode=importlib", *folders, cwd=tmp_path)
    qsae = (python, "-c", "from qsae_cli.main import main; main()")
    parts = [f"--{slot}=fresh" for slot in ("sae", "quantizer", "activation", "sparsity", "data")]
    sizes = ["--n-latents=64", "--steps=20", "--batch-size=64", "--out=results"]
    check(*qsae, "train", *parts, *sizes, "--metric=fresh", "--eval=fresh", "--tracker=fresh", cwd=tmp_path)
    (finished,) = tmp_path.glob("results/*/*/20")
    assert (finished / "checkpoints" / "final").is_dir()
    assert (finished / "fresh.csv").read_text().startswith("step,name,value\n")
    names = [folder.name for folder in folders]
    check(*pip, "uninstall", "-q", "-y", *names, cwd=tmp_path)
    assert "fresh" not in check(*qsae, "list-plugins", cwd=tmp_path)


def environment(path: pathlib.Path) -> pathlib.Path:
    """A virtual environment that sees the packages of the one that runs the tests; gives its python."""
    check(sys.executable, "-m", "venv", "--without-pip", path)
    python = path / "bin" / "python"
    own = check(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    parent = sysconfig.get_path("purelib")
    (pathlib.Path(own) / "parent.pth").write_text(f"import site; site.addsitedir({parent!r})\n")
    return python


def check(*command: object, cwd: pathlib.Path | None = None) -> str:
    """Output of a command that has to succeed."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout
