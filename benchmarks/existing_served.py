"""A packed coder in SAELens' own format, and what SAELens computes with it in its environment."""

from __future__ import annotations

import os
import pathlib
import tempfile

import numpy as np

from benchmarks import processes
from benchmarks.settings import Settings
from qsae_core.conformance import Peer

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "peers" / "sae_lens_served.py"
SERVES = ROOT / "plugins" / "qsae-in-saelens"
PEER = "sae-lens"
FORM, REGISTERS = "saelens-packed", "qsae_in_saelens"
"""The format, and the module that lets SAELens read it."""


def served(folder: pathlib.Path, rows: pathlib.Path, settings: Settings) -> np.ndarray:
    """float32 ``[N, D]``: what SAELens' SAE makes of the vectors in a ``.npy`` file.

    Args:
        folder: of the format ``saelens-packed``.

    Raises:
        SystemExit: if SAELens does not load it.
    """
    with tempfile.TemporaryDirectory() as place:
        out, site = pathlib.Path(place) / "x_hat.npy", pathlib.Path(place) / "site"
        site.mkdir()
        peer = Peer(PEER, pathlib.Path(settings.python(PEER))).finding(site, paths=[SERVES])
        environment = {"PYTHONPATH": os.pathsep.join(map(str, peer.paths))}
        command = [settings.python(PEER), str(SCRIPT), str(folder), str(rows), str(out), REGISTERS]
        failure = processes.run(command, settings, f"{PEER} serves {folder.name}", environment)
        if failure is not None:
            raise SystemExit(f"{folder}: {failure}")
        x_hat: np.ndarray = np.load(out)
        return x_hat
