"""A packed coder in SAELens' own format, and what SAELens computes with it in its environment."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pathlib
import tempfile

import numpy as np

from benchmarks import processes
from benchmarks.settings import Settings

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "peers" / "sae_lens_served.py"
PEER = "sae-lens"
FORM, REGISTERS = "saelens-packed", "qsae_in_saelens"
"""The format, and the module that lets SAELens read it."""
LACKING = ("pluggy",)
"""Of what core depends on, what SAELens does not bring."""


def served(folder: pathlib.Path, rows: pathlib.Path, settings: Settings) -> np.ndarray:
    """float32 ``[N, D]``: what SAELens' SAE makes of the vectors in a ``.npy`` file.

    Args:
        folder: of the format ``saelens-packed``.

    Raises:
        SystemExit: if SAELens does not load it.
    """
    with tempfile.TemporaryDirectory() as place:
        out, paths = pathlib.Path(place) / "x_hat.npy", [_records(pathlib.Path(place)), *_sources()]
        environment = {"PYTHONPATH": os.pathsep.join(map(str, paths))}
        command = [settings.python(PEER), str(SCRIPT), str(folder), str(rows), str(out), REGISTERS]
        failure = processes.run(command, settings, f"{PEER} serves {folder.name}", environment)
        if failure is not None:
            raise SystemExit(f"{folder}: {failure}")
        x_hat: np.ndarray = np.load(out)
        return x_hat


def _sources() -> list[pathlib.Path]:
    return [ROOT, *sorted(ROOT.glob("plugins/qsae-*"))]


def _records(place: pathlib.Path) -> pathlib.Path:
    """What installing qsae and its plugins would add to an environment, but for their sources."""
    folder = place / "site"
    folder.mkdir()
    for found in importlib.metadata.distributions():
        if found.name == "qsae" or (ROOT / "plugins" / found.name).is_dir():
            record = folder / f"{found.name.replace('-', '_')}-{found.version}.dist-info"
            record.mkdir(exist_ok=True)
            (record / "METADATA").write_text(found.read_text("METADATA") or found.read_text("PKG-INFO") or "")
            (record / "entry_points.txt").write_text(found.read_text("entry_points.txt") or "")
    for name in LACKING:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        (folder / name).symlink_to(pathlib.Path(spec.origin).parent)
    return folder
