"""Coders that were trained and packed here, served by SAELens in an environment of its own."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pathlib
import shutil
import subprocess

import pytest
from click.testing import CliRunner

from qsae_cli.main import cli

pytestmark = pytest.mark.peer
HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
LACKING = ("pluggy",)
"""Of what core depends on, what sae-lens does not bring."""
TRAIN = (
    "--steps 4 --batch-size 128 --eval-tokens 256 --eval-every 0 --statistics-tokens 256 --threads 1 "
    "--eval reconstruction --no-compare-float --n-latents 256"
)
CODERS = {
    "ternary": "--sae ternary --quantizer ste --k 8",
    "four-bits": "--sae topk --k 8 --quantizer ste --quantizer.n-bits 4 --encoder-quantizer ste "
    "--encoder-quantizer.n-bits 4",
    "gated": "--sae gated --quantizer ste --n-bits 4",
    "batchtopk": "--sae batchtopk --k 8 --quantizer ste --n-bits 3",
    "levels": "--sae residual-quantized",  # no form in floats
    "skip": "--transcoder transcoder --skip --source-layer 2 --target-layer 2 --quantizer ste --n-bits 4",
}


@pytest.fixture(scope="session")
def peer(tmp_path_factory):
    """Runs a script by the Python of an environment with sae-lens, which finds qsae and its plugins here."""
    python = pathlib.Path(os.environ.get("QSAE_BENCH_PEERS", "no folder")) / "sae-lens" / "bin" / "python"
    if not python.exists():
        pytest.skip("QSAE_BENCH_PEERS names no folder with an environment sae-lens")
    # what pip would install, without an installation: records of distributions, and their sources
    site, sources = tmp_path_factory.mktemp("site"), [ROOT, *sorted(ROOT.glob("plugins/qsae-*"))]
    for found in importlib.metadata.distributions():
        if found.name == "qsae" or (ROOT / "plugins" / found.name).is_dir():
            record = site / f"{found.name.replace('-', '_')}-{found.version}.dist-info"
            record.mkdir(exist_ok=True)
            (record / "METADATA").write_text(found.read_text("METADATA") or found.read_text("PKG-INFO"))
            (record / "entry_points.txt").write_text(found.read_text("entry_points.txt") or "")
    for name in LACKING:
        package = pathlib.Path(importlib.util.find_spec(name).origin).parent
        shutil.copytree(package, site / name)

    def run(script, *arguments):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [site, *sources]))}
        command = [str(python), str(HERE / script), *map(str, arguments)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=900
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def called(*arguments):
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"


def test_saelens_serves_packed_coders(peer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, options in CODERS.items():
        called(*f"train {options} {TRAIN} --name {name}".split())
        (run,) = (tmp_path / "results" / name).glob("*/*")
        shutil.copytree(run / "checkpoints" / "final", tmp_path / "cases" / name / "stored")
        called("export", run, "--format", "saelens-packed", "--out", tmp_path / "cases" / name / "packed")
    assert len(peer("in_saelens.py", tmp_path / "cases").splitlines()) == len(CODERS)
