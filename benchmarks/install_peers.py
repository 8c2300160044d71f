"""Virtual environments of the peers, from PyPI: ``benchmarks/peers/PEER.txt`` says which versions."""

from __future__ import annotations

import pathlib
import subprocess
import venv

from benchmarks.results import progress
from benchmarks.settings import ROOT, Settings

READY = ".ready"
NOT_NEEDED = ("torchvision",)
"""Comes with a dependency; no step uses it, and a build that does not match torch's breaks imports."""


def install(settings: Settings) -> None:
    """Make those that are not there. A failure is shown, and later the peer's line of the table says so."""
    for peer in settings.peers:
        folder = settings.environments / peer
        if (folder / "bin" / "python").exists() and _is_ready(folder, peer):
            continue
        progress(f"installing {peer} into {folder}")
        try:
            _install(folder, peer)
        except subprocess.CalledProcessError as error:
            progress(f"installing {peer} failed: {error}")


def requirements(peer: str) -> pathlib.Path:
    """The file that says which versions."""
    return ROOT / "benchmarks" / "peers" / f"{peer}.txt"


def _is_ready(folder: pathlib.Path, peer: str) -> bool:
    """Whether an environment that this module made is of these versions; others are taken as they are."""
    ready = folder / READY
    return not ready.exists() or ready.read_text() == requirements(peer).read_text()


def _install(folder: pathlib.Path, peer: str) -> None:
    """torch first: any other order pulls a build with gigabytes of CUDA where the index has one without."""
    venv.create(folder, with_pip=True, clear=True)
    ready = folder / READY
    ready.write_text("not ready")
    wanted, _, alone = requirements(peer).read_text().partition("--no-deps")
    torch = [requirement for requirement in wanted.split() if requirement.startswith("torch==")]
    pip = [str(folder / "bin" / "python"), "-m", "pip"]
    subprocess.run([*pip, "install", "-qq", *torch], check=True)
    subprocess.run([*pip, "install", "-qq", *wanted.split()], check=True)
    if alone:  # what it asks for beside these would take older versions than the other peers have
        subprocess.run([*pip, "install", "-qq", "--no-deps", *alone.split()], check=True)
    subprocess.run([*pip, "uninstall", "-qq", "--yes", *NOT_NEEDED], check=True)
    ready.write_text(requirements(peer).read_text())
