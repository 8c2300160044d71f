"""Someone who follows a page: runs the commands of its blocks, in an empty folder."""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
import subprocess
import sys

from documents import Block, commands

ROOT = pathlib.Path(__file__).resolve().parents[1]
HUB_MODEL = "HuggingFaceTB/SmolLM2-135M"
SMALL = "--batch-size 16 --n-latents 64 --statistics-tokens 256 --eval-tokens 256 --eval-every 0 --threads 1"
PROGRAMS = {
    "qsae": "from qsae_cli.main import main; main()",
    "pip": "import runpy; runpy.run_module('pip', run_name='__main__')",
}


def own_runs(folder: str) -> set[str]:
    """What a checkout's user has trained lies in ``results`` beside core, and is no part of it."""
    return {"results"} if pathlib.Path(folder) == ROOT else set()


class Reader:
    """Someone who follows one section of the page in an empty folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.site = folder, folder / "site"
        self.environ = {"HF_HUB_OFFLINE": "1"}
        self.outputs: dict[str, str] = {}

    def follow(self, section: list[Block]) -> None:
        for block in section:
            if block.mark and block.mark.startswith("after: "):
                self.run(block.mark.removeprefix("after: "))
            if block.file:
                (self.folder / block.file).write_text(block.text)
            if block.language == "sh":
                for command in commands(block):
                    self.run(command)
            elif block.language == "python":
                self.execute(block.text, [])

    def run(self, command: str) -> None:
        program, *arguments = self.adapt(command)
        code = PROGRAMS.get(program)
        output = self.execute(code, arguments) if code else self.start(arguments)
        self.outputs[command] = output

    def adapt(self, command: str) -> list[str]:
        """The words of a command, with what this environment needs."""
        words = [str(self.folder / "SmolLM2-135M") if w == HUB_MODEL else w for w in shlex.split(command)]
        if command.startswith("pip install"):
            # beside the environment; core and plugins from a copy, since pip builds core where it lies
            words = [str(self.checkout() / w) if w.startswith(".") else w for w in words if w != "-e"]
            words = [f"./{w}" if w == "qsae-sae-demo" else w for w in words]
            words[2:2] = ["--no-deps", "--no-build-isolation", "--upgrade", "--target", str(self.site)]
        if command.startswith("qsae train") and "--help" not in words:
            words += SMALL.split()
            if "--steps" not in words and "--config" not in words:
                words += ["--steps", "20"]
            if not {"--data-path", "--store"} & set(words):
                words += ["--no-compare-float"]
                words += ["--buffer-tokens", "2048"] if "--data" not in words else []
        return words

    def checkout(self) -> pathlib.Path:
        copy = self.folder / "checkout"
        if not copy.exists():
            skip = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "builtin", "__pycache__")
            shutil.copytree(ROOT, copy, ignore=lambda at, names: skip(at, names) | own_runs(at))
        return copy

    def execute(self, code: str, arguments: list[str]) -> str:
        return self.start(["-c", code, *arguments])

    def start(self, arguments: list[str]) -> str:
        path = os.pathsep.join([str(self.site), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **self.environ},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{shlex.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout
