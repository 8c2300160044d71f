"""plugins/README.md: its plugin is taken out of the page, built, installed, checked and trained with."""

from __future__ import annotations

import ast
import os
import pathlib
import re
import shlex
import subprocess
import sys
import zipfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from documents import blocks, commands, tables

from qsae_core.kinds import KINDS
from qsae_core.plugins import hookspecs

ROOT = pathlib.Path(__file__).resolve().parents[1]
TUTORIAL = ROOT / "plugins" / "README.md"
DIST = "qsae-sparsity-nucleus"
SMALL = "--batch-size 64 --n-latents 128 --eval-tokens 512 --threads 1"
"""What is added to the page's training command, so that it takes seconds."""
PYTHON = {
    "qsae": "from qsae_cli.main import main; main()",
    "pip": "import runpy; runpy.run_module('pip', run_name='__main__')",
}


class Reader:
    """Someone who follows the tutorial in an empty folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.site = folder, folder / "site"
        self.outputs: dict[str, str] = {}

    def run(self, command: str) -> str:
        """Run a command of the page; packages are installed beside the environment, not into it."""
        program, *arguments = shlex.split(command)
        if command.startswith("pip install"):
            arguments = [f"./{a}" if a == DIST else a for a in arguments if a != "-e"]
            arguments[1:1] = ["--upgrade", "--target", str(self.site)]
        if command.startswith("qsae train"):
            arguments += SMALL.split()
        start = [sys.executable, "-c", PYTHON[program]] if program in PYTHON else [sys.executable]
        path = os.pathsep.join([str(self.site), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        done = subprocess.run(
            [*start, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        self.outputs[command] = done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Reader:
    """After the whole page: every file written, every command run, in the page's order."""
    reader = Reader(tmp_path_factory.mktemp("tutorial"))
    page = blocks(TUTORIAL)
    reader.run(commands(page[0])[0])  # new-plugin writes the folder that the files go to
    for block in page:
        if block.mark:
            how, _, file = block.mark.partition(": ")
            path = reader.folder / file
            assert path.exists(), f"new-plugin writes no {file}"
            before = path.read_text() + "\n\n" if how == "append" else ""
            path.write_text(before + block.text)
    for block in page[1:]:
        for command in commands(block) if block.language == "sh" else []:
            reader.run(command)
    return reader


@pytest.mark.slow
def test_the_page_shows_every_file_that_it_changes(reader):
    marked = {block.mark.partition(": ")[2] for block in blocks(TUTORIAL) if block.mark}
    written = {
        f"{DIST}/{path.relative_to(reader.folder / DIST).as_posix()}"
        for path in (reader.folder / DIST).rglob("*.*")
        if path.suffix in (".py", ".md", ".toml") and "/." not in path.as_posix()
    }
    assert marked == written


@pytest.mark.slow
def test_the_project_file_is_the_one_that_new_plugin_writes(tmp_path, reader):
    """But for the description, and settings of ruff."""
    from qsae_cli.new_plugin import write_plugin

    write_plugin("sparsity", "nucleus2", tmp_path / "p")
    fresh = (tmp_path / "p" / "pyproject.toml").read_text().replace("nucleus2", "nucleus")
    fresh = fresh.partition("\n[tool.ruff]")[0]
    shown = (reader.folder / DIST / "pyproject.toml").read_text()
    assert re.sub("description = .*", "", shown) == re.sub("description = .*", "", fresh)


@pytest.mark.slow
def test_it_is_listed_with_its_rule_and_its_hook(reader):
    line = next(line for line in reader.outputs["qsae list-plugins"].splitlines() if DIST in line)
    assert re.sub(" +", " ", line) == f"{DIST} 0.1.0 ok sparsity: nucleus; hooks: qsae_train_end"


@pytest.mark.slow
def test_its_checks_pass_and_few_are_skipped(reader):
    output = reader.outputs[f"qsae check {DIST}"]
    counted = re.search(r"(\d+) checks, 0 failed", output)
    assert counted
    assert int(counted[1]) >= 15
    assert len(re.findall(r"\bpass\b", output)) >= 12
    passed = re.search(r"(\d+) passed", reader.outputs[f"python -m pytest {DIST}"])
    assert int(passed[1]) >= 3 + 12


@pytest.mark.slow
def test_it_trains_and_its_hook_is_called(reader):
    (path,) = (reader.folder / "results" / "finished.txt").read_text().splitlines()
    assert (reader.folder / path / "metrics.json").exists()
    (output,) = [text for command, text in reader.outputs.items() if command.startswith("qsae train")]
    assert pathlib.PurePath(path).as_posix() in output


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_the_entry_point(reader):
    (wheel,) = (reader.folder / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = archive.read("qsae_sparsity_nucleus-0.1.0.dist-info/entry_points.txt").decode()
    assert "qsae_sparsity_nucleus/py.typed" in names
    assert entry_points.strip() == "[qsae]\nsparsity_nucleus=qsae_sparsity_nucleus"


# --- what the page says of qsae


def signatures() -> dict[str, str]:
    """Hook -> its signature as it is written in the source."""
    tree = ast.parse(pathlib.Path(hookspecs.__file__).read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {f.name: f"{f.name}({ast.unparse(f.args)}) -> {ast.unparse(f.returns)}" for f in functions}


def test_every_hook_has_a_contract_and_stands_on_the_page_with_its_signature():
    shown = re.findall(r"^\| `(qsae_[^`]*)` \|", tables(TUTORIAL), re.MULTILINE)
    assert sorted(shown) == sorted(signatures().values())
    for name in signatures():
        assert len(getattr(hookspecs, name).__doc__) > 20, name


def test_every_kind_stands_on_the_page_with_its_base_class_and_hook():
    rows = tables(TUTORIAL).splitlines()
    for kind in KINDS.values():
        base = kind.base.replace(":", ".")
        assert [row for row in rows if row.startswith(f"| `{kind.name}` | `{base}` |")], kind
        assert f"| `{kind.hook}() -> list[ComponentSpec]` | `{kind.name}` |" in rows


def test_what_a_kind_must_define_is_what_its_base_class_leaves_open():
    from qsae_core.registry import import_target

    rows = {row.split("`")[1]: row for row in tables(TUTORIAL).splitlines() if "| `Class(" in row}
    assert rows.keys() == KINDS.keys()
    for kind in KINDS.values():
        open_methods = import_target(kind.base, "tutorial").__abstractmethods__
        shown = set(re.findall(r"`(\w+)`", rows[kind.name].split(" | ")[3]))
        assert open_methods <= shown or (kind.name == "transcoder" and "the same" in rows[kind.name])


def test_every_variable_of_the_environment_stands_on_the_page():
    sources = [*(ROOT / "qsae_core").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]
    used = {
        name for file in sources for name in re.findall(r"QSAE_[A-Z_]+", file.read_text(encoding="utf-8"))
    }
    assert used == set(re.findall(r"^\| `(QSAE_[A-Z_]+)=", tables(TUTORIAL), re.MULTILINE))
