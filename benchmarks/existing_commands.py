"""The commands of qsae that ``existing-saes`` runs, as a reader would type them, and what they print."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from benchmarks.kept import digest
from benchmarks.processes import CLEARED
from benchmarks.settings import Settings

EVALUATED, SPLICED = 8192, 4096
"""Held-out tokens of an evaluation; of these, those that the language model reads with the coder in it."""
TEXT, OTHER_TEXT = "news/train.jsonl", "news/test.jsonl"
SHARE = "0.99"
"""Of the other text's documents: of an imported coder nobody knows that it was trained on none of them."""
STATES, MODEL = "states.npy", "smollm2"


class Calls:
    """Runs ``qsae`` in a folder in which the model, the texts and the states have short names.

    Args:
        folder: where the files of the libraries lie.
    """

    def __init__(self, folder: pathlib.Path, settings: Settings) -> None:
        self.folder, self._settings = folder, settings
        self._given = ["--model", MODEL, "--layer", str(settings.layer)]

    def place(self, texts: pathlib.Path, states: pathlib.Path) -> None:
        """Give the model, the texts and the states their short names."""
        self.folder.mkdir(parents=True, exist_ok=True)
        links = {MODEL: pathlib.Path(str(self._settings.model)), "news": texts / "news", STATES: states}
        for name, target in links.items():
            link = self.folder / name
            if link.resolve() != target.resolve():
                link.unlink(missing_ok=True)
                link.symlink_to(target.resolve())

    def imported(self, name: str, inner: str, form: str) -> dict[str, Any]:
        """The coder of a library's files, sizes, and which files come back with the same bytes."""
        source, out, back = f"{name}/0", f"imported/{name}", f"exported/{name}"
        source = source if inner == "." else f"{source}/{inner}"
        for path in (out, back):
            shutil.rmtree(self.folder / path, ignore_errors=True)
        made = self._run("import", source, "--out", out, *self._given, "--dataset", TEXT)
        written = self._run("export", out, "--format", form, "--out", back)
        files = {path.name: path for path in (self.folder / source).iterdir() if path.is_file()}
        again = {path.name: path for path in (self.folder / back).iterdir()}
        same = {n: n in again and files[n].read_bytes() == again[n].read_bytes() for n in sorted(files)}
        return {
            **made,
            "export": written,
            "artifact": out,
            "sha256": file_hashes(self.folder / out),
            "files": {n: path.stat().st_size for n, path in sorted(files.items())},
            "same_bytes": same,
            "bytes": bytes_of(self.folder / out),
        }

    def quantized(self, artifact: str, name: str, arguments: Sequence[str]) -> dict[str, Any]:
        """A run of ``qsae quantize``, calibrated with the saved states."""
        shutil.rmtree(self.folder / "results" / name, ignore_errors=True)
        made = self._run(
            "quantize", artifact, "--data", "tensors", "--data-path", STATES, *arguments, "--name", name
        )
        found = re.search(r"^artifact: (.*)$", made["output"], re.MULTILINE)
        assert found is not None
        path = pathlib.PurePosixPath(found[1])
        return {**made, "artifact": str(path), "run": str(path.parents[1])}

    def packed(self, artifact: str, form: str, name: str) -> dict[str, Any]:
        """A stored coder as a folder of a format that keeps weights packed."""
        out = f"packed/{name}"
        shutil.rmtree(self.folder / out, ignore_errors=True)
        made = self._run("export", artifact, "--format", form, "--out", out)
        return {**made, "folder": out, "bytes": bytes_of(self.folder / out)}

    def evaluated(self, path: str, *, twin: bool) -> dict[str, Any]:
        """In the language model, on held-out documents; values by evaluation.

        Args:
            twin: whether there is a coder that it was made from, to be compared with latent by latent.
        """
        data = ["--data", "lm", *self._given, "--dataset", OTHER_TEXT, "--held-out-share", SHARE]
        chosen = ["--eval", "loss-recovered", "--eval", "quantization-error" if twin else "reconstruction"]
        sizes = ["--tokens", str(EVALUATED), "--eval.loss-recovered.tokens", str(SPLICED)]
        alone = ["--no-compare-float"] if twin else []
        found = self._run("evaluate", path, *data, *chosen, *sizes, *alone, "--json")
        return {"evaluate": found["command"], "evaluations": json.loads(found["output"])}

    def _run(self, *arguments: str) -> dict[str, Any]:
        """The command and what it prints, without its progress; ends the benchmark if it fails."""
        inherited = {name: value for name, value in os.environ.items() if name not in CLEARED}
        done = subprocess.run(
            [self._settings.qsae, *arguments],
            cwd=self.folder,
            env=inherited | {"OMP_NUM_THREADS": str(self._settings.threads)},
            capture_output=True,
            text=True,
            check=False,
        )
        command = shlex.join(["qsae", *arguments])
        if done.returncode != 0:
            raise SystemExit(f"{command}\n{done.stderr}")
        notes = [line for line in done.stderr.splitlines() if line.startswith(("qsae: note:", "warning:"))]
        return {"command": command, "output": done.stdout, "notes": notes}


def bytes_of(folder: pathlib.Path) -> int:
    """Of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def file_hashes(folder: pathlib.Path) -> dict[str, str]:
    """File below a folder -> its sha256."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest(path) for path in files}
